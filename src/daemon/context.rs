//! The context that a child process gets: namespace, root, directory, user.
//!
//! All unsafe code of the program is here: the standard library runs a closure between fork and
//! exec only in an unsafe method.

use rustix::process::{Gid, Uid, chroot, fchdir};
use rustix::thread::{
    move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid,
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
            // Groups while still root, the user last.
            if self.uid != 0 || self.gid != 0 {
                set_thread_groups(&groups)?;
                set_thread_gid(Gid::from_raw(self.gid))?;
                set_thread_uid(Uid::from_raw(self.uid))?;
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
