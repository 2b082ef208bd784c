//! Options of the commands about all entries of a backend: `list`, `usage` and `prune`.

use super::OutputOptions;
use clap::ValueEnum;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use storecache_backend::Denylist;
use storecache_backend::options::{ObjectStore, RepositoryOptions};
use storecache_runtime::files::DirPath;

/// Backend whose entries are listed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventoryOptions {
    Directory { path: DirPath },
    Repository(Box<RepositoryOptions>),
    Objects(Box<ObjectStore>),
}

impl InventoryOptions {
    /// Returns the path of a backend that is a directory.
    pub fn directory(&self) -> Option<&DirPath> {
        match self {
            InventoryOptions::Directory { path } => Some(path),
            InventoryOptions::Repository(_) | InventoryOptions::Objects(_) => None,
        }
    }
}

/// Options of `list`.
#[derive(Debug, Clone)]
pub struct List {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    /// Storage limit of the cache, in bytes.
    pub limit: u64,
    /// Only keys with this prefix.
    pub prefix: Option<String>,
    /// Only entries of this full ref.
    pub reference: Option<String>,
    pub order: Order,
    /// Only entries that storecache saved.
    pub ours: bool,
    /// The list of entries which failed their checks and could not be moved.
    pub denylist: Option<Denylist>,
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

/// Options of `usage`.
#[derive(Debug, Clone)]
pub struct Usage {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    /// Storage limit of the cache, in bytes.
    pub limit: u64,
    /// Bytes that will be saved, to predict the next eviction.
    pub more: Option<u64>,
    /// File for an HTML page with tables.
    pub html: Option<PathBuf>,
}

/// Options of `prune`.
#[derive(Debug, Clone)]
pub struct Prune {
    pub inventory: InventoryOptions,
    pub output: OutputOptions,
    pub pruning: Pruning,
    /// Delete the entries instead of only listing them.
    pub apply: bool,
}

/// Which entries can be deleted.
#[derive(Debug, Clone)]
pub struct Pruning {
    /// Generations of each key and ref to keep.
    pub keep: NonZeroUsize,
    /// Days without use after which an entry can be deleted; `None` means never for that reason.
    pub unused_for: Option<u32>,
    /// Only keys with this prefix, including keys of other tools.
    pub prefix: Option<String>,
    /// Only entries that can be deleted for one of these reasons; any reason if empty.
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

/// Why an entry can be deleted, in the order in which the reasons are checked.
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
