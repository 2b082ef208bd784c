//! The report of one run, as `--json` prints it.

use serde::Serialize;

/// Fields may be added, never renamed: other programs read this.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub command: &'static str,
    pub store: String,
    /// Restore: what was found. Save: whether the key had an entry before.
    pub hit: Hit,
    pub key: String,
    pub matched_key: Option<String>,
    /// Full name of the entry that was read or written.
    pub entry: Option<String>,
    /// Restore: when the snapshot was made, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    pub backend: String,
    pub dry_run: bool,
    pub items: Items,
    pub bytes: Bytes,
    pub seconds: Seconds,
    /// The phase in which it failed; otherwise the last one.
    pub phase: &'static str,
    /// Why something was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Items that were not restored or not saved, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
    /// What the store has of what was asked for with `--require`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<Required>,
    /// What the user should know although all went well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Save: profiles that came along. Restore: generations that were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// Why which daemon was taken to be in charge.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub daemon: String,
    /// Whether it ended because somebody called it off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

/// One pattern of `--require`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Required {
    pub pattern: String,
    /// Whether something matches, and all of its closure is there.
    pub complete: bool,
    /// Valid items that match.
    pub items: u64,
    /// Valid items in their closures.
    pub closure: u64,
    /// Those of them that are not on the disk.
    pub missing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    pub name: String,
    /// The number that a restore gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    pub item: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hit {
    Exact,
    Prefix,
    #[default]
    Miss,
}

impl Hit {
    pub fn name(self) -> &'static str {
        match self {
            Hit::Exact => "exact",
            Hit::Prefix => "prefix",
            Hit::Miss => "miss",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Items {
    pub restored: u64,
    /// Valid before, and left alone.
    pub present: u64,
    pub skipped: u64,
    pub saved: u64,
    /// Roots that were added.
    pub rooted: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Bytes {
    pub downloaded: u64,
    pub uploaded: u64,
    /// Tar bytes that went into the snapshot.
    pub packed: u64,
    /// Content bytes that were written to the disk.
    pub unpacked: u64,
    /// Size of the snapshot.
    pub snapshot: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    pub lookup: f64,
    pub download: f64,
    pub unpack: f64,
    pub commit: f64,
    /// From daemon stop to daemon ready.
    pub downtime: f64,
    pub verify: f64,
    /// Looking at what `--require` asked for.
    pub check: f64,
    pub pack: f64,
    pub upload: f64,
    pub total: f64,
}
