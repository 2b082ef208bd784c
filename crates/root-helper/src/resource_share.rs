//! The share of the machine that the root helper uses on behalf of a requester.
//!
//! Memory sizes and numbers of threads come with the request. For a confined requester they are reduced to what the
//! machine has, and the kernel enforces the total: above it an allocation fails, the root helper ends, and the
//! guardian undoes its changes. Root gets what it requests, and so does a root helper that was started with
//! `--everywhere`.

use super::machine_limits;
use super::protocol::PART_LIMIT;
use super::requester_rights::Caller;
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use storecache_runtime::memory::{FRAME, LARGEST_FRAME, Packing, Unpacking};

/// With less memory than this, in bytes, no snapshot could be restored.
const LEAST: u64 = 256 << 20;
/// The memory in bytes that is assumed if the kernel does not report it.
const UNKNOWN: u64 = 1 << 30;
/// Threads per processor: some wait for the disk.
const THREADS: usize = 4;

/// Divisors of the total for each part. The rest is for lists of items and for the program itself.
const FOR_FRAMES: u64 = 4;
const FOR_THREADS: u64 = 4;
/// A list in a message takes several times its length once it is parsed.
const FOR_A_MESSAGE: u64 = 16;
/// Bytes that one thread uses: a decoded frame, a compressed frame, another frame on its way, and its stack.
const THREAD: u64 = 3 * FRAME + (2 << 20);

/// An upper bound in bytes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// `None` is without a bound.
    bytes: Option<u64>,
    threads: usize,
}

impl Share {
    /// Returns the share of a requester.
    pub fn new(mandate: &Caller) -> Self {
        match mandate.confined() {
            None => Share { bytes: None, threads: usize::MAX },
            Some(_) => Self::of_machine(machine_limits::memory(), machine_limits::processors()),
        }
    }

    /// Returns a share with half of the memory.
    fn of_machine(memory: Option<u64>, processors: usize) -> Self {
        let bytes = (memory.unwrap_or(UNKNOWN) / 2).max(LEAST);
        let by_memory = usize::try_from(bytes / FOR_THREADS / THREAD).unwrap_or(usize::MAX);
        let threads = processors.saturating_mul(THREADS).min(by_memory).max(1);
        Share { bytes: Some(bytes), threads }
    }

    /// Makes the kernel refuse more memory than that to this process and to those that it starts.
    pub fn enforce(&self) -> Result<()> {
        let Some(_) = self.bytes else { return Ok(()) };
        let limit = Rlimit { current: self.bytes, maximum: self.bytes };
        setrlimit(Resource::Data, limit).context("limit the memory of the root helper")
    }

    /// Returns the largest size of each part of a message, in bytes.
    pub fn message(&self) -> u32 {
        let part = self.bytes.map(|bytes| bytes / FOR_A_MESSAGE);
        part.and_then(|bytes| u32::try_from(bytes).ok()).map_or(PART_LIMIT, |it| it.min(PART_LIMIT))
    }

    pub fn of_packing(&self, asked: Packing) -> Packing {
        Packing {
            threads: asked.threads.min(self.threads),
            in_flight: asked.in_flight.min(self.frames()),
            largest: asked.largest.min(self.frames()).min(LARGEST_FRAME),
        }
    }

    pub fn of_unpacking(&self, asked: Unpacking) -> Unpacking {
        Unpacking {
            threads: asked.threads.min(self.threads),
            compressed: asked.compressed.min(self.frames()),
            large: asked.large.min(self.frames()),
        }
    }

    fn frames(&self) -> u64 {
        self.bytes.map_or(u64::MAX, |bytes| bytes / FOR_FRAMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MOST: u64 = 1 << 50;

    #[test]
    fn share_is_at_most_half_of_the_memory() {
        for (memory, processors) in [(GIB, 1), (2 * GIB, 64), (16 * GIB, 4), (512 * GIB, 128)] {
            let share = Share::of_machine(Some(memory), processors);
            assert_eq!(share.bytes, Some(memory / 2));
            let asked = Unpacking { threads: 1024, compressed: MOST, large: MOST };
            let Unpacking { threads, compressed, large } = share.of_unpacking(asked);
            let stacks = threads as u64 * THREAD;
            assert!(stacks + compressed + large + 4 * u64::from(share.message()) <= memory / 2);
            assert!(threads <= 4 * processors);
            let asked = Packing { threads: 1024, in_flight: MOST, largest: MOST };
            let Packing { threads, in_flight, largest } = share.of_packing(asked);
            assert!(in_flight + threads as u64 * THREAD <= memory / 2);
            assert!(largest <= LARGEST_FRAME && threads <= 4 * processors);
        }
    }

    #[test]
    fn share_leaves_usual_requests_as_they_are() {
        for (memory, processors) in [(4 * GIB, 2), (7 * GIB, 2), (16 * GIB, 4)] {
            let share = Share::of_machine(Some(memory), processors);
            let usual = (Packing::on(processors), Unpacking::on(processors));
            assert_eq!((share.of_packing(usual.0), share.of_unpacking(usual.1)), usual);
        }
    }

    #[test]
    fn share_of_root_has_no_bound() {
        let share = Share::new(&Caller::default());
        let asked = Unpacking { threads: 1024, compressed: MOST, large: MOST };
        assert_eq!(share.of_unpacking(asked), asked);
        assert_eq!(share.message(), PART_LIMIT);
    }

    #[test]
    fn share_of_a_tiny_machine_is_enough_for_one_thread() {
        let share = Share::of_machine(Some(1 << 20), 1);
        assert_eq!(share, Share { bytes: Some(LEAST), threads: 4 });
        assert!(share.of_unpacking(Unpacking::on(1)).threads == 1);
    }
}
