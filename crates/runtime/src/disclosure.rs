//! Limits on the information that this process discloses about other processes.
//!
//! The root helper and its guardian can read all of `/proc`, and their reports go to the user who started them. So
//! that a confined user learns nothing that way, the root helper discloses about a process only what that user could
//! read in `/proc`. The kernel decides: a thread with the user's user and group ID, without supplementary groups and
//! without capabilities, reads `/proc/PID` (`man 7 credentials`, "filesystem user ID"), and information that this
//! thread cannot read is withheld. This covers mounts of `/proc` with `hidepid`. Until [`limit_to`] is called,
//! nothing is withheld.
//!
//! A process ID is not secret: `kill` reveals to any user whether an ID is in use, and `/proc/locks` and
//! `SO_PEERCRED` show IDs to any user.

use crate::threads;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The channel to the thread that reads as the user, if there is a limit.
static READER: Mutex<Option<Sender<Question>>> = Mutex::new(None);

type Question = (u32, Sender<View>);

/// The information about one process that may be disclosed.
#[derive(Debug, Default)]
struct View {
    command_line: Option<Vec<u8>>,
    /// Whether its open files, its program and its environment may be read.
    inside: bool,
}

impl View {
    /// Reads `/proc` with the rights of the calling thread.
    fn new(pid: u32) -> Self {
        let directory = Path::new("/proc").join(pid.to_string());
        View {
            command_line: std::fs::read(directory.join("cmdline")).ok(),
            inside: std::fs::read_link(directory.join("exe")).is_ok(),
        }
    }
}

/// Limits what this process discloses about other processes, from now on, to what `user` may read. `None` changes
/// nothing. Call it once.
///
/// # Errors
/// If this process cannot take on the rights of that user, or has a limit already.
pub fn limit_to(user: Option<(u32, u32)>) -> Result<()> {
    let Some((uid, gid)) = user else { return Ok(()) };
    if is_limited() {
        bail!("what may be said about processes is limited already");
    }
    let (questions, asked) = bounded::<Question>(0);
    let (begun, begins) = bounded(1);
    threads::start("to read /proc as the user", move || {
        let became = become_user(uid, gid);
        let may_answer = became.is_ok();
        let _ = begun.send(became);
        if may_answer {
            answer(&asked);
        }
    })?;
    begins
        .recv()
        .unwrap_or_else(|_| bail!("the thread ended"))
        .context("read /proc as the user")?;
    *reader() = Some(questions);
    Ok(())
}

/// Ends the limit. Only for fuzzers, which run the guardians of several users in one process.
#[cfg(feature = "lift-limit")]
pub fn lift_limit() {
    *reader() = None;
}

fn reader() -> MutexGuard<'static, Option<Sender<Question>>> {
    READER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes on a user's rights on files, for the calling thread only.
fn become_user(uid: u32, gid: u32) -> Result<()> {
    set_thread_groups(&[]).context("drop supplementary groups")?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(group);
    setfsuid(user);
    // These calls do not fail but return the previous ID (`man 2 setfsuid`); -1 changes nothing.
    let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
    if now != (user, group) {
        bail!("cannot switch to the rights of user {uid}");
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).context("drop capabilities")
}

fn answer(asked: &Receiver<Question>) {
    for (pid, reply) in asked {
        let _ = reply.send(View::new(pid));
    }
}

/// Asks the thread about a process. If the thread does not answer, nothing may be disclosed.
fn view(pid: u32) -> View {
    let Some(questions) = reader().clone() else {
        return View { inside: true, ..View::new(pid) };
    };
    let (reply, answers) = bounded(1);
    let asked = questions.send((pid, reply));
    asked.ok().and_then(|()| answers.recv().ok()).unwrap_or_default()
}

/// Returns whether there is a limit.
pub fn is_limited() -> bool {
    reader().is_some()
}

/// Returns the arguments that a process was started with, or `None` if it has ended or may not be described.
pub fn command_line(pid: u32) -> Option<Vec<OsString>> {
    let bytes = view(pid).command_line?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Some(bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// Returns whether the open files, the program and the environment of a process may be disclosed.
pub fn is_open(pid: u32) -> bool {
    view(pid).inside
}

/// Returns the file of a process's program. If only the command line may be read, returns its first word, which is
/// the name that `ps` shows.
pub fn program(pid: u32, file: &Path) -> String {
    if is_open(pid) {
        return file.display().to_string();
    }
    let name = command_line(pid).and_then(|words| words.into_iter().next());
    let name = name.filter(|name| !name.is_empty());
    name.map_or("a file that only root can read".into(), |name| name.to_string_lossy().into_owned())
}
