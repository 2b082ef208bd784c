//! The options that determine a key.

use std::path::PathBuf;

/// Options that determine the key.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// The exact key; computed from the other fields if `None`.
    pub key: Option<String>,
    pub restore_keys: Vec<String>,
    pub prefix: String,
    /// Version of the package manager; if `None`, the package manager is run to get it.
    pub version: Option<String>,
    pub hash_files: Vec<String>,
    pub workflow: Option<PathBuf>,
    pub workflow_mode: WorkflowMode,
    /// Job of the workflow that the key is for; detected if `None`.
    pub workflow_job: Option<String>,
    /// Patterns of the steps that count for the key; all steps if empty.
    pub workflow_steps: Vec<String>,
    /// Patterns of actions whose versions do not count, in addition to the built-in ones.
    pub ignore_pins: Vec<String>,
    /// Hash the bytes of a workflow that cannot be parsed, instead of failing: GitHub runs it nevertheless.
    pub in_job: bool,
}

impl KeyOptions {
    /// Default first part of a key.
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
