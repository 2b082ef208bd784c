//! Starting threads where there may be no room for one more: that is an error as any other, while the
//! standard library's own way ends in a panic.

use anyhow::{Context, Result};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread for `purpose`, as in "to unpack".
///
/// # Errors
/// When the machine lacks memory or the user's processes are too many.
pub fn start<T, F>(purpose: &str, work: F) -> Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Builder::new().spawn(work).with_context(|| refused(purpose))
}

/// The same for a thread that may borrow what outlives `scope`.
///
/// # Errors
/// As for [`start`]. Threads that were started before go on.
pub fn start_in<'scope, T, F>(
    scope: &'scope Scope<'scope, '_>,
    purpose: &str,
    work: F,
) -> Result<ScopedJoinHandle<'scope, T>>
where
    T: Send + 'scope,
    F: FnOnce() -> T + Send + 'scope,
{
    Builder::new().spawn_scoped(scope, work).with_context(|| refused(purpose))
}

fn refused(purpose: &str) -> String {
    format!("start a thread {purpose}; is there a limit on memory or processes?")
}

/// Starts as many threads as can be had of those that are `wanted`: with fewer, work takes longer.
///
/// # Errors
/// When there is not even one.
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
