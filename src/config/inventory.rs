//! What is asked of all that a backend holds.

use super::OutputOptions;
use crate::backend::github::RepositoryOptions;
use crate::backend::object_store::ObjectStore;
use crate::files::DirPath;
use clap::ValueEnum;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Where entries are counted and cleared away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventoryOptions {
    Directory { path: DirPath },
    Repository(Box<RepositoryOptions>),
    Objects(Box<ObjectStore>),
}

/// Entries to be listed.
#[derive(Debug, Clone)]
pub struct List {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    /// Bytes that there may be.
    pub limit: u64,
    /// Only keys that begin so.
    pub prefix: Option<String>,
    /// Only entries of this full ref.
    pub reference: Option<String>,
    pub order: Order,
    /// Only what a storecache has named.
    pub ours: bool,
    /// Directory of the file that remembers entries which failed their checks and could not be moved.
    pub memory: Option<DirPath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The newest first
    Age,
    /// The most recently used first
    Used,
    /// The largest first
    Size,
    Key,
}

/// What takes how much room.
#[derive(Debug, Clone)]
pub struct Usage {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    /// Bytes that there may be.
    pub limit: u64,
    /// Bytes that are saved before the next eviction.
    pub more: Option<u64>,
    /// File for a page with maps and plots.
    pub html: Option<PathBuf>,
}

/// Entries to be deleted.
#[derive(Debug, Clone)]
pub struct Prune {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    pub pruning: Pruning,
    /// Delete them, beside saying which.
    pub apply: bool,
}

/// Which entries can go.
#[derive(Debug, Clone)]
pub struct Pruning {
    /// Generations of each key and ref that stay.
    pub keep: NonZeroUsize,
    /// Days after which an entry that nobody used can go.
    pub unused_for: Option<u32>,
    /// Only keys that begin so, those of other tools too.
    pub prefix: Option<String>,
    /// For these reasons alone; for all when empty.
    pub only: Vec<PruneReason>,
}

impl Pruning {
    pub fn wants(&self, reason: PruneReason) -> bool {
        self.only.is_empty() || self.only.contains(&reason)
    }
}

impl Default for Pruning {
    fn default() -> Self {
        Pruning { keep: NonZeroUsize::MIN, unused_for: None, prefix: None, only: Vec::new() }
    }
}

/// Why an entry can go, in the order in which reasons are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum PruneReason {
    /// Its pull request is closed
    Closed,
    /// No storecache can use it
    Unreadable,
    /// Newer generations of its key exist
    Superseded,
    /// Another entry has the same content
    Duplicate,
    /// It was unused for the days of --unused-for
    Unused,
}

impl PruneReason {
    pub const ALL: [PruneReason; 5] = [
        PruneReason::Closed,
        PruneReason::Unreadable,
        PruneReason::Superseded,
        PruneReason::Duplicate,
        PruneReason::Unused,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PruneReason::Closed => "closed",
            PruneReason::Unreadable => "unreadable",
            PruneReason::Superseded => "superseded",
            PruneReason::Duplicate => "duplicate",
            PruneReason::Unused => "unused",
        }
    }
}
