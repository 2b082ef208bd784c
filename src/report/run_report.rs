//! The report of one run, as `--json` prints it.

use serde::{Deserialize, Serialize};
use storecache_backend::Quarantined;
use storecache_root_helper::protocol::Required;
use storecache_runtime::liveness;

/// Fields may be added but never renamed: other programs read them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    #[serde(skip_deserializing)]
    pub command: &'static str,
    pub store: String,
    /// Restore: kind of the match. Save: whether the key had an entry before.
    pub hit: Hit,
    pub key: String,
    pub matched_key: Option<String>,
    /// Full name of the entry that was read or written.
    pub entry: Option<String>,
    /// The base of that entry. Save: with a reason if the entry is not a delta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseUse>,
    /// Entries that count as absent because they cannot be used, are not trusted, or are deltas whose base is
    /// missing; with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<(String, String)>,
    /// Restore: entries that failed their checks and must not be tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// Save: names of the keys that signed the entry. Restore: names of the trusted keys that signed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// Restore, prefix hit: ingredients of the key that differ from those of the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<String>,
    /// Restore: when the snapshot was made, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Save: whether an entry was written; if not, `reason` says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<bool>,
    /// Save: new items since the newest entry of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Save: superseded entries that were deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
    /// Save: status of the job, as given in the options.
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
    /// The phase in which the run failed, or else the last phase.
    #[serde(skip_deserializing)]
    pub phase: &'static str,
    /// Why something was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Facts about `reason`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Advice about `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Items that were not restored or not saved, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
    /// State of the items that `--require` names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<Required>,
    /// Warnings of a run, which may have succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Save: profiles in the snapshot. Restore: generations that were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// Which daemon was taken to be in charge, and why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub daemon: String,
    /// The timeout that ended the run, if that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// Whether the run was canceled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// Restore: it failed and its changes are not undone yet, because the root helper still waits, usually
    /// for a disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undoing: bool,
}

/// A timeout that expired, and the state at that time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cut {
    /// Name of its flag, without dashes.
    pub clock: String,
    pub phase: String,
    /// Time since the phase began.
    pub phase_seconds: f64,
    /// Time since the last activity.
    pub silent_seconds: f64,
    pub last_sign: String,
}

impl From<&liveness::TimedOut> for Cut {
    fn from(timed_out: &liveness::TimedOut) -> Self {
        let state = &timed_out.state;
        Cut {
            clock: timed_out.flag.to_owned(),
            phase: state.phase.clone(),
            phase_seconds: state.in_phase.as_secs_f64(),
            silent_seconds: state.idle.as_secs_f64(),
            last_sign: state.last_activity.clone(),
        }
    }
}

/// Items that the save would add to those in the newest entry of the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    pub items: u64,
    /// NAR size in bytes, if known.
    pub bytes: Option<u64>,
}

/// The base of a delta, or the reason why a snapshot is not a delta.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseUse {
    /// Full name of the base's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Save: NAR size of the items that are not in the base, as a fraction of the NAR size of the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Save: why the snapshot is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BaseUse {
    /// The base, if there is one and it is used.
    pub fn used(&self) -> Option<&str> {
        self.entry.as_deref().filter(|_| self.reason.is_none())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub name: String,
    /// The number of the generation that a restore added.
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
    /// Valid before, and unchanged.
    pub present: u64,
    pub skipped: u64,
    /// Save: items in the new entry, including those in its base.
    pub saved: u64,
    /// Save: items of those that are in the base.
    pub inherited: u64,
    /// Save: items that were valid before the restore, and so were not saved.
    pub baseline: u64,
    /// Save: items outside the closures of `--roots`, which were not saved.
    #[serde(skip_serializing_if = "is_zero")]
    pub outside: u64,
    /// GC roots that were added.
    pub rooted: u64,
    /// Save: restored items that were read since; `None` if reads cannot be observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Save: restored items that were not read since.
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
    /// Tar bytes in the snapshot.
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
    /// Waiting for the disk before the commit, or before the entry appears. 0 if that is disabled.
    pub sync: f64,
    pub commit: f64,
    /// From daemon stop to daemon ready.
    pub downtime: f64,
    pub verify: f64,
    /// Hashing the unpacked items, with `--verify content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<f64>,
    /// Checking the items that `--require` names.
    pub check: f64,
    pub pack: f64,
    pub upload: f64,
    pub total: f64,
    /// Save: time from the end of the job's restore to the start of the save.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<f64>,
    /// Like `job`, for a job that began with a miss, as recorded by the snapshot or measured in this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold: Option<f64>,
}
