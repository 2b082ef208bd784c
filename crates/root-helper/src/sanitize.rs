//! Resets the state that a process inherits from the process that started it. The root helper does this first. sudo
//! resets most of this state, but its rules may be lax, and there are other ways to start the root helper.

use anyhow::{Context, Result, anyhow, bail};
use nix::libc;
use nix::sys::signal::SigSet;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, setsid, umask};
use signal_hook::consts::SIGCHLD;
use std::ffi::OsString;
use std::sync::Arc;
use storecache_programs::ROOT_PATH;
use storecache_runtime::advice::WithAdvice;

/// The number of standard descriptors: input, output and error. If one of them was closed, the standard library has
/// opened `/dev/null` in its place.
const STANDARD: libc::c_uint = 3;

/// The environment as it was before it was cleared.
pub type Environment = Vec<(OsString, OsString)>;

/// Clears and resets inherited state, and returns the previous environment. No other thread may run yet.
///
/// # Errors
/// If the file of the program is setuid or setgid: then no inherited state can be trusted.
pub fn settle() -> Result<Environment> {
    let of_others = rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid();
    if of_others {
        bail!(
            anyhow!("the program must be neither setuid nor setgid")
                .hint("run `chmod ug-s` on its file")
        );
    }
    close_all_others();
    let environment = clear_environment();
    chdir("/").context("change to the directory /")?;
    // Files are created with exactly the mode that the program passes.
    umask(Mode::empty());
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    // If SIGCHLD was inherited as ignored, the exit status of children would be lost. The flag is not read.
    signal_hook::flag::register(SIGCHLD, Arc::default()).context("catch SIGCHLD")?;
    // Keys of a terminal stop or end the user process, which then closes the connection; a root helper that is
    // stopped by them during a commit would keep the daemon stopped. The call fails if this process leads a process
    // group; then its terminal does not belong to another user.
    let _ = setsid();
    Ok(environment)
}

/// Raises limits that the requester could set in order to make a commit fail. Without `CAP_SYS_RESOURCE`, raises them
/// only up to the hard limit: limits that the requester cannot set are the administrator's.
pub fn lift_limits() -> Result<()> {
    for resource in [Resource::Fsize, Resource::Cpu, Resource::Data, Resource::As] {
        lift(resource, None)?;
    }
    lift(Resource::Nofile, Some(4096))?;
    lift(Resource::Stack, Some(8 << 20))
}

/// Raises a limit to at least `least`, or removes it.
fn lift(resource: Resource, least: Option<u64>) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let lifted = |limit: Option<u64>| limit.zip(least).map(|(limit, least)| limit.max(least));
    let wanted = Rlimit { current: lifted(current), maximum: lifted(maximum) };
    let highest = Rlimit { current: maximum, maximum };
    match setrlimit(resource, wanted) {
        Err(Errno::PERM) => setrlimit(resource, highest),
        other => other,
    }
    .context("raise a resource limit")
}

#[expect(unsafe_code, reason = "no safe interface closes descriptors that no value owns")]
fn close_all_others() {
    // SAFETY: this process has opened nothing but the three standard descriptors yet; all other descriptors were
    // inherited, and no value owns them.
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
