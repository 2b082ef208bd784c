//! Everything that the program writes to standard output and standard error, for people and for programs that
//! parse this output.
//!
//! All other modules write through these functions: the lints `disallowed_methods` and `disallowed_macros`
//! refuse `println!` and the like anywhere else (`clippy.toml`). Any part of a message may come from a
//! snapshot, a server or another process, so each function escapes the text that it writes ([`escape`]). One
//! call writes one line: a line break in a message is shown as `\n`, and cannot forge a second message.

use super::RunnerCommand;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use storecache_runtime::events;
use storecache_runtime::standard_error::{note, write_escaped};
use storecache_runtime::untrusted_text::{escape, escape_json};

/// Writes a line for people to standard output: the result that the user asked for.
///
/// # Errors
/// If it cannot be written. A closed pipe is not an error: the reader does not want more.
pub fn answer(line: impl Display) -> Result<()> {
    write_answer(&format!("{}\n", escape(&line.to_string())))
}

/// Writes a value to standard output as JSON.
///
/// # Errors
/// As [`answer`].
pub fn answer_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string(value).context("write the report as JSON")?;
    write_answer(&format!("{}\n", escape_json(&json)))
}

/// Writes a command for the runner of a job to standard output.
///
/// # Errors
/// As [`answer`].
pub fn answer_command(command: &RunnerCommand) -> Result<()> {
    write_answer(&format!("{command}\n"))
}

/// Writes a text of this program to standard output unchanged: help, manual pages, completions. The text must
/// not contain anything from other sources.
///
/// # Errors
/// As [`answer`].
pub fn answer_exact(text: &str) -> Result<()> {
    write_answer(&format!("{text}\n"))
}

#[expect(clippy::disallowed_methods, reason = "all text is escaped by the callers above")]
fn write_answer(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// Writes a command for the runner of a job to standard error. [`note`] writes there too, so the order is
/// kept.
pub fn command(command: &RunnerCommand) {
    write_escaped(&format!("{command}\n"));
}

/// A progress bar on standard error, or `None` if that is not a terminal, or if events are shown there. The caller must
/// escape its texts.
#[expect(clippy::disallowed_methods, reason = "indicatif draws the bar itself")]
pub(super) fn progress_bar() -> Option<ProgressBar> {
    let target = || ProgressDrawTarget::stderr_with_hz(10);
    let is_free = std::io::stderr().is_terminal() && !events::are_shown();
    is_free.then(|| ProgressBar::with_draw_target(None, target()))
}

/// Reports panics as [`note`] does: their messages can quote text from other sources.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or_default();
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        note(format!("error: storecache panicked{place}: {text}"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            trace.to_string().lines().for_each(note);
        }
    }));
}
