//! Runs the programs of the closed list.

use super::Program;
use anyhow::{Context, Result};
use std::io;
use std::process::{Child, ExitStatus, Output, Stdio};
use storecache_runtime::liveness::{self, Watch};
use storecache_runtime::retry::insist;

/// Runs a program to its end and returns all its output.
///
/// # Errors
/// If it cannot be started.
pub fn output(program: Program<'_>) -> io::Result<Output> {
    program.command().output()
}

/// Runs a program to its end, watches its activity, and returns all its output.
///
/// # Errors
/// As for [`liveness::output`].
pub fn await_output(program: Program<'_>, watch: Watch<'_>) -> Result<Output> {
    liveness::output(&mut program.command(), watch)
}

/// Runs a program to its end and watches its activity.
///
/// # Errors
/// If it cannot be started, and as for [`liveness::wait`].
pub fn await_status(program: Program<'_>, watch: Watch<'_>) -> Result<ExitStatus> {
    let mut command = program.command();
    // A failed start can be retried.
    let mut child = insist(|| command.spawn()).with_context(|| format!("run {}", watch.what))?;
    liveness::wait(&mut child, watch)
}

/// Starts a program with pipes for its input and output.
///
/// # Errors
/// If it cannot be started.
pub fn spawn(program: Program<'_>) -> io::Result<Child> {
    let mut command = program.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// Starts a program and does not wait for it.
///
/// # Errors
/// If it cannot be started.
pub fn start(program: Program<'_>) -> io::Result<()> {
    program.command().spawn().map(drop)
}
