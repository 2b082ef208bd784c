//! What `key suggest` was asked for.

use super::{BackendOptions, OutputOptions};
use crate::store::StoreKind;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Suggest {
    pub snapshots: Snapshots,
    /// Look at stores of this kind alone; at those that most snapshots are of when not given.
    pub kind: Option<StoreKind>,
    /// Look at snapshots alone whose keys begin so. May be empty.
    pub key_prefix: String,
    /// The newest so many are looked at.
    pub max: usize,
    pub output: OutputOptions,
}

/// Where past snapshots are.
#[derive(Debug, Clone)]
pub enum Snapshots {
    Files(Vec<PathBuf>),
    /// In the order in which they are asked.
    Entries(Vec<BackendOptions>),
}
