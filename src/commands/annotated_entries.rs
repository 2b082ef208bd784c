//! Everything that a backend holds, with the known facts about each entry. `list`, `usage` and `prune` start
//! with this.

use super::key_stem::stem;
use super::open_entry::EntryKind;
use super::resolve::skipped_in_words;
use crate::config::InventoryOptions;
#[cfg(not(all(feature = "github", feature = "object-store")))]
use crate::config::not_built_in;
use crate::report::EntryRow;
use anyhow::Result;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::path::Path;
#[cfg(feature = "github")]
use storecache_backend::github::Repository;
#[cfg(feature = "object-store")]
use storecache_backend::object_store::Objects;
use storecache_backend::{Directory, EntryName, Inventory, Record};
use storecache_entry::Digest;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use storecache_snapshot::{FORMAT, Opened, SnapshotError, cache_version_of, open};
use storecache_store::{Layout, StoreKind, systems};

/// Opens the backend that the options name.
#[cfg_attr(not(any(feature = "github", feature = "object-store")), expect(unused_variables))]
pub fn open_inventory(run: &RunContext, options: &InventoryOptions) -> Result<Box<dyn Inventory>> {
    Ok(match options {
        InventoryOptions::Directory { path } => Box::new(Directory::new(path.clone(), true)),
        #[cfg(feature = "object-store")]
        InventoryOptions::Objects(store) => {
            // List entries of every layout, not only of the one that a save from here would use.
            Box::new(Objects::new(run, store, "")?)
        }
        #[cfg(feature = "github")]
        InventoryOptions::Repository(repository) => Box::new(Repository::new(run, repository)?),
        #[cfg(not(feature = "object-store"))]
        InventoryOptions::Objects(store) => {
            return Err(not_built_in(store.address.service.scheme()));
        }
        #[cfg(not(feature = "github"))]
        InventoryOptions::Repository(_) => return Err(not_built_in("github")),
    })
}

/// A file or cache entry in the backend, with the known facts about it.
#[derive(Debug, Clone)]
pub struct ListedEntry {
    pub record: Record,
    pub use_of_it: Use,
    /// How it relates to deltas; `None` if it cannot be read here.
    pub standing: Option<EntryKind>,
    /// A digest that is equal for entries with the same content; `None` if the content cannot be read here.
    pub content: Option<Digest>,
    /// Kind and system of its store.
    pub store: Option<(StoreKind, String)>,
}

/// Whether a restore can use an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    Some,
    /// No version of storecache can use it any more; with the reason.
    None(String),
    /// This version cannot use it, but another version may; with the reason.
    Elsewhere(String),
    /// Another tool wrote it, or it cannot be read at the moment.
    Unknown,
}

impl ListedEntry {
    /// Whether storecache wrote this entry, judging by its name.
    pub fn is_ours(&self) -> bool {
        self.record.name.is_some()
    }

    /// The key without the generation.
    pub fn key(&self) -> &str {
        self.record.name.as_ref().map_or(&self.record.key, |name| &name.key)
    }

    /// The part that its key has in common with keys of other runs.
    pub fn stem(&self) -> &str {
        stem(self.key())
    }

    /// Time of the last use: the last read, or the save if it was not read since.
    pub fn used(&self) -> Option<Timestamp> {
        self.record.used.max(self.record.created)
    }

    /// Number of the pull request that it belongs to.
    pub fn pull(&self) -> Option<u64> {
        let rest = self.record.reference.as_deref()?.strip_prefix("refs/pull/")?;
        rest.split('/').next()?.parse().ok()
    }

    /// Why this version of storecache cannot use it.
    pub fn unreadable(&self) -> Option<&str> {
        match &self.use_of_it {
            Use::None(why) | Use::Elsewhere(why) => Some(why),
            Use::Some | Use::Unknown => None,
        }
    }

    /// The entry as a row of the report.
    pub fn row(&self, limit: u64, now: Timestamp) -> EntryRow {
        let Record { id, key, name, reference, version, size, created, .. } = &self.record;
        let seconds = |time: Timestamp| now.as_second().saturating_sub(time.as_second());
        EntryRow {
            id: id.clone(),
            key: key.clone(),
            generation: name.as_ref().map(|name| name.generation.to_string()),
            reference: reference.clone(),
            version: version.clone(),
            store: self.store.as_ref().map(|(kind, _)| kind.name().to_owned()),
            system: self.store.as_ref().map(|(_, system)| system.clone()),
            size: *size,
            share: share(*size, limit),
            created: created.map(|time| time.to_string()),
            last_used: self.used().map(|time| time.to_string()),
            age: created.map(seconds),
            unused_for: self.used().map(seconds),
            ours: self.is_ours(),
            base: self.standing.as_ref().and_then(EntryKind::base).map(ToString::to_string),
            content: self.content.map(|digest| digest.to_string()),
            unreadable: self.unreadable().map(str::to_owned),
        }
    }
}

