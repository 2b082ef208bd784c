//! Messages of several runs, as text for a snapshot that is the same on every machine.

use std::fmt::Write;
use std::path::Path;

use super::invocation::Output;
use super::job::StepResult;
use super::plain_env;

/// Collects messages, and replaces what differs between machines and runs.
#[derive(Default)]
pub struct MessageLog {
    text: String,
    replacements: Vec<(String, String)>,
}

impl MessageLog {
    pub fn new() -> Self {
        let log = MessageLog::default();
        log.replace(plain_env::binary().display().to_string(), "storecache")
    }

    /// Shows `name` instead of a text.
    pub fn replace(mut self, text: impl Into<String>, name: &str) -> Self {
        self.replacements.push((text.into(), name.to_owned()));
        self
    }

    /// Shows `DIR` instead of a directory.
    pub fn directory(self, directory: &Path) -> Self {
        self.replace(directory.display().to_string(), "DIR")
    }

    /// Adds a run at a terminal: its exit code and all messages, without events.
    pub fn add(&mut self, title: &str, output: &Output) {
        let lines = output.messages().into_iter().map(|line| format!("{line}\n"));
        let lines: String = lines.collect();
        let _ = writeln!(self.text, "# {title}: exit code {}\n{lines}", output.code());
    }

    /// Adds the fields of a JSON report that tell why something was not done.
    pub fn add_json(&mut self, title: &str, output: &Output) {
        self.add(title, output);
        let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        for field in ["ok", "failed", "phase", "reason", "notes", "hint", "warnings"] {
            if let Some(value) = report.get(field) {
                let _ = writeln!(self.text, "{field} = {value}");
            }
        }
        self.text.push('\n');
    }

    /// Adds a part of a step: its annotations, as GitHub shows them.
    pub fn add_step(&mut self, title: &str, step: &StepResult) {
        let _ = writeln!(self.text, "# {title}: exit code {}", step.code);
        for (kind, text) in step.annotations() {
            let _ = writeln!(self.text, "[{kind}] {text}");
        }
        self.text.push('\n');
    }

    pub fn text(&self) -> String {
        let mut text = self.text.clone();
        for (from, to) in &self.replacements {
            text = text.replace(from.as_str(), to);
        }
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, from) = rest.split_at(start);
            out.push_str(before);
            let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            let (name, length) = masked(word, after, out.ends_with("process "));
            out.push_str(name);
            rest = &from[length..];
        }
        out + rest
    }
}

/// Returns the cause in the `reason` of a failed run, without the command and the phase.
pub fn cause(reason: &str) -> &str {
    reason.splitn(3, ": ").nth(2).unwrap_or(reason)
}

/// Returns a word or, if it differs between runs, a name for it, and the length of the text that it stands for.
fn masked<'w>(word: &'w str, after: &str, is_pid: bool) -> (&'w str, usize) {
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    let is_hex = word.len() >= 12 && word.bytes().all(|it| it.is_ascii_hexdigit());
    match word.split_once('T') {
        // The generation of an entry: `20261201T044255.376019Z`.
        Some((day, time)) if day.len() == 8 && are_digits(day) && are_digits(time) => {
            let fraction = after.find('Z').map_or(0, |end| end + 1);
            ("TIME", word.len() + fraction)
        }
        _ if is_pid && are_digits(word) => ("PID", word.len()),
        _ if is_hex && !are_digits(word) => ("HEX", word.len()),
        _ => (word, word.len()),
    }
}
