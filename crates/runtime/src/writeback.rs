//! Flushing written data to the disk while more is written.
//!
//! Database rows that survive a power failure must not survive without their items: Nix and Guix would take
//! empty or half-written items for valid ones. So everything in staging is on the disk before any of it becomes
//! valid. For the same reason, an entry must not appear under its name before its content is on the disk.
//! Flushes begin early, so that little is left to wait for at the end. If the disk will not be used after a
//! power failure, nothing is flushed.

use crate::liveness::{POLL_INTERVAL, ProcActivity, seconds};
use crate::{RunContext, threads};
use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes between two flushes.
const STEP: u64 = 64 << 20;

/// Flushes a file or file system from time to time while it is written.
pub struct Writeback {
    run: RunContext,
    disk: Option<Disk>,
    /// Number of written bytes at which the next flush is due.
    due: u64,
}

/// The thread that flushes.
struct Disk {
    orders: Sender<()>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<Result<()>>,
}

/// The last flush, which may still be running.
#[derive(Default)]
pub struct FinalFlush(Option<(RunContext, Receiver<()>, JoinHandle<Result<()>>)>);

impl Writeback {
    /// Starts the thread that flushes. `order` flushes everything that was written so far, and waits until that
    /// is on the disk. With `None`, nothing is ever flushed. The wait at the end is reported to `run`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<F>(run: &RunContext, order: Option<F>) -> Result<Self>
    where
        F: Fn() -> Result<()> + Send + 'static,
    {
        let start = |order: F| -> Result<Disk> {
            let (orders, queue) = bounded(1);
            let (ends, ended) = bounded(0);
            let write = move || {
                let _ends: Sender<()> = ends;
                queue.iter().try_for_each(|()| order())
            };
            let thread = threads::start("to flush written data", write)?;
            Ok(Disk { orders, ended, thread })
        };
        Ok(Writeback { run: run.clone(), disk: order.map(start).transpose()?, due: STEP })
    }

    /// Reports the total number of bytes written so far, and requests a flush if one is due.
    pub fn written(&mut self, bytes: u64) {
        if let Some(disk) = self.disk.as_ref().filter(|_| bytes >= self.due) {
            self.due = bytes + STEP;
            disk.write();
        }
    }

    /// Requests the last flush. The caller has written everything.
    pub fn end(self) -> FinalFlush {
        let run = self.run;
        FinalFlush(self.disk.map(|disk| {
            disk.write();
            (run, disk.ended, disk.thread)
        }))
    }
}

impl Disk {
    fn write(&self) {
        // A request that the thread has not taken yet also covers everything written after it.
        let _ = self.orders.try_send(());
    }
}

impl FinalFlush {
    /// Whether data is flushed at all.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until everything is on the disk. Returns how long that took, or zero if nothing is flushed.
    ///
    /// # Errors
    /// If any flush failed.
    pub fn wait(self) -> Result<Duration> {
        let Some((run, ended, thread)) = self.0 else { return Ok(Duration::ZERO) };
        let started = Instant::now();
        while ended.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if ProcActivity::read(std::process::id()).is_some_and(|it| it.waits_for_disk) {
                let time = seconds(started.elapsed());
                run.report_active(format!("the disk has been writing for {time}"));
            }
        }
        thread.join().map_err(|_| anyhow!("the thread that writes to the disk panicked"))??;
        Ok(started.elapsed())
    }
}
