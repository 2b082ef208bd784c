//! Every flag of every command, and how flags become options.

mod backend;
mod common;
mod doctor;
mod durability;
mod examples;
mod help;
mod inventory;
mod key;
mod lint;
mod quarantine;
mod restore;
mod save;
mod simulate;
mod store;
mod suggest;
mod timeouts;
mod trust;

pub use backend::TOKENS;
pub use doctor::DoctorArgs;
pub use help::HelpArgs;
pub use inventory::{ListArgs, PruneArgs, UsageArgs};
pub use key::{KeyPart, KeyVerbArgs};
pub use lint::LintArgs;
pub use restore::RestoreArgs;
pub use save::SaveArgs;
pub use simulate::SimulateArgs;
pub use suggest::SuggestArgs;
pub use trust::SIGN_KEYS;

use backend::{BETWEEN_CHANGES, BackendArgs, Network, backend};
use common::{CommonArgs, OutputArgs, size};
use key::KeyArgs;
use store::{Store, StoreArgs, absolute};
use trust::TrustedKeysArgs;

use crate::config::Look;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Snapshot a Nix or Guix store, or any root-owned directories, into a plain zstd tarball and restore
/// it on the next run.
#[derive(Debug, Parser)]
#[command(name = "storecache", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = examples::text(""), mut_subcommands(examples::add))]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Save the store as a snapshot; the daemon keeps running
    Save(SaveArgs),
    /// Restore what is missing from the newest snapshot that fits
    Restore(RestoreArgs),
    /// Print the key and the prefixes that are tried after it
    Key(KeyVerbArgs),
    /// Show what a snapshot is and holds
    Inspect(InspectArgs),
    /// Check a snapshot to the last byte, without touching a store
    Verify(LookArgs),
    /// Look at the store, its database and its daemon, and say what to mend
    Doctor(DoctorArgs),
    /// List every entry of a backend
    List(ListArgs),
    /// Say what takes room in a backend, what of it could go, and what goes next
    Usage(UsageArgs),
    /// Say which entries can go, and delete them with --apply
    Prune(PruneArgs),
    /// Look for mistakes in workflows that make a cache useless
    Lint(LintArgs),
    /// Print help, a manual page, or completions for a shell
    Help(HelpArgs),
    /// A step of a job; its inputs and the job come from the environment
    #[command(hide = true)]
    Action(ActionArgs),
    /// The half that runs as root; speaks a protocol on its standard input
    #[command(hide = true)]
    Privileged(PrivilegedArgs),
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    look: LookArgs,
    /// List the items with their sizes
    #[arg(long)]
    items: bool,
    /// Show which item brings how much, and what was restored and never read
    #[arg(long)]
    blame: bool,
    /// Write that as a page of HTML, with a map of all items
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LookArgs {
    /// The snapshot file; looked up by key when not given
    file: Option<PathBuf>,
    #[command(flatten)]
    trusted: TrustedKeysArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct ActionArgs {
    #[command(subcommand)]
    pub part: ActionPart,
}

#[derive(Debug, Subcommand)]
pub enum ActionPart {
    /// Where the step stands in the job
    Main,
    /// After all other steps of the job
    Post,
    /// Print the table of inputs
    Inputs(TableArgs),
    /// Print the table of outputs
    Outputs(TableArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TableArgs {
    /// As the README has it
    #[arg(long)]
    pub markdown: bool,
    /// As action.yml has it
    #[arg(long)]
    pub yaml: bool,
}

#[derive(Debug, Args)]
pub struct PrivilegedArgs {
    /// Start the daemon again when told to, or when the root half dies
    #[arg(long, conflicts_with = "everywhere")]
    pub guardian: bool,
    /// Use root's rights wherever the other half points, and not only on stores that root has put in
    /// place: for who may become root anyway
    #[arg(long)]
    pub everywhere: bool,
}

impl InspectArgs {
    pub fn options(self) -> Result<Look> {
        let look = self.look.options()?;
        Ok(Look { items: self.items, blame: self.blame, html: self.html, ..look })
    }
}

impl LookArgs {
    pub fn options(self) -> Result<Look> {
        // A plain store is looked up by its key, not by its directories.
        let common = self.common.options_with(StoreArgs::options_without_paths)?;
        Ok(Look {
            file: self.file,
            store: common.store,
            key: common.key,
            backends: common.backends,
            output: common.output,
            items: false,
            blame: false,
            html: None,
            trust: self.trusted.trust()?,
            threads: common.threads,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
