//! Shell commands: measured work is written as a user would write it.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a script on this machine and returns its output.
///
/// # Errors
/// If the script fails, with the end of its error output.
pub fn sh(script: &str) -> Result<String> {
    run(&mut command(&[], script), script)
}

/// Returns a command that runs a script, with words in front of it, such as those of `nsenter`. A failure anywhere in
/// a pipe makes the script fail.
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

/// Returns whether a program is installed.
pub fn has(program: &str) -> bool {
    sh(&format!("command -v {program}")).is_ok()
}
