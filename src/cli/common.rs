//! Flags that several commands share.

use super::backend::BackendArgs;
use super::key::KeyArgs;
use super::store::StoreArgs;
use crate::config::{BackendOptions, OutputOptions, StoreOptions};
use crate::report;
use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use storecache_key::KeyOptions;
use storecache_runtime::memory::Budget;
use storecache_store::StoreKind;

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    #[command(flatten, next_help_heading = "Store")]
    store: StoreArgs,
    #[command(flatten, next_help_heading = "Key")]
    key: KeyArgs,
    #[command(flatten, next_help_heading = "Backend")]
    backends: BackendArgs,
    /// Threads for compression and unpacking [default: one per processor]
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = "Limits")]
    threads: Option<usize>,
    #[command(flatten, next_help_heading = "Output")]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct MemoryArgs {
    /// Memory limit for all processes of the run, as in 192M [default: 256M with up to two threads, 512M
    /// with sixteen]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

impl MemoryArgs {
    pub(super) fn on(&self, threads: usize) -> Budget {
        Budget::new(self.memory, threads)
    }
}

pub(super) struct Common {
    pub(super) store: StoreOptions,
    pub(super) key: KeyOptions,
    pub(super) backends: Vec<BackendOptions>,
    pub(super) output: OutputOptions,
    pub(super) threads: usize,
}

impl CommonArgs {
    pub(super) fn options(self) -> Result<Common> {
        self.options_with(StoreArgs::options)
    }

    pub(super) fn options_with(
        self,
        store: fn(StoreArgs) -> Result<StoreOptions>,
    ) -> Result<Common> {
        let processors = || std::thread::available_parallelism().map_or(1, Into::into);
        Ok(Common {
            store: store(self.store)?,
            key: self.key.options()?,
            backends: self.backends.options()?,
            output: self.output.options(),
            threads: self.threads.unwrap_or_else(processors).clamp(1, 256),
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Do not show progress
    #[arg(long, short)]
    quiet: bool,
    /// Show decisions and their reasons; twice also each request and each frame
    ///
    /// The environment variable STORECACHE_LOG selects events by module, as in storecache_backend=trace.
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "quiet")]
    // Read by `Cli::parse_words`: events begin before the options of a command are made.
    verbose: u8,
}

impl OutputArgs {
    pub(super) fn options(self) -> OutputOptions {
        OutputOptions { json: self.json, quiet: self.quiet, in_job: false }
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    report::parse_bytes(text)
        .ok_or_else(|| "expected a number, optionally followed by K, M, G or T".into())
}

/// Refuses `--profiles` for stores without profiles. If the kind is not known yet, a later check does so.
pub(super) fn check_profiles(wanted: bool, kind: Option<StoreKind>) -> Result<()> {
    match kind {
        Some(StoreKind::Nix | StoreKind::Plain) if wanted => {
            bail!("--profiles is for --store guix")
        }
        Some(StoreKind::Guix | StoreKind::Nix | StoreKind::Plain) | None => Ok(()),
    }
}
