//! Options of `key suggest`.

use super::{BackendOptions, OutputOptions};
use std::path::PathBuf;
use storecache_store::StoreKind;

#[derive(Debug, Clone)]
pub struct Suggest {
    pub snapshots: Snapshots,
    /// Read only snapshots of this kind of store; if `None`, of the kind that most snapshots have.
    pub kind: Option<StoreKind>,
    /// Read only snapshots whose keys have this prefix. May be empty.
    pub key_prefix: String,
    /// Read at most this many of the newest snapshots.
    pub max: usize,
    pub output: OutputOptions,
}

/// Source of past snapshots.
#[derive(Debug, Clone)]
pub enum Snapshots {
    Files(Vec<PathBuf>),
    /// In search order.
    Entries(Vec<BackendOptions>),
}
