//! The list of all files in the directory, whether they are entries or not.

use super::{Directory, FileReader};
use crate::{Deleted, EntryName, Gone, Inventory, InventoryError, ReadAt, Record};
use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use std::ffi::OsStr;
use std::io::ErrorKind;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::files::{FileFacts, FileKind, OpenDir, TEMPORARY};

impl Inventory for Directory {
    fn describe(&self) -> String {
        format!("dir:{}", self.path.display())
    }

    fn evicts(&self) -> bool {
        false
    }

    fn records(&self) -> Result<Vec<Record>> {
        let context = || format!("list {}", self.path.display());
        let Some(directory) = self.open_dir().with_context(context)? else { return Ok(Vec::new()) };
        let mut records = Vec::new();
        for name in directory.names().with_context(context)? {
            records.extend(record(directory, &name).with_context(context)?);
        }
        Ok(records)
    }

    fn look(&self, record: &Record) -> Option<Result<Box<dyn ReadAt>>> {
        let context = || format!("open {}", self.path.join(&record.id).display());
        let opened = || -> Result<Box<dyn ReadAt>> {
            let gone = || Gone { name: record.key.clone(), found: None };
            let directory = self.open_dir().with_context(context)?.ok_or_else(gone)?;
            let file = directory.open_unnoticed(&record.id).with_context(context)?;
            FileReader::boxed(file).with_context(context)
        };
        Some(opened())
    }

    fn default_branch(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn is_open(&self, _: u64) -> Result<Option<bool>> {
        Ok(None)
    }

    fn delete(&self, record: &Record) -> Result<Deleted, InventoryError> {
        let path = self.path.join(&record.id);
        if record.name.is_none() {
            // Its owner and purpose are unknown.
            return Err(anyhow!("{} is not a storecache file", path.display())
                .hint("delete it by hand")
                .into());
        }
        let context = || format!("delete {}", path.display());
        let Some(directory) = self.open_dir().with_context(context)? else {
            return Ok(Deleted::Before);
        };
        match directory.remove(&record.id) {
            Ok(()) => Ok(Deleted::Now),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Deleted::Before),
            Err(e) => Err(e).with_context(context)?,
        }
    }
}

/// Describes a file. Returns `None` for a file that was deleted in the meantime, and for a directory without the name
/// of an entry.
fn record(directory: &OpenDir, file_name: &OsStr) -> std::io::Result<Option<Record>> {
    let facts = match directory.facts(file_name) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        facts => facts?,
    };
    let name = file_name.to_str().and_then(Directory::entry_of);
    let damage = match (facts.kind, &name) {
        (FileKind::Directory, None) => return Ok(None),
        (FileKind::Regular, Some(_)) => None,
        (FileKind::Regular, None)
            if file_name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) =>
        {
            Some("a save is writing it, or was killed".to_owned())
        }
        (FileKind::Regular, None) => Some("its name is not an entry name".to_owned()),
        (kind, _) => Some(format!("it is {kind}, not a snapshot")),
    };
    // A directory is not deleted as an entry, even if it has the name of one.
    let name = name.filter(|_| facts.kind != FileKind::Directory);
    let generation = name.as_ref().and_then(|name: &EntryName| name.generation.time());
    Ok(Some(Record {
        // If the name is not UTF-8, this id does not lead back to the file. Such a file is never opened or deleted.
        id: file_name.to_string_lossy().into_owned(),
        key: name.as_ref().map_or_else(|| file_name.to_string_lossy().into(), ToString::to_string),
        name,
        reference: None,
        version: None,
        size: facts.size,
        created: generation.or(time(facts.modified)),
        used: used(&facts),
        damage,
    }))
}

/// Returns when a file was last read or written. If the file system does not record reads, that is the last write.
fn used(facts: &FileFacts) -> Option<Timestamp> {
    time(facts.accessed).max(time(facts.modified))
}

fn time((seconds, nanos): (i64, i32)) -> Option<Timestamp> {
    Timestamp::new(seconds, nanos).ok()
}
