//! Messages about errors and warnings: the cause first, then facts, then the next step.
//!
//! At a terminal a diagnostic is the lines `error:` or `warning:`, `note:` and `hint:`; in a job it is one annotation
//! with the same content.

use super::words::Words;
use super::{Hit, Outcome, RunnerCommand, note};
use std::error::Error;
use storecache_runtime::advice::{Advice, causes};

/// An error or a warning, with advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    cause: String,
    advice: Advice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

impl Severity {
    /// The name of the severity, at a terminal and for the runner of a job.
    fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl Diagnostic {
    pub fn error(cause: impl Into<String>) -> Self {
        Self::new(Severity::Error, cause)
    }

    pub fn warning(cause: impl Into<String>) -> Self {
        Self::new(Severity::Warning, cause)
    }

    fn new(severity: Severity, cause: impl Into<String>) -> Self {
        Diagnostic { severity, cause: cause.into(), advice: Advice::default() }
    }

    /// Describes an error with its causes and its advice.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self::error(causes(error)).advise(Advice::find(error).cloned().unwrap_or_default())
    }

    pub fn advise(mut self, advice: Advice) -> Self {
        self.advice = self.advice.and(advice);
        self
    }

    /// Turns an error into a warning: the run continues.
    pub fn into_warning(self) -> Self {
        Diagnostic { severity: Severity::Warning, ..self }
    }

    /// Prints the lines for a terminal.
    pub fn print(&self) {
        self.print_in(Words::command_line());
    }

    /// Prints the lines for the log of a job, or for a terminal.
    pub fn print_in(&self, words: Words) {
        self.terminal_lines().iter().for_each(|line| note(words.apply(line)));
    }

    fn terminal_lines(&self) -> Vec<String> {
        let cause = format!("{}: {}", self.severity.name(), self.cause);
        [vec![cause], advice_lines(&self.advice)].concat()
    }

    /// Returns the annotation for the log of a job, with the words of its interface.
    pub fn annotation(&self, words: Words) -> RunnerCommand {
        let lines = [vec![self.cause.clone()], advice_lines(&self.advice)].concat();
        let lines: Vec<_> = lines.iter().map(|line| words.apply(line)).collect();
        RunnerCommand::new(self.severity.name()).property("title", "storecache").text(lines)
    }
}

/// Describes why a restore that must not miss has missed: it found no entry, or required items are not complete.
pub fn misses(outcome: &Outcome) -> Vec<Diagnostic> {
    let reason = outcome.reason.as_deref().unwrap_or("a miss");
    let miss = (outcome.hit == Hit::Miss && !outcome.failed).then(|| Diagnostic::error(reason));
    miss.into_iter().chain(incomplete(outcome).map(Diagnostic::error)).collect()
}

/// Names the required items that are not complete.
pub fn incomplete(outcome: &Outcome) -> Option<String> {
    let wanting = outcome.required.iter().filter(|required| !required.complete);
    let wanting: Vec<_> = wanting.map(|required| required.pattern.as_str()).collect();
    (!wanting.is_empty()).then(|| format!("not complete in the store: {}", wanting.join(", ")))
}

fn advice_lines(advice: &Advice) -> Vec<String> {
    let notes = advice.notes.iter().map(|text| format!("note: {text}"));
    notes.chain(advice.hint.iter().map(|text| format!("hint: {text}"))).collect()
}

/// Prints a warning at a terminal.
pub fn print_warning(text: impl Into<String>) {
    Diagnostic::warning(text).print();
}

/// Prints a line about the state or the result of a run.
pub fn status(text: impl AsRef<str>) {
    note(format!("storecache: {}", text.as_ref()));
}

/// Prints a fact that the reader did not ask for.
pub fn print_note(text: impl AsRef<str>) {
    note(format!("note: {}", text.as_ref()));
}

/// Prints what the reader can do next.
pub fn print_hint(text: impl AsRef<str>) {
    note(format!("hint: {}", text.as_ref()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::words::Word;
    use anyhow::{Context, anyhow};
    use storecache_runtime::advice::WithAdvice;

    #[test]
    fn terminal_and_job_have_the_same_content() {
        let error = anyhow!("the lock on /x is held").note("process 7 holds it");
        let error = Err::<(), _>(error).context("wait").unwrap_err();
        let error = error.hint("set --lock-timeout to wait longer");
        let diagnostic = Diagnostic::from_error(error.as_ref());
        assert_eq!(
            diagnostic.terminal_lines(),
            [
                "error: wait: the lock on /x is held",
                "note: process 7 holds it",
                "hint: set --lock-timeout to wait longer"
            ]
        );
        let words =
            Words::new(|flag| (flag == "--lock-timeout").then_some(Word::Name("time", &[])));
        assert_eq!(
            diagnostic.annotation(words).to_string(),
            "::error title=storecache::wait: the lock on /x is held%0Anote: process 7 holds it%0A\
             hint: set time to wait longer"
        );
    }
}
