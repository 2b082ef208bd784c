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
pub fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
