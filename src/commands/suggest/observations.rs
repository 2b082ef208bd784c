//! Past snapshots: facts from their heads and indexes, and which of them are of the same store.

use crate::commands::open_entry::OpenEntry;
use crate::commands::open_error::{Defect, Unusable};
use crate::commands::{inspect, resolve};
use crate::config::{BackendOptions, Snapshots, Suggest};
use anyhow::{Context, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use storecache_backend::{Backend, BackendError, Directory, EntryName};
use storecache_entry::{Digest, Rung};
use storecache_runtime::RunContext;
use storecache_runtime::memory::Traffic;
use storecache_runtime::untrusted_text::escape;
use storecache_snapshot::{Head, Index, Opened, SnapshotError};
use storecache_store::{Layout, StoreKind};

/// The facts about one snapshot.
pub struct Past {
    /// The name that the backend or the user gave.
    pub name: String,
    pub head: Head,
    /// Identity of the contents of the store, see [`Items`].
    pub store: Digest,
    /// Numbers of its items, sorted.
    items: Vec<u32>,
    /// Digest of the whole content, to find snapshots that were named twice.
    archive: Digest,
    /// Start of the save according to its name, which is more precise than the time in the head.
    generation: String,
}

/// A snapshot that cannot be used, and the reason.
pub struct LeftOut {
    pub name: String,
    pub reason: String,
}

/// The result of [`read`].
pub struct Observations {
    pub past: Vec<Past>,
    pub left_out: Vec<LeftOut>,
    /// Number of older snapshots beyond the requested maximum.
    pub older: usize,
}

/// Reads head and index of every snapshot that the options name.
///
/// # Errors
/// If the snapshots cannot be listed, or if a listed snapshot cannot be read. A file that is not a snapshot,
/// or has a format that this version does not know, is left out.
pub fn read(context: &RunContext, options: &Suggest) -> Result<Observations> {
    let mut found = Observations { past: Vec::new(), left_out: Vec::new(), older: 0 };
    let mut items = Items::default();
    match &options.snapshots {
        Snapshots::Files(files) => {
            for path in files {
                let reader = inspect::OpenFile::boxed(path)?;
                let name = path.display().to_string();
                let entry = OpenEntry::read(name.clone(), reader, &mut 0);
                found.book(name, generation(path), entry, &mut items)?;
            }
        }
        Snapshots::Entries(place) => {
            let kind = match (options.kind, place) {
                // Only in a directory, entries of all layouts are kept together.
                (None, places) if !places.iter().all(is_directory) => {
                    Layout::detect(Path::new("/"))
                        .context("detect the kind of store (or name it with --store)")?
                }
                (kind, _) => kind.unwrap_or(StoreKind::Plain),
            };
            let (backend, warnings) = resolve::backend(context, place, kind, Traffic::default())?;
            resolve::print_warnings(&warnings);
            let rung = Rung::Prefix(options.key_prefix.clone());
            let (mut entries, notes) = backend.entries(&rung)?;
            resolve::print_notes(&notes);
            found.older = entries.len().saturating_sub(options.max);
            entries.truncate(options.max);
            for entry in entries {
                let Some(opened) = open(backend.as_ref(), &entry.name)? else { continue };
                let generation = entry.name.generation.to_string();
                found.book(entry.name.to_string(), generation, opened, &mut items)?;
            }
        }
    }
    found.past.retain(|past| {
        let key = Rung::Prefix(options.key_prefix.clone()).holds(past.head.key.raw());
        key && options.kind.is_none_or(|kind| past.head.store.kind == kind.name())
    });
    let mut seen = HashSet::new();
    found.past.retain(|past| seen.insert(past.archive));
    // By the second and, within a second, by the time in the name.
    found
        .past
        .sort_by(|a, b| (&a.head.created, &a.generation).cmp(&(&b.head.created, &b.generation)));
    let more = found.past.len().saturating_sub(options.max);
    found.older += more;
    found.past.drain(..more);
    Ok(found)
}

fn is_directory(place: &BackendOptions) -> bool {
    place.directory().is_some()
}

/// Opens an entry. Returns `None` if it was deleted after it was listed.
fn open(backend: &dyn Backend, name: &EntryName) -> Result<Option<Result<OpenEntry, Unusable>>> {
    match backend.open(name) {
        Err(BackendError::Gone(_)) => Ok(None),
        reader => Ok(Some(OpenEntry::read(name.to_string(), reader?, &mut 0))),
    }
}

/// The generation of the entry that the file contains, if it has the name of an entry.
fn generation(path: &Path) -> String {
    let name = path.file_name().and_then(|name| Directory::entry_of(name.to_str()?));
    name.map(|name| name.generation.to_string()).unwrap_or_default()
}

impl Observations {
    fn book(
        &mut self,
        name: String,
        generation: String,
        entry: Result<OpenEntry, Unusable>,
        items: &mut Items,
    ) -> Result<()> {
        match entry.map(|entry| entry.opened) {
            Ok(Opened { head, index, .. }) => {
                let (store, numbers) = items.take(&index);
                let archive = index.archive;
                self.past.push(Past { name, head, store, items: numbers, archive, generation });
            }
            Err(e) => match e.source {
                Defect::Snapshot(SnapshotError::Io(_)) | Defect::PossiblyTruncated(_) => {
                    return Err(e.into());
                }
                // The snapshot itself is bad, and not the access to it.
                Defect::Snapshot(error) => {
                    self.left_out.push(LeftOut { name, reason: error.to_string() });
                }
            },
        }
        Ok(())
    }
}

/// Every item seen so far, each with a number: snapshots have most items in common.
#[derive(Default)]
struct Items(HashMap<Digest, u32>);

impl Items {
    /// Returns the identity of the contents of a snapshot, including items in its base, and the numbers of
    /// its items. The name of a store item identifies what it was made from. The names of plain directories
    /// never change, so their fingerprints, which are computed without reading the files, count too.
    fn take(&mut self, index: &Index) -> (Digest, Vec<u32>) {
        let own = index.items.iter().map(|item| (item.name.as_str(), item.fingerprint));
        let inherited = index.inherited().map(|name| (name, None));
        let mut identities: Vec<Digest> = own
            .chain(inherited)
            .map(|(name, fingerprint)| {
                let fingerprint = fingerprint.as_ref().map(|f| f.as_bytes().as_slice());
                Digest::of_parts([name.as_bytes(), fingerprint.unwrap_or_default()])
            })
            .collect();
        identities.sort_unstable();
        let all = Digest::of_parts(identities.iter().map(|item| item.as_bytes().as_slice()));
        let numbers = identities.into_iter().map(|identity| {
            let next = self.0.len() as u32;
            *self.0.entry(identity).or_insert(next)
        });
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        (all, numbers)
    }
}

impl Past {
    /// Number of items of `other` that this snapshot does not have.
    pub fn lacks(&self, other: &Past) -> usize {
        let here = |item: &&u32| self.items.binary_search(item).is_err();
        other.items.iter().filter(here).count()
    }

    /// When it was made, and from which commit.
    pub fn moment(&self) -> String {
        match self.head.origin.commit.raw().get(..10) {
            Some(commit) => format!("{} ({})", self.head.created, escape(commit)),
            None => self.head.created.to_string(),
        }
    }

    /// The properties that have to be equal for a comparison with other snapshots.
    pub fn kin(&self) -> KeyFamily {
        let store = &self.head.store;
        let middle = format!("-{}-{}-", store.kind.raw(), store.system.raw());
        let prefix = self.head.key.raw().split_once(&middle).map(|(prefix, _)| prefix.to_owned());
        KeyFamily {
            kind: store.kind.raw().to_owned(),
            system: store.system.raw().to_owned(),
            store_dir: store.store_dir.raw().to_owned(),
            prefix,
        }
    }
}

/// The properties that snapshots share if they can be compared with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct KeyFamily {
    pub kind: String,
    pub system: String,
    pub store_dir: String,
    /// First part of a generated key; `None` if the user gave the whole key.
    pub prefix: Option<String>,
}

