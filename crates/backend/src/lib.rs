//! Storage of entries, which are found by key, read in ranges, and written in one pass.
//!
//! - `directory`: entries as files
//! - [`github`]: the cache service of GitHub Actions, and GitHub's REST API
//! - [`object_store`]: S3, Google Cloud Storage and Azure Blob Storage
//! - `fallback`: several backends in an order, combined into one
//! - `prefetch`, `http_client`: what the network backends share
//!
//! The network backends are features of this crate; without them, it uses no network.
//!
//! This crate knows bytes and names. It must not know stores, daemons, or the contents of a snapshot. It is the only
//! crate that connects to other machines.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod directory;
mod entry_name;
mod entry_records;
mod error;
mod fallback;
#[cfg(feature = "github")]
pub mod github;
#[cfg(feature = "network")]
mod http_client;
#[cfg(feature = "object-store")]
pub mod object_store;
pub mod options;
#[cfg(feature = "network")]
mod prefetch;
mod quarantine;
pub mod retry_limits;
mod stall_guarded_backend;

pub use directory::Directory;
pub use entry_name::{EntryName, Generation};
pub use entry_records::{Deleted, Inventory, Record};
pub use error::{BackendError, Gone, InventoryError, Refused};
pub use fallback::FallbackBackend;
pub use quarantine::{Denylist, EntryIdentity, Quarantine, QuarantineList, Quarantined};
pub use stall_guarded_backend::StallGuard;

use anyhow::Result;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::files::FileKind;
use tracing::debug;

/// An existing entry.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: EntryName,
    /// Size in bytes.
    pub size: u64,
}

/// An entry that a lookup found.
#[derive(Debug, Clone)]
pub struct FoundEntry {
    pub name: EntryName,
    /// Index of the rung of the ladder that it belongs to.
    pub rung: usize,
}

/// Warnings of a lookup or a list that succeeded.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Files that have the name of an entry but are not snapshots, each once.
    pub skipped: Vec<Skipped>,
    /// Warnings about backends that do not answer, one line each.
    pub warnings: Vec<String>,
}

impl Notes {
    fn add(&mut self, other: Notes) {
        self.warnings.extend(other.warnings);
        let new = other.skipped.into_iter().filter(|it| !self.skipped.contains(it));
        let new: Vec<_> = new.collect();
        self.skipped.extend(new);
    }
}

/// A storage location for entries, as a save and a restore use it. Entries are immutable: saving a key again creates
/// its next generation.
pub trait Backend: EntryList + Quarantine + Send + Sync {
    /// Returns the kind and location of the backend, for messages.
    fn describe(&self) -> String;

    /// Returns the newest entry of the first rung that has entries. Ignores the entries in `passed`.
    fn find(
        &self,
        rungs: &[Rung],
        passed: &[EntryName],
    ) -> Result<(Option<FoundEntry>, Notes), BackendError> {
        let mut notes = Notes::default();
        for (number, rung) in rungs.iter().enumerate() {
            let (entries, more) = self.entries(rung)?;
            debug!(%rung, entries = entries.len(), backend = self.describe(), "listed entries");
            notes.add(more);
            if let Some(entry) = entries.into_iter().find(|entry| !passed.contains(&entry.name)) {
                return Ok((Some(FoundEntry { name: entry.name, rung: number }), notes));
            }
        }
        Ok((None, notes))
    }

    /// Opens an entry for reading in ranges.
    ///
    /// # Errors
    /// [`BackendError::Gone`] if no entry has that name.
    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError>;

    /// Begins a new entry. The entry appears, complete, when its writer is finished, and never otherwise. The writer
    /// returns the final name, which may be a later generation than `name`: a request whose answer was lost may have
    /// taken `name`.
    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError>;

    /// Returns the backend for all steps of a save, and warnings about others that do not answer: a delta must be
    /// stored beside its base.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if this run cannot write entries, as far as that is known.
    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError>;

    /// Checks that the backend answers and accepts entries, as far as possible without writing an entry.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if the backend answers but does not accept entries.
    fn try_writing(&self) -> Result<(), BackendError>;

    /// Tests reading and writing, without creating an entry.
    ///
    /// # Errors
    /// If the backend cannot be reached or read.
    fn examine(&self) -> Result<Health>;

    /// Returns whether the place of this entry may have changed its key to lower case.
    fn lowers_case(&self, name: &EntryName) -> bool {
        let _ = name;
        false
    }
}

/// The entries that a run could delete, to find superseded ones.
pub trait EntryList {
    /// Returns every entry of a rung that this run could delete, newest first. Where entries belong to a ref, entries
    /// of other refs are left out. An entry that was just written may not be listed yet.
    ///
    /// # Errors
    /// Also if the backend has no list of entries, or does not show it to this run.
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError>;

    /// Deletes an entry that [`EntryList::entries`] returned. An entry that is already gone is not an error.
    fn delete(&self, entry: &Entry) -> Result<()>;
}

/// A key that no entry has.
const TRIAL: &str = "storecache-doctor";

/// Result of testing a backend that could be reached.
#[derive(Debug)]
pub struct Health {
    /// Description of the test, for messages.
    pub found: String,
    /// Why it cannot be written.
    pub unwritable: Option<BackendError>,
    /// Seconds by which the clock of this machine is ahead of the clock of the server.
    pub ahead: Option<i64>,
}

/// A file in a directory that has the name of an entry and is not a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub name: EntryName,
    pub found: FileKind,
}

impl Skipped {
    /// Returns the reason for skipping it, as a sentence without a full stop.
    pub fn why(&self) -> String {
        format!("it is {}, not a snapshot", self.found)
    }
}

/// Reading in ranges.
pub trait ReadAt: Send {
    /// Size of the entry in bytes.
    fn size(&self) -> u64;

    /// Returns whether the size is certain. Otherwise it is the number of bytes received before the connection ended,
    /// and more may be missing.
    fn size_is_stated(&self) -> bool {
        true
    }

    /// Announces the ranges that will be read next, in this order, so that a remote backend can fetch ahead. Other
    /// ranges can still be read.
    fn expect(&mut self, ranges: &[Range<u64>]) {
        let _ = ranges;
    }

    /// Fills the buffer with the bytes from `offset` on.
    ///
    /// # Errors
    /// Also if the entry ends before the buffer is full.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// A new entry that is being written. It leaves nothing behind if it is dropped before [`EntryWriter::finish`].
pub trait EntryWriter: Write + Send {
    fn finish(self: Box<Self>) -> Result<Written>;
}

/// An entry that was written.
pub struct Written {
    pub entry: Entry,
    /// How long the writer waited for the disk after the last byte.
    pub sync: Duration,
}
