//! Orders to the runner: lines of the log that it acts on.

use crate::report::{self, RunnerCommand};
use std::path::Path;

/// What went wrong and made the step fail.
pub fn error(text: &str) {
    annotate("error", text);
}

/// What the user should know although the step goes on.
pub fn warning(text: &str) {
    annotate("warning", text);
}

/// The same about a line of a file of the repository.
pub fn warning_at(file: &Path, line: usize, text: &str) {
    let command = RunnerCommand::new("warning").property("title", "storecache");
    let command = command.property("file", file.display()).property("line", line);
    report::command(&command.text([text]));
}

/// Keeps a secret, each line of it, out of the log from here on. The runner does not show this line;
/// outside a job it would be the leak, so there it is not written.
pub fn mask(secret: &str) {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return;
    }
    // Of a key in JSON, braces stand alone on a line, and the log shall keep its own.
    for line in secret.lines().filter(|line| line.trim().len() > 2) {
        report::command(&RunnerCommand::new("add-mask").exact(line));
    }
}

/// An annotation of a line, as a line of its own.
#[derive(Debug, Clone)]
pub struct Annotation<'a> {
    /// `error`, `warning` or `notice`.
    pub kind: &'static str,
    pub file: &'a Path,
    /// From 1.
    pub line: usize,
    /// From 1.
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

fn annotate(kind: &'static str, text: &str) {
    report::command(&RunnerCommand::new(kind).property("title", "storecache").text([text]));
}
