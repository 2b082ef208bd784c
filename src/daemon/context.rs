//! The context that a child process gets: namespace, root, directory, user.
//!
//! All unsafe code of the program is here: the standard library runs a closure between fork and
//! exec only in an unsafe method.

use rustix::fs::Mode;
use rustix::process::{Gid, Uid, chroot, fchdir, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, move_into_link_name_space,
    set_capabilities, set_keep_capabilities, set_thread_gid, set_thread_groups, set_thread_uid,
};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// What to enter before exec. Parts that are not there are left as they are.
#[derive(Debug, Clone, Default)]
pub struct ProcessContext {
    /// Namespaces to move into, other than that of process ids, which takes a fork.
    pub namespaces: Vec<Arc<OwnedFd>>,
    pub root: Option<Arc<OwnedFd>>,
    pub directory: Option<Arc<OwnedFd>>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// What another user than root may do all the same, as the daemon of Guix may change owners.
    pub ambient: Option<CapabilitySet>,
    pub umask: Option<Mode>,
    /// Leave the session of the parent, so that its terminal's signals do not reach the child.
    pub own_session: bool,
}

impl ProcessContext {
    /// Makes `command` enter the context after fork.
    pub fn apply(self, command: &mut Command) {
        let groups: Vec<_> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let enter = move || -> std::io::Result<()> {
            if self.own_session {
                rustix::process::setsid()?;
            }
            for namespace in &self.namespaces {
                move_into_link_name_space(namespace.as_fd(), None)?;
            }
            if let Some(root) = &self.root {
                fchdir(root)?;
                chroot(".")?;
            }
            if let Some(directory) = &self.directory {
                fchdir(directory)?;
            }
            if let Some(mode) = self.umask {
                umask(mode);
            }
            // Groups while still root, the user last.
            if self.uid != 0 || self.gid != 0 {
                let ambient = self.ambient.filter(|set| self.uid != 0 && !set.is_empty());
                set_keep_capabilities(ambient.is_some())?;
                set_thread_groups(&groups)?;
                set_thread_gid(Gid::from_raw(self.gid))?;
                set_thread_uid(Uid::from_raw(self.uid))?;
                if let Some(set) = ambient {
                    let (effective, permitted, inheritable) = (set, set, set);
                    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })?;
                    for capability in set {
                        configure_capability_in_ambient_set(capability, true)?;
                    }
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe code may run. The closure makes
        // system calls through rustix's raw interface and allocates nothing.
        unsafe {
            command.pre_exec(enter);
        }
    }
}
