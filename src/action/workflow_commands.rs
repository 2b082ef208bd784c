//! Workflow commands: lines in the log that the runner acts on.

use super::inputs::words;
use crate::report::{self, Diagnostic, RunnerCommand};
use std::path::Path;

/// Annotates the job, in the words of its inputs.
pub fn annotate(diagnostic: &Diagnostic) {
    report::command(&diagnostic.annotation(words()));
}

/// Annotates the job with a warning. The step continues.
pub fn warning(text: &str) {
    annotate(&Diagnostic::warning(text));
}

/// As [`warning`], for a line of a file in the repository.
pub fn warning_at(file: &Path, line: usize, text: &str) {
    let command = RunnerCommand::new("warning").property("title", "storecache");
    let command = command.property("file", file.display()).property("line", line);
    report::command(&command.text([text]));
}

/// Hides a secret, each line of it, in the log from here on. The runner does not show this command. Outside a job,
/// the command itself would reveal the secret, so it is not written there.
pub fn mask(secret: &str) {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return;
    }
    // A key in JSON has lines that contain only a brace. Skip these, so that other braces in the log stay visible.
    for line in secret.lines().filter(|line| line.trim().len() > 2) {
        report::command(&RunnerCommand::new("add-mask").exact(line));
    }
}

/// An annotation of a line of a file.
#[derive(Debug, Clone)]
pub struct Annotation<'a> {
    /// `error`, `warning` or `notice`.
    pub kind: &'static str,
    pub file: &'a Path,
    /// Starts at 1.
    pub line: usize,
    /// Starts at 1.
    pub column: usize,
    pub title: &'a str,
    /// One line each.
    pub text: &'a [String],
}

impl Annotation<'_> {
    pub fn command(&self) -> RunnerCommand {
        let Annotation { kind, file, line, column, title, text } = self;
        let command = RunnerCommand::new(kind).property("file", file.display());
        let command = command.property("line", line).property("col", column);
        command.property("title", title).text(*text)
    }
}
