//! The head: what a snapshot is, readable without the rest of it.

use super::{Digest, SnapshotError};
use crate::untrusted::Untrusted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest format that this program reads.
pub const FORMAT: u64 = DELTA;
/// Format of a snapshot that holds all of its items.
pub const FULL: u64 = 1;
/// Format of a snapshot that names a base for some of them. Who reads only the other one refuses it.
pub const DELTA: u64 = 2;

/// First content of a snapshot, as JSON. Unknown fields are ignored, so that a later version of the
/// same format may add some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub format: u64,
    /// Program and version that wrote the snapshot.
    pub tool: Untrusted,
    pub store: StoreFacts,
    pub key: Untrusted,
    /// A delta: name of the entry that holds the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Untrusted>,
    /// What went into the key's hash, by name, with the digest of each.
    #[serde(default)]
    pub ingredients: BTreeMap<String, Digest>,
    #[serde(default)]
    pub origin: Origin,
    /// When the database was frozen, RFC 3339 in UTC.
    pub created: Untrusted,
    /// Items in the snapshot, those in its base among them.
    pub items: u64,
    /// Sum of the items' NAR sizes in bytes; 0 where a store has none.
    #[serde(default)]
    pub nar_bytes: u64,
    /// Seconds that a job took which began with a miss, from its restore to its save.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_seconds: Option<f64>,
    /// When the restore of the job that saved it had ended, RFC 3339 in UTC, if the save saw what of that was
    /// read since. An item is used before this moment exactly if it was restored by then and not read after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_since: Option<Untrusted>,
    /// Profiles of whoever saved it, as far as they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileFacts>,
}

/// A profile and the item that it led to. Strings, as in [`StoreFacts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFacts {
    pub name: Untrusted,
    /// Name of the item in its store directory.
    pub item: Untrusted,
}

/// The store that a snapshot was made from. Strings, because this room does not know what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFacts {
    /// `nix`, `guix` or `plain`.
    pub kind: Untrusted,
    /// Directory of the items, as programs inside the store's root see it; empty for `plain`.
    pub store_dir: Untrusted,
    pub state_dir: Untrusted,
    /// For example `x86_64-linux`.
    pub system: Untrusted,
    /// Version of the package manager.
    #[serde(default)]
    pub version: Untrusted,
    /// Number in the database's `schema` file.
    #[serde(default)]
    pub schema: Option<u64>,
    /// Names in `SchemaMigrations`.
    #[serde(default)]
    pub migrations: Vec<Untrusted>,
    /// Who owns items: `root`, or `user` when the store belongs to another account.
    #[serde(default)]
    pub owner: Untrusted,
}

/// Where a snapshot was made; empty fields where that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    #[serde(default)]
    pub repository: Untrusted,
    #[serde(default, rename = "ref")]
    pub reference: Untrusted,
    #[serde(default)]
    pub commit: Untrusted,
    #[serde(default)]
    pub run: Untrusted,
    #[serde(default)]
    pub trigger: Untrusted,
}

impl Head {
    pub fn to_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        serde_json::to_vec(self).map_err(|e| SnapshotError::damaged(format!("head: {e}")))
    }

    /// Parses a head; refuses one of a newer format before it looks at anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        refuse_newer_format("snapshot", bytes)?;
        serde_json::from_slice(bytes)
            .map_err(|e| SnapshotError::NotASnapshot(format!("its head does not parse: {e}")))
    }

    /// Identity of the layout: two snapshots with different ones are never used for each other.
    /// A hash of store kind, store directory, system, and of the newest format that may be found.
    pub fn cache_version(&self) -> Digest {
        let StoreFacts { kind, store_dir, system, .. } = &self.store;
        cache_version(kind.raw(), store_dir.raw(), system.raw())
    }
}

/// The cache version for a store, see [`Head::cache_version`]. A delta and its base have the same, so
/// that one lookup sees both; and whoever does not read deltas has another one and never meets any.
pub fn cache_version(kind: &str, store_dir: &str, system: &str) -> Digest {
    cache_version_of(FORMAT, kind, store_dir, system)
}

/// The same for a storecache whose newest format is or was `format`.
pub fn cache_version_of(format: u64, kind: &str, store_dir: &str, system: &str) -> Digest {
    Digest::of(format!("storecache|{format}|{kind}|{store_dir}|{system}").as_bytes())
}

/// Looks only at the `format` number of a JSON object.
pub(super) fn refuse_newer_format(what: &'static str, json: &[u8]) -> Result<(), SnapshotError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u64,
    }
    let FormatOnly { format } = serde_json::from_slice(json)
        .map_err(|e| SnapshotError::NotASnapshot(format!("the {what} names no format: {e}")))?;
    match format {
        0 => Err(SnapshotError::NotASnapshot(format!("the {what} is of format 0"))),
        1..=FORMAT => Ok(()),
        found => Err(SnapshotError::NewerFormat { what, found }),
    }
}
