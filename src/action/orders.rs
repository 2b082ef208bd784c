//! Orders to the runner: lines of the log that it acts on.
//! Source: actions/runner `src/Runner.Common/ActionCommand.cs` for what has to be escaped.

use crate::report;
use std::fmt;
use std::path::Path;

/// Annotations of one step are cut at this length, in characters.
const LONGEST: usize = 4000;

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
    let file = property(&file.display().to_string());
    let text = escaped(text);
    report::order(format!("::warning title=storecache,file={file},line={line}::{text}"));
}

/// Keeps a secret, each line of it, out of the log from here on. The runner does not show this line;
/// outside a job it would be the leak, so there it is not written.
pub fn mask(secret: &str) {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return;
    }
    // Of a key in JSON, braces stand alone on a line, and the log shall keep its own.
    for line in secret.lines().filter(|line| line.trim().len() > 2) {
        report::order(format!("::add-mask::{}", escaped(line)));
    }
}

/// An annotation of a line, as a line of its own.
#[derive(Debug, Clone)]
pub struct Annotation<'a> {
    /// `error`, `warning` or `notice`.
    pub kind: &'a str,
    pub file: &'a Path,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    pub title: &'a str,
    pub text: &'a str,
}

impl fmt::Display for Annotation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Annotation { kind, file, line, column, title, text } = self;
        let (file, title) = (property(&file.display().to_string()), property(title));
        let text: String = text.chars().take(LONGEST).collect();
        let text = escaped(&text);
        write!(f, "::{kind} file={file},line={line},col={column},title={title}::{text}")
    }
}

fn annotate(kind: &str, text: &str) {
    let cut: String = text.chars().take(LONGEST).collect();
    report::order(format!("::{kind} title=storecache::{}", escaped(&cut)));
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::{escaped, property};

    #[test]
    fn an_order_stays_on_one_line_and_means_what_it_says() {
        assert_eq!(escaped("50% of\r\nit, a:b"), "50%25 of%0D%0Ait, a:b");
        assert_eq!(escaped("%0A"), "%250A");
        assert_eq!(property("a,b:c"), "a%2Cb%3Ac");
    }
}
