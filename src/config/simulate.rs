//! Options of `key simulate`.

use super::{BackendOptions, OutputOptions};
use jiff::Timestamp;
use std::path::PathBuf;
use storecache_key::KeyOptions;
use storecache_key::simulate::KeyPolicy;

/// Options of `key simulate`, which replays the runs of the git history.
#[derive(Debug, Clone)]
pub struct Simulate {
    /// Selects the workflow, and how it goes into the key.
    pub key: KeyOptions,
    /// Policies in addition to the built-in ones.
    pub policies: Vec<KeyPolicy>,
    pub output: OutputOptions,
    /// File for an HTML page with tables.
    pub html: Option<PathBuf>,
    /// Detected if `None`.
    pub default_branch: Option<String>,
    pub since: Since,
    /// Skip commits that do not trigger the current workflow.
    pub as_triggered: bool,
    /// Replay only this many of the newest commits; all if `None`.
    pub max: Option<usize>,
    /// Files that determine what the store of a commit must contain; a built-in choice if empty.
    pub truth: Vec<String>,
    /// Backend with past snapshots, whose sizes and times are used.
    pub backend: Option<BackendOptions>,
    /// Size of an entry in bytes.
    pub entry_size: Option<u64>,
    /// Fraction of a full entry that a job saves after it restored another entry.
    pub delta_share: f64,
    /// Minutes that a job takes after a miss.
    pub cold_minutes: Option<f64>,
    /// Minutes that a job takes if the store has everything that it needs.
    pub hit_minutes: f64,
    /// Fraction of a full hit's time saving that a partial hit achieves.
    pub prefix_share: f64,
    /// Limit on the total size of all entries of a repository, in bytes.
    pub limit: u64,
    /// Days without use after which an entry is evicted.
    pub idle_days: u32,
}

/// Start of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Time(Timestamp),
    /// This many seconds before the newest commit.
    Age(i64),
}
