//! What the user asked for, parsed and complete: flags become these values before anything runs.

mod inventory;
mod quarantine;
mod simulate;
mod suggest;
mod trust;

pub use inventory::{InventoryOptions, List, Order, Prune, PruneReason, Pruning, Usage};
pub use quarantine::Quarantine;
pub use simulate::{Simulate, Since};
pub use suggest::{Snapshots, Suggest};
pub use trust::{OriginTrust, Signing, Trust};

use crate::backend::github::{GitHubService, Patience};
use crate::backend::object_store::ObjectStore;
use crate::daemon::DaemonChoice;
use crate::files::DirPath;
use crate::key::KeyOptions;
use crate::memory::{Restoring, Saving};
use crate::store::StoreKind;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Which store, or which directories.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Found out when not given.
    pub kind: Option<StoreKind>,
    /// File-system root of the store, absolute.
    pub root: PathBuf,
    /// Directories of a plain store, absolute.
    pub paths: Vec<PathBuf>,
    pub daemon: DaemonChoice,
    /// Sockets of the user's own shepherds, absolute, in the order in which they are asked.
    pub shepherds: Vec<PathBuf>,
    pub lock_patience: Duration,
    pub daemon_patience: Duration,
}

/// Where entries live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendOptions {
    Directory {
        path: DirPath,
        /// Have an entry on the disk before it is there.
        sync: bool,
    },
    GitHub(Box<GitHubService>),
    Objects(Box<ObjectStore>),
}

impl BackendOptions {
    /// The clocks of one at the other end of a network.
    pub fn patience(&self) -> Option<Patience> {
        match self {
            BackendOptions::Directory { .. } => None,
            BackendOptions::GitHub(service) => Some(service.patience),
            BackendOptions::Objects(store) => Some(store.patience),
        }
    }
}

/// How long a run may take, and how long what it waits for may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Of the whole run; none where it may take any time.
    pub deadline: Option<Duration>,
    /// Since the last sign of life, of all that has no clock of its own.
    pub stall: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct OutputOptions {
    pub json: bool,
    pub quiet: bool,
    /// This is a step of a job: its log folds, warnings are left to the step, and the run is called
    /// off when standard input closes.
    pub in_job: bool,
}

#[derive(Debug, Clone)]
pub struct Save {
    pub store: StoreOptions,
    pub key: KeyOptions,
    /// In the order in which they are asked, at least one.
    pub backends: Vec<BackendOptions>,
    pub output: OutputOptions,
    pub clocks: Clocks,
    pub dry_run: bool,
    /// Of zstd.
    pub level: i32,
    /// Large frames over several items, searched far back.
    pub long: bool,
    pub memory: Saving,
    /// The profiles of whoever runs this come along.
    pub profiles: bool,
    /// What the restore of the same job has left.
    pub state: Option<PathBuf>,
    pub baseline: Baseline,
    /// Patterns of items: only the closures of what matches are saved. All without any.
    pub roots: Vec<String>,
    /// NAR bytes beyond which what was used least recently stays behind.
    pub max_size: Option<u64>,
    /// Whether and when to leave to another snapshot what that holds already.
    pub delta: Option<Delta>,
    pub signing: Signing,
    pub policy: SavePolicy,
    /// How many generations of the key stay; all when not given.
    pub keep: Option<NonZeroUsize>,
    pub quarantine: Quarantine,
    /// File that the summary of the job is appended to.
    pub summary: Option<PathBuf>,
}

/// What becomes of the items that were valid before the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Baseline {
    /// Leave them out if they are known.
    Exclude,
    /// Save them too.
    Include,
}

/// When a save holds only what is new.
#[derive(Debug, Clone, Copy)]
pub struct Delta {
    /// Largest NAR size of what is new, as a part of the base's.
    pub rebase_at: f64,
}

/// When a save is worth doing.
#[derive(Debug, Clone, Copy)]
pub struct SavePolicy {
    pub policy: Policy,
    /// NAR bytes by which the store has to have grown since the newest entry of the key.
    pub min_growth: u64,
    /// How the job has ended, as far as somebody says so.
    pub job_status: Option<JobStatus>,
    pub save_on_failure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// When there is something new, the backend can be written, and the job did not fail.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum JobStatus {
    Success,
    Failure,
    Cancelled,
}

impl JobStatus {
    /// As GitHub calls it.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Success => "success",
            JobStatus::Failure => "failure",
            JobStatus::Cancelled => "cancelled",
        }
    }
}

/// Workflows to be looked at.
#[derive(Debug, Clone)]
pub struct Lint {
    /// Those of the work tree when none is named.
    pub files: Vec<PathBuf>,
    pub format: LintFormat,
    /// Warnings are told, and do not make it fail.
    pub errors_only: bool,
    pub output: OutputOptions,
}

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LintFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// Commands that make annotations in a job of GitHub
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

#[derive(Debug, Clone)]
pub struct Restore {
    pub store: StoreOptions,
    pub key: KeyOptions,
    /// In the order in which they are asked, at least one.
    pub backends: Vec<BackendOptions>,
    pub output: OutputOptions,
    pub clocks: Clocks,
    pub dry_run: bool,
    pub memory: Restoring,
    /// Look up and report, and leave it at that.
    pub lookup_only: bool,
    /// Swap plain directories that differ.
    pub replace: bool,
    pub trust: Trust,
    /// Hash what is restored again before it becomes valid.
    pub verify_content: bool,
    /// Have what is restored on the disk before it becomes valid.
    pub sync: bool,
    /// Items whose closures have to be complete.
    pub require: Vec<String>,
    /// Bring back the profiles that came along.
    pub profiles: bool,
    /// File for the save of the same job.
    pub state: Option<PathBuf>,
    pub quarantine: Quarantine,
    /// File that a summary is appended to.
    pub summary: Option<PathBuf>,
    pub fail_on_miss: bool,
}

#[derive(Debug, Clone)]
pub struct ShowKey {
    pub store: StoreOptions,
    pub key: KeyOptions,
    pub output: OutputOptions,
    pub explain: bool,
    /// Take what is not given from the step of the workflow.
    pub from_step: bool,
}

/// Two states whose keys are compared, as people name them: commits, `.` for the work tree, files or
/// entries of snapshots.
#[derive(Debug, Clone)]
pub struct DiffKeys {
    pub before: String,
    pub after: String,
    pub look: Look,
    /// Take what is not given from the step of the workflow.
    pub from_step: bool,
}

#[derive(Debug, Clone)]
pub struct Doctor {
    pub store: StoreOptions,
    /// In the order in which they are asked, at least one.
    pub backends: Vec<BackendOptions>,
    /// Where entries are remembered that failed their checks.
    pub memory: Option<DirPath>,
    pub output: OutputOptions,
}

/// One snapshot, looked at without a store.
#[derive(Debug, Clone)]
pub struct Look {
    /// The file; looked up by key when not given.
    pub file: Option<PathBuf>,
    pub store: StoreOptions,
    pub key: KeyOptions,
    /// In the order in which they are asked, at least one.
    pub backends: Vec<BackendOptions>,
    pub output: OutputOptions,
    /// List the items too.
    pub items: bool,
    /// Say which item brings how much.
    pub blame: bool,
    /// File for a page that shows it.
    pub html: Option<PathBuf>,
    pub trust: Trust,
    pub threads: usize,
}
