//! Quarantine: entries that failed their checks, which lookups and lists do not find any more.
//!
//! This module has the note about such an entry, how long it is kept, and when old ones are deleted. Places differ in
//! how they keep an entry: a directory moves its file, an object store writes the note beside it, and entries of other
//! places are in a list of the user ([`Denylist`]).

mod denylist;
mod sweep;

pub use denylist::Denylist;
pub(crate) use sweep::{Fate, fate, is_due};

use super::EntryName;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The entries of a place that failed their checks.
pub trait QuarantineList {
    /// Returns whether `place` is in this place; see [`EntryIdentity::place`].
    fn is_at(&self, place: &str) -> bool;

    /// Returns the entries in quarantine, newest first.
    fn quarantined(&self) -> Result<Vec<Quarantined>>;
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
    fn set_aside(&self, name: &EntryName, note: &Quarantined) -> Result<Option<PathBuf>>;

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

/// An entry that failed its checks. Also the note that is kept next to its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quarantined {
    /// Full name.
    pub entry: String,
    pub key: String,
    pub reason: String,
    /// The phase of the restore that found it to be bad.
    pub phase: String,
    /// RFC 3339 in UTC.
    pub when: String,
    /// The program that found it to be bad.
    pub tool: String,
    /// In bytes, if known.
    pub size: Option<u64>,
    /// Current location of its file; `None` if it could not be moved and is remembered instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Why it could not be moved where that is possible, or could neither be moved nor remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Quarantined {
    /// Returns the note as it is stored.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Creates the description of an entry in quarantine. Name, size and file are those of the entry; everything else
    /// is from its note, if that can be read.
    pub(crate) fn from_bytes(note: &[u8], name: EntryName, size: u64, file: PathBuf) -> Self {
        let lost =
            || Quarantined { reason: "its note is missing".into(), ..Quarantined::default() };
        let note = serde_json::from_slice(note).unwrap_or_else(|_| lost());
        Quarantined {
            entry: name.to_string(),
            key: name.key,
            size: Some(size),
            file: Some(file),
            ..note
        }
    }
}
