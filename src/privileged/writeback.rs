//! Getting what is unpacked onto the disk, while more is unpacked.
//!
//! Rows that outlive a power cut must not outlive their items: Nix and Guix would take what is empty
//! or half written for valid. So all that is staged is on the disk before any of it becomes valid.
//! The disk begins early, so that little is left to wait for at the end. Where nobody will ever look at
//! this disk after a power cut, none of that is done.

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Sender, bounded};
use rustix::fs::syncfs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Content bytes between two orders to the disk.
const STEP: u64 = 64 << 20;

/// The file systems that a restore writes to.
pub struct Writeback {
    places: Vec<Arc<OwnedFd>>,
    early: Option<Early>,
    /// Content bytes at which the next order is due.
    due: u64,
}

/// The thread that has the disk write meanwhile.
struct Early {
    orders: Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Writeback {
    /// `places` are open directories, one at least on each file system. Unless `wanted`, nothing is ever
    /// waited for.
    pub fn start(places: Vec<Arc<OwnedFd>>, wanted: bool) -> Self {
        let early = wanted.then(|| {
            let (orders, queue) = bounded(1);
            let places = places.clone();
            let thread = thread::spawn(move || queue.iter().try_for_each(|()| write_all(&places)));
            Early { orders, thread }
        });
        Writeback { places, early, due: STEP }
    }

    /// So many content bytes are unpacked by now.
    pub fn unpacked(&mut self, bytes: u64) {
        if let Some(early) = self.early.as_ref().filter(|_| bytes >= self.due) {
            self.due = bytes + STEP;
            // An order that waits already covers these too.
            let _ = early.orders.try_send(());
        }
    }

    /// Waits until everything is on the disk; gives back for how long, nothing where that is not wanted.
    ///
    /// # Errors
    /// When the disk failed to write any of it.
    pub fn finish(self) -> Result<Duration> {
        let Some(Early { orders, thread }) = self.early else { return Ok(Duration::ZERO) };
        let started = Instant::now();
        drop(orders);
        thread.join().map_err(|_| anyhow!("the thread that writes to the disk panicked"))??;
        write_all(&self.places)?;
        Ok(started.elapsed())
    }
}

fn write_all(places: &[Arc<OwnedFd>]) -> Result<()> {
    places.iter().try_for_each(|place| syncfs(place).context("write what is staged to the disk"))
}
