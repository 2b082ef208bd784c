//! Quarantine in an object store: a note beside an entry marks it as bad, and every run that sees the note treats the
//! entry as gone.
//!
//! Entries are not moved: an object store has no rename, copying an entry of over 5 GB takes many requests, and a run
//! that finds a bad entry may only have permission to read it. The note is small, and every machine that shares the
//! store sees it.

use super::Objects;
use super::client::ObjectClient;
use super::error::ObjectError;
use super::write_lock::{CLAIMS, LEFT};
use crate::quarantine::{Fate, fate, is_due};
use crate::{Directory, EntryIdentity, EntryName, Quarantine, QuarantineList, Quarantined};
use anyhow::Result;
use jiff::Timestamp;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

/// Prefix of notes, below the base.
pub const NOTES: &str = ".quarantine/";

const ENDING: &str = ".json";

/// An object whose time is the time of the last sweep.
const STAMP: &str = ".quarantine/.swept";

/// Returns whether a note marks the entry with this file name as bad.
pub async fn is_aside(hub: &ObjectClient, file: &str) -> Result<bool, ObjectError> {
    Ok(hub.head(&hub.path(&note_of(file))?).await?.is_some())
}

/// Returns the entries with a note whose file names begin with `start`.
pub async fn asides(hub: &ObjectClient, start: &str) -> Result<HashSet<EntryName>, ObjectError> {
    let notes = hub.list(&format!("{NOTES}{start}"), false).await?;
    Ok(notes.iter().filter_map(noted).collect())
}

impl QuarantineList for Objects {
    fn is_at(&self, place: &str) -> bool {
        let ours = self.place();
        place == ours || (self.has_all_layouts() && place.starts_with(&ours))
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let hub = &self.hub;
        let mut asides = Vec::new();
        // The notes of one layout, or of all layouts.
        let start = if self.has_all_layouts() { "" } else { NOTES };
        for found in hub.wait(hub.list(start, true))? {
            let Some((name, path)) = noted(&found).zip(of_note(&found)) else { continue };
            let Some(entry) = hub.wait(hub.head(&path))? else { continue };
            let note = hub.wait(hub.get(&found.location))?;
            let file = self.shown(&path);
            asides.push((name, entry.size, file, note));
        }
        asides.sort_by(|a, b| b.0.generation.cmp(&a.0.generation));
        let described = asides
            .into_iter()
            .map(|(name, size, file, note)| Quarantined::from_bytes(&note, name, size, file));
        Ok(described.collect())
    }
}

impl Quarantine for Objects {
    /// No name is used twice.
    fn identify(&self, _: &EntryName) -> EntryIdentity {
        EntryIdentity { place: self.place(), version: String::new() }
    }

    fn set_aside(&self, name: &EntryName, note: &Quarantined) -> Result<Option<PathBuf>> {
        let hub = &self.hub;
        let path = hub.path(&note_of(&Directory::file_name(name)?))?;
        hub.wait(hub.put(&path, note.to_bytes()?))?;
        Ok(Some(self.shown(&self.path_of(name)?)))
    }

    /// Deletes entries and notes that were kept long enough, and claims whose writers are no longer alive.
    fn sweep(&self, keep: Duration) -> Result<()> {
        let hub = &self.hub;
        let now = Timestamp::now();
        let stamp = hub.path(STAMP)?;
        let last = hub.wait(hub.head(&stamp))?;
        if !is_due(last.as_ref().and_then(changed), now) {
            return Ok(());
        }
        // Write the stamp first, so that other runs leave the sweep to this one.
        hub.wait(hub.put(&stamp, Vec::new()))?;
        for note in hub.wait(hub.list(NOTES, false))? {
            // The times are those of the service, so a time that is ahead is not corrected.
            let due =
                |name: &EntryName| fate(name, changed(&note), Some(keep), now) == Fate::Delete;
            if let Some(name) = noted(&note).filter(due) {
                // Delete the note last: without it, the entry would count as good.
                hub.wait(hub.delete(&self.path_of(&name)?))?;
                hub.wait(hub.delete(&note.location))?;
            }
        }
        for claim in hub.wait(hub.list(CLAIMS, false))? {
            let age = changed(&claim).map(|made| Duration::try_from(now.duration_since(made)));
            if age.is_some_and(|age| age.is_ok_and(|age| age >= LEFT)) {
                hub.wait(hub.delete(&claim.location))?;
            }
        }
        Ok(())
    }
}

fn note_of(file: &str) -> String {
    format!("{NOTES}{file}{ENDING}")
}

/// Returns the path of the object that a note is about.
fn of_note(note: &ObjectMeta) -> Option<Path> {
    let (place, file) = note.location.as_ref().rsplit_once(NOTES)?;
    Path::parse(format!("{place}{}", file.strip_suffix(ENDING)?)).ok()
}

/// Returns the entry that a note is about.
fn noted(note: &ObjectMeta) -> Option<EntryName> {
    note.location.as_ref().rsplit_once(NOTES)?;
    note.location.filename()?.strip_suffix(ENDING).and_then(Directory::entry_of)
}

/// Returns when an object was written, by the clock of the service.
fn changed(object: &ObjectMeta) -> Option<Timestamp> {
    Timestamp::from_second(object.last_modified.timestamp()).ok()
}
