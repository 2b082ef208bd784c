//! The last saves and restores of this user: a file with a line for each, for `doctor`.
//!
//! It is a help and never a condition: a run goes on as well without it.

use crate::report::{Hit, Outcome};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

/// How many runs are kept.
const KEPT: usize = 20;
/// How much of a reason is kept, in characters.
const REASON: usize = 300;
/// A file larger than this is not ours, in bytes.
const LIMIT: u64 = 1 << 20;

/// One run. Unknown fields are ignored, so that a later program may add some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it ended, RFC 3339 in UTC.
    when: String,
    pub command: String,
    #[serde(default)]
    store: String,
    hit: Hit,
    #[serde(default)]
    entry: Option<String>,
    #[serde(default)]
    pub failed: bool,
    #[serde(default)]
    reason: Option<String>,
    seconds: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.when, self.command)?;
        match (&self.reason, &self.entry) {
            (Some(reason), _) if self.failed => write!(f, " failed: {reason}"),
            (Some(reason), None) => write!(f, ": {reason}"),
            (_, Some(entry)) if self.command == "save" => write!(f, " wrote {entry}"),
            (_, Some(entry)) => write!(f, " {} {entry}", self.hit.name()),
            (None, None) => write!(f, " {}", self.hit.name()),
        }?;
        write!(f, " ({:.1} s)", self.seconds)
    }
}

impl Run {
    fn of(outcome: &Outcome) -> Self {
        let reason = outcome.reason.as_ref();
        Run {
            when: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            command: outcome.command.into(),
            store: outcome.store.clone(),
            hit: outcome.hit,
            entry: outcome.entry.clone(),
            failed: outcome.failed,
            reason: reason.map(|reason| reason.chars().take(REASON).collect()),
            seconds: outcome.seconds.total,
        }
    }
}

/// Puts a run on record. Nobody is told when that fails.
pub fn record(outcome: &Outcome) {
    if !outcome.dry_run {
        let _ = add(Run::of(outcome));
    }
}

fn add(run: Run) -> Result<()> {
    let path = file().context("there is no home directory")?;
    let directory = path.parent().context("a file is in a directory")?;
    std::fs::create_dir_all(directory)?;
    let mut runs = read();
    runs.push(run);
    let dropped = runs.len().saturating_sub(KEPT);
    // Of two runs that end at once the record of one may be lost, but the file stays whole.
    let mut file = tempfile::Builder::new().prefix(".storecache-").tempfile_in(directory)?;
    for run in &runs[dropped..] {
        writeln!(file, "{}", serde_json::to_string(run)?)?;
    }
    file.persist(path)?;
    Ok(())
}

/// The runs on record, the newest last. What can not be read is left out.
pub fn read() -> Vec<Run> {
    let Some(path) = file() else { return Vec::new() };
    if path.metadata().is_ok_and(|metadata| metadata.len() > LIMIT) {
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Source of the place: XDG Base Directory Specification, state that is no cache.
fn file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("storecache/runs.jsonl"))
}
