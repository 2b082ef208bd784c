//! What a process inherits from whoever started it, made harmless: the first thing that the root half
//! does. sudo sees to most of it; its rules may be lax, and it is not the only way here.

use crate::system::ROOT_PATH;
use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::signal::SigSet;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, setsid, umask};
use signal_hook::consts::SIGCHLD;
use std::ffi::OsString;
use std::sync::Arc;

/// Descriptors that are files of everybody: input, output, errors. Where one was closed, the standard
/// library has opened `/dev/null`.
const STANDARD: libc::c_uint = 3;

/// The environment, as it was before it was cleared.
pub type Environment = Vec<(OsString, OsString)>;

/// Clears and resets what is inherited. No other thread may run yet. Gives back the environment.
///
/// # Errors
/// When the file of the program is setuid or setgid: then nothing that it inherits can be trusted.
pub fn settle() -> Result<Environment> {
    let of_others = rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid();
    if of_others {
        bail!("the program must be neither setuid nor setgid; take that away with chmod ug-s");
    }
    close_all_others();
    let environment = clear_environment();
    chdir("/").context("leave the directory that this was started in")?;
    // Files get the mode that they are opened with, and no other.
    umask(Mode::empty());
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    // Where it was ignored, nobody would hear of the end of a child. Nothing looks at the flag.
    signal_hook::flag::register(SIGCHLD, Arc::default()).context("hear of children")?;
    // Keys of a terminal stop and end the other half, which then hangs up; a root half that they stop
    // in a commit would keep the daemon away. Whoever leads a group has no terminal of somebody else.
    let _ = setsid();
    Ok(environment)
}

/// Lifts limits that whoever asked could set so that a commit dies of them. Where that is not allowed
/// (`CAP_SYS_RESOURCE`), as far as it is: what they cannot set is the administrator's.
pub fn lift_limits() -> Result<()> {
    for resource in [Resource::Fsize, Resource::Cpu, Resource::Data, Resource::As] {
        lift(resource, None)?;
    }
    lift(Resource::Nofile, Some(4096))?;
    lift(Resource::Stack, Some(8 << 20))
}

/// Lifts a limit to `least`, or altogether.
fn lift(resource: Resource, least: Option<u64>) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let lifted = |limit: Option<u64>| limit.zip(least).map(|(limit, least)| limit.max(least));
    let wanted = Rlimit { current: lifted(current), maximum: lifted(maximum) };
    let highest = Rlimit { current: maximum, maximum };
    match setrlimit(resource, wanted) {
        Err(Errno::PERM) => setrlimit(resource, highest),
        other => other,
    }
    .context("lift a limit")
}

#[expect(unsafe_code, reason = "no safe interface closes descriptors that no value owns")]
fn close_all_others() {
    // SAFETY: nothing of this process is open yet but the three standard descriptors; what else is
    // there was inherited, and belongs to no value.
    unsafe {
        libc::syscall(libc::SYS_close_range, STANDARD, libc::c_uint::MAX, 0);
    }
}

#[expect(unsafe_code, reason = "a change of the environment is unsafe beside other threads")]
fn clear_environment() -> Environment {
    let environment: Environment = std::env::vars_os().collect();
    for (name, _) in &environment {
        // SAFETY: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("PATH", ROOT_PATH) };
    environment
}
