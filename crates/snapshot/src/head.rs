//! The head: a description of a snapshot that can be read without the rest of the file.

use super::{Digest, SnapshotError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use storecache_runtime::untrusted_text::Untrusted;

/// The newest format that this program reads.
pub const FORMAT: u64 = DELTA;
/// Format of a snapshot that holds all of its items.
pub const FULL: u64 = 1;
/// Format of a snapshot that takes some items from a base. A program that reads only format 1 refuses it.
pub const DELTA: u64 = 2;

/// First content of a snapshot, as JSON. Unknown fields are ignored, so that a later version of the same format
/// may add some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub format: u64,
    /// Program and version that wrote the snapshot.
    pub tool: Untrusted,
    pub store: StoreFacts,
    pub key: Untrusted,
    /// In a delta: name of the entry that holds the remaining items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Untrusted>,
    /// Ingredients of the key's hash, by name, with the digest of each.
    #[serde(default)]
    pub ingredients: BTreeMap<String, Digest>,
    #[serde(default)]
    pub origin: Origin,
    /// When the database was frozen, RFC 3339 in UTC.
    pub created: Untrusted,
    /// Items in the snapshot, including those in its base.
    pub items: u64,
    /// Sum of the items' NAR sizes in bytes; 0 if a store does not record them.
    #[serde(default)]
    pub nar_bytes: u64,
    /// Seconds from the restore to the save of a job that began with a miss: the job that saved this snapshot,
    /// or an earlier one whose value was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_seconds: Option<f64>,
    /// When the restore of the job that saved this snapshot had ended, RFC 3339 in UTC. Set only if the save
    /// saw which items were read after that. In that case, an item was used before this time exactly if it was
    /// restored by then and not read afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_since: Option<Untrusted>,
    /// Profiles of the user who saved the snapshot, as far as they were requested.
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

/// The store that a snapshot was made from. The fields are strings, because this module does not know their
/// meaning.
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
    /// Owner of the items: `root`, or `user` if the store belongs to another account.
    #[serde(default)]
    pub owner: Untrusted,
}

/// Where a snapshot was made. Unknown fields are empty.
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

    /// Parses a head. A head of a newer format is refused before any other field is read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        refuse_newer_format("snapshot", bytes)?;
        serde_json::from_slice(bytes)
            .map_err(|e| SnapshotError::NotASnapshot(format!("its head does not parse: {e}")))
    }

    /// Identity of the layout: a snapshot is never used in place of one with another identity. A hash of store
    /// kind, store directory, system, and the newest format that may be found.
    pub fn cache_version(&self) -> Digest {
        let StoreFacts { kind, store_dir, system, .. } = &self.store;
        cache_version(kind.raw(), store_dir.raw(), system.raw())
    }
}

/// Returns the cache version for a store, see [`Head::cache_version`]. A delta and its base have the same
/// version, so that one lookup finds both. A program that does not read deltas has another version and never
/// finds a delta.
pub fn cache_version(kind: &str, store_dir: &str, system: &str) -> Digest {
    cache_version_of(FORMAT, kind, store_dir, system)
}

/// As [`cache_version`], for a storecache whose newest format is `format`.
pub fn cache_version_of(format: u64, kind: &str, store_dir: &str, system: &str) -> Digest {
    Digest::hash(format!("storecache|{format}|{kind}|{store_dir}|{system}").as_bytes())
}

/// Checks only the `format` number of a JSON object.
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
