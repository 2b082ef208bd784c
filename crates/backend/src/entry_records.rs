//! Everything that a backend holds: entries of every ref, key and layout, including those of other tools.
//!
//! A run uses [`super::Backend`], which it searches by key. A maintainer uses this list to measure and delete.

use super::{EntryName, InventoryError, QuarantineList, ReadAt};
use anyhow::Result;
use jiff::Timestamp;

/// One object that takes up space. Fields that the backend does not report are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Identifier of the object in the backend, never reused for another object.
    pub id: String,
    /// The key as the backend stores it, including the generation if there is one.
    pub key: String,
    /// Key and generation, if storecache named the object.
    pub name: Option<EntryName>,
    /// The full ref that it belongs to, such as `refs/heads/main`.
    pub reference: Option<String>,
    /// Its layout, which a lookup has to state in addition to the key.
    pub version: Option<String>,
    /// In bytes.
    pub size: u64,
    pub created: Option<Timestamp>,
    pub used: Option<Timestamp>,
    /// Why it cannot be a valid entry, as far as the list shows.
    pub damage: Option<String>,
}

/// Result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Now,
    /// It was already gone; another process deleted it first.
    Before,
}

/// A backend as a list of everything that it holds.
pub trait Inventory: QuarantineList {
    /// Returns the kind and location of the backend, for messages.
    fn describe(&self) -> String;

    /// Returns whether the backend itself deletes objects that are unused for a long time or exceed its limit.
    fn evicts(&self) -> bool;

    /// Returns all objects, each once, in no particular order.
    ///
    /// # Errors
    /// If the backend does not answer, or refuses.
    fn records(&self) -> Result<Vec<Record>>;

    /// Opens an entry in a way that does not count as a use. Returns `None` if opening an entry would show nothing
    /// that is not in the list.
    fn look(&self, record: &Record) -> Option<Result<Box<dyn ReadAt>>> {
        let _ = record;
        None
    }

    /// Returns the full ref of the branch whose entries every run may read, or `None` if every run may read all
    /// entries.
    fn default_branch(&self) -> Result<Option<String>>;

    /// Returns whether a pull request is open, or `None` if the backend cannot know that.
    fn is_open(&self, pull: u64) -> Result<Option<bool>>;

    /// Deletes an object that [`Inventory::records`] returned.
    ///
    /// # Errors
    /// [`InventoryError::Forbidden`] if further deletions would fail in the same way.
    fn delete(&self, record: &Record) -> Result<Deleted, InventoryError>;
}
