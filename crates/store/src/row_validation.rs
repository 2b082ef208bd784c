//! Checks the columns of a row from an untrusted database.
//!
//! SQLite accepts any value in any column. Package managers fail later on values that they cannot read,
//! whenever they come across the item. So storecache never inserts values that do not look like theirs.

use super::ItemName;
use anyhow::{Result, bail};
use rusqlite::types::Value;

/// Columns of `ValidPaths` that are never carried over, although both databases have them: an ID belongs to one
/// database, and `ultimate` would claim that the item was built here.
pub const NOT_CARRIED: [&str; 2] = ["id", "ultimate"];

/// Columns whose values have a known form.
const KNOWN: [&str; 7] = ["path", "hash", "registrationTime", "deriver", "narSize", "sigs", "ca"];

/// Old versions wrote this when they did not know the derivation of an item.
const UNKNOWN_DERIVER: &str = "unknown-deriver";
/// Limit for a list of signatures, a content address, and any other text.
const TEXT_LIMIT: usize = 64 << 10;

/// Checks the value of a carried column. In a column that is not known, any plain value is allowed.
///
/// # Errors
/// If no package manager writes such a value there.
pub fn check(item: &ItemName, column: &str, value: &Value, store_dir: &str) -> Result<()> {
    let fits = match (column, value) {
        ("path", Value::Text(path)) => ItemName::from_path(path, store_dir).as_ref() == Some(item),
        ("hash", Value::Text(hash)) => is_hash(hash),
        ("registrationTime", Value::Integer(time)) => *time >= 0,
        ("narSize", Value::Integer(size)) => *size >= 0,
        ("deriver", Value::Text(path)) => is_deriver(path, store_dir),
        ("sigs" | "ca", Value::Text(text)) => is_plain(text),
        ("deriver" | "narSize" | "sigs" | "ca", Value::Null) => true,
        (known, _) if KNOWN.contains(&known) => false,
        (_, Value::Text(text)) => is_plain(text),
        (_, Value::Integer(_) | Value::Null) => true,
        (_, Value::Real(_) | Value::Blob(_)) => false,
    };
    if !fits {
        bail!("{item} has an invalid value in the column {column} of the database");
    }
    Ok(())
}

/// Checks an output of a derivation.
///
/// # Errors
/// If its name or its path is not valid.
pub fn check_output(item: &ItemName, output: &str, path: &str, store_dir: &str) -> Result<()> {
    let named = |b: u8| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b);
    let name = (1..=255).contains(&output.len()) && output.bytes().all(named);
    if !name || ItemName::from_path(path, store_dir).is_none() {
        bail!("{item} has an invalid output: {output:?} at {path:?}");
    }
    Ok(())
}

/// Whether `text` is a SHA-256 in base 16, as in databases, or in the base 32 of paths.
fn is_hash(text: &str) -> bool {
    let Some(digits) = text.strip_prefix("sha256:") else { return false };
    match digits.len() {
        64 => digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        52 => digits.bytes().all(|b| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&b)),
        _ => false,
    }
}

fn is_deriver(path: &str, store_dir: &str) -> bool {
    path.is_empty() || path == UNKNOWN_DERIVER || ItemName::from_path(path, store_dir).is_some()
}

fn is_plain(text: &str) -> bool {
    text.len() <= TEXT_LIMIT && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(column: &str, value: Value) -> bool {
        let item = ItemName::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        check(&item, column, &value, "/nix/store").is_ok()
    }

    #[test]
    fn valid_column_values_are_accepted() {
        let path = format!("/nix/store/{}-x.drv", "0".repeat(32));
        for (column, text) in [
            ("hash", format!("sha256:{}", "0a".repeat(32))),
            ("hash", format!("sha256:{}", "1".repeat(52))),
            ("deriver", path),
            ("deriver", "unknown-deriver".into()),
            ("deriver", String::new()),
            ("sigs", "cache.nixos.org-1:abc+/= other:def".into()),
            ("ca", "fixed:r:sha256:1b".into()),
            ("another", "any text".into()),
        ] {
            assert!(fits(column, Value::Text(text)), "{column}");
        }
        assert!(fits("narSize", Value::Null) && fits("narSize", Value::Integer(5)));
        assert!(fits("registrationTime", Value::Integer(0)));
    }

    #[test]
    fn invalid_column_values_are_refused() {
        for (column, value) in [
            ("hash", Value::Null),
            ("hash", Value::Blob(b"sha256:".to_vec())),
            ("hash", Value::Text("sha256:".into())),
            ("hash", Value::Text(format!("sha256:{}", "0A".repeat(32)))),
            ("hash", Value::Text(format!("md5:{}", "0a".repeat(32)))),
            ("registrationTime", Value::Text("1".into())),
            ("registrationTime", Value::Integer(-1)),
            ("narSize", Value::Integer(-1)),
            ("narSize", Value::Real(1e300)),
            ("deriver", Value::Text("/etc/passwd".into())),
            ("deriver", Value::Integer(3)),
            ("sigs", Value::Text("a\nb".into())),
            ("ca", Value::Text("x".repeat(70 << 10))),
            ("another", Value::Text("\u{1b}[2J".into())),
            ("another", Value::Blob(vec![0])),
            ("path", Value::Text(format!("/nix/store/{}-y", "0".repeat(32)))),
            ("narSize", Value::Text("5".into())),
        ] {
            assert!(!fits(column, value.clone()), "{column} {value:?}");
        }
    }
}
