//! Lines for people on standard error, of the user process and of the root helper.

use crate::untrusted_text::escape;
use std::fmt::Display;
use std::io::Write;

/// Writes a line for people to standard error: information besides the result. It is escaped, since any part
/// of it may come from a snapshot, a server or another process.
pub fn note(line: impl Display) {
    write_escaped(&format!("{}\n", escape(&line.to_string())));
}

/// Writes text that the caller has escaped.
#[expect(clippy::disallowed_methods, reason = "all text is escaped by the callers")]
pub fn write_escaped(text: &str) {
    // A closed standard error is not a reason to stop.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
