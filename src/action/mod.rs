//! The GitHub Actions face: a step's inputs become the flags of a verb, and its report becomes outputs,
//! state and annotations.
//!
//! The room knows the variables, files and orders of a runner. It must not know stores, nor how flags
//! are parsed or verbs run.

mod files;
mod inputs;
mod job;
mod orders;
mod outputs;
mod step;

pub use inputs::{For, INPUTS, Input, Kind};
pub use job::{Job, origin};
pub use orders::{Annotation, error, mask};
pub use outputs::{OUTPUTS, OutputField};
pub use step::{Moment, Step, Verb};

/// A table of the documents: text that a test holds against its file.
pub struct Table {
    /// As the README has it.
    pub markdown: String,
    /// As action.yml has it.
    pub yaml: String,
}

/// The table of inputs.
pub fn input_table() -> Table {
    Table { markdown: inputs::markdown(), yaml: inputs::yaml() }
}

/// The table of outputs.
pub fn output_table() -> Table {
    Table { markdown: outputs::markdown(), yaml: outputs::yaml() }
}
