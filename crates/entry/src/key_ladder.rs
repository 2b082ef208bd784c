//! The ladder of a lookup: the exact key, then prefixes in order.

use std::fmt;

/// One step of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rung {
    Exact(String),
    Prefix(String),
}

/// The rungs of a lookup, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    pub rungs: Vec<Rung>,
}

impl Ladder {
    pub fn new(key: &str, fallback: Option<&str>, restore_keys: &[String]) -> Self {
        let prefixes = fallback.into_iter().chain(restore_keys.iter().map(String::as_str));
        let prefixes = prefixes.map(|prefix| Rung::Prefix(prefix.to_owned()));
        let mut rungs = vec![Rung::Exact(key.to_owned())];
        for prefix in prefixes {
            if !rungs.contains(&prefix) {
                rungs.push(prefix);
            }
        }
        Ladder { rungs }
    }
}

impl Rung {
    /// Returns whether an entry with `key` matches this rung. Ignores case, as the cache service of GitHub
    /// does.
    pub fn holds(&self, key: &str) -> bool {
        let key = key.to_lowercase();
        match self {
            Rung::Exact(exact) => key == exact.to_lowercase(),
            Rung::Prefix(prefix) => key.starts_with(&prefix.to_lowercase()),
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rung::Exact(key) => write!(f, "exact {key}"),
            Rung::Prefix(prefix) => write!(f, "prefix {prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladder_starts_with_the_exact_key_without_duplicates() {
        let keys = ["p-".to_owned(), "p-nix-".to_owned()];
        let ladder = Ladder::new("p-nix-1-abc", Some("p-nix-"), &keys);
        let prefix = |text: &str| Rung::Prefix(text.into());
        let exact = Rung::Exact("p-nix-1-abc".into());
        assert_eq!(ladder.rungs, [exact, prefix("p-nix-"), prefix("p-")]);
    }

    #[test]
    fn exact_rung_does_not_match_a_longer_key() {
        assert!(Rung::Exact("Key".into()).holds("key"));
        assert!(!Rung::Exact("key".into()).holds("key-1"));
        assert!(Rung::Prefix("key-".into()).holds("KEY-1"));
    }
}
