//! Flags of `restore`.

use super::common::{CommonArgs, MemoryArgs, check_profiles};
use super::durability::Sync;
use super::quarantine::QuarantineArgs;
use super::timeouts::PatienceArgs;
use super::trust::TrustArgs;
use crate::config::Restore;
use crate::store::{ItemPattern, StoreKind};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    patience: PatienceArgs,
    /// Do everything but write, and say what would be restored
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Look up and report what there is, and restore nothing
    #[arg(long)]
    lookup_only: bool,
    /// What to do with a plain directory that holds something else
    #[arg(long, value_enum, default_value_t = Mode::Add)]
    mode: Mode,
    /// Whether all of it is on the disk before it becomes valid, so that not even a power cut makes the
    /// database claim what is not there
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Auto)]
    sync: Sync,
    #[command(flatten)]
    trust: TrustArgs,
    /// What is checked before the run counts as done: that every row has its item on the disk and the daemon
    /// calls it valid, or before that also that the content of each has the hash that its row says
    #[arg(long, value_enum, default_value_t = Verify::Rows)]
    verify: Verify,
    /// Bring your Guix profiles back too, as new generations
    #[arg(long)]
    profiles: bool,
    /// Say whether the closure of this item is complete afterwards: its path, or its name with or
    /// without the hash, with wildcards; repeatable
    #[arg(long, value_name = "ITEM")]
    require: Vec<String>,
    /// Leave here what the save of this job wants to know
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[command(flatten)]
    quarantine: QuarantineArgs,
    /// Append a summary, in Markdown
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Exit with 3 when nothing was found, or when something required is not complete
    #[arg(long)]
    fail_on_miss: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Leave it alone
    Add,
    /// Swap it by rename
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// Rows against the disk
    Rows,
    /// Content against rows too
    Content,
}

impl RestoreArgs {
    pub fn options(self) -> Result<Restore> {
        let common = self.common.options()?;
        let replace = self.mode == Mode::Replace;
        if replace && common.store.kind != Some(StoreKind::Plain) {
            bail!("--mode replace is for --store plain");
        }
        if !self.require.is_empty() && common.store.kind == Some(StoreKind::Plain) {
            bail!("--require is for stores with items, not for --store plain");
        }
        self.require.iter().try_for_each(|pattern| ItemPattern::parse(pattern).map(drop))?;
        let verify_content = self.verify == Verify::Content;
        if verify_content && common.store.kind == Some(StoreKind::Plain) {
            bail!("--verify content is for stores with a database, not for --store plain");
        }
        check_profiles(self.profiles, common.store.kind)?;
        Ok(Restore {
            store: common.store,
            key: common.key,
            backends: common.backends,
            output: common.output,
            clocks: self.patience.clocks(),
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
