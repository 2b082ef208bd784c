//! Flags of `key` and its subcommands.

use super::trust::TrustedKeysArgs;
use super::{CommonArgs, LookArgs, OutputArgs, SimulateArgs, StoreArgs, SuggestArgs};
use crate::config::{DiffKeys, ShowKey};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use storecache_key::{KeyOptions, WorkflowMode};

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
    /// Show what changed in the key between two commits, the work tree, or two snapshots
    Diff(Box<DiffArgs>),
    /// Find a small set of ingredients that would have changed exactly when the store did
    Suggest(SuggestArgs),
    /// Replay the runs of the git history, and report which keys would have worked best
    Simulate(Box<SimulateArgs>),
}

#[derive(Debug, Args)]
pub struct ShowKeyArgs {
    #[command(flatten, next_help_heading = "Store")]
    store: StoreArgs,
    #[command(flatten, next_help_heading = "Key")]
    key: KeyArgs,
    #[command(flatten, next_help_heading = "Output")]
    output: OutputArgs,
    /// Show every ingredient of the key, which part of it counts, its digest, and warnings about it
    #[arg(long, help_heading = "Output")]
    explain: bool,
    /// Take flags that are not given from the workflow step that uses storecache
    #[arg(long, help_heading = "Key")]
    from_step: bool,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Old state: a commit, `.` for the work tree, a snapshot file, or an entry
    #[arg(default_value = "HEAD")]
    before: String,
    /// New state
    #[arg(default_value = ".")]
    after: String,
    /// Take flags that are not given from the workflow step that uses storecache, as of the new state
    #[arg(long, help_heading = "Key")]
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

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Exact key, instead of one made from the flags below
    #[arg(long)]
    key: Option<String>,
    /// Prefix to try after the key; repeatable
    #[arg(long = "restore-key", value_name = "PREFIX")]
    restore_keys: Vec<String>,
    /// First part of the key
    #[arg(long, value_name = "TEXT", default_value = KeyOptions::PREFIX)]
    key_prefix: String,
    /// Version of the package manager in the key [default: as reported by the package manager]
    // The program prints its own version only for `--version` before the command.
    #[arg(long = "version", value_name = "VERSION", id = "package_manager_version")]
    version: Option<String>,
    /// Files to hash into the key; repeatable
    #[arg(long, value_name = "GLOB")]
    hash_files: Vec<String>,
    /// Workflow file that goes into the key
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// How the workflow goes into the key
    #[arg(long, value_enum, default_value_t = Workflow::Semantic, hide_short_help = true)]
    workflow_mode: Workflow,
    /// Job of the workflow that the key is for [default: the job that caches a store]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    workflow_job: Option<String>,
    /// Step of the workflow that counts for the key, by id, name or action, with wildcards; repeatable
    /// [default: all steps of the job]
    #[arg(long, value_name = "STEP", hide_short_help = true)]
    workflow_steps: Vec<String>,
    /// Action whose version does not change the key, with wildcards; repeatable
    ///
    /// This is in addition to actions/checkout, actions/cache and actions/upload-artifact. With `!` in front,
    /// the version of the action does change the key.
    #[arg(long, value_name = "ACTION", hide_short_help = true)]
    ignore_pins: Vec<String>,
}

/// The values of `--workflow-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workflow {
    /// The parts of it that can change the store, regardless of formatting.
    Semantic,
    /// The file's bytes.
    Bytes,
    /// Leave the workflow out of the key.
    None,
}

impl From<Workflow> for WorkflowMode {
    fn from(mode: Workflow) -> Self {
        match mode {
            Workflow::Semantic => WorkflowMode::Semantic,
            Workflow::Bytes => WorkflowMode::Bytes,
            Workflow::None => WorkflowMode::None,
        }
    }
}

impl KeyArgs {
    pub(super) fn options(self) -> Result<KeyOptions> {
        let keys = self.key.iter().chain(&self.restore_keys).chain([&self.key_prefix]);
        for key in keys {
            // Limits of GitHub's cache service. They hold for all backends, since entries can be moved.
            if key.is_empty() || key.contains(',') || key.encode_utf16().count() > 512 {
                bail!("not a valid key: {key:?} is empty, has a comma, or has over 512 characters");
            }
        }
        Ok(KeyOptions {
            key: self.key,
            restore_keys: self.restore_keys,
            prefix: self.key_prefix,
            version: self.version,
            hash_files: self.hash_files,
            workflow: self.workflow,
            workflow_mode: self.workflow_mode.into(),
            workflow_job: self.workflow_job,
            workflow_steps: self.workflow_steps,
            ignore_pins: self.ignore_pins,
            in_job: false,
        })
    }
}
