//! What the user asked for, parsed and complete: flags become these values before anything runs.

use crate::daemon::DaemonChoice;
use crate::store::StoreKind;
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

/// What the key is made of.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// The exact key; made from the rest when not given.
    pub key: Option<String>,
    pub restore_keys: Vec<String>,
    pub prefix: String,
    /// Version of the package manager; asked of it when not given.
    pub version: Option<String>,
    pub hash_files: Vec<String>,
    pub workflow: Option<PathBuf>,
    pub workflow_mode: WorkflowMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WorkflowMode {
    /// Hash the file's bytes.
    Bytes,
    /// Leave the workflow out of the key.
    None,
}

/// Where entries live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendOptions {
    Directory(PathBuf),
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
    pub backend: BackendOptions,
    pub output: OutputOptions,
    pub dry_run: bool,
    pub level: i32,
    pub threads: usize,
    /// The profiles of whoever runs this come along.
    pub profiles: bool,
}

#[derive(Debug, Clone)]
pub struct Restore {
    pub store: StoreOptions,
    pub key: KeyOptions,
    pub backend: BackendOptions,
    pub output: OutputOptions,
    pub dry_run: bool,
    pub threads: usize,
    /// Look up and report, and leave it at that.
    pub lookup_only: bool,
    /// Swap plain directories that differ.
    pub replace: bool,
    /// Items whose closures have to be complete.
    pub require: Vec<String>,
    /// Bring back the profiles that came along.
    pub profiles: bool,
    pub fail_on_miss: bool,
}

#[derive(Debug, Clone)]
pub struct ShowKey {
    pub store: StoreOptions,
    pub key: KeyOptions,
    pub output: OutputOptions,
    pub explain: bool,
}

#[derive(Debug, Clone)]
pub struct Doctor {
    pub store: StoreOptions,
    pub output: OutputOptions,
}

/// One snapshot, looked at without a store.
#[derive(Debug, Clone)]
pub struct Look {
    /// The file; looked up by key when not given.
    pub file: Option<PathBuf>,
    pub store: StoreOptions,
    pub key: KeyOptions,
    pub backend: BackendOptions,
    pub output: OutputOptions,
    /// List the items too.
    pub items: bool,
    pub threads: usize,
}
