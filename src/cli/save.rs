//! Flags of `save`.

use super::common::{CommonArgs, MemoryArgs, check_profiles, size};
use super::daemon_and_locks::DaemonArgs;
use super::durability::Sync;
use super::quarantine_retention::QuarantineArgs;
use super::run_limits::RunLimitArgs;
use super::trust::{SignArgs, TrustArgs};
use crate::config::{BackendOptions, Baseline, Delta, JobStatus, Policy, Save, SavePolicy};
use anyhow::{Result, bail};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use storecache_store::ItemPattern;

#[derive(Debug, Args)]
pub struct SaveArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten, next_help_heading = "Daemon")]
    daemon: DaemonArgs,
    #[command(flatten, next_help_heading = "Limits")]
    limits: RunLimitArgs,
    /// Do everything except write, and show what would be saved
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// zstd compression level
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(i32).range(1..=19), help_heading = "Snapshot")]
    level: i32,
    /// Use large frames with long-distance matching
    ///
    /// Snapshots are smaller, saves are slower, and partial restores read more.
    #[arg(long, hide_short_help = true, help_heading = "Snapshot")]
    long: bool,
    #[command(flatten, next_help_heading = "Limits")]
    memory: MemoryArgs,
    /// Also save your Guix profiles (guix pull, guix install)
    #[arg(long, help_heading = "What to save")]
    profiles: bool,
    #[command(flatten, next_help_heading = "When to save")]
    policy: PolicyArgs,
    #[command(flatten, next_help_heading = "Trust")]
    sign: SignArgs,
    #[command(flatten, next_help_heading = "Trust")]
    trust: TrustArgs,
    /// State file that the restore of this job wrote with --state
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "What to save")]
    state: Option<PathBuf>,
    /// Whether to save items that were valid before the restore, according to --state
    #[arg(long, value_enum, default_value_t = Baseline::Exclude, hide_short_help = true, help_heading = "What to save")]
    baseline: Baseline,
    /// Save only the closure of this item; repeatable
    ///
    /// An item is a path, or a name with or without the hash. Names may have wildcards.
    #[arg(long, value_name = "ITEM", help_heading = "What to save")]
    roots: Vec<String>,
    /// Omit the least recently used items until the rest has at most this NAR size, as in 500M or 8G
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "What to save")]
    max_size: Option<u64>,
    /// Save all items, even if a delta on an existing snapshot is possible
    #[arg(long, help_heading = "Snapshot")]
    full: bool,
    /// Save all items if the new ones exceed this fraction of the base, by size
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, value_parser = share, hide_short_help = true, help_heading = "Snapshot")]
    rebase_at: f64,
    /// Whether to flush an entry of a dir: backend to disk before publishing it
    ///
    /// Without this, a power cut can leave a truncated entry.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Auto, hide_short_help = true, help_heading = "Snapshot")]
    sync: Sync,
    /// After the save, keep only the N newest entries of this key and the bases that they depend on
    #[arg(long, value_name = "N", help_heading = "Backend")]
    keep: Option<NonZeroUsize>,
    #[command(flatten, next_help_heading = "Backend")]
    quarantine: QuarantineArgs,
    /// Append a Markdown summary of the job to this file
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Output")]
    summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PolicyArgs {
    /// When to save
    #[arg(long, value_enum, default_value_t = Policy::Always)]
    policy: Policy,
    /// With --policy auto, minimum growth of the store since the newest entry of the key, as in 500K or 10M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size, hide_short_help = true)]
    min_growth: u64,
    /// Result of the job, for --policy auto
    #[arg(long, value_enum, hide_short_help = true)]
    job_status: Option<JobStatus>,
    /// With --policy auto, save even if the job failed
    #[arg(long, hide_short_help = true)]
    save_on_failure: bool,
}

impl SaveArgs {
    pub fn options(self) -> Result<Save> {
        let common = self.common.options()?;
        let store = self.daemon.options(common.store)?;
        check_profiles(self.profiles, store.kind)?;
        let limited = !self.roots.is_empty() || self.max_size.is_some();
        if limited && store.kind.is_some_and(|kind| !kind.has_database()) {
            bail!("--roots and --max-size are for stores with items, not for --store plain");
        }
        self.roots.iter().try_for_each(|pattern| ItemPattern::parse(pattern).map(drop))?;
        let sync = self.sync.wanted();
        let backends = common.backends.into_iter().map(|backend| match backend {
            BackendOptions::Directory { path, .. } => BackendOptions::Directory { path, sync },
            other @ (BackendOptions::GitHub(_) | BackendOptions::Objects(_)) => other,
        });
        Ok(Save {
            store,
            key: common.key,
            backends: backends.collect(),
            output: common.output,
            clocks: self.limits.clocks(),
            dry_run: self.dry_run,
            level: self.level,
            long: self.long,
            memory: self.memory.on(common.threads).saving(self.level, self.long)?,
            profiles: self.profiles,
            state: self.state,
            baseline: self.baseline,
            roots: self.roots,
            max_size: self.max_size,
            policy: self.policy.options()?,
            signing: self.sign.signing(self.trust.options()?)?,
            delta: (!self.full).then_some(Delta { rebase_at: self.rebase_at }),
            keep: self.keep,
            quarantine: self.quarantine.options(),
            summary: self.summary,
        })
    }
}

impl PolicyArgs {
    fn options(self) -> Result<SavePolicy> {
        if self.save_on_failure && self.policy != Policy::Auto {
            bail!("--save-on-failure is for --policy auto");
        }
        Ok(SavePolicy {
            policy: self.policy,
            min_growth: self.min_growth,
            job_status: self.job_status,
            save_on_failure: self.save_on_failure,
        })
    }
}

/// Parses a fraction, which may be greater than 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0);
    share.ok_or_else(|| "expected a number such as 0.4".into())
}
