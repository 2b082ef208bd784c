//! Versions of actions that do not count, as the actions do not reach the store.

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobMatcher};

/// Those that hardly any workflow is without, and whose new versions come every few weeks.
pub const USUAL: [&str; 3] = ["actions/checkout", "actions/cache", "actions/upload-artifact"];

/// What was said of versions besides that, in its order: the last pattern that fits counts.
#[derive(Debug)]
pub struct Pins(Vec<(bool, GlobMatcher)>);

impl Pins {
    /// `more` besides the usual ones; one that begins with `!` takes away.
    ///
    /// # Errors
    /// When one is no pattern.
    pub fn new(more: &[String]) -> Result<Self> {
        let mut pins = Vec::new();
        for pattern in more {
            let (ignored, name) = match pattern.strip_prefix('!') {
                Some(name) => (false, name),
                None => (true, pattern.as_str()),
            };
            // An action stands for those below it too.
            for name in [name.to_owned(), format!("{name}/**")] {
                pins.push((ignored, matcher("--ignore-pins", &name)?));
            }
        }
        Ok(Pins(pins))
    }

    /// Whether the version of an action does not count; it is named without one.
    pub fn are_ignored(&self, action: &str) -> bool {
        let last = self.0.iter().rev().find(|(_, pattern)| pattern.is_match(action));
        last.map_or_else(|| is_usual(action), |(ignored, _)| *ignored)
    }
}

/// No patterns: they would have to be compiled for each workflow of a long history.
fn is_usual(action: &str) -> bool {
    let mut parts = action.splitn(3, '/');
    let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    USUAL.iter().any(|usual| usual.eq_ignore_ascii_case(&format!("{owner}/{name}")))
}

/// Patterns of a flag.
pub(super) fn patterns(flag: &str, texts: &[String]) -> Result<Vec<GlobMatcher>> {
    texts.iter().map(|text| matcher(flag, text)).collect()
}

fn matcher(flag: &str, text: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).case_insensitive(true).build();
    Ok(glob.with_context(|| format!("{flag} {text:?} is no pattern"))?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ones_do_not_count_and_more_can_be_named() {
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
