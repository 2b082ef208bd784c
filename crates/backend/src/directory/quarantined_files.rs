//! Quarantine in a directory: bad entries are renamed into a subdirectory, in which lookups do not search.
//!
//! The file of an entry keeps its name there, followed by a number if the name is taken. The note has the same name
//! with `.json` appended. The time in quarantine counts from the modification time of the note, so a user who wants
//! to keep a file longer can touch its note.
//!
//! Any user who can write to the backend may have created the subdirectory and its contents. It is opened without
//! following links, and so is each note. Notes and the stamp are replaced, and existing files are never written to.

use super::Directory;
use crate::quarantine::{Fate, fate, is_due};
use crate::{Backend, EntryIdentity, EntryName, Quarantine, QuarantineList, Quarantined};
use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use rustix::fs::Mode;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::files::{FileFacts, FileKind, OpenDir, kind_in};

/// Name of the subdirectory.
const PLACE: &str = ".quarantine";

/// A file whose time is the time of the last sweep.
const STAMP: &str = ".swept";

/// Maximum number of files of one name.
const SAME_NAME: u32 = 1000;

/// How much of a note is read, in bytes. Notes are short.
const NOTE_LIMIT: u64 = 64 << 10;

/// Readable by everyone, regardless of the umask.
const NOTE_MODE: u32 = 0o644;

impl QuarantineList for Directory {
    fn is_at(&self, place: &str) -> bool {
        place == Backend::describe(self)
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let shown = self.path.join(PLACE);
        let context = || format!("list {}", shown.display());
        let Some(quarantine) = self.quarantine().with_context(context)? else {
            return Ok(Vec::new());
        };
        let mut asides = Vec::new();
        for Kept { name, file, facts } in kept(&quarantine).with_context(context)? {
            let mut note = Vec::new();
            // A note that cannot be read counts as lost.
            if let Ok(opened) = quarantine.open_file(note_of(&file)) {
                let _ = opened.take(NOTE_LIMIT).read_to_end(&mut note);
            }
            asides.push((name, shown.join(file), facts.size, note));
        }
        asides.sort_by(|a, b| (&b.0.generation, &b.1).cmp(&(&a.0.generation, &a.1)));
        let described = asides
            .into_iter()
            .map(|(name, file, size, note)| Quarantined::from_bytes(&note, name, size, file));
        Ok(described.collect())
    }
}

impl Quarantine for Directory {
    fn identify(&self, name: &EntryName) -> EntryIdentity {
        let facts = self.facts(name).ok().flatten();
        let version = facts.map_or_else(String::new, |facts| {
            let FileFacts { size, inode, modified: (s, ns), .. } = facts;
            format!("{size} bytes, inode {inode}, {s}.{ns:09}")
        });
        EntryIdentity { place: Backend::describe(self), version }
    }

