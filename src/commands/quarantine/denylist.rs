//! Memory of entries that failed their checks and cannot be moved: a small file of the user lists them, and
//! they are skipped.
//!
//! It is only an aid: if there is any problem with the file, nothing is remembered, and each restore detects
//! bad entries again.

use crate::config::Quarantine;
use crate::report::Quarantined;
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::time::Duration;
use storecache_backend as backend;
use storecache_backend::{EntryIdentity, EntryName, is_ahead, is_due, is_over};
use storecache_runtime::files::{DirPath, OpenDir};
use storecache_store::{LockKind, LockMode, lock_open};

/// Name of the file in the user's state directory.
const FILE: &str = "quarantine.json";

/// Only its owner has access.
const MODE: u32 = 0o600;

/// A larger file was not written by storecache.
const LIMIT: u64 = 1 << 20;

/// Maximum number of remembered entries; the oldest are dropped first.
const ENTRIES: usize = 200;

/// Maximum length of a reason in characters: parts of it come from the snapshot.
const REASON: usize = 1000;

/// Timeout for the lock. Other processes hold it only while they write the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// An entry that is remembered as bad.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remembered {
    /// See [`EntryIdentity::place`].
    pub place: String,
    /// See [`EntryIdentity::version`].
    #[serde(default)]
    identity: String,
    #[serde(flatten)]
    pub what: Quarantined,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// When expired entries were last removed, RFC 3339.
    swept: String,
    entries: Vec<Remembered>,
}

/// Everything that is remembered, in the order in which it was found.
pub fn all(place: Option<&DirPath>) -> Vec<Remembered> {
    let directory = place.and_then(|place| open(place).ok()?);
    directory.map(|directory| read(&directory).entries).unwrap_or_default()
}

/// The remembered entries that are still in a backend, as far as that can be determined.
pub fn of(
    backend: &dyn backend::Quarantine,
    options: &Quarantine,
) -> Vec<(EntryName, Quarantined)> {
    let now = Timestamp::now();
    let all = all(options.memory.as_ref()).into_iter();
    let named = all.filter_map(|it| Some((EntryName::parse(&it.what.entry)?, it)));
    let same = named.filter(|(name, it)| {
        let (place, version) = (it.place.clone(), it.identity.clone());
        !it.is_over(name, options.keep, now)
            && backend.recognizes(name, &EntryIdentity { place, version })
    });
    same.map(|(name, it)| (name, it.what)).collect()
}

/// Remembers an entry as bad.
///
/// # Errors
/// If there is no home directory, or the file cannot be written.
pub fn remember(
    backend: &dyn backend::Quarantine,
    name: &EntryName,
    what: &Quarantined,
    directory: Option<&DirPath>,
) -> Result<()> {
    let directory = directory.context("no home directory for the list of bad entries")?;
    let EntryIdentity { place, version: identity } = backend.identify(name);
    let mut what = what.clone();
    what.reason = what.reason.chars().take(REASON).collect();
    let new = Remembered { place, identity, what };
    change(directory, |memory| {
        memory.entries.retain(|it| it.place != new.place || it.what.entry != new.what.entry);
        memory.entries.push(new);
        let surplus = memory.entries.len().saturating_sub(ENTRIES);
        memory.entries.drain(..surplus);
    })
}

/// Removes expired entries, at most once an hour.
pub fn sweep(place: &DirPath, keep: Option<Duration>) -> Result<()> {
    let now = Timestamp::now();
    let Some(directory) = open(place)? else { return Ok(()) };
    let is_there = directory.facts(FILE).is_ok();
    if !is_there || !is_due(read(&directory).swept.parse().ok(), now) {
        return Ok(());
    }
    change(place, |memory| {
        memory.swept = now.to_string();
        memory.entries.retain_mut(|it| {
            if it.when().is_none_or(|when| is_ahead(when, now)) {
                it.what.when = now.to_string();
            }
            EntryName::parse(&it.what.entry).is_some_and(|name| !it.is_over(&name, keep, now))
        });
    })
}

impl Remembered {
    fn when(&self) -> Option<Timestamp> {
        self.what.when.parse().ok()
    }

    fn is_over(&self, name: &EntryName, keep: Option<Duration>, now: Timestamp) -> bool {
        self.when().zip(keep).is_some_and(|(when, keep)| is_over(name, when, keep, now))
    }
}

/// The directory; `None` if it does not exist.
fn open(place: &DirPath) -> io::Result<Option<OpenDir>> {
    place.open()?.map(OpenDir::check_own).transpose()
}

fn read(directory: &OpenDir) -> Memory {
    let mut bytes = Vec::new();
    let read = directory.open_file(FILE).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes));
    read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Rewrites the file atomically. Concurrent runs wait for each other.
fn change(place: &DirPath, change: impl FnOnce(&mut Memory)) -> Result<()> {
    let path = place.path();
    let context = || format!("write {}", path.join(FILE).display());
    let directory = place.make().and_then(OpenDir::check_own).with_context(context)?;
    let held = directory.readable().with_context(context)?;
    let going_on = || Ok(());
    let _lock = lock_open(held, &path, LockKind::Flock, LockMode::Exclusive, PATIENCE, &going_on)
        .with_context(context)?;
    let mut memory = read(&directory);
    change(&mut memory);
    directory.replace(FILE, &serde_json::to_vec_pretty(&memory)?, MODE).with_context(context)
}
