//! Writing to the two outputs without falling over when nobody reads them.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

/// Writes a line to standard output: what was asked for.
///
/// # Errors
/// When it cannot be written. A reader who has read enough is no error.
pub fn answer(line: impl Display) -> Result<()> {
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// Writes a line to standard error: what people may want to know. If that fails nobody is there.
///
/// The runner of a job takes lines that look like `::command::` for orders. Parts of a line may come
/// from a snapshot, so nothing in it looks like one.
pub fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{}", harmless(&line.to_string()));
}

/// Writes an order to the runner of a job. It goes where [`note`] goes, so that the two keep their
/// order.
pub fn order(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

// Source: actions/runner `src/Runner.Common/ActionCommand.cs`: `::` at the start of a trimmed line,
// or `##[` anywhere.
fn harmless(text: &str) -> String {
    let mut lines = text.split(['\n', '\r']);
    let mut safe = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        safe.push('\n');
        if line.trim_start().starts_with("::") {
            safe.push_str("| ");
        }
        safe.push_str(line);
    }
    safe.replace("##[", "## [")
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn nothing_that_is_said_looks_like_an_order_to_the_runner() {
        assert_eq!(harmless("a::b"), "a::b");
        assert_eq!(
            harmless("entry k\n  ::add-path::/x\r::set"),
            "entry k\n|   ::add-path::/x\n| ::set"
        );
        assert_eq!(harmless("k ##[set-env]x"), "k ## [set-env]x");
    }
}
