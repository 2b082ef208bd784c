//! The execution of programs by the root helper, its guardians and the control of daemons.
//!
//! Nothing else in the crates that run with root's rights executes a program (`tests/fast/executed_programs.rs`).
//!
//! - `programs`: the closed list of programs
//! - `child_context`: the namespaces, directories and user of a program
//! - `run`: runs the programs
//! - `fake_run`: takes the place of `run` in fuzzers, and runs nothing

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod child_context;
#[cfg(feature = "fake-run")]
mod fake_run;
mod programs;
#[cfg(not(feature = "fake-run"))]
mod run;

pub use child_context::{Exec, ProcessContext};
#[cfg(feature = "fake-run")]
pub use fake_run::{
    Answer, Execution, Kind, answer_with, await_output, await_status, executed, has_herd_stopped,
    output, spawn, start,
};
pub use programs::{HerdOrder, OpenProgram, Program, ROOT_PATH, UnitOrder};
#[cfg(not(feature = "fake-run"))]
pub use run::{await_output, await_status, output, spawn, start};
