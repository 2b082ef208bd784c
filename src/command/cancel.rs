//! What calls a run off: signals, and in a job the end of standard input.

use crate::threads;
use anyhow::{Context, Result};
use rustix::fs::{FileType, fstat};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{ErrorKind, Read, stdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Signals are those of the process, and so is what they set.
static CALLED_OFF: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The flag of this process.
pub fn flag() -> &'static Arc<AtomicBool> {
    &CALLED_OFF
}

/// Whether somebody has called the run off.
pub fn called_off() -> bool {
    CALLED_OFF.load(Ordering::Relaxed)
}

/// A flag that SIGINT, SIGTERM and SIGHUP set. The run then tells the root half to abort, waits
/// until it has undone what it began, and fails.
pub fn on_signals() -> Result<Arc<AtomicBool>> {
    let cancelled = Arc::clone(flag());
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&cancelled)).context("catch signals")?;
    }
    Ok(cancelled)
}

/// Sets the flag when whoever holds the other end of standard input closes it or dies. Only a pipe or
/// a socket has another end; a file or `/dev/null` calls nothing off.
pub fn when_input_closes(cancelled: &Arc<AtomicBool>) -> Result<()> {
    let kind = fstat(stdin()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
        return Ok(());
    }
    let cancelled = Arc::clone(cancelled);
    threads::start("that notices when the input closes", move || {
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

/// # Errors
/// When somebody has called the run off.
pub fn check() -> Result<()> {
    anyhow::ensure!(!called_off(), "cancelled by a signal");
    Ok(())
}

/// Waits, unless somebody calls the run off.
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
