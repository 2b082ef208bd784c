//! What `key simulate` is asked.

use super::{BackendOptions, OutputOptions};
use crate::key::KeyOptions;
use crate::key::simulate::KeyPolicy;
use jiff::Timestamp;
use std::path::PathBuf;

/// A simulation of the runs that git remembers.
#[derive(Debug, Clone)]
pub struct Simulate {
    /// Which workflow, and how it counts.
    pub key: KeyOptions,
    /// Besides the built-in ones.
    pub policies: Vec<KeyPolicy>,
    pub output: OutputOptions,
    /// File for a page with plots.
    pub html: Option<PathBuf>,
    /// Found out when not given.
    pub default_branch: Option<String>,
    pub since: Since,
    /// Leave out commits that the workflow of today has no trigger for.
    pub as_triggered: bool,
    /// The newest so many commits.
    pub max: Option<usize>,
    /// Files that say what the store of a commit has to hold; the workflow and lock files when there are
    /// none.
    pub truth: Vec<String>,
    /// Where snapshots of the past are, for sizes and times.
    pub backend: Option<BackendOptions>,
    /// Bytes of an entry.
    pub entry_size: Option<u64>,
    /// How much of a full entry is saved by a job that restored another one.
    pub delta_share: f64,
    /// Of a job that began with a miss.
    pub cold_minutes: Option<f64>,
    /// Of a job that found all that it needs.
    pub hit_minutes: f64,
    /// The part of what a full hit saves that is saved by something near it.
    pub prefix_share: f64,
    /// Bytes that a repository may keep.
    pub limit: u64,
    /// Days without use after which an entry goes.
    pub idle_days: u32,
}

/// Where a simulation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Time(Timestamp),
    /// So many seconds before the newest commit.
    Age(i64),
}
