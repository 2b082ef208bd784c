//! Running programs and waiting for them, with a timeout that counts from their last activity.

use super::proc_activity::StallTimer;
use super::{POLL_INTERVAL, SILENCE_THRESHOLD};
use crate::RunContext;
use crate::retry::insist;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// How to wait for a program, and how to see whether it is active.
pub struct Watch<'a> {
    /// The run that waits. The program's activity is reported to it.
    pub run: &'a RunContext,
    /// The command, for messages: `systemctl stop nix-daemon.service`.
    pub what: &'a str,
    /// Name of the flag that sets the timeout, without dashes.
    pub flag: &'static str,
    /// Time without activity after which the wait ends.
    pub timeout: Duration,
    /// Fails when the run is canceled.
    pub check_canceled: &'a dyn Fn() -> Result<()>,
    /// Checks now and then whether the program itself waits for something that is active, and returns a
    /// description of that activity. Used only if the program itself shows no activity.
    pub probe: &'a mut dyn FnMut() -> Option<String>,
}

/// Waits for a program to end.
///
/// # Errors
/// If the program showed no activity for the timeout, or if the run was canceled. The program is killed then.
pub fn wait(child: &mut Child, watch: Watch<'_>) -> Result<ExitStatus> {
    let Watch { run, what, flag, timeout, check_canceled, probe } = watch;
    let about = || format!("wait for {what}");
    let pid = Pid::from_child(child);
    let handle = match insist(|| pidfd_open(pid, PidfdFlags::empty())).with_context(about) {
        Ok(handle) => handle,
        Err(e) => {
            kill(child);
            return Err(e);
        }
    };
    let interval = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.subsec_nanos().into() };
    let mut stall_timer = StallTimer::new(timeout);
    let mut since_probe = StallTimer::new(timeout);
    let error = loop {
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&interval)) {
            Ok(1..) => return child.wait().with_context(about),
            // A caught signal does not cancel the wait by itself; `check_canceled` decides.
            Ok(0) | Err(Errno::INTR) => {}
            Err(e) => break anyhow::Error::new(e).context(about()),
        }
        if let Err(e) = check_canceled() {
            break e;
        }
        let activity = stall_timer.sample(&[child.id()]).or_else(|| {
            // Probes usually run other programs, so they are rarer than the other checks.
            let due = since_probe.idle() >= (timeout / 4).min(Duration::from_millis(500));
            due.then(|| {
                since_probe.reset();
                probe()
            })?
        });
        if let Some(activity) = activity {
            stall_timer.reset();
            run.report_active(format!("{what}: {activity}"));
        } else if stall_timer.idle() >= SILENCE_THRESHOLD {
            run.report_waiting(format!("{what} {}", stall_timer.describe_silence()));
        }
        if stall_timer.is_expired() {
            let silence = stall_timer.describe_silence();
            break run.timed_out(flag, format!("{what} {silence}")).into();
        }
    };
    kill(child);
    Err(error)
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a program until it ends, and returns its output.
pub fn output(command: &mut Command, watch: Watch<'_>) -> Result<Output> {
    let about = format!("run {}", watch.what);
    // Files in memory, not pipes, which a thread would have to empty meanwhile. So once the program runs, it
    // cannot block because a thread cannot be started or a file cannot be opened.
    let memory_file = || insist(memory_file).with_context(|| about.clone());
    let (stdout, stderr) = (memory_file()?, memory_file()?);
    let clone = |file: &File| insist(|| file.try_clone()).with_context(|| about.clone());
    command.stdin(Stdio::null()).stdout(clone(&stdout)?).stderr(clone(&stderr)?);
    // A program that did not start can be started again.
    let mut child = insist(|| command.spawn()).with_context(|| about.clone())?;
    let status = wait(&mut child, watch)?;
    let text = |mut file: File| {
        let mut text = Vec::new();
        // Incomplete output is accepted: the exit status shows whether the program failed.
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
        text
    };
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// A file in memory that no other process can open.
fn memory_file() -> std::io::Result<File> {
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)?.into())
}
