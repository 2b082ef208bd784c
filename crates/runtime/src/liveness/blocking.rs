//! Work that may block forever, such as reading a disk that hangs, on a separate thread. The thread that waits
//! for it can still be canceled, and sees whether the work is active.

use super::proc_activity::StallTimer;
use super::{LOOK, alive, stall_timeout, timed_out};
use crate::threads;
use anyhow::{Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

static CALLED_OFF: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, such work is canceled once `flag` is set.
pub fn set_cancel_flag(flag: &Arc<AtomicBool>) {
    let _ = CALLED_OFF.set(Arc::clone(flag));
}

type Work<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread that owns a state and works on it for other threads.
pub struct BlockingWorker<S> {
    /// Name of the worker, for messages.
    who: String,
    work: Sender<Work<S>>,
    tid: u32,
}

impl<S: Send + 'static> BlockingWorker<S> {
    pub fn new(who: impl Into<String>, mut state: S) -> Result<Self> {
        let (work, queue) = bounded::<Work<S>>(0);
        let (tell, told) = bounded(1);
        threads::start("for work that may block", move || {
            let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
            for work in queue {
                work(&mut state);
            }
        })?;
        let tid = told.recv().ok().and_then(|tid| u32::try_from(tid).ok()).unwrap_or_default();
        Ok(BlockingWorker { who: who.into(), work, tid })
    }

    /// Runs `work` on the thread and waits for it.
    ///
    /// # Errors
    /// If the run is canceled meanwhile, or if nothing shows activity for the stall timeout. The thread is left
    /// behind then, together with its state. Also if the thread still hangs in earlier work, or panicked.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T> {
        let (send, done) = bounded(1);
        let work: Work<S> = Box::new(move |state| drop(send.send(work(state))));
        // The send times out if the thread hangs in earlier work.
        if self.work.send_timeout(work, LOOK).is_err() {
            bail!("{} no longer responds", self.who);
        }
        self.wait(&done)
    }

    fn wait<T>(&self, done: &Receiver<T>) -> Result<T> {
        let mut vigil = StallTimer::new(stall_timeout());
        loop {
            match done.recv_timeout(LOOK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("{} panicked", self.who));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if is_canceled() {
                bail!(super::cancel_reason());
            }
            if let Some(sign) = vigil.look_at_thread(self.tid) {
                alive(format!("{}: {sign}", self.who));
            }
            if vigil.is_over() {
                bail!(timed_out("stall-timeout", format!("{} {}", self.who, vigil.tell())));
            }
        }
    }
}

/// As [`BlockingWorker::run`], for a single piece of work.
pub fn run_blocking<T: Send + 'static>(
    who: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    BlockingWorker::new(who, ())?.run(|()| work())
}

/// Runs work that has an alternative on a separate thread, and stops waiting after `limit`. That does not
/// cancel the run.
///
/// # Errors
/// An error of the work, [`Late`] after `limit`, or an error if the run is canceled meanwhile. In the last two
/// cases the thread is left behind.
pub fn run_blocking_for<T: Send + 'static>(
    who: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (send, done) = bounded(1);
    threads::start("for work that has a fallback", move || drop(send.send(work())))?;
    let began = Instant::now();
    loop {
        match done.recv_timeout(LOOK) {
            Ok(value) => return value,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("{who} panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if is_canceled() {
            bail!(super::cancel_reason());
        }
        if began.elapsed() >= limit {
            return Err(Late(limit).into());
        }
        alive(format!("{who} has not answered yet"));
    }
}

/// Error: the work did not finish within the limit that applies if there is an alternative.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no answer within {}", super::seconds(*.0))]
pub struct Late(pub Duration);

/// Whether such work is canceled.
pub fn is_canceled() -> bool {
    CALLED_OFF.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}
