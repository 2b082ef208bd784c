//! Flags of `key` and of what is below it.

use super::trust::TrustedKeysArgs;
use super::{CommonArgs, KeyArgs, LookArgs, OutputArgs, SimulateArgs, StoreArgs, SuggestArgs};
use crate::options::{DiffKeys, ShowKey};
use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct KeyVerbArgs {
    #[command(subcommand)]
    pub part: Option<KeyPart>,
    #[command(flatten)]
    pub show: ShowKeyArgs,
}

#[derive(Debug, Subcommand)]
pub enum KeyPart {
    /// Show what moved in the key between two commits, the work tree, or two snapshots
    Diff(Box<DiffArgs>),
    /// Find the smallest set of ingredients that would have changed exactly when the store did
    Suggest(SuggestArgs),
    /// Replay the runs that git remembers, and say which keys would have served them best
    Simulate(Box<SimulateArgs>),
}

#[derive(Debug, Args)]
pub struct ShowKeyArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Show every ingredient, what of it counts, its digest, and what is suspicious about it
    #[arg(long)]
    explain: bool,
    /// Take what is not given here from the step of the workflow that uses storecache
    #[arg(long)]
    from_step: bool,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The state before: a commit, `.` for the work tree, the file of a snapshot, or an entry
    #[arg(default_value = "HEAD")]
    before: String,
    /// The state after
    #[arg(default_value = ".")]
    after: String,
    /// Take what is not given here from the step of the workflow that uses storecache, as it is in the
    /// state after
    #[arg(long)]
    from_step: bool,
    #[command(flatten)]
    common: CommonArgs,
}

impl ShowKeyArgs {
    pub fn options(self) -> Result<ShowKey> {
        Ok(ShowKey {
            // The key of a plain store does not depend on its directories.
            store: self.store.options_without_paths()?,
            key: self.key.options()?,
            output: self.output.options(),
            explain: self.explain,
            from_step: self.from_step,
        })
    }
}

impl DiffArgs {
    pub fn options(self) -> Result<DiffKeys> {
        let Self { before, after, from_step, common } = self;
        let look =
            LookArgs { file: None, trusted: TrustedKeysArgs::default(), common }.options()?;
        Ok(DiffKeys { before, after, look, from_step })
    }
}
