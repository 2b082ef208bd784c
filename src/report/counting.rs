//! A bar for work that is counted and done soon: on a terminal, and nowhere else.

use super::output::progress_bar;
use crate::untrusted::escape;
use indicatif::{ProgressBar, ProgressStyle};

/// Says on a terminal how much of something is done.
pub struct Counting(Option<ProgressBar>);

impl Counting {
    /// `what` is counted, and there are `total`.
    pub fn new(quiet: bool, what: &str, total: u64) -> Self {
        let Some(bar) = progress_bar().filter(|_| !quiet) else { return Counting(None) };
        // A template that does not parse would be a bug of ours; progress is not worth dying for.
        let style = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {pos}/{len} {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(escape(what).into_owned());
        bar.set_length(total);
        Counting(Some(bar))
    }

    /// One more is done.
    pub fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
