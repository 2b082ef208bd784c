//! Everything that a backend holds: of every ref, key and layout, ours or another tool's.
//!
//! [`super::Backend`] is what a run reads and writes, seen through its key; this is what a maintainer
//! counts and clears away.

use super::{EntryName, ReadAt};
use anyhow::Result;
use jiff::Timestamp;
use std::time::Duration;

/// One thing that takes room. What a backend does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the backend knows it by, never used for another one.
    pub id: String,
    /// As the backend has it, with the generation if it has one.
    pub key: String,
    /// The same in parts, if a storecache has named it.
    pub name: Option<EntryName>,
    /// The full ref that it belongs to, as in `refs/heads/main`.
    pub reference: Option<String>,
    /// Its layout: what a lookup has to ask for beside the key.
    pub version: Option<String>,
    /// In bytes.
    pub size: u64,
    pub created: Option<Timestamp>,
    pub used: Option<Timestamp>,
    /// Why it can be no entry, as far as that shows from outside.
    pub damage: Option<String>,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Now,
    /// Somebody else was faster.
    Before,
}

/// A backend as a list of all that it holds.
pub trait Inventory {
    /// For people: what and where this is.
    fn describe(&self) -> String;

    /// Whether the backend itself deletes what was not used for long, or what exceeds its limit.
    fn evicts(&self) -> bool;

    /// All there is, each once, in no order.
    ///
    /// # Errors
    /// [`Barred`], or that nobody answers.
    fn records(&self) -> Result<Vec<Record>>;

    /// Opens an entry for a look that does not count as a use. `None` where all that can be known of
    /// entries is in the list.
    fn look(&self, record: &Record) -> Option<Result<Box<dyn ReadAt>>> {
        let _ = record;
        None
    }

    /// The full ref of the branch whose entries every run may read; `None` where all entries are so.
    fn default_branch(&self) -> Result<Option<String>>;

    /// Whether a pull request is open; `None` where that cannot be known of this one.
    fn is_open(&self, pull: u64) -> Result<Option<bool>>;

    /// Deletes what [`Inventory::records`] gave.
    ///
    /// # Errors
    /// [`Barred`] when there is no sense in going on.
    fn delete(&self, record: &Record) -> Result<Deleted>;
}

/// Refused in a way that the next call would be as well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Barred {
    pub text: String,
    /// How long the backend asks to be left alone, if that is all.
    pub wait: Option<Duration>,
}
