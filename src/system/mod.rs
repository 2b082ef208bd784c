//! The execution of programs by the root helper, its guardian and the control of daemons.
//!
//! - `programs`: the closed list of programs
//! - `child_context`: the namespaces, directories and user of a program
//! - `run`: runs the programs; the fuzzers of `fuzz/` replace this file with one that runs nothing

mod child_context;
mod programs;
mod run;

pub use child_context::{Exec, ProcessContext};
pub use programs::{HerdOrder, OpenProgram, Program, ROOT_PATH, UnitOrder};
pub use run::{await_output, await_status, output, spawn, start};
