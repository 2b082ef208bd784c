//! Memory of entries that failed their checks and cannot be moved: a small file of the user lists them, and
//! they are skipped.
//!
//! It is only an aid: if there is any problem with the file, nothing is remembered, and each restore detects
//! bad entries again.

use super::{EntryIdentity, Fate, Quarantine, QuarantineList, Quarantined, fate, is_due};
use crate::EntryName;
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::time::{Duration, Instant};
use storecache_runtime::files::{DirPath, OpenDir};
use storecache_runtime::liveness::POLL_INTERVAL;

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
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The list of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denylist {
    /// Directory of the file.
    place: DirPath,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    /// See [`EntryIdentity::place`].
    place: String,
    /// See [`EntryIdentity::version`].
    #[serde(default)]
    identity: String,
    #[serde(flatten)]
    what: Quarantined,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// When expired entries were last removed, RFC 3339.
    swept: String,
    entries: Vec<Remembered>,
}

impl Denylist {
    /// Returns the list of this user, or `None` if no home directory is known.
    pub fn of_user() -> Option<Self> {
        Some(Denylist { place: DirPath::state()? })
    }

    /// Returns all remembered entries of a place, in the order in which they were found.
    pub fn entries_of(&self, place: &(impl QuarantineList + ?Sized)) -> Vec<Quarantined> {
        self.all().into_iter().filter(|it| place.is_at(&it.place)).map(|it| it.what).collect()
    }

    /// Returns the remembered entries that a backend still has, as far as that can be determined, unless they are to
    /// be kept no longer than `keep` and are older.
    pub fn known(
        &self,
        backend: &(impl Quarantine + ?Sized),
        keep: Option<Duration>,
    ) -> Vec<(EntryName, Quarantined)> {
        let now = Timestamp::now();
        let named = self.all().into_iter();
        let named = named.filter_map(|it| Some((EntryName::parse(&it.what.entry)?, it)));
        let same = named.filter(|(name, it)| {
            let (place, version) = (it.place.clone(), it.identity.clone());
            it.fate(name, keep, now) != Fate::Delete
                && backend.recognizes(name, &EntryIdentity { place, version })
        });
        same.map(|(name, it)| (name, it.what)).collect()
    }

    /// Remembers an entry as bad.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember(&self, identity: EntryIdentity, what: &Quarantined) -> Result<()> {
        let EntryIdentity { place, version: identity } = identity;
        let mut what = what.clone();
        what.reason = what.reason.chars().take(REASON).collect();
        let new = Remembered { place, identity, what };
        self.change(|memory| {
            memory.entries.retain(|it| it.place != new.place || it.what.entry != new.what.entry);
            memory.entries.push(new);
            let surplus = memory.entries.len().saturating_sub(ENTRIES);
            memory.entries.drain(..surplus);
        })
    }

    /// Removes expired entries, at most once an hour.
    pub fn sweep(&self, keep: Option<Duration>) -> Result<()> {
        let now = Timestamp::now();
        let Some(directory) = open(&self.place)? else { return Ok(()) };
        let is_there = directory.facts(FILE).is_ok();
        if !is_there || !is_due(read(&directory).swept.parse().ok(), now) {
            return Ok(());
        }
        self.change(|memory| {
            memory.swept = now.to_string();
            memory.entries.retain_mut(|it| {
                let Some(name) = EntryName::parse(&it.what.entry) else { return false };
                let fate = it.fate(&name, keep, now);
                if fate == Fate::CountFromNow {
                    it.what.when = now.to_string();
                }
                fate != Fate::Delete
            });
        })
    }

    fn all(&self) -> Vec<Remembered> {
        let directory = open(&self.place).ok().flatten();
        directory.map(|directory| read(&directory).entries).unwrap_or_default()
    }

    /// Rewrites the file atomically. Concurrent runs wait for each other.
    fn change(&self, change: impl FnOnce(&mut Memory)) -> Result<()> {
        let context = || format!("write {}", self.place.path().join(FILE).display());
        let directory = self.place.make().and_then(OpenDir::check_own).with_context(context)?;
        let locked = directory.readable().with_context(context)?;
        lock(&locked).with_context(context)?;
        let mut memory = read(&directory);
        change(&mut memory);
        directory.replace(FILE, &serde_json::to_vec_pretty(&memory)?, MODE).with_context(context)
    }
}

impl Remembered {
    fn fate(&self, name: &EntryName, keep: Option<Duration>, now: Timestamp) -> Fate {
        fate(name, self.what.when.parse().ok(), keep, now)
    }
}

/// Waits for an exclusive lock, which ends when the file is closed.
fn lock(file: &File) -> Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(POLL_INTERVAL)
            }
            Err(TryLockError::WouldBlock) => {
                bail!("another process has locked it for {} s", LOCK_PATIENCE.as_secs())
            }
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
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
