//! Options of all commands. Flags and inputs are parsed into these types before a command runs.

mod list_usage_prune;
mod quarantine_retention;
mod simulate;
mod suggest;
mod trust;

pub use list_usage_prune::{InventoryOptions, List, Order, Prune, PruneReason, Pruning, Usage};
pub use quarantine_retention::Quarantine;
pub use simulate::{Simulate, Since};
pub use suggest::{Snapshots, Suggest};
pub use trust::{OriginTrust, Signing, Trust};

use anyhow::anyhow;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use storecache_backend::Denylist;
use storecache_backend::options::{GitHubService, NetworkTimeouts, ObjectStore};
use storecache_daemon::DaemonChoice;
use storecache_key::KeyOptions;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::files::DirPath;
use storecache_runtime::memory::{Restoring, Saving};
use storecache_store::StoreKind;

/// The store, or the directories of a plain store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Detected if `None`.
    pub kind: Option<StoreKind>,
    /// File-system root of the store, absolute.
    pub root: PathBuf,
    /// Directories of a plain store, absolute.
    pub paths: Vec<PathBuf>,
    pub daemon: DaemonChoice,
    /// Absolute paths of the sockets of the user's own shepherds, in the order in which they are tried.
    pub shepherds: Vec<PathBuf>,
    pub lock_timeout: Duration,
    pub daemon_timeout: Duration,
}

/// Where entries are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendOptions {
    Directory {
        path: DirPath,
        /// Flush an entry to disk before it is published.
        sync: bool,
    },
    GitHub(Box<GitHubService>),
    Objects(Box<ObjectStore>),
}

impl BackendOptions {
    /// Returns the path of a backend that is a directory.
    pub fn directory(&self) -> Option<&DirPath> {
        match self {
            BackendOptions::Directory { path, .. } => Some(path),
            BackendOptions::GitHub(_) | BackendOptions::Objects(_) => None,
        }
    }

    /// Returns the timeouts of a backend that is reached over the network.
    pub fn timeouts(&self) -> Option<NetworkTimeouts> {
        match self {
            BackendOptions::Directory { .. } => None,
            BackendOptions::GitHub(service) => Some(service.timeouts),
            BackendOptions::Objects(store) => Some(store.timeouts),
        }
    }
}

/// Returns the error for a backend that this program was built without.
pub fn not_built_in(backend: &str) -> anyhow::Error {
    anyhow!("this program was built without the backend {backend}")
        .hint("name another with --backend")
}

/// Time limits of a run: in total, and without activity.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Limit for the whole run; `None` means no limit.
    pub deadline: Option<Duration>,
    /// Limit for the time without activity, for all operations that have no timeout of their own.
    pub stall: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct OutputOptions {
    pub json: bool,
    pub quiet: bool,
    /// The run is a step of a job: the log is folded, the step itself reports warnings, and the run is
    /// canceled when standard input is closed.
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
    /// Compression level of zstd.
    pub level: i32,
    /// Use large frames of several items with long-distance matching.
    pub long: bool,
    pub memory: Saving,
    /// Also save the profiles of the user.
    pub profiles: bool,
    /// State file that the restore of the same job wrote.
    pub state: Option<PathBuf>,
    pub baseline: Baseline,
    /// Patterns of items: only the closures of matching items are saved. All items if empty.
    pub roots: Vec<String>,
    /// Limit on the NAR size of the saved items, in bytes; the least recently used items are omitted.
    pub max_size: Option<u64>,
    /// When to save a delta, without the items of an existing snapshot; `None` means never.
    pub delta: Option<Delta>,
    pub signing: Signing,
    pub policy: SavePolicy,
    /// How many generations of the key to keep; all if `None`.
    pub keep: Option<NonZeroUsize>,
    pub quarantine: Quarantine,
    /// File to append the summary of the job to.
    pub summary: Option<PathBuf>,
}

/// Whether to save the items that were valid before the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Baseline {
    /// Leave them out if they are known.
    Exclude,
    /// Save them too.
    Include,
}

/// When a save omits the items of an existing snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Delta {
    /// Largest NAR size of the new items, as a fraction of the base's NAR size.
    pub rebase_at: f64,
}

/// When to save.
#[derive(Debug, Clone, Copy)]
pub struct SavePolicy {
    pub policy: Policy,
    /// Minimum growth of the store since the newest entry of the key, in NAR bytes.
    pub min_growth: u64,
    /// Result of the job, if known.
    pub job_status: Option<JobStatus>,
    pub save_on_failure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// When there is something new, the backend can be written, and the job neither failed nor was canceled. With
    /// `save_on_failure`, also after a failure.
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
    /// Returns GitHub's name for the status.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Success => "success",
            JobStatus::Failure => "failure",
            JobStatus::Cancelled => "cancelled",
        }
    }
}

/// Options of `lint`.
#[derive(Debug, Clone)]
pub struct Lint {
    /// Workflow files; if empty, the workflows of the work tree.
    pub files: Vec<PathBuf>,
    pub format: LintFormat,
    /// Print warnings, but fail only on errors.
    pub errors_only: bool,
    pub output: OutputOptions,
}

/// Output format of findings.
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
    /// Report the matching entry without restoring it.
    pub lookup_only: bool,
    /// Replace plain directories that have other content.
    pub replace: bool,
    pub trust: Trust,
    /// Check the hashes of restored items before they become valid.
    pub verify_content: bool,
    /// Flush restored items to disk before they become valid.
    pub sync: bool,
    /// Patterns of items whose closures must be complete.
    pub require: Vec<String>,
    /// Also restore the profiles in the snapshot.
    pub profiles: bool,
    /// State file to write for the save of the same job.
    pub state: Option<PathBuf>,
    pub quarantine: Quarantine,
    /// File to append a summary to.
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

/// Two states whose keys are compared. Each is a commit, `.` for the work tree, a snapshot file or an
/// entry.
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
    /// The list of entries which failed their checks.
    pub denylist: Option<Denylist>,
    pub output: OutputOptions,
}

/// One snapshot, to be read without a store.
#[derive(Debug, Clone)]
pub struct Look {
    /// The snapshot file; if `None`, an entry is looked up by key.
    pub file: Option<PathBuf>,
    pub store: StoreOptions,
    pub key: KeyOptions,
    /// In the order in which they are asked, at least one.
    pub backends: Vec<BackendOptions>,
    pub output: OutputOptions,
    /// Also list the items.
    pub items: bool,
    /// Report the size that each item accounts for.
    pub blame: bool,
    /// File for an HTML page with the result.
    pub html: Option<PathBuf>,
    pub trust: Trust,
    pub threads: usize,
}
