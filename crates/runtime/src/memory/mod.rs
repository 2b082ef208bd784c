//! How much memory a run may take, and how it is divided.
//!
//! All limits on what is held in memory, such as threads, frames in flight, blocks and ranges, are calculated
//! here from one size, the `--memory` of a run. It covers all processes of the run together: the user process,
//! the root helper and the guardian. This module imports no other module, and every module may use it.

mod byte_semaphore;

pub use byte_semaphore::{ByteSemaphore, MeteredBytes, Permit};

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Memory that the processes take before they hold any frame: the programs, the connections, and lists of items
/// and frames. Those lists grow with the store; for 2,000 items and 10 GB this is enough (`benches/memory.rs`).
const BASE: u64 = 48 * MIB;

/// Memory of a run without `--memory`, with up to two threads.
const SMALL: u64 = 256 * MIB;
/// Memory of a run without `--memory`, with sixteen threads or more.
const LARGE: u64 = 512 * MIB;

/// Tar bytes of a full frame.
pub const FRAME: u64 = 4 * MIB;
/// Tar bytes of a full frame with `--long`.
pub const LONG_FRAME: u64 = 16 * MIB;
/// Tar bytes of the largest frame, which holds files that several items share.
pub const LARGEST_FRAME: u64 = 64 * MIB;

/// Largest range in one request, and how many of those are downloaded at a time if memory allows it.
const RANGE: u64 = 8 * MIB;
const RANGES: u64 = 8;

/// Blocks that are uploaded at a time, while one more is filled.
const BLOCKS: u64 = 4;
const BLOCK: u64 = 16 * MIB;

/// Error: the given size is too small for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--memory {}M is too little: this takes at least {}M", .given.div_ceil(MIB), .least.div_ceil(MIB))]
pub struct TooLittle {
    pub given: u64,
    pub least: u64,
}

/// Memory that a run may take, in bytes, and its number of threads.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    bytes: u64,
    threads: u64,
}

/// Memory limits of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Size of an uploaded block, in bytes.
    pub block: usize,
    /// Blocks that are uploaded at a time, besides the one that is being filled.
    pub blocks: usize,
    /// Largest range in one request, in bytes.
    pub range: u64,
    /// Bytes of ranges that are downloaded ahead.
    pub ahead: u64,
}

/// Memory limits of a save.
#[derive(Debug, Clone, Copy)]
pub struct Saving {
    pub traffic: Traffic,
    /// Bytes of frames that the user process may hold.
    pub frames: u64,
    pub packing: Packing,
}

/// Memory limits of the root helper while it packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    pub threads: usize,
    /// Bytes of frames that are being made or wait to be sent.
    pub in_flight: u64,
    /// Tar bytes of the largest frame.
    pub largest: u64,
}

/// Memory limits of a restore.
#[derive(Debug, Clone, Copy)]
pub struct Restoring {
    pub traffic: Traffic,
    pub unpacking: Unpacking,
    /// Bytes that a single frame may take, from the download until it is unpacked.
    frame: u64,
    /// Bytes that further threads would take first, if the budget were larger.
    first: u64,
    given: u64,
}

/// Memory limits of the root helper while it unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacking {
    pub threads: usize,
    /// Bytes of frames that were received and are not unpacked yet.
    pub compressed: u64,
    /// Tar bytes of frames larger than usual that are unpacked at a time.
    pub large: u64,
}

impl Budget {
    /// A budget of `memory` bytes, or of a default that depends on the number of threads.
    pub fn new(memory: Option<u64>, threads: usize) -> Self {
        let threads = threads.max(1) as u64;
        let more = (LARGE - SMALL) * threads.clamp(2, 16).saturating_sub(2) / 14;
        Budget { bytes: memory.unwrap_or(SMALL + more), threads }
    }

