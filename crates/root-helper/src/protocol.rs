//! Messages between the user process and the root helper.
//!
//! Wire format: `u32 BE` length of the JSON, `u32 BE` length of the payload, JSON, payload. Frames are sent as
//! payload, so that they are not encoded twice.

use super::failure_kind::FailureKind;
use super::requester_rights::Caller;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use storecache_daemon::DaemonChoice;
use storecache_entry::Digest;
use storecache_runtime::advice::Advice;
use storecache_runtime::events::{Event, EventLevel};
use storecache_runtime::liveness::Activity;
use storecache_runtime::memory::{ByteSemaphore, MeteredBytes, Packing, Unpacking};
use storecache_snapshot::{BaseItem, Continuation, DatabaseEntry, ItemEntry, StoreFacts};
use storecache_store::StoreKind;

/// The version of the protocol. Both processes run the same program, so a difference means that two versions of it
/// met.
pub const PROTOCOL: u32 = 7;

/// The largest size in bytes of each part of a message: an index of millions of items still fits.
pub(super) const PART_LIMIT: u32 = 512 << 20;
/// The largest size of each part of the messages that come before the purpose of the conversation is known.
const FIRST_LIMIT: u32 = 1 << 20;

/// A message from the user process to the root helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    Hello {
        protocol: u32,
    },
    /// Names the store of the conversation. Comes right after `Hello`.
    Store(StoreRequest),
    /// Freeze the database and choose items.
    Save(SaveRequest),
    /// Read, compress and send the frames.
    Pack {
        /// Leave out items that the base of the request holds.
        delta: bool,
    },
    /// Prepare a restore. Payload: content of the index frame.
    Restore(RestoreRequest),
    /// Follows `Restore` if the snapshot is a delta. Payload: content of the index frame of its base.
    Base(StoreFacts),
    /// One frame of the snapshot. Payload: its bytes.
    Frame(FrameId),
    /// All requested frames have been sent: make the items valid.
    Commit,
    /// Check whether the closures of items are complete. If sent instead of the first frame: as they would be after
    /// the restore. For the patterns see [`storecache_store::ItemPattern`].
    Check(Vec<String>),
    /// List the valid items.
    Valid,
    /// Examine the store and its daemon.
    Examine,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRequest {
    pub kind: StoreKind,
    /// The file-system root that the store belongs to.
    pub root: PathBuf,
    /// The directories of a plain store.
    pub paths: Vec<PathBuf>,
    pub daemon: DaemonChoice,
    /// Whether to determine the version of the package manager, which takes as long as its program takes to start.
    pub asks_version: bool,
    /// Sockets on which shepherds of the requester may listen; the root helper has no environment to derive them
    /// from.
    pub shepherds: Vec<PathBuf>,
    /// How long to wait for locks that other processes hold.
    pub lock_timeout: Duration,
    /// How long to wait until the daemon has stopped or answers.
    pub daemon_timeout: Duration,
    /// How long anything else may show no activity.
    pub stall: Duration,
    /// The most detailed level of events that the root helper reports; none if it is not set.
    pub events: Option<EventLevel>,
    /// On whose behalf the root helper acts. The root helper determines it itself and never reads it from a message.
    #[serde(skip)]
    pub mandate: Caller,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRequest {
    /// The compression level of zstd.
    pub level: i32,
    /// Use large frames that hold several items, with long-distance matching.
    pub long: bool,
    pub memory: Packing,
    /// Names of valid items that are not packed. Their rows are saved.
    pub leave_out: Vec<String>,
    /// The items that an existing entry holds.
    pub known: Vec<KnownItem>,
    /// Items that this job restored, with the time of their last use in seconds since 1970, if the snapshot records
    /// it.
    pub restored: BTreeMap<String, Option<u64>>,
    /// Patterns of items: only their closures are saved. If empty, everything is saved.
    pub roots: Vec<String>,
    /// The size in NAR bytes above which the least recently used items are left out.
    pub max_size: Option<u64>,
    /// The items of the snapshot that this one may become a delta on, if there is one.
    pub base: Option<Vec<BaseItem>>,
}

/// A file of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotRole {
    /// The entry itself.
    Entry,
    /// The base of a delta.
    Base,
}

/// One frame of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameId {
    pub which: SnapshotRole,
    pub number: u32,
}

/// An item of an entry that a save is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownItem {
    pub name: String,
    /// Distinguishes a directory of a plain store from another one at the same path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
}

