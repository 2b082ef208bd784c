//! Names of items.

use std::fmt;
use std::sync::Arc;

/// Name of an item in its store directory: `<32 characters of hash>-<name>`.
///
/// Rules: `NixOS/nix:src/libstore/path.cc`; Guix has the same. Clones share the text, because a store has ten
/// times as many references as items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemName(Arc<str>);

/// The columns of one row of `ValidPaths` that a snapshot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidItem {
    pub name: ItemName,
    /// As in the database, with the algorithm as prefix.
    pub nar_hash: String,
    /// In bytes; unknown in very old databases.
    pub nar_size: Option<u64>,
    /// When the item became valid, in seconds since 1970.
    pub registered: u64,
}

const HASH_LENGTH: usize = 32;
const NAME_LENGTH: usize = 211;

impl ItemName {
    /// Parses a name; `None` if it is not a valid name of an item.
    pub fn parse(text: &str) -> Option<Self> {
        let (hash, name) = text.split_at_checked(HASH_LENGTH)?;
        let name = name.strip_prefix('-')?;
        let hash_ok = hash.bytes().all(|b| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&b));
        let name_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b));
        let dots = matches!(name, "." | "..") || name.starts_with(".-") || name.starts_with("..-");
        let length_ok = (1..=NAME_LENGTH).contains(&name.len());
        (hash_ok && name_ok && length_ok && !dots).then(|| ItemName(text.into()))
    }

    /// Parses the full path of an item directly below `store_dir`.
    pub fn from_path(path: &str, store_dir: &str) -> Option<Self> {
        Self::parse(path.strip_prefix(store_dir)?.strip_prefix('/')?)
    }

    /// Returns the part of the name after the hash.
    pub fn without_hash(&self) -> &str {
        self.0.get(HASH_LENGTH + 1..).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_name_must_be_a_valid_store_name() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        assert!(ItemName::parse(&format!("{hash}-hello-2.12.1")).is_some());
        assert!(ItemName::parse(&format!("{hash}-.hidden")).is_some());
        for bad in ["", "-", "-..", "-.-x", "-a/b", "-a b", "_x", "-ä"] {
            assert!(ItemName::parse(&format!("{hash}{bad}")).is_none(), "{bad}");
        }
        assert!(ItemName::parse("e123456789abcdfghijklmnpqrsvwxyz-x").is_none());
        assert!(ItemName::parse(&format!("{hash}-{}", "a".repeat(212))).is_none());
        assert!(ItemName::parse(".links").is_none());
        assert!(ItemName::from_path(&format!("/nix/store/{hash}-x"), "/nix/store").is_some());
        assert!(ItemName::from_path(&format!("/gnu/store/{hash}-x"), "/nix/store").is_none());
    }
}
