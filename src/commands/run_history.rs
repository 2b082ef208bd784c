//! The record of the last saves and restores of this user: a file with one line for each run, for `doctor`.
//!
//! It is only an aid: a run works without it.

use crate::report::{Hit, Outcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read};
use storecache_runtime::files::{DirPath, Foreign, OpenDir};

/// Name of the file in the user's state directory.
const FILE: &str = "runs.jsonl";
/// Only its owner has access.
const MODE: u32 = 0o600;

/// Number of runs that are kept.
const KEPT: usize = 20;
/// Number of characters of a reason that are kept.
const REASON: usize = 300;
/// A larger file is not a record of runs, in bytes.
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
    fn from_outcome(outcome: &Outcome) -> Self {
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

/// Records a run. Returns a warning if another user controls the directory, which this user should know.
/// Other failures are ignored, because they are not failures of the run.
pub fn record(outcome: &Outcome) -> Option<String> {
    if outcome.dry_run {
        return None;
    }
    let error = add(Run::from_outcome(outcome)).err()?;
    Foreign::is(&error).then(|| format!("this run is not recorded: {error}"))
}

fn add(run: Run) -> io::Result<()> {
    let no_home = || io::Error::other("no home directory for the history of runs");
    let place = DirPath::state().ok_or_else(no_home)?;
    let directory = place.make().and_then(OpenDir::check_own)?;
    let mut runs = read_in(&directory);
    runs.push(run);
    let dropped = runs.len().saturating_sub(KEPT);
    let mut text = String::new();
    for run in &runs[dropped..] {
        text += &serde_json::to_string(run)?;
        text.push('\n');
    }
    // If two runs end at the same time, the record of one may be lost, but the file stays intact.
    directory.replace(FILE, text.as_bytes(), MODE)
}

/// Returns the recorded runs, the newest last. Lines that cannot be parsed are left out.
///
/// # Errors
/// If another user controls the directory.
pub fn read() -> io::Result<Vec<Run>> {
    let Some(place) = DirPath::state() else { return Ok(Vec::new()) };
    match place.open().and_then(|opened| opened.map(OpenDir::check_own).transpose()) {
        Ok(Some(directory)) => Ok(read_in(&directory)),
        Err(e) if Foreign::is(&e) => Err(e),
        _ => Ok(Vec::new()),
    }
}

fn read_in(directory: &OpenDir) -> Vec<Run> {
    let mut text = String::new();
    let read = directory.open_file(FILE).and_then(|file| {
        let whole = file.metadata()?.len() <= LIMIT;
        if whole { file.take(LIMIT).read_to_string(&mut text) } else { Ok(0) }
    });
    if read.is_err() {
        return Vec::new();
    }
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
