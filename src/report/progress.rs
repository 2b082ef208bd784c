//! Progress: bars on a terminal, a line of text from time to time elsewhere, nothing if quiet.

use super::output::progress_bar;
use super::{RunnerCommand, command, format, note};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};
use storecache_runtime::untrusted_text::escape;

/// Minimum time between lines of text.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of a run on standard error.
pub struct Progress {
    face: Face,
    phase: String,
    bytes: u64,
    total: u64,
    items: Option<(u64, u64)>,
    started: Instant,
    folds: Folds,
}

/// Whether the log of a job has collapsible groups.
#[derive(PartialEq)]
enum Folds {
    No,
    /// It has; `open` is whether a group has begun.
    Yes {
        open: bool,
    },
}

/// Prints lines for people while a run shows its progress.
pub enum Voice {
    /// Prints nothing.
    Silent,
    /// Hides the bar while it prints.
    BesideBar(ProgressBar),
    Direct,
}

impl Voice {
    pub fn say(&self, text: &str) {
        match self {
            Voice::Silent => {}
            Voice::BesideBar(bar) => bar.suspend(|| note(text)),
            Voice::Direct => note(text),
        }
    }
}

enum Face {
    Bars(ProgressBar),
    Lines { last: Option<Instant> },
    Quiet,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let face = if quiet {
            Face::Quiet
        } else {
            progress_bar().map_or(Face::Lines { last: None }, Face::Bars)
        };
        Progress {
            face,
            phase: String::new(),
            bytes: 0,
            total: 0,
            items: None,
            started: Instant::now(),
            folds: Folds::No,
        }
    }

    /// Adapts the output to the log of a job, in which [`Progress::fold`] begins a collapsible group. Some
    /// runners give their steps a terminal, but it is not interactive, and a progress bar would hide commands
    /// for the runner.
    pub fn in_job(mut self) -> Self {
        self.folds = Folds::Yes { open: false };
        if let Face::Bars(_) = self.face {
            self.face = Face::Lines { last: None };
        }
        self
    }

    /// Returns a handle for printing lines between the bars, on any thread.
    pub fn voice(&self) -> Voice {
        match &self.face {
            Face::Quiet => Voice::Silent,
            Face::Bars(bar) => Voice::BesideBar(bar.clone()),
            Face::Lines { .. } => Voice::Direct,
        }
    }

    /// Begins a group in the log of a job; does nothing elsewhere.
    pub fn fold(&mut self, title: &str) {
        self.unfold();
        if let Folds::Yes { open } = &mut self.folds {
            *open = true;
            command(&RunnerCommand::new("group").text([format!("storecache: {title}")]));
        }
    }

    /// Prints a detail if the log has groups.
    pub fn detail(&self, text: impl FnOnce() -> String) {
        if self.folds != Folds::No {
            note(format!("storecache: {}", text()));
        }
    }

    fn unfold(&mut self) {
        if self.folds == (Folds::Yes { open: true }) {
            command(&RunnerCommand::new("endgroup"));
            self.folds = Folds::Yes { open: false };
        }
    }

    /// Begins a phase. `total` bytes and `items` items are expected; 0 or `None` if that is not known.
    pub fn phase(&mut self, name: &str, total: u64, items: Option<u64>) {
        self.phase = name.to_owned();
        (self.bytes, self.total) = (0, total);
        self.items = items.map(|of| (0, of));
        self.started = Instant::now();
        if let Face::Bars(bar) = &self.face {
            bar.set_style(style(total > 0));
            bar.set_length(total);
            bar.set_position(0);
            bar.reset_eta();
            bar.set_prefix(escape(name).into_owned());
            bar.set_message("");
            bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    /// Updates the progress of the phase.
    pub fn at(&mut self, bytes: u64, items: Option<u64>) {
        self.bytes = bytes;
        if let (Some((done, _)), Some(now)) = (&mut self.items, items) {
            *done = now;
        }
        let line = self.line();
        match &mut self.face {
            Face::Quiet => {}
            Face::Bars(bar) => {
                bar.set_position(bytes);
                if let Some((done, of)) = self.items {
                    bar.set_message(format!("{done}/{of} items"));
                }
            }
            Face::Lines { last } => {
                let due = last.unwrap_or(self.started).elapsed() >= LINE_EVERY;
                if due {
                    *last = Some(Instant::now());
                    note(&line);
                }
            }
        }
    }

    /// Prints a line for people between the bars.
    pub fn say(&self, text: &str) {
        self.voice().say(text);
    }

    fn line(&self) -> String {
        let mut line = format!("storecache: {}", self.phase);
        if let Some((done, of)) = self.items {
            line += &format!(", {done} of {of} items");
        }
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = self.bytes as f64 / seconds;
        line += &format!(", {}", format::bytes(self.bytes));
        if self.total > 0 {
            line += &format!(" of {}", format::bytes(self.total));
        }
        line += &format!(", {}/s", format::bytes(rate as u64));
        if self.total > self.bytes && rate > 0.0 {
            let left = (self.total - self.bytes) as f64 / rate;
            line += &format!(", {} left", format::seconds(left));
        }
        line
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.unfold();
        if let Face::Bars(bar) = &self.face {
            bar.finish_and_clear();
        }
    }
}

fn style(total_known: bool) -> ProgressStyle {
    let template = if total_known {
        "{prefix:>9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}"
    } else {
        "{prefix:>9} {spinner} {bytes} {bytes_per_sec} {msg}"
    };
    // A template that cannot be parsed would be a bug, but progress is not important enough to fail.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
