//! Where entries live: found by key, read in ranges, written in one go.
//!
//! The room knows bytes and names. It must not know stores, daemons or what is inside a snapshot.

mod directory;
mod entry;

pub use directory::Directory;
pub use entry::{EntryName, Generation};

use anyhow::{Result, bail};
use std::io::Write;

/// An entry that is there.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: EntryName,
    /// Size in bytes.
    pub size: u64,
}

/// A place for entries. Entries are immutable: a key is saved anew as its next generation.
pub trait Backend {
    /// For people: what and where this is.
    fn describe(&self) -> String;

    /// Every entry whose key passes, newest first.
    fn entries(&self, passes: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>>;

    /// Whether entries can be made here; else the reason. Asked before any work is done.
    fn writable(&self) -> Result<(), String> {
        Ok(())
    }

    /// Opens an entry for reading in ranges.
    fn open(&self, entry: &Entry) -> Result<Box<dyn ReadAt>>;

    /// Begins a new entry. It appears, whole, when its writer is finished, and never otherwise.
    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>>;

    /// Deletes an entry. One that is gone already is no error.
    fn delete(&self, entry: &Entry) -> Result<()> {
        bail!("{} does not delete entries; {} stays", self.describe(), entry.name)
    }
}

/// Reading in ranges.
pub trait ReadAt {
    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// Also when the entry ends before the buffer is full.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// An entry on its way in. Dropped before [`EntryWriter::finish`], it leaves nothing behind.
pub trait EntryWriter: Write {
    fn finish(self: Box<Self>) -> Result<Entry>;
}
