//! The flags that determine a key.

use std::path::PathBuf;

/// The flags that determine a key.
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
    /// The job of the workflow that the key is for; found out when not given.
    pub workflow_job: Option<String>,
    /// Patterns of the steps that matter; all without any.
    pub workflow_steps: Vec<String>,
    /// Patterns of actions whose versions do not count, besides the usual ones.
    pub ignore_pins: Vec<String>,
    /// A workflow that cannot be understood goes into the key by its bytes: a job runs it all the same.
    pub in_job: bool,
}

impl KeyOptions {
    /// The default of the first part of a key.
    pub const PREFIX: &str = "storecache";
}

/// How the workflow goes into the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowMode {
    /// The parts of it that can change the store, regardless of formatting.
    Semantic,
    /// The file's bytes.
    Bytes,
    /// Leave the workflow out of the key.
    None,
}
