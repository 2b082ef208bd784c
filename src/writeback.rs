//! Getting what is written onto the disk, while more is written.
//!
//! Rows that outlive a power cut must not outlive their items: Nix and Guix would take what is empty
//! or half written for valid. So all that is staged is on the disk before any of it becomes valid. Nor shall
//! an entry be there by name alone. The disk begins early, so that little is left to wait for at the end.
//! Where nobody will ever look at this disk after a power cut, none of that is done.

use crate::pulse::{self, LOOK, Vitals};
use crate::threads;
use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes between two orders to the disk.
const STEP: u64 = 64 << 20;

/// What is being written, and the disk that it goes to.
pub struct Writeback {
    disk: Option<Disk>,
    /// Bytes at which the next order is due.
    due: u64,
}

/// The thread that has the disk write.
struct Disk {
    orders: Sender<()>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<Result<()>>,
}

/// All is written by us, and soon by the disk.
#[derive(Default)]
pub struct Ending(Option<(Receiver<()>, JoinHandle<Result<()>>)>);

impl Writeback {
    /// `order` has the disk write everything that it was given so far, and waits for it. Without one, nothing
    /// is ever waited for.
    ///
    /// # Errors
    /// When there is no thread to be had for it.
    pub fn start<F>(order: Option<F>) -> Result<Self>
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
            let thread = threads::start("that has the disk write", write)?;
            Ok(Disk { orders, ended, thread })
        };
        Ok(Writeback { disk: order.map(start).transpose()?, due: STEP })
    }

    /// So many bytes are written by now.
    pub fn written(&mut self, bytes: u64) {
        if let Some(disk) = self.disk.as_ref().filter(|_| bytes >= self.due) {
            self.due = bytes + STEP;
            disk.write();
        }
    }

    /// Everything is written: the disk gets its last order.
    pub fn end(self) -> Ending {
        Ending(self.disk.map(|disk| {
            disk.write();
            (disk.ended, disk.thread)
        }))
    }
}

impl Disk {
    fn write(&self) {
        // An order that nobody has taken yet covers what came after it too.
        let _ = self.orders.try_send(());
    }
}

impl Ending {
    /// Whether the disk is waited for at all.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until everything is on the disk; gives back for how long, nothing where that is not wanted.
    ///
    /// # Errors
    /// When the disk failed to write any of it.
    pub fn wait(self) -> Result<Duration> {
        let Some((ended, thread)) = self.0 else { return Ok(Duration::ZERO) };
        let started = Instant::now();
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if Vitals::of(std::process::id()).is_some_and(|it| it.waits_for_disk) {
                let time = pulse::seconds(started.elapsed());
                pulse::alive(format!("the disk writes what it was given, for {time}"));
            }
        }
        thread.join().map_err(|_| anyhow!("the thread that writes to the disk panicked"))??;
        Ok(started.elapsed())
    }
}