    /// Divides the budget for a save at a compression level of zstd.
    ///
    /// # Errors
    /// If the budget is too small for one thread.
    pub fn saving(&self, level: i32, long: bool) -> Result<Saving, TooLittle> {
        let frame = if long { LONG_FRAME } else { FRAME };
        // A long frame is passed on in the buffer that it was compressed into.
        let kept = if long { frame } else { 2 * frame } + compressor(level, long);
        let block = (self.bytes / 32).min(BLOCK);
        let upload = (BLOCKS + 1) * block;
        let frames = self.bytes / 8;
        let packing = self.bytes.saturating_sub(BASE + upload + frames);
        let threads = (packing / (kept + frame)).min(self.threads);
        if threads == 0 {
            // 5/32 are for blocks, 4/32 for frames.
            return Err(self.too_little((BASE + kept + frame) * 32 / 23));
        }
        let rest = packing - threads * kept;
        // Such a frame takes its own size, and at most half of that compressed: its content appears at least
        // twice.
        let mut largest = LARGEST_FRAME;
        while largest > frame && largest * 3 / 2 > rest {
            largest /= 2;
        }
        Ok(Saving {
            traffic: Traffic { block: block as usize, blocks: BLOCKS as usize, ..self.traffic() },
            frames,
            packing: Packing {
                threads: threads as usize,
                in_flight: rest.min(3 * threads * frame),
                largest,
            },
        })
    }

    /// Divides the budget for a restore.
    ///
    /// # Errors
    /// If the budget is too small for one thread.
    pub fn restoring(&self) -> Result<Restoring, TooLittle> {
        let traffic = self.traffic();
        let unpacking = self.bytes.saturating_sub(BASE + traffic.ahead);
        // For each thread one decoded frame, one compressed frame, and one more compressed frame in flight.
        let threads = (unpacking.saturating_sub(FRAME) / (3 * FRAME)).min(self.threads);
        if threads == 0 {
            return Err(self.too_little((BASE + 4 * FRAME) * 5 / 4));
        }
        let rest = unpacking - threads * FRAME;
        let compressed = (2 * threads + 1) * FRAME;
        Ok(Restoring {
            traffic,
            unpacking: Unpacking {
                threads: threads as usize,
                compressed,
                large: rest.saturating_sub(compressed) / 2,
            },
            frame: rest,
            first: (self.threads - threads) * FRAME,
            given: self.bytes,
        })
    }

    /// Returns the limits of the backend. Commands that only read indexes need no others.
    pub fn traffic(&self) -> Traffic {
        let ahead = (self.bytes / 5).min(RANGE * RANGES);
        let range = RANGE.min(ahead / 4);
        Traffic { block: BLOCK as usize, blocks: BLOCKS as usize, range, ahead }
    }

    fn too_little(&self, least: u64) -> TooLittle {
        TooLittle { given: self.bytes, least }
    }
}

impl Restoring {
    /// Checks that a frame fits into the budget.
    ///
    /// # Errors
    /// If a frame of `compressed` bytes and `raw` tar bytes would take more memory than is available.
    pub fn check(&self, compressed: u64, raw: u64) -> Result<(), TooLittle> {
        // Compressed in the user process and in the root helper, and decoded.
        let frame = compressed.saturating_mul(2).saturating_add(raw);
        let over = frame.saturating_sub(self.frame);
        // The part for ranges (a fifth) grows with the budget too, unless it is at its maximum.
        let more = over.saturating_add(self.first).saturating_mul(5).div_ceil(4);
        let least = self.given.saturating_add(more);
        if over > 0 && raw > FRAME {
            return Err(TooLittle { given: self.given, least });
        }
        Ok(())
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Budget::new(None, 16).traffic()
    }
}

impl Unpacking {
    /// Returns the default limits for `threads`.
    pub fn on(threads: usize) -> Self {
        let compressed = (2 * threads.max(1) as u64 + 1) * FRAME;
        Unpacking { threads: threads.max(1), compressed, large: LARGEST_FRAME }
    }
}

