//! The state file that a restore leaves for the save of the same job.
//!
//! It is only an aid: any problem with it becomes a warning, and the save continues as if there had been no
//! restore.

use super::resolve;
use crate::config::{Restore, Save, StoreOptions};
use crate::report::{Hit, Outcome};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use storecache_entry::Digest;
use storecache_key::KeyOptions;
use storecache_runtime::advice::in_one_line;
use storecache_runtime::files::OpenDir;

/// The version that this program writes, and the only one that it reads.
const VERSION: u64 = 1;

/// A larger file cannot be a state file: the names of a million items fit into this size.
const LIMIT: u64 = 256 << 20;

/// Unknown fields are ignored, so that a later program may add some.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "state")]
    version: u64,
    /// When the restore ended, RFC 3339 in UTC.
    pub when: String,
    /// File-system root of the store.
    root: PathBuf,
    /// The ingredients of the key's hash.
    pub ingredients: BTreeMap<String, Digest>,
    /// Names of the items that were valid before the restore; `None` if the restore failed before that was
    /// known.
    pub baseline: Option<Vec<String>>,
    /// The items that the restore made valid, with their last use in seconds since 1970 if the snapshot
    /// records it.
    #[serde(default)]
    pub restored: BTreeMap<String, Option<u64>>,
    /// The report of the restore.
    pub restore: Outcome,
}

/// Data for the state file that a restore collects while it runs.
#[derive(Default)]
pub struct RestoreStart {
    pub ingredients: BTreeMap<String, Digest>,
    pub baseline: Option<Vec<String>>,
    pub restored: BTreeMap<String, Option<u64>>,
}

impl State {
    /// Writes the state of a restore that has ended, if the options name a file for it. Returns a warning if that
    /// failed.
    pub fn leave(options: &Restore, begun: RestoreStart, report: &Outcome) -> Option<String> {
        let path = options.state.as_ref()?;
        let state = State {
            version: VERSION,
            when: Timestamp::now().to_string(),
            root: options.store.root.clone(),
            ingredients: begun.ingredients,
            baseline: begun.baseline,
            restored: begun.restored,
            restore: report.clone(),
        };
        let error = state.write(path).err()?;
        Some(format!(
            "the state for the save was not written, so the save will include everything: {}",
            in_one_line(error.as_ref())
        ))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self)?;
        let replaced = place(path).and_then(|(directory, name)| {
            // Only its owner can read it.
            Ok(directory.replace(name, &bytes, 0o600)?)
        });
        replaced.with_context(|| format!("write {}", path.display()))
    }

    /// Reads the state that the restore of this job has left, if the options name it.
    ///
    /// # Errors
    /// If it cannot be used. The save then includes all valid items.
    pub fn find(options: &Save) -> Result<Option<Self>> {
        let Some(path) = &options.state else { return Ok(None) };
        let state = Self::read(path).and_then(|state| state.check_store(&options.store));
        let context = || {
            let path = path.display();
            format!("the state file {path} cannot be used, so the save includes all valid items")
        };
        state.map(Some).with_context(context)
    }

    /// Checks that the state is of the store that the options name.
    ///
    /// # Errors
    /// If it is of another store.
    fn check_store(self, store: &StoreOptions) -> Result<Self> {
        let (kind, theirs) = (resolve::kind(store)?.to_string(), &self.restore.store);
        if self.root != store.root {
            bail!("it belongs to the store below {}", self.root.display());
        }
        // A restore that failed early does not know the kind.
        if !theirs.is_empty() && *theirs != kind {
            bail!("it belongs to a {theirs} store, but this is a {kind} store");
        }
        Ok(self)
    }

    fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct VersionOnly {
            state: u64,
        }
        let mut bytes = Vec::new();
        let (directory, name) = place(path)?;
        let file = directory.open_file(name).context("open it")?;
        file.take(LIMIT).read_to_end(&mut bytes)?;
        let VersionOnly { state } =
            serde_json::from_slice(&bytes).context("it is damaged or not a state file")?;
        if state != VERSION {
            bail!("it has version {state}, but this storecache reads version {VERSION}");
        }
        serde_json::from_slice(&bytes).context("it is damaged")
    }

    /// The key that the restore looked for, unless the options contain an explicit key. Changes that the job
    /// made to its files since then do not count.
    pub fn key(&self, options: &KeyOptions) -> KeyOptions {
        if options.key.is_some() || self.restore.key.is_empty() {
            return options.clone();
        }
        KeyOptions {
            key: Some(self.restore.key.clone()),
            hash_files: Vec::new(),
            workflow: None,
            ..options.clone()
        }
    }

    /// Seconds since the restore ended; `None` if the clock was set back.
    pub fn job_seconds(&self) -> Option<f64> {
        let when: Timestamp = self.when.parse().ok()?;
        let seconds = Timestamp::now().duration_since(when).as_secs_f64();
        (seconds >= 0.0).then_some(seconds)
    }

    /// Duration of the job when it begins with a miss: the duration of this job, or the one that the snapshot
    /// recorded.
    pub fn cold_seconds(&self) -> Option<f64> {
        let Outcome { hit, dry_run, items, .. } = &self.restore;
        // A lookup alone does not restore anything either.
        let looked_only = items.restored + items.present == 0;
        let nothing_came = *hit == Hit::Miss || *dry_run || looked_only;
        if nothing_came { self.job_seconds() } else { self.restore.seconds.cold }
    }
}

/// Opens the directory of the state file and returns the file's name in it. A restore writes a regular file,
/// so only a regular file is read.
fn place(path: &Path) -> Result<(OpenDir, &OsStr)> {
    let name = path.file_name().context("not the name of a file")?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((OpenDir::open(directory)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_seconds_are_kept_after_a_hit_and_not_after_a_miss() {
        let after = |hit, restored, dry_run| {
            let mut restore = Outcome { hit, dry_run, ..Outcome::default() };
            restore.items.restored = restored;
            restore.seconds.cold = Some(1e9);
            let when = Timestamp::now().to_string();
            let (root, ingredients) = (PathBuf::from("/"), BTreeMap::new());
            let (baseline, restored) = (None, BTreeMap::new());
            State { version: VERSION, when, root, ingredients, baseline, restored, restore }
        };
        let remembered = |state: State| state.cold_seconds() == Some(1e9);
        assert!(remembered(after(Hit::Exact, 1, false)));
        assert!(remembered(after(Hit::Prefix, 1, false)));
        assert!(!remembered(after(Hit::Miss, 0, false)));
        assert!(!remembered(after(Hit::Exact, 1, true)));
        assert!(!remembered(after(Hit::Exact, 0, false)));
        let tomorrow = Timestamp::now() + jiff::SignedDuration::from_hours(24);
        let ahead = State { when: tomorrow.to_string(), ..after(Hit::Miss, 0, false) };
        assert_eq!(ahead.cold_seconds(), None, "a clock that was set back");
    }
}
