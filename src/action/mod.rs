//! The interface to GitHub Actions: the inputs of a step become the flags of a verb, and its report becomes outputs,
//! state and annotations.
//!
//! This module knows the variables, files and workflow commands of a runner. It must not know stores, how flags are
//! parsed, or how verbs run.

mod env_files;
mod inputs;
mod job_environment;
mod outputs;
mod step;
mod workflow_commands;

pub use inputs::{For, INPUTS, Input, Kind, words};
pub use job_environment::{Job, origin};
pub use outputs::{OUTPUTS, OutputField};
pub use step::{Step, StepPart, Verb};
pub use workflow_commands::{Annotation, annotate, mask};

/// A table for the documentation, as text that a test compares with the files.
pub struct Table {
    /// For docs/inputs.md.
    pub markdown: String,
    /// For action.yml.
    pub yaml: String,
}

/// Returns the table of inputs.
pub fn input_table() -> Table {
    Table { markdown: inputs::markdown(), yaml: inputs::yaml() }
}

/// Returns the table of outputs.
pub fn output_table() -> Table {
    Table { markdown: outputs::markdown(), yaml: outputs::yaml() }
}
