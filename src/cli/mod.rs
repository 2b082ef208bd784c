//! The command-line interface: definitions of all flags, and their conversion to the types in `config`.

mod backend;
mod common;
mod daemon_and_locks;
mod doctor;
mod durability;
mod examples;
mod help;
mod key;
mod lint;
mod list_usage_prune;
mod quarantine_retention;
mod restore;
mod run_limits;
mod save;
mod simulate;
mod store;
mod suggest;
mod trust;

pub use backend::TOKENS;
pub use doctor::DoctorArgs;
pub use help::HelpArgs;
pub use key::{KeyPart, KeyVerbArgs};
pub use lint::LintArgs;
pub use list_usage_prune::{ListArgs, PruneArgs, UsageArgs};
pub use restore::RestoreArgs;
pub use save::SaveArgs;
pub use simulate::SimulateArgs;
pub use suggest::SuggestArgs;
pub use trust::SIGN_KEYS;

use backend::{BETWEEN_CHANGES, BackendArgs, Network, backend};
use common::{CommonArgs, OutputArgs, size};
use daemon_and_locks::DaemonArgs;
use key::KeyArgs;
use store::{Store, StoreArgs, absolute};
use trust::TrustedKeysArgs;

use crate::config::Look;
use anyhow::Result;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
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

impl Cli {
    /// Parses a command line. Also returns how often `--verbose` was given.
    ///
    /// # Errors
    /// If the command line is wrong, or asks for help.
    pub fn parse_words<T>(words: impl IntoIterator<Item = T>) -> Result<(Self, u8), clap::Error>
    where
        T: Into<OsString> + Clone,
    {
        let matches = Cli::command().try_get_matches_from(words)?;
        Ok((Cli::from_arg_matches(&matches)?, verbosity(&matches)))
    }
}

/// Returns how often `--verbose` was given to a command and its subcommands. Some commands do not have it.
fn verbosity(matches: &ArgMatches) -> u8 {
    let own = matches.try_get_one::<u8>("verbose").ok().flatten().copied().unwrap_or_default();
    own.saturating_add(matches.subcommand().map_or(0, |(_, matches)| verbosity(matches)))
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Save the store as a snapshot; the daemon keeps running
    Save(SaveArgs),
    /// Restore missing items from the newest matching snapshot
    Restore(RestoreArgs),
    /// Print the key and the prefixes that are tried after it
    Key(KeyVerbArgs),
    /// Show the metadata and contents of a snapshot
    Inspect(InspectArgs),
    /// Check every byte of a snapshot, without touching a store
    Verify(LookArgs),
    /// Check the store, the daemon, the backend and what else a run needs, and suggest fixes
    Doctor(DoctorArgs),
    /// List the entries of a backend
    List(ListArgs),
    /// Show what takes space in a backend, what could be deleted, and what is evicted next
    Usage(UsageArgs),
    /// Show which entries can be deleted, and delete them with --apply
    Prune(PruneArgs),
    /// Find mistakes in workflows that make a cache useless
    Lint(LintArgs),
    /// Print help, a manual page, or completions for a shell
    Help(HelpArgs),
    /// Run a step of a job; inputs and job are read from the environment
    #[command(hide = true)]
    Action(ActionArgs),
    /// Run the root helper, which speaks a protocol on standard input
    #[command(hide = true)]
    Privileged(PrivilegedArgs),
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    look: LookArgs,
    /// List the items with their sizes
    #[arg(long, help_heading = "Output")]
    items: bool,
    /// Show the size that each item accounts for, and which items were restored but never read
    #[arg(long, help_heading = "Output")]
    blame: bool,
    /// Write that as an HTML page
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LookArgs {
    /// Snapshot file [default: looked up by key]
    file: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Trust")]
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
    /// Run the main part of the step, at its position in the job
    Main,
    /// Run the post part of the step, after all other steps of the job
    Post,
    /// Print the table of inputs
    Inputs(TableArgs),
    /// Print the table of outputs
    Outputs(TableArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TableArgs {
    /// In Markdown, as in docs/inputs.md
    #[arg(long)]
    pub markdown: bool,
    /// In the format of action.yml
    #[arg(long)]
    pub yaml: bool,
}

#[derive(Debug, Args)]
pub struct PrivilegedArgs {
    /// Restart the daemon on request, or when the root helper dies
    #[arg(long, conflicts_with = "everywhere")]
    pub guardian: bool,
    /// Act as root on every path that the user process names
    ///
    /// By default, only on stores that root set up. This is for users who may become root anyway.
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

    #[test]
    fn clap_accepts_the_command_definition() {
        Cli::command().debug_assert();
    }
}
