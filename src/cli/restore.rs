//! Flags of `restore`.

use super::common::{CommonArgs, MemoryArgs, check_profiles};
use super::daemon_and_locks::DaemonArgs;
use super::durability::Sync;
use super::quarantine_retention::QuarantineArgs;
use super::run_limits::RunLimitArgs;
use super::trust::TrustArgs;
use crate::config::Restore;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use storecache_store::ItemPattern;

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten, next_help_heading = "Daemon")]
    daemon: DaemonArgs,
    #[command(flatten, next_help_heading = "Limits")]
    limits: RunLimitArgs,
    /// Do everything except write, and show what would be restored
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    #[command(flatten, next_help_heading = "Limits")]
    memory: MemoryArgs,
    /// Report the matching snapshot without restoring it
    #[arg(long, help_heading = "Output")]
    lookup_only: bool,
    /// Handling of a plain directory that has other content
    #[arg(long, value_enum, default_value_t = Mode::Add, hide_short_help = true, help_heading = "What to restore")]
    mode: Mode,
    /// Whether to flush restored items to disk before they become valid
    ///
    /// Without this, a power cut can leave a database with items that are not on disk.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Auto, hide_short_help = true, help_heading = "Checks")]
    sync: Sync,
    #[command(flatten, next_help_heading = "Trust")]
    trust: TrustArgs,
    /// Checks before the restore is complete
    #[arg(long, value_enum, default_value_t = Verify::Rows, help_heading = "Checks")]
    verify: Verify,
    /// Also restore your Guix profiles, as new generations
    #[arg(long, help_heading = "What to restore")]
    profiles: bool,
    /// Report whether the closure of this item is complete after the restore; repeatable
    ///
    /// An item is a path, or a name with or without the hash. Names may have wildcards.
    #[arg(long, value_name = "ITEM", help_heading = "Checks")]
    require: Vec<String>,
    /// Write state for the later save of this job to this file
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "What to restore")]
    state: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Backend")]
    quarantine: QuarantineArgs,
    /// Append a Markdown summary to this file
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Output")]
    summary: Option<PathBuf>,
    /// Exit with code 3 on a miss, or if a required item is incomplete
    #[arg(long, help_heading = "Output")]
    fail_on_miss: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Leave it unchanged
    Add,
    /// Swap it by rename
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// That each item in the database is on disk, and that the daemon reports it as valid
    Rows,
    /// Also that the content of each item matches its hash in the database
    Content,
}

impl RestoreArgs {
    pub fn options(self) -> Result<Restore> {
        let common = self.common.options()?;
        let store = self.daemon.options(common.store)?;
        let replace = self.mode == Mode::Replace;
        let is_plain = store.kind.is_some_and(|kind| !kind.has_database());
        if replace && !is_plain {
            bail!("--mode replace is for --store plain");
        }
        if !self.require.is_empty() && is_plain {
            bail!("--require is for stores with items, not for --store plain");
        }
        self.require.iter().try_for_each(|pattern| ItemPattern::parse(pattern).map(drop))?;
        let verify_content = self.verify == Verify::Content;
        if verify_content && is_plain {
            bail!("--verify content is for stores with a database, not for --store plain");
        }
        check_profiles(self.profiles, store.kind)?;
        Ok(Restore {
            store,
            key: common.key,
            backends: common.backends,
            output: common.output,
            clocks: self.limits.clocks(),
            dry_run: self.dry_run,
            memory: self.memory.on(common.threads).restoring()?,
            lookup_only: self.lookup_only,
            replace,
            trust: self.trust.options()?,
            verify_content,
            sync: self.sync.wanted(),
            require: self.require,
            profiles: self.profiles,
            state: self.state,
            quarantine: self.quarantine.options(),
            summary: self.summary,
            fail_on_miss: self.fail_on_miss,
        })
    }
}
