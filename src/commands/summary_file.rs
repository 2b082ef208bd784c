//! `--summary`: appends the summary of a job to a file.

use crate::report::{Job, Outcome, render};
use anyhow::{Context, Result};
use jiff::Timestamp;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use storecache_runtime::advice::in_one_line;

/// Appends the summary, if the options name a file for it. Returns a warning if that failed.
pub fn append(
    path: Option<&Path>,
    restore: Option<&Outcome>,
    save: Option<&Outcome>,
) -> Option<String> {
    let text = render(&Job { restore, save, now: Timestamp::now() });
    let error = write(path?, &text).err()?;
    Some(format!("the summary was not written: {}", in_one_line(error.as_ref())))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let context = || format!("append to {}", path.display());
    let mut file = File::options().append(true).create(true).open(path).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)
}
