//! Where entries live: found by key, read in ranges, written in one go.
//!
//! The room knows bytes and names. It must not know stores, daemons or what is inside a snapshot.

mod aside;
mod directory;
mod entry;
pub mod github;
mod inventory;
mod network;
pub mod objects;
mod quarantine;
mod reader;
mod several;

pub use aside::Patient;
pub use directory::Directory;
pub use entry::{EntryName, Generation};
pub use inventory::{Barred, Deleted, Inventory, Record};
pub use quarantine::{Aside, is_ahead, is_due, is_over};
pub use several::Several;

use crate::files::FileKind;
use crate::key::Rung;
use anyhow::{Result, bail};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An entry that is there.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: EntryName,
    /// Size in bytes.
    pub size: u64,
}

/// A place for entries. Entries are immutable: a key is saved anew as its next generation.
pub trait Backend: Send + Sync {
    /// For people: what and where this is.
    fn describe(&self) -> String;

    /// Whether this run may read entries, as far as that is known beforehand.
    fn can_read(&self) -> Result<(), Refused> {
        Ok(())
    }

    /// Whether this run may write entries, as far as that is known beforehand.
    fn can_write(&self) -> Result<(), Refused> {
        Ok(())
    }

    /// The newest entry of the first rung that has any, and the number of that rung.
    fn find(&self, rungs: &[Rung]) -> Result<Option<(EntryName, usize)>> {
        self.find_besides(rungs, &[])
    }

    /// The same, as if the entries `passed` were not there.
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

    /// Every entry of a rung that this run could delete, newest first. Where entries belong to a ref,
    /// those of others are left out. One that was just written may not be listed yet.
    ///
    /// # Errors
    /// Also when the backend has no list of entries, or none for this run.
    fn entries(&self, rung: &Rung) -> Result<Vec<Entry>>;

    /// Opens an entry for reading in ranges.
    ///
    /// # Errors
    /// [`Gone`] when there is none of that name.
    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>>;

    /// Begins a new entry. It appears, whole, when its writer is finished, and never otherwise. Its
    /// writer says under which name: where this one is taken by accident, a later generation.
    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>>;

    /// Reads and writes for a try. No entry comes of it.
    ///
    /// # Errors
    /// When it can not be reached, or not be read.
    fn examine(&self) -> Result<Health>;

    /// Deletes an entry that [`Backend::entries`] gave. One that is gone already is no error.
    fn delete(&self, entry: &Entry) -> Result<()> {
        bail!("{} does not delete entries; {} stays", self.describe(), entry.name)
    }

    /// Whether an entry that was written under `key` may be listed under the key `listed`. Both are equal, except
    /// where a service changes the case of keys.
    fn lists_as(&self, key: &str, listed: &str) -> bool {
        key == listed
    }

    /// What tells this backend from any other one, today and later.
    fn place(&self) -> String;

    /// What tells an entry that is there from another one that takes its name later. Nothing where no name
    /// is ever used twice.
    fn identity(&self, name: &EntryName) -> String {
        let _ = name;
        String::new()
    }

    /// Moves an entry to where nothing of a backend is looked for, with `note` beside it; says where its
    /// file is now. `None` where nothing can be moved. One that is gone by now is no error.
    fn set_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        let _ = (name, note);
        Ok(None)
    }

    /// What was set aside and is there still, newest first.
    fn asides(&self) -> Result<Vec<Aside>> {
        Ok(Vec::new())
    }

    /// Deletes what was set aside longer than `keep` ago. Does nothing where somebody has done so within
    /// the hour.
    fn sweep(&self, keep: Duration) -> Result<()> {
        let _ = keep;
        Ok(())
    }

    /// Whether it answers and takes entries, as far as that can be found out without one.
    ///
    /// # Errors
    /// [`Refused`] when it only answers.
    fn try_writing(&self) -> Result<()> {
        self.can_write()?;
        match self.find(&[Rung::Exact(TRIAL.into())]) {
            Err(e) if !e.is::<Refused>() => Err(e),
            _ => Ok(()),
        }
    }

    /// The backends that this one is made of, as far as they answer; none where it is one.
    fn members(&self) -> Vec<&dyn Backend> {
        Vec::new()
    }

    /// Which of its members an entry was found in.
    fn holder(&self, name: &EntryName) -> Option<&dyn Backend> {
        let _ = name;
        None
    }

    /// Which of its members is to be written; `None` where it is one.
    ///
    /// # Errors
    /// When none takes entries: what is wrong with the first.
    fn to_write(&self) -> Result<Option<Arc<dyn Backend>>> {
        Ok(None)
    }

    /// What has the name of an entry, is not one, and was left out of lists since this was asked last.
    fn skipped(&self) -> Vec<Skipped> {
        Vec::new()
    }

    /// What people should know of members that did not answer since this was asked last, one line each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A key that no entry has.
const TRIAL: &str = "storecache-doctor";

/// The one that has an entry, or is asked for it.
pub fn holder<'a>(backend: &'a dyn Backend, name: &EntryName) -> &'a dyn Backend {
    backend.holder(name).unwrap_or(backend)
}

/// Each of those that it is made of, or itself.
pub fn members(backend: &dyn Backend) -> Vec<&dyn Backend> {
    let members = backend.members();
    if members.is_empty() { vec![backend] } else { members }
}

/// What a backend does not do, though nothing failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this run can not read: {0}")]
    Read(String),
    #[error("this run can not write: {0}")]
    Write(String),
    #[error("somebody else has saved {0}, or is about to")]
    Taken(String),
}

/// How a backend was found that could be reached.
#[derive(Debug)]
pub struct Health {
    /// For people: what was tried.
    pub found: String,
    /// Why it can not be written.
    pub unwritable: Option<anyhow::Error>,
    /// Seconds by which this machine's clock is ahead of the server's.
    pub ahead: Option<i64>,
}

/// There is no entry of this name, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no entry {name} (any more){}", self.instead())]
pub struct Gone {
    pub name: String,
    /// What has its name in a directory instead.
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

/// What has the name of an entry in a directory, and is not a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub name: EntryName,
    pub found: FileKind,
}

impl Skipped {
    /// Why it is skipped, as a sentence without its end.
    pub fn why(&self) -> String {
        format!("it is {}, not a snapshot", self.found)
    }
}

/// Reading in ranges.
pub trait ReadAt: Send {
    /// Size of the entry in bytes.
    fn size(&self) -> u64;

    /// Whether somebody has said that this is the size. Otherwise it is what came, and more may be missing.
    fn size_is_stated(&self) -> bool {
        true
    }

    /// Says what will be read next, in this order: a remote backend fetches ahead. Everything else can
    /// still be read.
    fn expect(&mut self, ranges: &[Range<u64>]) {
        let _ = ranges;
    }

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// Also when the entry ends before the buffer is full.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// An entry on its way in. Dropped before [`EntryWriter::finish`], it leaves nothing behind.
pub trait EntryWriter: Write + Send {
    fn finish(self: Box<Self>) -> Result<Written>;
}

/// An entry that is in now.
pub struct Written {
    pub entry: Entry,
    /// How long the disk was waited for, after the last byte.
    pub sync: Duration,
}
