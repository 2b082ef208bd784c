//! Quarantine: entries that failed their checks, which lookups and lists do not find any more.

use super::EntryName;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The entries of a place that failed their checks.
pub trait QuarantineList {
    /// Returns whether `place` is in this place; see [`EntryIdentity::place`].
    fn is_at(&self, place: &str) -> bool;

    /// Returns the entries in quarantine, newest first.
    fn quarantined(&self) -> Result<Vec<QuarantinedEntry>>;
}

/// A place that can keep entries in quarantine.
pub trait Quarantine: QuarantineList {
    /// Identifies an existing entry, so that a later run recognizes it.
    fn identify(&self, name: &EntryName) -> EntryIdentity;

    /// Returns whether an existing entry has this identity.
    fn recognizes(&self, name: &EntryName, identity: &EntryIdentity) -> bool {
        self.is_at(&identity.place) && self.identify(name) == *identity
    }

    /// Puts an entry into quarantine, with `note` beside it. Returns the path of its file there, or `None` if this
    /// backend has no quarantine. An entry that is already gone is not an error.
    fn set_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>>;

    /// Deletes entries that have been in quarantine for longer than `keep`. Does nothing if any run did so within the
    /// last hour.
    fn sweep(&self, keep: Duration) -> Result<()>;
}

/// Distinguishes an existing entry from others of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryIdentity {
    /// Identifies the backend, now and later, and differs for every other backend.
    pub place: String,
    /// Differs for a later entry of the same name. Empty if the backend never uses a name twice.
    pub version: String,
}

/// An entry in quarantine.
#[derive(Debug, Clone)]
pub struct QuarantinedEntry {
    pub name: EntryName,
    pub file: PathBuf,
    /// In bytes.
    pub size: u64,
    /// The note that was stored with it; empty if the note was lost.
    pub note: Vec<u8>,
}
