//! What the root helper, its guardian and the control of daemons execute.
//!
//! - `programs`: the closed list of programs
//! - `context`: namespaces, directories and user that a program gets
//! - `run`: runs them; the fuzzers of `fuzz/` have another file in its place, which runs nothing

mod context;
mod programs;
mod run;

pub use context::{Exec, ProcessContext};
pub use programs::{HerdOrder, OpenProgram, Program, ROOT_PATH, UnitOrder};
pub use run::{await_output, await_status, output, spawn, start};
