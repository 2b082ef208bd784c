//! Entries that were set aside: moved by rename into a directory of the backend's own, where nothing looks for
//! entries.
//!
//! The file of an entry keeps its name there, with a number behind it where that is taken. Its note is beside
//! it, with `.json` behind; the days count from the time of the note, so that a user who wants to keep a file
//! longer can touch that.
//!
//! Any user who can write to the backend may have made the directory and what is in it. It is opened without
//! following a link, and so is each note; notes and the stamp are replaced and never written to.

use super::Directory;
use crate::backend::EntryName;
use crate::backend::quarantine::{Aside, is_ahead, is_due, is_over};
use crate::files::{FileFacts, FileKind, OpenDir, kind_in};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::Mode;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

/// Where they are, below the directory of the backend.
const PLACE: &str = ".quarantine";

/// Its time is that of the last sweep.
const STAMP: &str = ".swept";

/// More files of one name are not kept.
const SAME_NAME: u32 = 1000;

/// Notes are short.
const NOTE_LIMIT: u64 = 64 << 10;

/// For everybody to read, whatever the umask says.
const NOTE_MODE: u32 = 0o644;

impl Directory {
    pub(super) fn set_file_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        let file_name = Self::file_name(name)?;
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
                    // On a full disk it is out of the way all the same, and a sweep makes the note.
                    let _ = quarantine.replace(note_of(new.as_ref()), note, NOTE_MODE);
                    return Ok(Some(shown.join(new)));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                // Another run was faster.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(shown.join(new))),
                Err(e) => return Err(e).with_context(context),
            }
        }
        bail!("{} has {SAME_NAME} files of the name {file_name}; delete some", shown.display())
    }

    pub(super) fn files_aside(&self) -> Result<Vec<Aside>> {
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
            asides.push(Aside { name, file: shown.join(file), size: facts.size, note });
        }
        asides.sort_by(|a, b| (&b.name.generation, &b.file).cmp(&(&a.name.generation, &a.file)));
        Ok(asides)
    }

    pub(super) fn sweep_aside(&self, keep: Duration) -> Result<()> {
        let context = || format!("sweep {}", self.path.join(PLACE).display());
        let quarantine = self.quarantine().with_context(context)?;
        quarantine.map_or(Ok(()), |quarantine| sweep(&quarantine, keep)).with_context(context)
    }

    /// The directory of what was set aside; nothing where there is none.
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
    // First the stamp: a run that comes now leaves the sweep to this one, and where it cannot be written nothing
    // can be deleted either.
    quarantine.replace(STAMP, b"", NOTE_MODE)?;
    for Kept { name, file, .. } in kept(quarantine)? {
        let note = note_of(&file);
        let Some(noted) = changed(quarantine, &note) else {
            // It was lost, or the run that moved the file is about to write it.
            let made = quarantine.create(&note, Mode::from_raw_mode(NOTE_MODE));
            made.map(drop).or_else(unless(ErrorKind::AlreadyExists))?;
            continue;
        };
        if is_ahead(noted, now) {
            renew_note(quarantine, &note)?;
        } else if is_over(&name, noted, keep, now) {
            // The note last: a file without one would begin its days anew.
            quarantine.remove(&file).or_else(unless(ErrorKind::NotFound))?;
            remove_note(quarantine, &note)?;
        }
    }
    forget_notes_of_nothing(quarantine)
}

/// Gives a note the time of now: in another file with the same content, as the one that is there may have names
/// elsewhere too.
fn renew_note(quarantine: &OpenDir, note: &OsStr) -> io::Result<()> {
    let mut content = Vec::new();
    match quarantine.open_file(note) {
        Ok(file) => file.take(NOTE_LIMIT).read_to_end(&mut content)?,
        // It is not a note, and says no time.
        Err(e) if kind_in(&e).is_some() => return Ok(()),
        Err(e) => return Err(e),
    };
    quarantine.replace(note, &content, NOTE_MODE)
}

/// Removes notes whose files were deleted by hand. A note comes after its file.
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

/// A directory of that name stays: this program makes none.
fn remove_note(quarantine: &OpenDir, note: &OsStr) -> io::Result<()> {
    quarantine
        .remove(note)
        .or_else(unless(ErrorKind::NotFound))
        .or_else(unless(ErrorKind::IsADirectory))
}

/// A file that was set aside.
struct Kept {
    name: EntryName,
    file: OsString,
    facts: FileFacts,
}

/// What has the name of an entry in quarantine, and is no directory.
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

/// The entry that a file in quarantine is of.
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

/// When a file was written last; nothing where there is none.
fn changed(directory: &OpenDir, name: &OsStr) -> Option<Timestamp> {
    let (seconds, nanos) = directory.facts(name).ok()?.modified;
    Timestamp::new(seconds, nanos).ok()
}

/// Lets one kind of error pass.
fn unless(kind: ErrorKind) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}
