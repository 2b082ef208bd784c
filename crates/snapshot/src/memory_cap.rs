//! Limiting the memory that a check or an extraction keeps until its end.

use super::SnapshotError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Limit in bytes. A directory with a name of 40 bytes takes 170, so 1,500,000 of them fit.
const LIMIT: u64 = 256 << 20;
/// Bytes that an entry takes besides its names.
const ENTRY: u64 = 128;

/// Counts the memory for directories, hard links and files in several frames.
pub struct MemoryCap {
    limit: u64,
    taken: AtomicU64,
}

impl Default for MemoryCap {
    fn default() -> Self {
        MemoryCap::up_to(LIMIT)
    }
}

impl MemoryCap {
    /// Allows up to `limit` bytes.
    pub fn up_to(limit: u64) -> Self {
        MemoryCap { limit, taken: AtomicU64::new(0) }
    }

    /// Reserves memory for one entry with names of this many bytes.
    ///
    /// # Errors
    /// If that exceeds the limit.
    pub fn book(&self, names: usize) -> Result<(), SnapshotError> {
        self.take(ENTRY + names as u64)
    }

    /// Reserves this many bytes.
    ///
    /// # Errors
    /// If that exceeds the limit.
    pub fn take(&self, bytes: u64) -> Result<(), SnapshotError> {
        if self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            return Err(SnapshotError::damaged(
                "it has more directories and links than can be kept in memory; save fewer items",
            ));
        }
        Ok(())
    }

    /// Releases bytes that were reserved.
    pub fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}
