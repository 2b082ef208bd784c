//! Running the programs of the closed list.

use super::Program;
use crate::pulse::{self, Watch};
use crate::undo::insist;
use anyhow::{Context, Result};
use std::io;
use std::process::{Child, ExitStatus, Output, Stdio};

/// Runs a program to its end, with all that it prints.
///
/// # Errors
/// If it cannot be started.
pub fn output(program: Program<'_>) -> io::Result<Output> {
    program.command().output()
}

/// Runs a program to its end, with all that it prints, and watches that it is alive.
///
/// # Errors
/// As for [`pulse::output`].
pub fn await_output(program: Program<'_>, watch: Watch<'_>) -> Result<Output> {
    pulse::output(&mut program.command(), watch)
}

/// Runs a program to its end, and watches that it is alive.
///
/// # Errors
/// If it cannot be started, and as for [`pulse::wait`].
pub fn await_status(program: Program<'_>, watch: Watch<'_>) -> Result<ExitStatus> {
    let mut command = program.command();
    // What did not begin can begin again.
    let mut child = insist(|| command.spawn()).with_context(|| format!("run {}", watch.what))?;
    pulse::wait(&mut child, watch)
}

/// Starts a program and speaks with it over its input and output.
///
/// # Errors
/// If it cannot be started.
pub fn spawn(program: Program<'_>) -> io::Result<Child> {
    let mut command = program.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// Starts a program that lives on by itself.
///
/// # Errors
/// If it cannot be started.
pub fn start(program: Program<'_>) -> io::Result<()> {
    program.command().spawn().map(drop)
}
