//! What an extraction remembers until its end, and how much of that there may be.

use super::SnapshotError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in all. A directory with a name of 40 bytes takes 170: 1,500,000 of them fit.
const LIMIT: u64 = 256 << 20;
/// What an entry takes beside its names.
const ENTRY: u64 = 128;

/// Counts what is kept of directories, hard links and files in several frames.
#[derive(Default)]
pub struct Kept(AtomicU64);

impl Kept {
    /// Books one entry with names of so many bytes.
    ///
    /// # Errors
    /// When that is more than an extraction may keep.
    pub fn book(&self, names: usize) -> Result<(), SnapshotError> {
        let more = ENTRY + names as u64;
        if self.0.fetch_add(more, Ordering::Relaxed) + more > LIMIT {
            return Err(SnapshotError::damaged(
                "it has more directories and links than can be kept in memory; save fewer items",
            ));
        }
        Ok(())
    }
}
