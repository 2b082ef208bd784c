//! What this process may say about other processes.
//!
//! The root helper and its guardian can read all of `/proc`, and what they report goes to the user who started
//! them. So that a confined user learns nothing that way, the helper says of a process only what that user could
//! read in `/proc`. The kernel decides: one thread with the user's id and group, without further groups and
//! without capabilities, reads `/proc/PID` (`man 7 credentials`, "filesystem user ID"), and what it cannot read is
//! not said. That covers mounts of `/proc` with `hidepid`. Until [`limit_to`] is called, nothing is withheld.
//!
//! The number of a process is no secret of it: `kill` tells everybody whether a number is in use, and `/proc/locks`
//! and `SO_PEERCRED` name numbers to everybody.

use crate::threads;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where to ask the thread that reads as the user, if there is a limit.
static READER: Mutex<Option<Sender<Question>>> = Mutex::new(None);

type Question = (u32, Sender<View>);

/// What may be said of one process.
#[derive(Debug, Default)]
struct View {
    command_line: Option<Vec<u8>>,
    /// Whether its open files, its program and its environment may be read.
    inside: bool,
}

impl View {
    /// As whoever calls this.
    fn of(pid: u32) -> Self {
        let directory = Path::new("/proc").join(pid.to_string());
        View {
            command_line: std::fs::read(directory.join("cmdline")).ok(),
            inside: std::fs::read_link(directory.join("exe")).is_ok(),
        }
    }
}

/// From now on this process says about others only what this user may read, or all that it can read itself.
///
/// # Errors
/// If the rights of that user cannot be taken on.
pub fn limit_to(user: Option<(u32, u32)>) -> Result<()> {
    let Some((uid, gid)) = user else {
        *reader() = None;
        return Ok(());
    };
    let (questions, asked) = bounded::<Question>(0);
    let (begun, begins) = bounded(1);
    threads::start("that reads /proc as the user", move || {
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

fn reader() -> MutexGuard<'static, Option<Sender<Question>>> {
    READER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes on the rights that a user has on files, for the calling thread alone.
fn become_user(uid: u32, gid: u32) -> Result<()> {
    set_thread_groups(&[]).context("give up groups")?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(group);
    setfsuid(user);
    // The calls do not fail but say what was in force before (`man 2 setfsuid`); -1 changes nothing.
    let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
    if now != (user, group) {
        bail!("the rights of user {uid} were not granted");
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).context("give up capabilities")
}

fn answer(asked: &Receiver<Question>) {
    for (pid, reply) in asked {
        let _ = reply.send(View::of(pid));
    }
}

/// Nothing may be said where the thread does not answer.
fn view(pid: u32) -> View {
    let Some(questions) = reader().clone() else {
        return View { inside: true, ..View::of(pid) };
    };
    let (reply, answers) = bounded(1);
    let asked = questions.send((pid, reply));
    asked.ok().and_then(|()| answers.recv().ok()).unwrap_or_default()
}

/// Whether there is a limit.
pub fn is_limited() -> bool {
    reader().is_some()
}

/// The words that a process was started with. `None` when it is gone or not to be described.
pub fn command_line(pid: u32) -> Option<Vec<OsString>> {
    let bytes = view(pid).command_line?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Some(bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// Whether open files, program and environment of a process may be spoken of.
pub fn is_open(pid: u32) -> bool {
    view(pid).inside
}

/// The file of a process's program. Where only the command line may be read, its first word: the name that `ps`
/// shows.
pub fn program(pid: u32, file: &Path) -> String {
    if is_open(pid) {
        return file.display().to_string();
    }
    let name = command_line(pid).and_then(|words| words.into_iter().next());
    let name = name.filter(|name| !name.is_empty());
    name.map_or("a file that only root can see".into(), |name| name.to_string_lossy().into_owned())
}
