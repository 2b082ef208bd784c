//! The report of one run, as `--json` prints it.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Fields may be added, never renamed: other programs read this.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    #[serde(skip_deserializing)]
    pub command: &'static str,
    pub store: String,
    /// Restore: what was found. Save: whether the key had an entry before.
    pub hit: Hit,
    pub key: String,
    pub matched_key: Option<String>,
    /// Full name of the entry that was read or written.
    pub entry: Option<String>,
    /// What that entry is a delta on. Save: with a reason when it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseUse>,
    /// Entries that count as absent, as they cannot be used, are not trusted, or what they need is gone; and the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<(String, String)>,
    /// Restore: those of them that failed their checks, and that nobody shall try again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// Save: names of the keys that the entry is signed with. Restore: of the trusted keys that have signed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// Restore, prefix hit: what of the key is another one than that of the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<String>,
    /// Restore: when the snapshot was made, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Save: whether an entry was written. With a reason when not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<bool>,
    /// Save: what is new since the newest entry of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Save: superseded entries that were deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
    /// Save: how the job ended, as it was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<String>,
    /// Whether the run failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    pub backend: String,
    pub dry_run: bool,
    pub items: Items,
    pub bytes: Bytes,
    pub seconds: Seconds,
    /// The phase in which it failed; otherwise the last one.
    #[serde(skip_deserializing)]
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

/// An entry that failed its checks. Also the note that is kept beside its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quarantined {
    /// Full name.
    pub entry: String,
    pub key: String,
    pub reason: String,
    /// In which a restore found it bad.
    pub phase: String,
    /// RFC 3339 in UTC.
    pub when: String,
    /// Which program found it bad.
    pub tool: String,
    /// In bytes, where that is known.
    pub size: Option<u64>,
    /// Where its file is now. Nothing where it could not be moved: then it is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Why it could be neither moved nor remembered, or not moved where others can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What an entry would hold that the newest one of its key does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    pub items: u64,
    /// NAR size in bytes, where it is known.
    pub bytes: Option<u64>,
}

/// The base of a delta, or why a snapshot is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseUse {
    /// Full name of the base's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Save: NAR size of the items that it does not hold, as a part of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Save: why the snapshot is full all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BaseUse {
    /// The base, where there is one and it is used.
    pub fn used(&self) -> Option<&str> {
        self.entry.as_deref().filter(|_| self.reason.is_none())
    }
}

/// One pattern of `--require`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub name: String,
    /// The number that a restore gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    pub item: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Items {
    pub restored: u64,
    /// Valid before, and left alone.
    pub present: u64,
    pub skipped: u64,
    /// Save: those that the new entry stands for, with those of its base.
    pub saved: u64,
    /// Save: those of them that the base holds.
    pub inherited: u64,
    /// Save: valid before the restore already, and so not saved.
    pub baseline: u64,
    /// Save: outside the closures of `--roots`, and so not saved.
    #[serde(skip_serializing_if = "is_zero")]
    pub outside: u64,
    /// Roots that were added.
    pub rooted: u64,
    /// Save: of what this job restored, what was read since; unknown where reading does not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Save: of what this job restored, what nobody has read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    pub downloaded: u64,
    pub uploaded: u64,
    /// Tar bytes that went into the snapshot.
    pub packed: u64,
    /// Content bytes that were written to the disk.
    pub unpacked: u64,
    /// Size of the snapshot.
    pub snapshot: u64,
    /// Save: NAR size of the items that are `unused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seconds {
    pub lookup: f64,
    pub download: f64,
    pub unpack: f64,
    /// Waiting for the disk: before the commit, or before the entry is there. 0 where that is not wanted.
    pub sync: f64,
    pub commit: f64,
    /// From daemon stop to daemon ready.
    pub downtime: f64,
    pub verify: f64,
    /// Hashing what was unpacked, with `--verify content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<f64>,
    /// Looking at what `--require` asked for.
    pub check: f64,
    pub pack: f64,
    pub upload: f64,
    pub total: f64,
    /// Save: what the job did between its restore and now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<f64>,
    /// What a job did there that began with a miss, as the snapshot or this job knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold: Option<f64>,
}