    fn set_aside(&self, name: &EntryName, note: &Quarantined) -> Result<Option<PathBuf>> {
        let file_name = Self::file_name(name)?;
        let note = note.to_bytes()?;
        let shown = self.path.join(PLACE);
        let context = || format!("move {file_name} to {}", shown.display());
        let Some(directory) = self.open_dir().with_context(context)? else { return Ok(None) };
        let mode = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        directory.make_directory(PLACE, mode).with_context(context)?;
        let quarantine = directory.subdirectory(PLACE).with_context(context)?;
        for number in 0..SAME_NAME {
            let number = if number == 0 { String::new() } else { format!(".{number}") };
            let new = format!("{file_name}{number}");
            match directory.move_to(file_name.as_ref(), &quarantine, new.as_ref()) {
                Ok(()) => {
                    // On a full disk the note cannot be written. The entry is out of the way nevertheless, and a
                    // sweep creates the note.
                    let _ = quarantine.replace(note_of(new.as_ref()), &note, NOTE_MODE);
                    return Ok(Some(shown.join(new)));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                // Another run has moved it.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(shown.join(new))),
                Err(e) => return Err(e).with_context(context),
            }
        }
        bail!(
            anyhow!("{} has {SAME_NAME} files named {file_name}", shown.display())
                .hint("delete some")
        )
    }

    fn sweep(&self, keep: Duration) -> Result<()> {
        let context = || format!("sweep {}", self.path.join(PLACE).display());
        let quarantine = self.quarantine().with_context(context)?;
        quarantine.map_or(Ok(()), |quarantine| sweep(&quarantine, keep)).with_context(context)
    }
}

impl Directory {
    /// Opens the subdirectory; `None` if it does not exist.
    fn quarantine(&self) -> io::Result<Option<OpenDir>> {
        let Some(directory) = self.open_dir()? else { return Ok(None) };
        match directory.subdirectory(PLACE) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }
}

fn sweep(quarantine: &OpenDir, keep: Duration) -> io::Result<()> {
    let now = Timestamp::now();
    if !is_due(changed(quarantine, STAMP.as_ref()), now) {
        return Ok(());
    }
    // Write the stamp first: other runs leave the sweep to this one. If it cannot be written, no file can be deleted
    // either.
    quarantine.replace(STAMP, b"", NOTE_MODE)?;
    for Kept { name, file, .. } in kept(quarantine)? {
        let note = note_of(&file);
        let noted = changed(quarantine, &note);
        match fate(&name, noted, Some(keep), now) {
            Fate::Keep => {}
            Fate::CountFromNow if noted.is_some() => renew_note(quarantine, &note)?,
            Fate::CountFromNow => {
                // The note was lost, or the run that moved the file is about to write it.
                let made = quarantine.create(&note, Mode::from_raw_mode(NOTE_MODE));
                made.map(drop).or_else(unless(ErrorKind::AlreadyExists))?;
            }
            Fate::Delete => {
                // Delete the note last: the time of a file without a note would start again.
                quarantine.remove(&file).or_else(unless(ErrorKind::NotFound))?;
                remove_note(quarantine, &note)?;
            }
        }
    }
    forget_notes_of_nothing(quarantine)
}

/// Sets the time of a note to the current time, by replacing it with a new file of the same content. The existing
/// file may have hard links elsewhere.
fn renew_note(quarantine: &OpenDir, note: &OsStr) -> io::Result<()> {
    let mut content = Vec::new();
    match quarantine.open_file(note) {
        Ok(file) => file.take(NOTE_LIMIT).read_to_end(&mut content)?,
        // It is not a regular file, so its time does not count.
        Err(e) if kind_in(&e).is_some() => return Ok(()),
        Err(e) => return Err(e),
    };
    quarantine.replace(note, &content, NOTE_MODE)
}

/// Removes notes whose files were deleted by hand. A note is written after its file was moved.
fn forget_notes_of_nothing(quarantine: &OpenDir) -> io::Result<()> {
    for note in quarantine.names()? {
        let file = note.to_str().and_then(|name| name.strip_suffix(".json"));
        let Some(file) = file.filter(|name| entry_of(name).is_some()) else { continue };
        if quarantine.facts(file).is_err() {
            remove_note(quarantine, &note)?;
        }
    }
    Ok(())
}

/// Removes a note. A directory of that name stays, because this program does not create one.
fn remove_note(quarantine: &OpenDir, note: &OsStr) -> io::Result<()> {
    quarantine
        .remove(note)
        .or_else(unless(ErrorKind::NotFound))
        .or_else(unless(ErrorKind::IsADirectory))
}

/// A file in quarantine.
struct Kept {
    name: EntryName,
    file: OsString,
    facts: FileFacts,
}

/// Returns the files in quarantine that have the name of an entry, without directories.
fn kept(quarantine: &OpenDir) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for file in quarantine.names()? {
        let Some(name) = file.to_str().and_then(entry_of) else { continue };
        let Ok(facts) = quarantine.facts(&file) else { continue };
        if facts.kind != FileKind::Directory {
            found.push(Kept { name, file, facts });
        }
    }
    Ok(found)
}

/// Returns the entry that a file in quarantine holds.
fn entry_of(file_name: &str) -> Option<EntryName> {
    Directory::entry_of(file_name).or_else(|| {
        let (name, number) = file_name.rsplit_once('.')?;
        number.parse::<u32>().ok().and_then(|_| Directory::entry_of(name))
    })
}

fn note_of(file: &OsStr) -> OsString {
    let mut name = file.to_owned();
    name.push(".json");
    name
}

/// Returns when a file was last written, or `None` if it does not exist.
fn changed(directory: &OpenDir, name: &OsStr) -> Option<Timestamp> {
    let (seconds, nanos) = directory.facts(name).ok()?.modified;
    Timestamp::new(seconds, nanos).ok()
}

/// Ignores one kind of error.
fn unless(kind: ErrorKind) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}
