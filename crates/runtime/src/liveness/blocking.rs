//! Work that may block forever, such as reading a disk that hangs, on a separate thread. The thread that waits
//! for it can still be canceled, and sees whether the work is active.

use super::POLL_INTERVAL;
use super::proc_activity::StallTimer;
use crate::{RunContext, threads};
use anyhow::{Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::time::{Duration, Instant};

type Work<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread that owns a state and works on it for other threads.
pub struct BlockingWorker<S> {
    run: RunContext,
    /// Name of the worker, for messages.
    who: String,
    work: Sender<Work<S>>,
    tid: u32,
}

impl<S: Send + 'static> BlockingWorker<S> {
    /// Starts the thread, which works for `run`. `who` is its name for messages.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(run: &RunContext, who: impl Into<String>, mut state: S) -> Result<Self> {
        let (work, queue) = bounded::<Work<S>>(0);
        let (send_tid, tid) = bounded(1);
        threads::start("for work that may block", move || {
            let _ = send_tid.send(rustix::thread::gettid().as_raw_nonzero().get());
            for work in queue {
                work(&mut state);
            }
        })?;
        let tid = tid.recv().ok().and_then(|tid| u32::try_from(tid).ok()).unwrap_or_default();
        Ok(BlockingWorker { run: run.clone(), who: who.into(), work, tid })
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
        if self.work.send_timeout(work, POLL_INTERVAL).is_err() {
            bail!("{} no longer responds", self.who);
        }
        self.wait(&done)
    }

    fn wait<T>(&self, done: &Receiver<T>) -> Result<T> {
        let mut stall_timer = StallTimer::new(self.run.stall_timeout());
        loop {
            match done.recv_timeout(POLL_INTERVAL) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("{} panicked", self.who));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.run.check_canceled()?;
            if let Some(activity) = stall_timer.sample_thread(self.tid) {
                self.run.report_active(format!("{}: {activity}", self.who));
            }
            if stall_timer.is_expired() {
                let what = format!("{} {}", self.who, stall_timer.describe_silence());
                bail!(self.run.timed_out("stall-timeout", what));
            }
        }
    }
}

/// As [`BlockingWorker::run`], for a single piece of work.
pub fn run_blocking<T: Send + 'static>(
    run: &RunContext,
    who: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    BlockingWorker::new(run, who, ())?.run(|()| work())
}

/// Runs work that has an alternative on a separate thread, and stops waiting after `limit`. That does not
/// cancel the run.
///
/// # Errors
/// An error of the work, [`Late`] after `limit`, or an error if the run is canceled meanwhile. In the last two
/// cases the thread is left behind.
pub fn run_blocking_for<T: Send + 'static>(
    run: &RunContext,
    who: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (send, done) = bounded(1);
    threads::start("for work that has a fallback", move || drop(send.send(work())))?;
    let began = Instant::now();
    loop {
        match done.recv_timeout(POLL_INTERVAL) {
            Ok(value) => return value,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("{who} panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        run.check_canceled()?;
        if began.elapsed() >= limit {
            return Err(Late(limit).into());
        }
        run.report_active(format!("{who} has not answered yet"));
    }
}

/// Error: the work did not finish within the limit that applies if there is an alternative.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no answer within {}", super::seconds(*.0))]
pub struct Late(pub Duration);