/// The items that would be packed and are not among the known items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    pub items: u64,
    /// Their total NAR size; `None` if the size of any of them is unknown.
    pub nar_bytes: Option<u64>,
}

/// How many restored items were read since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub used: u64,
    pub unused: u64,
    /// NAR size of the items that were not read.
    pub unused_bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    pub store: StoreFacts,
    pub memory: Unpacking,
    /// Plain stores: replace a directory that differs instead of leaving it unchanged.
    pub replace: bool,
    /// Stores with a database: hash every item again before it becomes valid.
    pub verify_content: bool,
    /// Whether the restored items must survive a power failure.
    pub sync: bool,
}

/// A message from the root helper to the user process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Hello {
        protocol: u32,
        pid: u32,
    },
    /// An activity report: progress, or the activity of a process that the root helper waits for. May come before any
    /// other reply.
    Alive {
        phase: String,
        sign: Activity,
        text: String,
    },
    /// A decision of the root helper and its reason, if the store request asks for events. May come before any other
    /// reply.
    Event(Event),
    /// The facts that the root helper found.
    Store(StoreFacts),
    Frozen(FreezeReport),
    /// Payload: the frame.
    Frame {
        raw: u64,
        sha256: Digest,
        continues: Option<Continuation>,
        items: u64,
        raw_total: u64,
    },
    Packed(PackReport),
    /// Requests the frames of the database.
    NeedDatabase,
    Plan(Plan),
    /// The items and content bytes that are staged.
    Progress {
        items: u64,
        bytes: u64,
    },
    Restored(Restored),
    Checked(Vec<Required>),
    /// Sorted names; empty for a plain store.
    Valid(Vec<String>),
    Examined(Vec<Finding>),
    /// The root helper failed and ends. Before the commit ([`Phase::is_after_commit`]), it undid its changes. The
    /// causes are ordered from the outermost inward.
    Failed {
        phase: Phase,
        causes: Vec<String>,
        #[serde(default)]
        advice: Advice,
        #[serde(default)]
        fault: FailureKind,
    },
}

/// The choice of a save: items to pack, and items that it leaves out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FreezeReport {
    pub items: u64,
    pub nar_bytes: u64,
    pub facts: StoreFacts,
    /// The number of valid items that are left out on request.
    pub left_out: u64,
    /// The number of items outside the requested closures.
    pub outside: u64,
    /// Names of the items that are left out to keep the size limit.
    pub behind: Vec<String>,
    pub growth: Growth,
    /// `None` if access times do not show what was read.
    pub used: Option<Used>,
    /// The items that the base does not hold, if there is a base.
    pub own: Option<Growth>,
}

/// The contents of a packed snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PackReport {
    pub items_under: String,
    pub items: Vec<ItemEntry>,
    /// Items that are not packed because the base holds them, by name.
    pub inherited: Vec<BaseItem>,
    pub database: Option<DatabaseEntry>,
    pub missing: Vec<String>,
    pub left_out: Vec<String>,
    /// Items that are not packed but whose rows are saved.
    pub rows_only: Vec<String>,
}

/// The plan of a restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The required frames in order: first those of the base, then those of the entry.
    pub frames: Vec<FrameId>,
    pub wanted: u64,
    pub present: u64,
    /// Name and reason.
    pub skipped: Vec<(String, String)>,
    /// Bytes that the wanted items occupy on the disk.
    pub disk_bytes: u64,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Restored {
    pub items: u64,
    /// The names of the items; empty for plain directories.
    pub names: Vec<String>,
    /// Items that another process has made valid in the meantime.
    pub overtaken: u64,
    /// Items that could no longer become valid, and why.
    pub skipped: Vec<(String, String)>,
    /// Content bytes written.
    pub bytes: u64,
    pub roots: u64,
    /// Which daemon was considered to be in charge, and why.
    pub daemon: String,
    /// Warnings of a successful restore.
    pub warnings: Vec<String>,
    /// The time spent waiting for the disk while the daemon was running.
    pub sync_seconds: f64,
    pub commit_seconds: f64,
    pub downtime_seconds: f64,
    pub verify_seconds: f64,
    /// The time spent hashing the unpacked items, if that was requested.
    pub content_seconds: Option<f64>,
}

/// Whether the store contains something that a job needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Required {
    pub pattern: String,
    /// Whether at least one item matches, and all of the closure is present.
    pub complete: bool,
    /// The number of valid items that match.
    pub items: u64,
    /// The number of items in their closures.
    pub closure: u64,
    /// Items of the closures that are valid, but not on the disk.
    pub missing: Vec<String>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub check: String,
    pub light: Light,
    pub found: String,
    /// How to fix the problem: a command where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The severity of a finding, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    Green,
    /// A restore may work, or may not do everything that it could.
    Yellow,
    /// A restore fails.
    Red,
}

