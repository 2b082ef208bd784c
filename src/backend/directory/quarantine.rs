//! Entries that were set aside: moved by rename into a directory of the backend's own, where nothing looks for
//! entries.
//!
//! The file of an entry keeps its name there, with a number behind it where that is taken. Its note is beside
//! it, with `.json` behind; the days count from the time of the note, so that whoever wants to keep a file
//! longer can touch that.

use super::Directory;
use crate::backend::EntryName;
use crate::backend::quarantine::{Aside, is_ahead, is_due, is_over};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where they are, below the directory of the backend.
const PLACE: &str = ".quarantine";

/// Its time is that of the last sweep.
const STAMP: &str = ".swept";

/// More files of one name are not kept.
const SAME_NAME: u32 = 1000;

/// Notes are short.
const NOTE_LIMIT: u64 = 64 << 10;

impl Directory {
    pub(super) fn set_file_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        let from = self.file_of(name)?;
        let place = self.path.join(PLACE);
        let context = || format!("move {} to {}", from.display(), place.display());
        match fs::create_dir(&place) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e).with_context(context),
            _ => {}
        }
        let file_name = Self::file_name(name)?;
        for number in 0..SAME_NAME {
            let number = if number == 0 { String::new() } else { format!(".{number}") };
            let to = place.join(format!("{file_name}{number}"));
            match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    // On a full disk it is out of the way all the same, and a sweep makes the note.
                    let _ = write_note(&to, note);
                    return Ok(Some(to));
                }
                Err(Errno::EXIST) => {}
                // Somebody else was faster.
                Err(Errno::NOENT) => return Ok(Some(to)),
                Err(e) => return Err(e).with_context(context),
            }
        }
        bail!("{} has {SAME_NAME} files of the name {file_name}; delete some", place.display())
    }

    pub(super) fn files_aside(&self) -> Result<Vec<Aside>> {
        let mut asides = Vec::new();
        for (name, file) in self.in_quarantine()? {
            let Ok(metadata) = file.symlink_metadata() else { continue };
            let mut note = Vec::new();
            if let Ok(file) = File::open(note_of(&file)) {
                let _ = file.take(NOTE_LIMIT).read_to_end(&mut note);
            }
            asides.push(Aside { name, file, size: metadata.len(), note });
        }
        asides.sort_by(|a, b| (&b.name.generation, &b.file).cmp(&(&a.name.generation, &a.file)));
        Ok(asides)
    }

    pub(super) fn sweep_aside(&self, keep: Duration) -> Result<()> {
        let place = self.path.join(PLACE);
        let stamp = place.join(STAMP);
        let now = Timestamp::now();
        if !place.is_dir() || !is_due(changed(&stamp), now) {
            return Ok(());
        }
        // First the stamp: whoever comes now leaves it to us, and where it cannot be written nothing can be
        // deleted either.
        let context = || format!("sweep {}", place.display());
        File::create(&stamp).and_then(|stamp| touch(&stamp)).with_context(context)?;
        for (name, file) in self.in_quarantine().with_context(context)? {
            let note = note_of(&file);
            let Some(noted) = changed(&note) else {
                // It was lost, or whoever moved the file is about to write it.
                let made = File::options().write(true).create_new(true).open(&note);
                made.map(drop).or_else(unless(ErrorKind::AlreadyExists)).with_context(context)?;
                continue;
            };
            if is_ahead(noted, now) {
                let opened = File::options().write(true).open(&note);
                opened.and_then(|note| touch(&note)).with_context(context)?;
            } else if is_over(&name, noted, keep, now) {
                // The note last: a file without one would begin its days anew.
                for path in [&file, &note] {
                    fs::remove_file(path)
                        .or_else(unless(ErrorKind::NotFound))
                        .with_context(context)?;
                }
            }
        }
        self.forget_notes_of_nothing().with_context(context)
    }

    /// Removes notes whose files somebody has deleted by hand. A note comes after its file.
    fn forget_notes_of_nothing(&self) -> std::io::Result<()> {
        for file in self.path.join(PLACE).read_dir()? {
            let note = file?.path();
            let name = note.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
            let Some(name) = name.filter(|name| entry_of(name).is_some()) else { continue };
            if note.with_file_name(name).symlink_metadata().is_err() {
                fs::remove_file(&note).or_else(unless(ErrorKind::NotFound))?;
            }
        }
        Ok(())
    }

    /// Files of entries there, and what their names say; anything else is not ours.
    fn in_quarantine(&self) -> Result<Vec<(EntryName, PathBuf)>> {
        let place = self.path.join(PLACE);
        let files = match place.read_dir() {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.with_context(|| format!("list {}", place.display()))?,
        };
        let mut found = Vec::new();
        for file in files {
            let path = file.with_context(|| format!("list {}", place.display()))?.path();
            if let Some(name) = path.file_name().and_then(|name| entry_of(name.to_str()?)) {
                found.push((name, path));
            }
        }
        Ok(found)
    }
}

/// The entry that a file in quarantine is of.
fn entry_of(file_name: &str) -> Option<EntryName> {
    Directory::entry_of(file_name).or_else(|| {
        let (name, number) = file_name.rsplit_once('.')?;
        number.parse::<u32>().ok().and_then(|_| Directory::entry_of(name))
    })
}

fn note_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Seen whole or not at all.
fn write_note(file: &Path, note: &[u8]) -> Result<()> {
    let path = note_of(file);
    let context = || format!("write {}", path.display());
    let directory = path.parent().context("a note is in a directory")?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".storecache-")
        .tempfile_in(directory)
        .with_context(context)?;
    temporary.as_file().set_permissions(PermissionsExt::from_mode(0o644)).with_context(context)?;
    temporary.write_all(note).with_context(context)?;
    temporary.persist(&path).with_context(context)?;
    Ok(())
}

/// When a file was written last; nothing where there is none.
fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(path.symlink_metadata().ok()?.modified().ok()?).ok()
}

fn touch(file: &File) -> std::io::Result<()> {
    file.set_modified(SystemTime::now())
}

/// Lets one kind of error pass.
fn unless(kind: ErrorKind) -> impl Fn(std::io::Error) -> std::io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}
