//! A progress bar for short work that is counted. It is shown on a terminal only.

use super::output::progress_bar;
use indicatif::{ProgressBar, ProgressStyle};
use storecache_runtime::untrusted_text::escape;

/// The progress bar; it is hidden without a terminal.
pub struct Counting(Option<ProgressBar>);

impl Counting {
    /// Counts `what`, up to `total`.
    pub fn new(quiet: bool, what: &str, total: u64) -> Self {
        let Some(bar) = progress_bar().filter(|_| !quiet) else { return Counting(None) };
        // A template that cannot be parsed would be a bug, but progress is not important enough to fail.
        let style = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {pos}/{len} {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(escape(what).into_owned());
        bar.set_length(total);
        Counting(Some(bar))
    }

    /// Counts one more.
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
