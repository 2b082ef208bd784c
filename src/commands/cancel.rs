//! Cancellation of a run: by signals, by its deadline and, in a job, by the end of standard input.

use crate::config::Clocks;
use anyhow::{Context, Result};
use rustix::fs::{FileType, fstat};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{ErrorKind, Read, stdin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_runtime::liveness::seconds;
use storecache_runtime::{RunContext, threads};

/// Makes SIGINT, SIGTERM and SIGHUP cancel the run. A canceled run asks the root helper to abort, waits until the root
/// helper has undone its changes, and fails.
pub fn on_signals(run: &RunContext) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let flag = Arc::clone(run.cancel_flag());
        signal_hook::flag::register(signal, flag).context("catch signals")?;
    }
    Ok(())
}

/// Starts the timeouts of a run. When its deadline passes, the run is canceled as if by a signal.
pub fn start_clocks(run: &RunContext, clocks: &Clocks) -> Result<()> {
    run.set_stall_timeout(clocks.stall);
    let Some(deadline) = clocks.deadline else { return Ok(()) };
    let (run, end) = (run.clone(), Instant::now() + deadline);
    threads::start("that watches the deadline", move || {
        // A sleeping thread may wake up early.
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
        {
            std::thread::sleep(left);
        }
        // If the run has been canceled already, that is the cause.
        if !run.is_canceled() {
            run.timed_out("deadline", format!("the deadline of {} has passed", seconds(deadline)));
            run.cancel();
        }
    })?;
    Ok(())
}

/// Cancels the run when the process at the other end of standard input closes it or dies. Only a pipe or a socket has
/// another end; a file or `/dev/null` never cancels the run.
pub fn when_input_closes(run: &RunContext) -> Result<()> {
    let kind = fstat(stdin()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
        return Ok(());
    }
    let run = run.clone();
    threads::start("that watches standard input", move || {
        let mut ignored = [0; 64];
        loop {
            match stdin().read(&mut ignored) {
                Ok(1..) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        run.cancel();
    })?;
    Ok(())
}

/// Sleeps, and returns an error if the run is canceled meanwhile.
pub fn sleep(run: &RunContext, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        run.check_canceled()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