impl Light {
    pub fn name(self) -> &'static str {
        match self {
            Light::Green => "green",
            Light::Yellow => "yellow",
            Light::Red => "red",
        }
    }
}

/// The phase of a run; also the first word of an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    #[default]
    Start,
    Lookup,
    Freeze,
    Pack,
    Plan,
    Unpack,
    Commit,
    Daemon,
    Verify,
}

impl Phase {
    /// Returns whether the staged items are already valid in this phase.
    pub fn is_after_commit(self) -> bool {
        matches!(self, Phase::Daemon | Phase::Verify)
    }

    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Lookup => "lookup",
            Phase::Freeze => "freeze",
            Phase::Pack => "pack",
            Phase::Plan => "plan",
            Phase::Unpack => "unpack",
            Phase::Commit => "commit",
            Phase::Daemon => "daemon",
            Phase::Verify => "verify",
        }
    }
}

/// Writes one message.
pub fn write_message<M: Serialize>(
    out: &mut impl Write,
    message: &M,
    payload: &[u8],
) -> Result<()> {
    let json = serde_json::to_vec(message).context("encode a message")?;
    let length = |part: &[u8]| match u32::try_from(part.len()) {
        Ok(length) if length <= PART_LIMIT => Ok(length.to_be_bytes()),
        _ => bail!("a message of {} bytes is too large", part.len()),
    };
    out.write_all(&[length(&json)?, length(payload)?].concat())?;
    out.write_all(&json)?;
    out.write_all(payload)?;
    out.flush()?;
    Ok(())
}

/// Reads one message. Returns `None` at the end of the stream. The payload counts against the allowance as long as it
/// exists; the call waits while the allowance is used up.
///
/// # Errors
/// If the stream ends inside a message, or if the bytes are not a valid message.
pub fn read_message<M: DeserializeOwned>(
    input: &mut impl Read,
    memory: &ByteSemaphore,
) -> Result<Option<(M, MeteredBytes)>> {
    read_within(PART_LIMIT, input, memory)
}

/// Reads one of the first messages of a conversation.
///
/// # Errors
/// As [`read_message`].
pub fn read_first(input: &mut impl Read) -> Result<Option<(Request, MeteredBytes)>> {
    read_within(FIRST_LIMIT, input, &ByteSemaphore::new(0))
}

/// [`read_message`] with another limit on the JSON and on the payload, each in bytes.
///
/// # Errors
/// As [`read_message`].
pub(super) fn read_within<M: DeserializeOwned>(
    limit: u32,
    input: &mut impl Read,
    memory: &ByteSemaphore,
) -> Result<Option<(M, MeteredBytes)>> {
    let mut lengths = [0; 8];
    match input.read_exact(&mut lengths[..1]) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    input.read_exact(&mut lengths[1..]).context("a message is cut short")?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let mut part = |length: u32| -> Result<Vec<u8>> {
        if length > limit {
            bail!("a message of {length} bytes is too large");
        }
        // The buffer grows as it is filled, so a false length does not use memory.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize)?;
        input.by_ref().take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() != length as usize {
            bail!("a message is cut short: received {} of {length} bytes", bytes.len());
        }
        Ok(bytes)
    };
    let json = part(u32::from_be_bytes([a, b, c, d]))?;
    let length = u32::from_be_bytes([e, f, g, h]);
    let claim = (length > 0).then(|| memory.take(length.into())).flatten();
    let payload = MeteredBytes::new(part(length)?, claim);
    let message = serde_json::from_slice(&json).context("parse a message")?;
    Ok(Some((message, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_round_trips_with_its_payload() {
        let mut bytes = Vec::new();
        let frame = FrameId { which: SnapshotRole::Base, number: 7 };
        write_message(&mut bytes, &Request::Frame(frame), b"frame").unwrap();
        let memory = ByteSemaphore::new(0);
        let read = |mut bytes: &[u8]| read_message::<Request>(&mut bytes, &memory);
        let (message, payload) = read(&bytes).unwrap().unwrap();
        assert!(matches!(message, Request::Frame(sent) if sent == frame));
        assert_eq!(*payload, *b"frame");
        assert!(memory.try_take(1).is_none(), "it counts as long as it is there");
        drop(payload);
        for cut in 1..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(b"").unwrap().is_none());
    }
}
