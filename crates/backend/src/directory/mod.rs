//! A backend that keeps entries as files in a directory.

mod atomic_file;
mod list_files;
mod quarantined_files;

use super::{
    Backend, BackendError, Entry, EntryList, EntryName, EntryWriter, Gone, Health, Notes, ReadAt,
    Refused, Skipped, TRIAL, Written,
};
use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_runtime::files::{DirPath, FileFacts, FileKind, Foreign, NewFile, OpenDir, kind_in};
use storecache_runtime::retry::insist;
use storecache_runtime::writeback::Writeback;

/// File name extension of every entry. To other programs, the file is an ordinary compressed tar archive.
const ENDING: &str = ".tar.zst";

/// A directory of entry files. Other users may be able to write to it, so everything in it is reached through
/// [`OpenDir`], and anything with the name of an entry that is not a regular file is skipped.
pub struct Directory {
    run: RunContext,
    place: DirPath,
    path: PathBuf,
    /// Whether an entry is flushed to the disk before it becomes visible.
    sync: bool,
    /// Empty until the first use, and as long as the directory does not exist.
    opened: OnceLock<Arc<OpenDir>>,
}

impl Directory {
    pub fn new(place: impl Into<DirPath>, sync: bool) -> Self {
        let place = place.into();
        let run = RunContext::default();
        Directory { run, path: place.path(), place, sync, opened: OnceLock::new() }
    }

    /// Reports waits for the disk to `run`.
    pub fn for_run(mut self, run: &RunContext) -> Self {
        self.run = run.clone();
        self
    }

    /// Returns the directory, which is opened on first use, or `None` if it does not exist.
    fn open_dir(&self) -> io::Result<Option<&Arc<OpenDir>>> {
        if self.opened.get().is_none()
            && let Some(opened) = self.place.open().map_err(with_hint)?
        {
            // Another thread may have set it first.
            let _ = self.opened.set(Arc::new(opened));
        }
        Ok(self.opened.get())
    }

    /// As [`Directory::open_dir`], but creates the directory if it does not exist.
    fn make_dir(&self) -> io::Result<&Arc<OpenDir>> {
        if self.open_dir()?.is_none() {
            let _ = self.opened.set(Arc::new(self.place.make().map_err(with_hint)?));
        }
        self.opened.get().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Returns the metadata of the file with the name of an entry, or `None` if there is no such file.
    fn facts(&self, name: &EntryName) -> Result<Option<FileFacts>> {
        let Some(directory) = self.open_dir()? else { return Ok(None) };
        match directory.facts(Self::file_name(name)?) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    /// Checks whether the directory can be written, as far as that is known without writing.
    fn can_write(&self) -> Result<(), Refused> {
        let writable = self.open_dir().and_then(|opened| match opened {
            Some(directory) => directory.can_write(),
            // The first save creates the directory.
            None => Ok(()),
        });
        writable
            .map_err(|e| Refused::Write(format!("{}: {}", self.path.display(), in_one_line(&e))))
    }

    fn begin(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>> {
        let directory =
            self.make_dir().with_context(|| format!("create {}", self.path.display()))?;
        let target = self.file_of(name)?;
        if self.facts(name).with_context(|| target.display().to_string())?.is_some() {
            bail!("{} already exists, and entries are never overwritten", target.display());
        }
        let context = || format!("write to {}", self.path.display());
        atomic_file::sweep(directory);
        let file = atomic_file::create(directory).with_context(context)?;
        // Set the mode explicitly, regardless of the umask.
        file.file().set_permissions(PermissionsExt::from_mode(0o644)).with_context(context)?;
        let disk = file.file().try_clone().with_context(context)?;
        let order = move || disk.sync_data().context("flush an entry to disk");
        let writeback = Writeback::start(&self.run, self.sync.then_some(order))?;
        let directory = Arc::clone(directory);
        Ok(Box::new(Writer { file, directory, name: name.clone(), target, size: 0, writeback }))
    }

    /// Returns the file name of an entry.
    pub fn file_name(name: &EntryName) -> Result<String> {
        Ok(format!("{}{ENDING}", name.to_file_name()?))
    }

    /// Returns the entry that a file name stands for.
    pub fn entry_of(file_name: &str) -> Option<EntryName> {
        file_name.strip_suffix(ENDING).and_then(EntryName::from_file_name)
    }

    /// Returns the path of the file of an entry.
    pub fn file_of(&self, name: &EntryName) -> Result<PathBuf> {
        Ok(self.path.join(Self::file_name(name)?))
    }
}

/// Adds a hint to [`Foreign`] errors: another user may control the default directory, which is used unless the user
/// names one.
fn with_hint(error: io::Error) -> io::Error {
    match Foreign::is(&error) {
        true => {
            let hint = "name a directory with --backend dir:PATH";
            io::Error::new(error.kind(), anyhow!("{error}").hint(hint))
        }
        false => error,
    }
}

impl Backend for Directory {
    fn describe(&self) -> String {
        format!("dir:{}", self.path.display())
    }

    fn examine(&self) -> Result<Health> {
        let opened = self.open_dir().with_context(|| self.path.display().to_string())?;
        let (directory, found) = match opened {
            Some(directory) => {
                directory.names().with_context(|| format!("list {}", self.path.display()))?;
                (Arc::clone(directory), "can be listed and written")
            }
            None => {
                let above = self.path.ancestors().find(|path| path.is_dir());
                let above = above.with_context(|| {
                    format!("no parent directory of {} exists", self.path.display())
                })?;
                let context = || format!("open {}", above.display());
                (
                    Arc::new(OpenDir::open(above).with_context(context)?),
                    "will be created by the first save",
                )
            }
        };
        let there = directory.path().to_owned();
        let written = NewFile::create(directory)
            .and_then(|file| file.file().write_all(b"?"))
            .with_context(|| format!("write to {}", there.display()));
        let found = if written.is_ok() { found } else { "can be listed" }.into();
        Ok(Health { found, unwritable: written.err().map(Into::into), ahead: None })
    }

    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError> {
        let context = || format!("open {name} in {}", self.path.display());
        let Some(directory) = self.open_dir().with_context(context)? else {
            return Err(Gone::new(name).into());
        };
        let file = match directory.open_file(Self::file_name(name)?) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Gone::new(name).into()),
            Err(e) => match kind_in(&e) {
                Some(found) => {
                    return Err(Gone { name: name.to_string(), found: Some(found) }.into());
                }
                None => return Err(e).with_context(context)?,
            },
        };
        Ok(FileReader::boxed(file).with_context(context)?)
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError> {
        Ok(self.begin(name)?)
    }

    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        self.can_write()?;
        Ok((self, Vec::new()))
    }

    fn try_writing(&self) -> Result<(), BackendError> {
        self.can_write()?;
        self.entries(&Rung::Exact(TRIAL.into())).map(drop)
    }
}

impl EntryList for Directory {
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError> {
        let context = || format!("list {}", self.path.display());
        let (mut entries, mut notes) = Default::default();
        let Some(directory) = self.open_dir().with_context(context)? else {
            return Ok((entries, notes));
        };
        for file in directory.names().with_context(context)? {
            let Some(name) = file.to_str().and_then(Self::entry_of) else { continue };
            if !rung.holds(&name.key) {
                continue;
            }
            match directory.facts(&file) {
                Ok(FileFacts { kind: FileKind::Regular, size, .. }) => {
                    entries.push(Entry { name, size });
                }
                Ok(other) => notes.skipped.push(Skipped { name, found: other.kind }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e).with_context(context)?,
            }
        }
        entries.sort_by(|a, b| b.name.generation.cmp(&a.name.generation));
        Ok((entries, notes))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        let context = || format!("delete {}", entry.name);
        let Some(directory) = self.open_dir().with_context(context)? else { return Ok(()) };
        match directory.remove(Self::file_name(&entry.name)?) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(context),
            _ => Ok(()),
        }
    }
}