/// A size as a fraction of the limit.
pub fn share(size: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { size as f64 / limit as f64 }
}

/// Returns everything that the backend holds. A failure to read one entry becomes a warning.
pub fn read(
    context: &RunContext,
    inventory: &dyn Inventory,
    warnings: &mut Vec<String>,
) -> Result<Vec<ListedEntry>> {
    let layouts = layouts();
    let mut all = Vec::new();
    let records = inventory.records()?;
    // The only damage that a listing shows for an object with the name of an entry is that it is not a file.
    let skipped = records.iter().filter_map(|record| {
        Some((Directory::entry_of(&record.id)?.to_string(), record.damage.clone()?))
    });
    warnings.extend(skipped_in_words(&skipped.collect::<Vec<_>>()));
    for record in records {
        context.check_canceled()?;
        let opened = match record.name {
            Some(_) if record.damage.is_none() => inventory.look(&record),
            _ => None,
        };
        all.push(match opened {
            None => unopened(record, &layouts),
            Some(Err(e)) => {
                warnings.push(format!(
                    "{} cannot be opened: {}",
                    record.key,
                    in_one_line(e.as_ref())
                ));
                held(record, Use::Unknown)
            }
            Some(Ok(mut reader)) => {
                let size = reader.size();
                looked_at(record, size, &mut |at, buffer| reader.read_at(at, buffer), warnings)
            }
        });
    }
    let there: HashSet<EntryName> =
        all.iter().filter_map(|held| held.record.name.clone()).collect();
    for held in &mut all {
        let base = held.standing.as_ref().and_then(EntryKind::base);
        if let Some(base) = base.filter(|base| !there.contains(*base)) {
            held.use_of_it = Use::None(format!("its base {base} is gone"));
        }
    }
    Ok(all)
}

fn held(record: Record, use_of_it: Use) -> ListedEntry {
    ListedEntry { record, use_of_it, standing: None, content: None, store: None }
}

/// Facts that follow from the layout, for an entry that cannot be read from here.
fn unopened(record: Record, layouts: &HashMap<String, (StoreKind, String, u64)>) -> ListedEntry {
    if let Some(damage) = &record.damage {
        let why = damage.clone();
        return held(record, Use::None(why));
    }
    if record.name.is_none() {
        return held(record, Use::Unknown);
    }
    match record.version.as_ref().and_then(|version| layouts.get(version)).cloned() {
        None => {
            let version = env!("CARGO_PKG_VERSION");
            let why = format!("its layout is unknown to storecache {version}");
            held(record, Use::Elsewhere(why))
        }
        Some((kind, system, format)) => {
            let old = format!(
                "it was saved for readers of format {format}, and is not looked up any more"
            );
            let use_of_it = if format == FORMAT { Use::Some } else { Use::None(old) };
            ListedEntry { store: Some((kind, system)), ..held(record, use_of_it) }
        }
    }
}

type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> std::io::Result<()> + 'a;

/// Facts that the entry itself contains.
fn looked_at(
    mut record: Record,
    size: u64,
    read_at: &mut ReadAt<'_>,
    warnings: &mut Vec<String>,
) -> ListedEntry {
    let Opened { head, index, .. } = match open(size, read_at) {
        Ok(opened) => opened,
        Err(SnapshotError::Io(e)) => {
            warnings.push(format!("{} cannot be read: {e}", record.key));
            return held(record, Use::Unknown);
        }
        Err(e @ SnapshotError::NewerFormat { .. }) => {
            return ListedEntry {
                standing: Some(EntryKind::Alone),
                ..held(record, Use::Elsewhere(e.to_string()))
            };
        }
        Err(e) => {
            return ListedEntry {
                standing: Some(EntryKind::Alone),
                ..held(record, Use::None(e.to_string()))
            };
        }
    };
    record.version = Some(head.cache_version().to_string());
    record.reference = Some(head.origin.reference.raw().to_owned()).filter(|name| !name.is_empty());
    let standing = Some(EntryKind::of_head(&head));
    let kind = StoreKind::parse(head.store.kind.raw()).ok();
    let store = kind.map(|kind| (kind, head.store.system.raw().to_owned()));
    ListedEntry { record, use_of_it: Use::Some, standing, content: Some(index.content()), store }
}

/// Kind, system and newest format of every layout that exists or existed.
fn layouts() -> HashMap<String, (StoreKind, String, u64)> {
    let mut known = HashMap::new();
    for kind in StoreKind::ALL {
        let layout = Layout::new(kind, Path::new("/"));
        let store_dir = layout.map_or("", |layout| layout.store_dir);
        for system in systems() {
            for format in 1..=FORMAT {
                let version = cache_version_of(format, kind.name(), store_dir, &system);
                known.insert(version.to_string(), (kind, system.clone(), format));
            }
        }
    }
    known
}
