//! Commands for the runner of a job: lines of the log that the runner acts on.

use std::fmt;
use storecache_runtime::untrusted_text::escape;

/// Maximum length of an annotation's text in characters; the runner truncates longer texts.
const LONGEST: usize = 4000;

/// A command with all its parts encoded, as one line.
///
/// Source: actions/runner `src/Runner.Common/ActionCommand.cs` for the characters that have to be encoded.
#[derive(Debug, Clone)]
pub struct RunnerCommand {
    name: &'static str,
    properties: String,
    data: String,
}

impl RunnerCommand {
    pub fn new(name: &'static str) -> Self {
        RunnerCommand { name, properties: String::new(), data: String::new() }
    }

    pub fn property(mut self, name: &str, value: impl fmt::Display) -> Self {
        let separator = if self.properties.is_empty() { ' ' } else { ',' };
        let value = encode(&escape(&value.to_string())).replace(':', "%3A").replace(',', "%2C");
        self.properties += &format!("{separator}{name}={value}");
        self
    }

    /// Sets the text for people. Each line is escaped, so that it stays a single line.
    pub fn text<T: AsRef<str>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        let lines: Vec<_> =
            lines.into_iter().map(|line| escape(line.as_ref()).into_owned()).collect();
        let text: String = lines.join("\n").chars().take(LONGEST).collect();
        self.data = encode(&text);
        self
    }

    /// Sets a value for the runner only, without escaping.
    pub fn exact(mut self, value: &str) -> Self {
        self.data = encode(value);
        self
    }
}

impl fmt::Display for RunnerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "::{}{}::{}", self.name, self.properties, self.data)
    }
}

fn encode(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_one_line_and_escapes_its_text() {
        let command = RunnerCommand::new("error")
            .property("title", "a,b:c\n")
            .text(["50% of", "it, a:b\r\n"]);
        assert_eq!(command.to_string(), r"::error title=a%2Cb%3Ac\n::50%25 of%0Ait, a:b\r\n");
        assert_eq!(
            RunnerCommand::new("add-mask").exact("\u{1b}%0A\n").to_string(),
            "::add-mask::\u{1b}%250A%0A"
        );
    }

    #[test]
    fn command_escapes_commands_in_its_text() {
        let command = RunnerCommand::new("warning").text(["\u{1b}[2J", "::error::x", "##[error]y"]);
        assert_eq!(command.to_string(), r"::warning::\x1b[2J%0A\x3a:error::x%0A#\x23[error]y");
    }
}