/// Returns the snapshots of the store with the most snapshots, and the number of snapshots of each other
/// store. Between stores with equal numbers, the one with the newest snapshot wins.
pub fn largest_kin(past: Vec<Past>) -> (Option<KeyFamily>, Vec<Past>, Vec<(KeyFamily, usize)>) {
    let mut counts: HashMap<KeyFamily, (usize, usize)> = HashMap::new();
    for (at, one) in past.iter().enumerate() {
        let count = counts.entry(one.kin()).or_default();
        *count = (count.0 + 1, at);
    }
    let largest = counts.iter().max_by_key(|(_, count)| **count).map(|(kin, _)| kin.clone());
    let mut others: Vec<_> = counts
        .into_iter()
        .filter(|(kin, _)| Some(kin) != largest.as_ref())
        .map(|(kin, (count, _))| (kin, count))
        .collect();
    others.sort();
    let ours = past.into_iter().filter(|one| Some(one.kin()) == largest);
    (largest.clone(), ours.collect(), others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_snapshot::{Base, BaseItem, ItemEntry};

    fn index(own: &[&str], inherited: &[&str]) -> Index {
        let digest = Digest::hash(b"");
        let item = |name: &&str| ItemEntry {
            name: (*name).into(),
            frames: (0, 0),
            shared: Vec::new(),
            files: 1,
            disk: 0,
            nar_size: Some(1),
            nar_hash: Some("sha256:1".into()),
            used: None,
            fingerprint: None,
        };
        let theirs = |name: &&str| BaseItem {
            name: (*name).into(),
            nar_hash: "sha256:1".into(),
            used: None,
        };
        let base = Base {
            entry: "base".into(),
            index: digest,
            items: inherited.iter().map(theirs).collect(),
        };
        Index {
            format: 2,
            head: digest,
            head_bytes: 0,
            archive: digest,
            frames: Vec::new(),
            database: None,
            items_under: "nix/store".into(),
            items: own.iter().map(item).collect(),
            base: (!inherited.is_empty()).then_some(base),
            rows_only: None,
        }
    }

    #[test]
    fn delta_and_full_snapshot_of_the_same_items_are_equal() {
        let mut items = Items::default();
        let (full, numbers) = items.take(&index(&["a-1", "b-2", "c-3"], &[]));
        assert_eq!(items.take(&index(&["b-2"], &["c-3", "a-1"])), (full, numbers));
        assert_ne!(items.take(&index(&["b-2"], &["c-3"])).0, full);
    }
}
