//! All files of the directory, entries or not.

use super::{Directory, ENDING, FileReader};
use crate::backend::{Deleted, EntryName, Inventory, ReadAt, Record};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use std::fs::{DirEntry, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Inventory for Directory {
    fn describe(&self) -> String {
        format!("dir:{}", self.path.display())
    }

    fn evicts(&self) -> bool {
        false
    }

    fn records(&self) -> Result<Vec<Record>> {
        let context = || format!("list {}", self.path.display());
        let files = match self.path.read_dir() {
            Ok(files) => files,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(context),
        };
        let mut records = Vec::new();
        for file in files {
            records.extend(record(&file.with_context(context)?).with_context(context)?);
        }
        Ok(records)
    }

    fn look(&self, record: &Record) -> Option<Result<Box<dyn ReadAt>>> {
        let path = self.path.join(&record.id);
        let opened = unnoticed(&path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok(Box::new(FileReader { file, size }) as Box<dyn ReadAt>)
        });
        Some(opened.with_context(|| format!("open {}", path.display())))
    }

    fn default_branch(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn is_open(&self, _: u64) -> Result<Option<bool>> {
        Ok(None)
    }

    fn delete(&self, record: &Record) -> Result<Deleted> {
        let path = self.path.join(&record.id);
        if record.name.is_none() {
            // Whose it is, and what for, nobody here knows.
            bail!("{} is no file of ours; delete it by hand", path.display());
        }
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(Deleted::Now),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Deleted::Before),
            Err(e) => Err(e).with_context(|| format!("delete {}", path.display())),
        }
    }
}

/// What a file is; nothing for a directory, and for one that went meanwhile.
fn record(file: &DirEntry) -> std::io::Result<Option<Record>> {
    let metadata = match std::fs::metadata(file.path()).or_else(|_| file.metadata()) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    if metadata.is_dir() {
        return Ok(None);
    }
    let file_name = file.file_name();
    let name = file_name.to_str().and_then(|name| name.strip_suffix(ENDING));
    let name = name.and_then(EntryName::from_file_name);
    let damage = match &name {
        _ if !metadata.is_file() => Some("it is no regular file"),
        Some(_) => None,
        None if file_name.as_encoded_bytes().starts_with(b".storecache-") => {
            Some("a save is writing it, or was killed")
        }
        None => Some("its name is not that of an entry"),
    };
    let generation = name.as_ref().and_then(|name| name.generation.time());
    let changed = time(metadata.mtime(), metadata.mtime_nsec());
    Ok(Some(Record {
        // A name that is not UTF-8 finds no file again; nothing is done with it either.
        id: file_name.to_string_lossy().into_owned(),
        key: name.as_ref().map_or_else(|| file_name.to_string_lossy().into(), ToString::to_string),
        name,
        reference: None,
        version: None,
        size: metadata.len(),
        created: generation.or(changed),
        used: used(&metadata),
        damage: damage.map(str::to_owned),
    }))
}

/// When a file was last read or written. File systems that note no reading tell the latter.
fn used(metadata: &Metadata) -> Option<Timestamp> {
    let read = time(metadata.atime(), metadata.atime_nsec());
    read.max(time(metadata.mtime(), metadata.mtime_nsec()))
}

fn time(seconds: i64, nanos: i64) -> Option<Timestamp> {
    Timestamp::new(seconds, nanos.try_into().ok()?).ok()
}

/// Opens a file without leaving a trace in its time of access, where that is allowed to us: to its owner.
fn unnoticed(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = |flags| rustix::fs::open(path, flags, Mode::empty());
    let file = match open(flags | OFlags::NOATIME) {
        Err(rustix::io::Errno::PERM) => open(flags)?,
        opened => opened?,
    };
    Ok(File::from(file))
}
