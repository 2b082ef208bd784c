//! Starting threads on machines that may refuse another one. Here a refusal is an ordinary error; the standard
//! library's `thread::spawn` panics.

use crate::advice::WithAdvice;
use anyhow::{Context, Result};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread for `purpose`, as in "to unpack".
///
/// # Errors
/// If the machine is out of memory, or the user has too many processes.
pub fn start<T, F>(purpose: &str, work: F) -> Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Builder::new()
        .spawn(work)
        .with_context(|| format!("start a thread {purpose}"))
        .hint(CHECK_LIMITS)
}

/// As [`start`], for a thread that may borrow data that outlives `scope`.
///
/// # Errors
/// As for [`start`]. Threads that were started before keep running.
pub fn start_in<'scope, T, F>(
    scope: &'scope Scope<'scope, '_>,
    purpose: &str,
    work: F,
) -> Result<ScopedJoinHandle<'scope, T>>
where
    T: Send + 'scope,
    F: FnOnce() -> T + Send + 'scope,
{
    Builder::new()
        .spawn_scoped(scope, work)
        .with_context(|| format!("start a thread {purpose}"))
        .hint(CHECK_LIMITS)
}

/// Advice if a thread cannot be started.
const CHECK_LIMITS: &str = "check the limits on memory and processes";

/// Starts up to `wanted` threads and returns those that could be started: with fewer threads, the work only
/// takes longer.
///
/// # Errors
/// If not even one thread could be started.
pub fn some<H>(wanted: usize, mut start: impl FnMut() -> Result<H>) -> Result<Vec<H>> {
    let mut started = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        match start() {
            Ok(handle) => started.push(handle),
            Err(e) if started.is_empty() => return Err(e),
            Err(_) => break,
        }
    }
    Ok(started)
}
