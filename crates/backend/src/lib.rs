//! Storage of entries, which are found by key, read in ranges, and written in one pass.
//!
//! - `directory`: entries as files
//! - [`github`]: the cache service of GitHub Actions, and GitHub's REST API
//! - [`object_store`]: S3, Google Cloud Storage and Azure Blob Storage
//! - `fallback`: several backends in an order, combined into one
//! - `prefetch`, `http_client`: what the network backends share
//!
//! This crate knows bytes and names. It must not know stores, daemons, or the contents of a snapshot. It is the only
//! crate that connects to other machines.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod directory;
mod entry_name;
mod fallback;
pub mod github;
mod http_client;
mod inventory;
pub mod object_store;
mod prefetch;
mod quarantine_schedule;
mod stall_guard;

pub use directory::Directory;
pub use entry_name::{EntryName, Generation};
pub use fallback::FallbackBackend;
pub use inventory::{Deleted, Forbidden, Inventory, Record};
pub use quarantine_schedule::{QuarantinedEntry, is_ahead, is_due, is_over};
pub use stall_guard::StallGuard;

use anyhow::{Result, bail};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::files::FileKind;

/// An existing entry.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: EntryName,
    /// Size in bytes.
    pub size: u64,
}

/// A storage location for entries. Entries are immutable: saving a key again creates its next generation.
pub trait Backend: Send + Sync {
    /// Returns the kind and location of the backend, for messages.
    fn describe(&self) -> String;

    /// Checks whether this run may read entries, as far as that is known without a request.
    fn can_read(&self) -> Result<(), Refused> {
        Ok(())
    }

    /// Checks whether this run may write entries, as far as that is known without a request.
    fn can_write(&self) -> Result<(), Refused> {
        Ok(())
    }

    /// Returns the newest entry of the first rung that has entries, and the index of that rung.
    fn find(&self, rungs: &[Rung]) -> Result<Option<(EntryName, usize)>> {
        self.find_besides(rungs, &[])
    }

    /// As [`Backend::find`], but ignores the entries in `passed`.
    fn find_besides(
        &self,
        rungs: &[Rung],
        passed: &[EntryName],
    ) -> Result<Option<(EntryName, usize)>> {
        for (number, rung) in rungs.iter().enumerate() {
            let mut entries = self.entries(rung)?.into_iter();
            if let Some(entry) = entries.find(|entry| !passed.contains(&entry.name)) {
                return Ok(Some((entry.name, number)));
            }
        }
        Ok(None)
    }

    /// Returns every entry of a rung that this run could delete, newest first. Where entries belong to a ref, entries
    /// of other refs are left out. An entry that was just written may not be listed yet.
    ///
    /// # Errors
    /// Also if the backend has no list of entries, or does not show it to this run.
    fn entries(&self, rung: &Rung) -> Result<Vec<Entry>>;

    /// Opens an entry for reading in ranges.
    ///
    /// # Errors
    /// [`Gone`] if no entry has that name.
    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>>;

    /// Begins a new entry. The entry appears, complete, when its writer is finished, and never otherwise. The writer
    /// returns the final name, which may be a later generation than `name`: a request whose answer was lost may have
    /// taken `name`.
    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>>;

    /// Tests reading and writing, without creating an entry.
    ///
    /// # Errors
    /// If the backend cannot be reached or read.
    fn examine(&self) -> Result<Health>;

    /// Deletes an entry that [`Backend::entries`] returned. An entry that is already gone is not an error.
    fn delete(&self, entry: &Entry) -> Result<()> {
        bail!("{} does not delete entries; {} is kept", self.describe(), entry.name)
    }

    /// Returns whether an entry that was written under `key` may be listed under the key `listed`. The two are equal,
    /// except where a service changes the case of keys.
    fn lists_as(&self, key: &str, listed: &str) -> bool {
        key == listed
    }

