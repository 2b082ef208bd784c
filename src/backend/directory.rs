//! Entries as files in a directory.

mod inventory;
mod quarantine;

use super::{
    Aside, Backend, Entry, EntryName, EntryWriter, Gone, Health, ReadAt, Refused, Written,
};
use crate::key::Rung;
use crate::writeback::Writeback;
use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Ending of every entry's file: what it is to anybody else.
const ENDING: &str = ".tar.zst";

pub struct Directory {
    path: PathBuf,
    /// Whether an entry is on the disk before it is there.
    sync: bool,
}

impl Directory {
    pub fn new(path: PathBuf, sync: bool) -> Self {
        Directory { path, sync }
    }

    /// What the file of an entry is called.
    pub fn file_name(name: &EntryName) -> Result<String> {
        Ok(format!("{}{ENDING}", name.to_file_name()?))
    }

    /// The entry that a file of this name is of.
    pub fn entry_of(file_name: &str) -> Option<EntryName> {
        file_name.strip_suffix(ENDING).and_then(EntryName::from_file_name)
    }

    /// Where the file of an entry is.
    pub fn file_of(&self, name: &EntryName) -> Result<PathBuf> {
        Ok(self.path.join(Self::file_name(name)?))
    }
}

impl Backend for Directory {
    fn describe(&self) -> String {
        format!("dir:{}", self.path.display())
    }

    fn entries(&self, rung: &Rung) -> Result<Vec<Entry>> {
        let context = || format!("list {}", self.path.display());
        let files = match self.path.read_dir() {
            Ok(files) => files,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(context),
        };
        let mut entries = Vec::new();
        for file in files {
            let file = file.with_context(context)?;
            let name = file.file_name();
            let Some(name) = name.to_str().and_then(Self::entry_of) else {
                continue;
            };
            if rung.holds(&name.key) {
                let size = file.metadata().with_context(context)?.len();
                entries.push(Entry { name, size });
            }
        }
        entries.sort_by(|a, b| b.name.generation.cmp(&a.name.generation));
        Ok(entries)
    }

    fn can_write(&self) -> Result<(), Refused> {
        match access(&self.path, Access::WRITE_OK | Access::EXEC_OK) {
            // It is made when it is needed.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(Refused::Write(format!("{}: {e}", self.path.display()))),
        }
    }

    fn examine(&self) -> Result<Health> {
        let there = self.path.ancestors().find(|path| path.is_dir());
        let there =
            there.with_context(|| format!("there is nothing above {}", self.path.display()))?;
        let exists = there == self.path;
        let found = if exists {
            self.path.read_dir().with_context(|| format!("list {}", self.path.display()))?;
            "can be listed and written"
        } else {
            "is made by the first save"
        };
        let written = tempfile::Builder::new()
            .prefix(".storecache-")
            .tempfile_in(there)
            .and_then(|mut file| file.write_all(b"?"))
            .with_context(|| format!("write to {}", there.display()));
        let found = if written.is_ok() { found } else { "can be listed" }.into();
        Ok(Health { found, unwritable: written.err(), ahead: None })
    }

    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>> {
        let path = self.file_of(name)?;
        let file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Gone(name.to_string()).into()),
            opened => opened.with_context(|| format!("open {}", path.display()))?,
        };
        let size = file.metadata().with_context(|| format!("open {}", path.display()))?.len();
        Ok(Box::new(FileReader { file, size }))
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>> {
        std::fs::create_dir_all(&self.path)
            .with_context(|| format!("make {}", self.path.display()))?;
        let target = self.file_of(name)?;
        if target.exists() {
            bail!("{} is there already, and entries are never overwritten", target.display());
        }
        let context = || format!("write to {}", self.path.display());
        let file = tempfile::Builder::new()
            .prefix(".storecache-")
            .tempfile_in(&self.path)
            .with_context(context)?;
        // Whatever the umask says.
        file.as_file().set_permissions(PermissionsExt::from_mode(0o644)).with_context(context)?;
        let disk = file.as_file().try_clone().with_context(context)?;
        let order = move || disk.sync_data().context("write an entry to the disk");
        let writeback = Writeback::start(self.sync.then_some(order));
        Ok(Box::new(Writer { file, name: name.clone(), target, size: 0, writeback }))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        let path = self.file_of(&entry.name)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("delete {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn place(&self) -> String {
        self.describe()
    }

    fn identity(&self, name: &EntryName) -> String {
        let metadata = self.file_of(name).ok().and_then(|path| path.metadata().ok());
        metadata.map_or_else(String::new, |m| {
            format!("{} bytes, inode {}, {}.{:09}", m.len(), m.ino(), m.mtime(), m.mtime_nsec())
        })
    }

    fn set_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        self.set_file_aside(name, note)
    }

    fn asides(&self) -> Result<Vec<Aside>> {
        self.files_aside()
    }

    fn sweep(&self, keep: Duration) -> Result<()> {
        self.sweep_aside(keep)
    }
}

