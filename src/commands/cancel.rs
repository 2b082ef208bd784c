//! Cancellation of a run: by signals, by its deadline and, in a job, by the end of standard input.

use crate::config::Clocks;
use anyhow::{Context, Result};
use rustix::fs::{FileType, fstat};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{ErrorKind, Read, stdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storecache_runtime::{liveness, threads};

/// The cancellation flag of this process.
pub fn flag() -> &'static Arc<AtomicBool> {
    liveness::process_run().cancel_flag()
}

/// Whether the run has been canceled.
pub fn called_off() -> bool {
    liveness::process_run().is_canceled()
}

/// Returns the flag, which SIGINT, SIGTERM and SIGHUP set. A canceled run asks the root helper to abort,
/// waits until the root helper has undone its changes, and fails.
pub fn on_signals() -> Result<Arc<AtomicBool>> {
    let cancelled = Arc::clone(flag());
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&cancelled)).context("catch signals")?;
    }
    Ok(cancelled)
}

/// Starts the timeouts of a run. When its deadline passes, the run is canceled as if by a signal.
pub fn start_clocks(clocks: &Clocks) -> Result<()> {
    liveness::process_run().set_stall_timeout(clocks.stall);
    let Some(deadline) = clocks.deadline else { return Ok(()) };
    let end = Instant::now() + deadline;
    threads::start("that watches the deadline", move || {
        // A sleeping thread may wake up early.
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
        {
            std::thread::sleep(left);
        }
        // If the run has been canceled already, that is the cause.
        if !called_off() {
            liveness::timed_out(
                "deadline",
                format!("the deadline of {} has passed", liveness::seconds(deadline)),
            );
            flag().store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// Sets the flag when the process at the other end of standard input closes it or dies. Only a pipe or a
/// socket has another end; a file or `/dev/null` never cancels the run.
pub fn when_input_closes(cancelled: &Arc<AtomicBool>) -> Result<()> {
    let kind = fstat(stdin()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
        return Ok(());
    }
    let cancelled = Arc::clone(cancelled);
    threads::start("that watches standard input", move || {
        let mut ignored = [0; 64];
        loop {
            match stdin().read(&mut ignored) {
                Ok(1..) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        cancelled.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}

/// Checks that the run has not been canceled.
///
/// # Errors
/// If the run has been canceled.
pub fn check() -> Result<()> {
    anyhow::ensure!(!called_off(), liveness::cancel_reason());
    Ok(())
}

/// Sleeps, and returns an error if the run is canceled meanwhile.
pub fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
