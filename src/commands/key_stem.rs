//! The stem of a key: the key without the parts that change from save to save.

use std::sync::LazyLock;
use storecache_store::{StoreKind, systems};

/// Digits of the hash in a key that storecache made, see `key`.
const HASH_DIGITS: usize = 32;

/// The fewest hexadecimal digits that count as a hash and not as a word.
const FEWEST_DIGITS: usize = 7;

static SYSTEMS: LazyLock<Vec<String>> = LazyLock::new(systems);

/// Whether a key has the middle part of the keys that storecache makes, as in `-nix-x86_64-linux-`.
fn is_made(key: &str) -> bool {
    StoreKind::ALL.iter().any(|kind| {
        let kind = format!("-{kind}-");
        let mut ends = key.match_indices(&kind).map(|(at, kind)| &key[at + kind.len()..]);
        let follows = |rest: &str, system: &String| {
            rest.strip_prefix(system.as_str()).is_some_and(|rest| rest.starts_with('-'))
        };
        ends.any(|rest| SYSTEMS.iter().any(|system| follows(rest, system)))
    })
}

/// Returns `PREFIX-STORE-SYSTEM-VERSION` of a key that storecache made. Of any other key, returns the part
/// before the hashes and numbers at its end.
pub fn stem(key: &str) -> &str {
    if is_made(key) {
        let hash = |text: &str| text.len() == HASH_DIGITS && text.chars().all(is_digit);
        return match key.rsplit_once('-') {
            Some((stem, last)) if hash(last) => stem,
            _ => key,
        };
    }
    let mut stem = key;
    while let Some(at) = stem.rfind(['-', '_', '/', '#', ':', '|', ' ']) {
        let part = &stem[at + 1..];
        let number = part.bytes().all(|byte| byte.is_ascii_digit());
        let hash = part.len() >= FEWEST_DIGITS
            && part.chars().all(is_digit)
            && part.bytes().any(|byte| byte.is_ascii_digit());
        if at == 0 || !(number || hash) {
            break;
        }
        stem = &stem[..at];
    }
    stem
}

fn is_digit(c: char) -> bool {
    c.is_ascii_hexdigit()
}

#[cfg(test)]
mod tests {
    use super::stem;
    use proptest::prelude::*;

    #[test]
    fn keys_that_differ_in_hashes_and_numbers_share_a_stem() {
        let hash = "0123456789abcdef0123456789abcdef";
        for (key, expected) in [
            (
                format!("storecache-nix-x86_64-linux-2.8.0-{hash}"),
                "storecache-nix-x86_64-linux-2.8.0",
            ),
            ("storecache-guix-aarch64-linux-1.5.0".into(), "storecache-guix-aarch64-linux-1.5.0"),
            // A hash of another length is part of the version.
            ("p-plain-x86_64-linux-any-1234567".into(), "p-plain-x86_64-linux-any-1234567"),
            (format!("node-cache-Linux-x64-npm-{hash}{hash}"), "node-cache-Linux-x64-npm"),
            ("v0-rust-job-Linux-x64-abc12345-0def6789".into(), "v0-rust-job-Linux-x64"),
            ("ccache-2026-11-26".into(), "ccache"),
            ("build#17".into(), "build"),
            ("a deadbeef".into(), "a deadbeef"),
            ("x86_64-pc".into(), "x86_64-pc"),
            ("setup-go-1.22.3-7f3b2c1".into(), "setup-go-1.22.3"),
            ("nix--".into(), "nix"),
            ("-17".into(), "-17"),
            ("17".into(), "17"),
            (String::new(), ""),
        ] {
            assert_eq!(stem(&key), expected, "{key}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn stem_is_a_stable_prefix_of_its_key(key in "\\PC{0,40}") {
            prop_assert!(key.starts_with(stem(&key)));
            prop_assert_eq!(stem(&key).is_empty(), key.is_empty());
            prop_assert_eq!(stem(stem(&key)), stem(&key));
        }
    }
}
