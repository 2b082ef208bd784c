//! Versions of actions that do not count, because these actions do not affect the store.

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobMatcher};

/// Actions that nearly all workflows use, and that have new versions every few weeks.
pub const USUAL: [&str; 3] = ["actions/checkout", "actions/cache", "actions/upload-artifact"];

/// Patterns of the user in order, with whether a matching version is ignored: the last match wins.
#[derive(Debug)]
pub struct Pins(Vec<(bool, GlobMatcher)>);

impl Pins {
    /// Compiles the patterns of `--ignore-pins`, which are added to the usual actions; a pattern that begins
    /// with `!` makes versions count.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub fn new(more: &[String]) -> Result<Self> {
        let mut pins = Vec::new();
        for pattern in more {
            let (ignored, name) = match pattern.strip_prefix('!') {
                Some(name) => (false, name),
                None => (true, pattern.as_str()),
            };
            // A pattern for an action also matches the actions in its subdirectories.
            for name in [name.to_owned(), format!("{name}/**")] {
                pins.push((ignored, matcher("--ignore-pins", &name)?));
            }
        }
        Ok(Pins(pins))
    }

    /// Returns whether the version of an action does not count. `action` is given without a version.
    pub fn are_ignored(&self, action: &str) -> bool {
        let last = self.0.iter().rev().find(|(_, pattern)| pattern.is_match(action));
        last.map_or_else(|| is_usual(action), |(ignored, _)| *ignored)
    }
}

/// Returns whether an action is one of the usual ones. Compares strings, because patterns would have to be
/// compiled for each workflow of a long history.
fn is_usual(action: &str) -> bool {
    let mut parts = action.splitn(3, '/');
    let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    USUAL.iter().any(|usual| usual.eq_ignore_ascii_case(&format!("{owner}/{name}")))
}

/// Compiles the patterns of a flag.
pub(super) fn patterns(flag: &str, texts: &[String]) -> Result<Vec<GlobMatcher>> {
    texts.iter().map(|text| matcher(flag, text)).collect()
}

fn matcher(flag: &str, text: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).case_insensitive(true).build();
    Ok(glob.with_context(|| format!("{flag} {text:?} is not a valid pattern"))?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_actions_are_ignored_and_more_can_be_added() {
        let none = Pins::new(&[]).unwrap();
        for action in ["actions/checkout", "Actions/Cache/restore", "actions/upload-artifact"] {
            assert!(none.are_ignored(action), "{action}");
        }
        for action in ["actions/cached", "actions/setup-node", "me/actions/cache", ""] {
            assert!(!none.are_ignored(action), "{action}");
        }
        let more = ["codecov/*", "!actions/cache"].map(str::to_owned);
        let more = Pins::new(&more).unwrap();
        assert!(more.are_ignored("codecov/codecov-action"));
        assert!(!more.are_ignored("actions/cache/save") && more.are_ignored("actions/checkout"));
        assert!(Pins::new(&["[".to_owned()]).is_err());
    }
}
