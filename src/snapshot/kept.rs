//! What an extraction remembers until its end, and how much of that there may be.

use super::SnapshotError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in all. A directory with a name of 40 bytes takes 170: 1,500,000 of them fit.
const LIMIT: u64 = 256 << 20;
/// What an entry takes beside its names.
const ENTRY: u64 = 128;

/// Counts what is kept of directories, hard links and files in several frames.
pub struct Kept {
    limit: u64,
    taken: AtomicU64,
}

impl Default for Kept {
    fn default() -> Self {
        Kept::up_to(LIMIT)
    }
}

impl Kept {
    /// With room for so many bytes.
    pub fn up_to(limit: u64) -> Self {
        Kept { limit, taken: AtomicU64::new(0) }
    }

    /// Books one entry with names of so many bytes.
    ///
    /// # Errors
    /// When that is more than an extraction may keep.
    pub fn book(&self, names: usize) -> Result<(), SnapshotError> {
        self.take(ENTRY + names as u64)
    }

    /// Books so many bytes.
    ///
    /// # Errors
    /// When that is more than an extraction may keep.
    pub fn take(&self, bytes: u64) -> Result<(), SnapshotError> {
        if self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            return Err(SnapshotError::damaged(
                "it has more directories and links than can be kept in memory; save fewer items",
            ));
        }
        Ok(())
    }

    /// Gives back what was booked and is not kept any more.
    pub fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}