    /// Returns a text that identifies this backend, now and later, and differs for every other backend.
    fn place(&self) -> String;

    /// Returns a text that distinguishes an existing entry from a later entry of the same name. Empty if the backend
    /// never uses a name twice.
    fn identity(&self, name: &EntryName) -> String {
        let _ = name;
        String::new()
    }

    /// Puts an entry into quarantine, with `note` beside it: lookups and lists do not find it there. Returns the path
    /// of its file in quarantine, or `None` if this backend has no quarantine. An entry that is already gone is not
    /// an error.
    fn set_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        let _ = (name, note);
        Ok(None)
    }

    /// Returns the entries in quarantine, newest first.
    fn asides(&self) -> Result<Vec<QuarantinedEntry>> {
        Ok(Vec::new())
    }

    /// Deletes entries that have been in quarantine for longer than `keep`. Does nothing if any run did so within the
    /// last hour.
    fn sweep(&self, keep: Duration) -> Result<()> {
        let _ = keep;
        Ok(())
    }

    /// Checks that the backend answers and accepts entries, as far as possible without writing an entry.
    ///
    /// # Errors
    /// [`Refused`] if the backend answers but does not accept entries.
    fn try_writing(&self) -> Result<()> {
        self.can_write()?;
        match self.find(&[Rung::Exact(TRIAL.into())]) {
            Err(e) if !e.is::<Refused>() => Err(e),
            _ => Ok(()),
        }
    }

    /// Returns the members of a combined backend, without those that are known to be down. Empty for a single
    /// backend.
    fn members(&self) -> Vec<&dyn Backend> {
        Vec::new()
    }

    /// Returns the member of a combined backend in which an entry was found.
    fn holder(&self, name: &EntryName) -> Option<&dyn Backend> {
        let _ = name;
        None
    }

    /// Returns the member of a combined backend to write to, or `None` for a single backend.
    ///
    /// # Errors
    /// If no member accepts entries: the error of the first member.
    fn to_write(&self) -> Result<Option<Arc<dyn Backend>>> {
        Ok(None)
    }

    /// Returns the files that have the name of an entry but are not snapshots, as far as lists skipped them since the
    /// last call.
    fn skipped(&self) -> Vec<Skipped> {
        Vec::new()
    }

    /// Returns warnings about members that did not answer since the last call, one line each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A key that no entry has.
const TRIAL: &str = "storecache-doctor";

/// Returns the member in which an entry was found, or `backend` itself.
pub fn holder<'a>(backend: &'a dyn Backend, name: &EntryName) -> &'a dyn Backend {
    backend.holder(name).unwrap_or(backend)
}

/// Returns the members of a combined backend, or `backend` itself.
pub fn members(backend: &dyn Backend) -> Vec<&dyn Backend> {
    let members = backend.members();
    if members.is_empty() { vec![backend] } else { members }
}

/// An operation that a backend does not carry out, although nothing failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this run cannot read: {0}")]
    Read(String),
    #[error("this run cannot write: {0}")]
    Write(String),
    #[error("entry {0} already exists or is being written by another run")]
    Taken(String),
}

/// Result of testing a backend that could be reached.
#[derive(Debug)]
pub struct Health {
    /// Description of the test, for messages.
    pub found: String,
    /// Why it cannot be written.
    pub unwritable: Option<anyhow::Error>,
    /// Seconds by which the clock of this machine is ahead of the clock of the server.
    pub ahead: Option<i64>,
}

/// No entry has this name, or it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no entry {name} (any more){}", self.instead())]
pub struct Gone {
    pub name: String,
    /// The kind of the file that has the name of the entry in a directory instead.
    pub found: Option<FileKind>,
}

impl Gone {
    pub fn new(name: &EntryName) -> Self {
        Gone { name: name.to_string(), found: None }
    }

    fn instead(&self) -> String {
        self.found.map(|found| format!(": {found} has its name")).unwrap_or_default()
    }
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
