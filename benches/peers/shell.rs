//! Commands of the shell: what is measured is written as a user would write it.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a script on this machine and gives back what it printed.
///
/// # Errors
/// If it fails, with the end of what it said.
pub fn sh(script: &str) -> Result<String> {
    run(&mut command(&[], script), script)
}

/// A script to be run by words in front of it, such as those of `nsenter`. A failure anywhere in a pipe
/// is one of the script.
pub fn command(room: &[String], script: &str) -> Command {
    let shell = ["bash", "-euo", "pipefail", "-c", script].map(str::to_owned);
    let mut words = room.iter().chain(&shell);
    let mut command = Command::new(words.next().map_or("bash", |word| word));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
///
/// # Errors
/// As for [`sh`].
pub fn run(command: &mut Command, script: &str) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {script}"))?;
    let said = String::from_utf8_lossy(&stderr);
    if !status.success() {
        let end: Vec<&str> = said.lines().rev().take(5).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        bail!("{script}: {status}: {}", end.join("\n"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Whether this machine has a program.
pub fn has(program: &str) -> bool {
    sh(&format!("command -v {program}")).is_ok()
}
