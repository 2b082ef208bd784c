//! The context of a child process: namespaces, root, directory and user; also an open file that it executes instead
//! of a path.
//!
//! Code that runs between fork and exec is unsafe: the standard library runs a closure there only in an unsafe
//! method.

use nix::libc;
use rustix::fs::{AtFlags, Mode, statat};
use rustix::process::{Gid, Uid, chroot, fchdir, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, move_into_link_name_space,
    set_capabilities, set_keep_capabilities, set_thread_gid, set_thread_groups, set_thread_uid,
};
use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// The context to enter before exec. Fields that are `None` or empty leave that part unchanged.
#[derive(Debug, Clone, Default)]
pub struct ProcessContext {
    /// Namespaces to enter, except a PID namespace, which needs a fork.
    pub namespaces: Vec<Arc<OwnedFd>>,
    pub root: Option<Arc<OwnedFd>>,
    pub directory: Option<Arc<OwnedFd>>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The capabilities that a user other than root keeps: the daemon of Guix, for example, may change owners.
    pub ambient: Option<CapabilitySet>,
    pub umask: Option<Mode>,
    /// Start a new session, so that signals of the parent's terminal do not reach the child.
    pub own_session: bool,
}

impl ProcessContext {
    /// Makes the child process of `command` enter the context after the fork.
    #[expect(unsafe_code, reason = "`pre_exec` is unsafe")]
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
            // Set the groups while the process is still root, and the user last.
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

/// An open file to execute instead of the program of a command, with its own arguments and environment.
pub struct Exec {
    pub file: Arc<OwnedFd>,
    /// The device and inode of the file.
    pub identity: (u64, u64),
    /// A directory, and a name in it that leads to the file. If it is executed by this name, the process has the name
    /// too (`man 5 proc_pid_comm`).
    pub place: Option<(Arc<OwnedFd>, CString)>,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
}

/// Arguments or environment of a program, with a null-terminated array of pointers to them as `execveat` expects it.
struct Words {
    pointers: Vec<*const c_char>,
    /// The strings that the pointers point to.
    _words: Vec<CString>,
}

#[expect(
    unsafe_code,
    reason = "raw pointers are neither Send nor Sync, and their strings are both"
)]
// SAFETY: the pointers lead into strings on the heap that belong to the same value and are never changed.
unsafe impl Send for Words {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    fn new(words: Vec<CString>) -> Self {
        let pointers = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        Words { pointers, _words: words }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl Exec {
    /// Makes `command` execute the file, after everything else that it does between fork and exec.
    #[expect(
        unsafe_code,
        reason = "code between fork and exec, and a system call that no crate wraps"
    )]
    pub fn apply(self, command: &mut Command) {
        let Exec { file, identity, place, arguments, environment } = self;
        let (arguments, environment) = (Words::new(arguments), Words::new(environment));
        let empty = CString::default();
        let exec = move || -> std::io::Result<()> {
            // Captures the values as a whole, including the strings that the pointers point to.
            let (arguments, environment): (&Words, &Words) = (&arguments, &environment);
            let run = |at: &OwnedFd, name: &CString, flags: libc::c_int| {
                // SAFETY: all pointers lead to strings and arrays that end with zero, which this closure owns. The
                // call only returns if it fails.
                unsafe {
                    libc::syscall(
                        libc::SYS_execveat,
                        at.as_raw_fd(),
                        name.as_ptr(),
                        arguments.as_ptr(),
                        environment.as_ptr(),
                        flags,
                    )
                };
            };
            if let Some((directory, name)) = &place {
                // Only root could make the name lead to another file between this check and the call.
                let found = statat(directory, name.as_c_str(), AtFlags::empty());
                if found.is_ok_and(|found| (found.st_dev, found.st_ino) == identity) {
                    run(directory, name, 0);
                }
            }
            run(&file, &empty, libc::AT_EMPTY_PATH);
            Err(std::io::Error::last_os_error())
        };
        // SAFETY: the closure makes system calls and allocates nothing.
        unsafe {
            command.pre_exec(exec);
        }
    }
}