struct FileReader {
    file: File,
    size: u64,
}

impl FileReader {
    fn boxed(file: File) -> io::Result<Box<dyn ReadAt>> {
        let size = file.metadata()?.len();
        Ok(Box::new(FileReader { file, size }))
    }
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
    file: NewFile<Arc<OpenDir>>,
    directory: Arc<OpenDir>,
    name: EntryName,
    /// For error messages.
    target: PathBuf,
    size: u64,
    writeback: Writeback,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.file().write(bytes)?;
        self.size += written as u64;
        self.writeback.written(self.size);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.file().flush()
    }
}

impl EntryWriter for Writer {
    fn finish(self: Box<Self>) -> Result<Written> {
        let Writer { file, directory, name, target, size, writeback } = *self;
        let context = || format!("write {}", target.display());
        let ending = writeback.end();
        let wanted = ending.is_wanted();
        let sync = ending.wait().with_context(context)?;
        let file_name = Directory::file_name(&name)?;
        file.name(file_name.as_ref())
            .with_context(|| format!("name the entry {}", target.display()))?;
        // Flush the directory, so that the name is on the disk too.
        if wanted && let Err(e) = directory.sync() {
            // The save failed, so later runs must not find its entry.
            let _ = insist(|| match directory.remove(&file_name) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            });
            return Err(e).with_context(context);
        }
        Ok(Written { entry: Entry { name, size }, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backend: &Directory) -> Vec<Entry> {
        backend.entries(&Rung::Prefix(String::new())).unwrap().0
    }

    fn names(backend: &Directory) -> Vec<String> {
        all(backend).iter().map(|e| e.name.key.clone()).collect()
    }

    #[test]
    fn entry_appears_only_when_finished() {
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
    fn entries_are_listed_newest_first() {
        let place = tempfile::tempdir().unwrap();
        let backend = Directory::new(place.path().to_owned(), false);
        for key in ["k", "k", "other"] {
            backend.create(&EntryName::new(key)).unwrap().finish().unwrap();
        }
        let entries = backend.entries(&Rung::Exact("k".into())).unwrap().0;
        assert_eq!(entries.len(), 2);
        assert!(entries[0].name.generation > entries[1].name.generation);
    }

    #[test]
    fn delete_removes_only_the_given_entry() {
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
