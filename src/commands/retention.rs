//! Chooses the entries to delete after a save: older generations of the same key that no other entry needs,
//! and nothing else.

use super::open_entry::EntryKind;
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use storecache_backend::{Backend, Entry, EntryName};
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use tracing::debug;

/// Superseded entries that were deleted, and those that stay.
pub struct Retained {
    /// Full names of the entries that were deleted.
    pub deleted: Vec<String>,
    /// Why others stay.
    pub warning: Option<String>,
}

/// Deletes generations older than the newest `keep` of the key that was just saved. The new entry has been
/// written by now, so a failure becomes a warning, and the next save deletes the rest. Known `bad` entries do
/// not count as generations.
pub fn retain(
    context: &RunContext,
    backend: &dyn Backend,
    written: &Entry,
    keep: NonZeroUsize,
    bad: &[EntryName],
) -> Retained {
    let list = |rung: Rung| -> Result<Vec<Entry>> { Ok(backend.entries(&rung)?.0) };
    let chosen = list(Rung::Exact(written.name.key.clone())).and_then(|entries| {
        let standing = |name: &EntryName| {
            EntryKind::find(backend, name).with_context(|| format!("find the base of {name}"))
        };
        // Deltas of other keys may need an entry of this key.
        let all = || list(Rung::Prefix(String::new()));
        unneeded(superseded(entries, written, keep, bad), written, &all, &standing)
    });
    let (deleted, warning) = match chosen {
        Ok(superseded) => {
            debug!(keep, superseded = superseded.len(), "chose superseded entries to delete");
            delete(context, backend, &superseded)
        }
        Err(e) => {
            (Vec::new(), Some(format!("superseded entries stay: {}", in_one_line(e.as_ref()))))
        }
    };
    // After a cancellation, any failure may be a consequence of it.
    Retained { deleted, warning: warning.filter(|_| !context.is_canceled()) }
}

/// First step of the choice: the old entries, newest first, and the `bad` ones.
fn superseded(
    mut entries: Vec<Entry>,
    written: &Entry,
    keep: NonZeroUsize,
    bad: &[EntryName],
) -> Vec<Entry> {
    // A backend may treat different keys as equal, or not list yet the entry that was just written.
    entries.retain(|entry| entry.name.key == written.name.key && entry.name != written.name);
    entries.push(written.clone());
    entries.sort_by(|a, b| b.name.generation.cmp(&a.name.generation));
    // Bad entries do not count towards `keep`.
    let (bad, good): (Vec<_>, _) = entries.into_iter().partition(|it| bad.contains(&it.name));
    let old = bad.into_iter().chain(good.into_iter().skip(keep.get()));
    // If the clock was set back, the entry that was just written may look old.
    old.filter(|entry| entry.name != written.name).collect()
}

/// Second step of the choice: removes entries from `old` that are the base of a delta that stays, whatever
/// the key of the delta. `all` lists every entry; `standing` returns the role of an entry.
fn unneeded(
    mut old: Vec<Entry>,
    written: &Entry,
    all: &dyn Fn() -> Result<Vec<Entry>>,
    standing: &dyn Fn(&EntryName) -> Result<EntryKind>,
) -> Result<Vec<Entry>> {
    let mut any_full = false;
    for entry in &old {
        any_full |= matches!(standing(&entry.name)?, EntryKind::Full);
    }
    if !any_full {
        return Ok(old);
    }
    let going: HashSet<&EntryName> = old.iter().map(|entry| &entry.name).collect();
    let listed = all()?;
    let staying = listed.iter().chain([written]).map(|entry| &entry.name);
    let mut needed = HashSet::new();
    for name in staying.filter(|name| !going.contains(name)) {
        needed.extend(standing(name)?.base().cloned());
    }
    old.retain(|entry| !needed.contains(&entry.name));
    Ok(old)
}

/// Deletes entries until one cannot be deleted. Returns the names of the deleted ones, and a warning about the others.
fn delete(
    context: &RunContext,
    backend: &dyn Backend,
    entries: &[Entry],
) -> (Vec<String>, Option<String>) {
    let mut deleted = Vec::new();
    for entry in entries {
        if context.is_canceled() {
            break;
        }
        if let Err(e) = backend.delete(entry) {
            let (all, stay) = (entries.len(), entries.len() - deleted.len());
            return (
                deleted,
                Some(format!(
                    "superseded entries stay, {stay} of {all}: {}",
                    in_one_line(e.as_ref())
                )),
            );
        }
        debug!(entry = %entry.name, bytes = entry.size, "deleted a superseded entry");
        deleted.push(entry.name.to_string());
    }
    (deleted, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: u8) -> Entry {
        named("k", second)
    }

    fn named(key: &str, second: u8) -> Entry {
        let name = EntryName::parse(&format!("{key}.20261122T0955{second:02}.000000Z")).unwrap();
        Entry { name, size: 1 }
    }

    fn chosen(seconds: &[u8], written: u8, keep: usize) -> Vec<u8> {
        let entries = seconds.iter().map(|&second| entry(second)).collect();
        let keep = NonZeroUsize::new(keep).unwrap();
        let gone = superseded(entries, &entry(written), keep, &[]);
        (0..60).rev().filter(|&second| gone.iter().any(|e| e.name == entry(second).name)).collect()
    }

    #[test]
    fn bad_entries_do_not_count_towards_keep() {
        let entries = [4, 3, 2, 1].map(entry).to_vec();
        let two = NonZeroUsize::new(2).unwrap();
        let gone = superseded(entries, &entry(4), two, &[entry(3).name]);
        let gone: Vec<_> = gone.into_iter().map(|entry| entry.name).collect();
        assert_eq!(gone, [entry(3).name, entry(1).name]);
    }

    #[test]
    fn newest_entries_and_the_new_one_are_kept() {
        assert_eq!(chosen(&[4, 3, 2, 1], 4, 2), [2, 1]);
        assert_eq!(chosen(&[1, 4], 4, 2), [0; 0]);
        // The new entry is not listed yet.
        assert_eq!(chosen(&[3, 2, 1], 4, 2), [2, 1]);
        assert_eq!(chosen(&[], 4, 1), [0; 0]);
        // Another run saved a later entry; that entry stays as well.
        assert_eq!(chosen(&[5, 4, 3], 4, 1), [3]);
        // The clock was set back.
        assert_eq!(chosen(&[9, 8, 7, 1], 1, 2), [7]);
        // Keys that differ in case are different keys.
        let entries = vec![named("K", 1), entry(2)];
        let gone = superseded(entries, &entry(3), NonZeroUsize::MIN, &[]);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].name, entry(2).name);
    }
}
