//! Flags of `key suggest`.

use super::{BackendArgs, OutputArgs, Store};
use crate::config::{Snapshots, Suggest};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SuggestArgs {
    /// Snapshot files to read [default: the entries of the backend]
    #[arg(conflicts_with = "backend")]
    files: Vec<PathBuf>,
    /// Kind of store; auto is the kind of most snapshots
    #[arg(long, value_enum, default_value_t = Store::Auto)]
    store: Store,
    /// Read only snapshots whose keys have this prefix
    #[arg(long, value_name = "TEXT")]
    key_prefix: Option<String>,
    #[command(flatten)]
    backends: BackendArgs,
    /// Read only the N newest snapshots
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max: u32,
    #[command(flatten)]
    output: OutputArgs,
}

impl SuggestArgs {
    pub fn options(self) -> Result<Suggest> {
        let key_prefix = self.key_prefix.unwrap_or_default();
        if key_prefix.contains(',') {
            bail!("not a valid key prefix: {key_prefix:?}; keys have no commas");
        }
        let snapshots = match self.files.is_empty() {
            false => Snapshots::Files(self.files),
            true => Snapshots::Entries(self.backends.options()?),
        };
        let kind = self.store.kind();
        let max = self.max as usize;
        let output = self.output.options();
        Ok(Suggest { snapshots, kind, key_prefix, max, output })
    }
}