impl Packing {
    /// Returns the default limits for `threads`.
    pub fn on(threads: usize) -> Self {
        let in_flight = 3 * threads.max(1) as u64 * FRAME;
        Packing { threads: threads.max(1), in_flight, largest: LARGEST_FRAME }
    }
}

/// Returns how many bytes zstd takes to compress a frame, measured with zstd 1.5.7. A test in
/// `crates/snapshot/src/compress.rs` checks that it does not take more.
pub fn compressor(level: i32, long: bool) -> u64 {
    let frame = match level {
        ..=2 => 1,
        3 => 2,
        4..=6 => 4,
        7 | 8 => 6,
        9 => 11,
        10 | 11 => 21,
        12 | 13 => 42,
        15 => 66,
        _ => 50,
    };
    let far = if long { 5 } else { 0 };
    (frame + far) * MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_save_fit_into_the_budget() {
        for threads in [1, 2, 4, 16, 64] {
            for memory in [None, Some(100 * MIB), Some(160 * MIB), Some(2048 * MIB)] {
                for (level, long) in (1..=19).flat_map(|level| [(level, false), (level, true)]) {
                    let budget = Budget::new(memory, threads);
                    let Ok(saving) = budget.saving(level, long) else { continue };
                    let Saving { traffic, frames, packing } = saving;
                    let frame = if long { LONG_FRAME } else { FRAME };
                    let kept = if long { frame } else { 2 * frame } + compressor(level, long);
                    let large = packing.largest * 3 / 2;
                    let large = if packing.largest > frame { large } else { 0 };
                    let whole = BASE
                        + ((traffic.blocks + 1) * traffic.block) as u64
                        + frames
                        + packing.threads as u64 * kept
                        + packing.in_flight.max(large);
                    assert!(whole <= budget.bytes, "{budget:?} {level} {long}: {saving:?}");
                    assert!(packing.in_flight >= packing.threads as u64 * frame, "{saving:?}");
                    assert!(packing.threads <= threads);
                }
            }
        }
    }

    #[test]
    fn default_budget_fits_all_threads_and_largest_frames() {
        for threads in 1..=16 {
            let budget = Budget::new(None, threads);
            let saving = budget.saving(3, false).unwrap();
            assert_eq!((saving.packing.threads, saving.packing.largest), (threads, LARGEST_FRAME));
            let restoring = budget.restoring().unwrap();
            assert_eq!(restoring.unpacking.threads, threads);
            assert_eq!(restoring.check(LARGEST_FRAME / 2, LARGEST_FRAME), Ok(()));
            assert_eq!(restoring.check(LONG_FRAME, LONG_FRAME), Ok(()));
        }
        assert_eq!(Budget::new(None, 2).bytes, 256 * MIB);
        assert_eq!(Budget::new(None, 16).bytes, 512 * MIB);
        assert_eq!(Budget::new(None, 200).bytes, 512 * MIB);
    }

    #[test]
    fn reported_minimum_is_enough() {
        for (level, long) in (1..=19).flat_map(|level| [(level, false), (level, true)]) {
            let TooLittle { given, least } =
                Budget::new(Some(MIB), 4).saving(level, long).unwrap_err();
            assert_eq!(given, MIB);
            let least = least.div_ceil(MIB) * MIB;
            assert!(Budget::new(Some(least), 4).saving(level, long).is_ok(), "{level} {long}");
            assert!(Budget::new(Some(least - 2 * MIB), 4).saving(level, long).is_err());
        }
        let least = Budget::new(Some(0), 2).restoring().unwrap_err().least;
        let restoring = Budget::new(Some(least), 2).restoring().unwrap();
        assert_eq!(restoring.check(FRAME, FRAME), Ok(()));
        let too_little = restoring.check(LARGEST_FRAME / 2, LARGEST_FRAME).unwrap_err();
        let restoring = Budget::new(Some(too_little.least), 2).restoring().unwrap();
        assert_eq!(restoring.check(LARGEST_FRAME / 2, LARGEST_FRAME), Ok(()));
    }
}
