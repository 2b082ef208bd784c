//! A mistake as a rule reports it: without a file name, and with a correction that was not tried yet.

use super::fix::{Lines, Page};
use super::{Finding, Level, WorkflowFile};
use storecache_workflow::workflow::Text;

pub struct Diagnostic {
    pub rule: &'static str,
    pub level: Level,
    line: usize,
    /// The text in its line that the mistake is about.
    word: String,
    message: String,
    fix: String,
    pub lines: Option<Lines>,
    example: Option<String>,
}

impl Diagnostic {
    pub fn error(rule: &'static str, line: usize, message: impl Into<String>) -> Self {
        let (word, fix) = (String::new(), String::new());
        let message = message.into();
        Diagnostic {
            rule,
            level: Level::Error,
            line,
            word,
            message,
            fix,
            lines: None,
            example: None,
        }
    }

    pub fn warning(rule: &'static str, line: usize, message: impl Into<String>) -> Self {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(rule, line, message) }
    }

    /// Sets the text in its line that the mistake is about.
    pub fn at(mut self, word: impl Into<String>) -> Self {
        self.word = word.into();
        self
    }

    /// Sets the first line of `text` as the text that the mistake is about.
    pub fn at_first_line(self, text: &Text) -> Self {
        let first = text.text.lines().next().unwrap_or_default();
        self.at(first)
    }

    /// Sets the description of the correction.
    pub fn fix(mut self, words: impl Into<String>) -> Self {
        self.fix = words.into();
        self
    }

    /// Sets the corrected lines, if the rule could produce them.
    pub fn lines(mut self, lines: Option<Lines>) -> Self {
        self.lines = lines;
        self
    }

    /// Sets an example, which is shown if the corrected lines are not known.
    pub fn example(mut self, text: impl Into<String>) -> Self {
        self.example = Some(text.into());
        self
    }

    pub fn finding(&self, source: &WorkflowFile, page: &Page, lines: Option<Lines>) -> Finding {
        Finding {
            file: source.file.clone(),
            line: self.line,
            column: page.column(self.line, &self.word),
            level: self.level,
            rule: self.rule,
            message: self.message.clone(),
            fix: self.fix.clone(),
            example: self.example.clone().filter(|_| lines.is_none()),
            lines,
        }
    }
}