struct FileReader {
    file: File,
    size: u64,
}

impl ReadAt for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

struct Writer {
    file: NamedTempFile,
    name: EntryName,
    target: PathBuf,
    size: u64,
    writeback: Writeback,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        self.writeback.written(self.size);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl EntryWriter for Writer {
    fn finish(self: Box<Self>) -> Result<Written> {
        let Writer { file, name, target, size, writeback } = *self;
        let context = || format!("write {}", target.display());
        let ending = writeback.end();
        let wanted = ending.is_wanted();
        let sync = ending.wait().with_context(context)?;
        file.persist_noclobber(&target)
            .with_context(|| format!("put the entry at {}", target.display()))?;
        if wanted {
            // Its name too.
            let directory = target.parent().context("an entry is in a directory")?;
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .with_context(context)?;
        }
        Ok(Written { entry: Entry { name, size }, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backend: &Directory) -> Vec<Entry> {
        backend.entries(&Rung::Prefix(String::new())).unwrap()
    }

    fn names(backend: &Directory) -> Vec<String> {
        all(backend).iter().map(|e| e.name.key.clone()).collect()
    }

    #[test]
    fn an_entry_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let backend = Directory::new(place.path().join("entries"), true);
        let mut abandoned = backend.create(&EntryName::new("a")).unwrap();
        abandoned.write_all(b"half").unwrap();
        drop(abandoned);
        let mut finished = backend.create(&EntryName::new("b/c")).unwrap();
        finished.write_all(b"whole").unwrap();
        assert!(names(&backend).is_empty());
        let entry = finished.finish().unwrap().entry;
        assert_eq!(entry.size, 5);
        assert_eq!(names(&backend), ["b/c"]);
        assert_eq!(place.path().join("entries").read_dir().unwrap().count(), 1);

        let mut bytes = [0; 3];
        backend.open(&entry.name).unwrap().read_at(2, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ole");
        assert!(backend.open(&entry.name).unwrap().read_at(3, &mut bytes).is_err());
    }

    #[test]
    fn the_newest_generation_comes_first() {
        let place = tempfile::tempdir().unwrap();
        let backend = Directory::new(place.path().into(), false);
        for key in ["k", "k", "other"] {
            backend.create(&EntryName::new(key)).unwrap().finish().unwrap();
        }
        let entries = backend.entries(&Rung::Exact("k".into())).unwrap();
        assert_eq!(entries.len(), 2);
        assert!(entries[0].name.generation > entries[1].name.generation);
    }

    #[test]
    fn a_deleted_entry_is_gone_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        let backend = Directory::new(place.path().join("entries"), true);
        assert_eq!(backend.can_write(), Ok(()), "a directory that is not there yet will be made");
        for _ in 0..2 {
            backend.create(&EntryName::new("k")).unwrap().finish().unwrap();
        }
        let entries = all(&backend);
        backend.delete(&entries[1]).unwrap();
        backend.delete(&entries[1]).unwrap();
        let left = all(&backend);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].name, entries[0].name);
    }
}
