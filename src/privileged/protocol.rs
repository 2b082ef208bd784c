//! Messages between the two halves.
//!
//! On the wire: `u32 BE` length of the JSON, `u32 BE` length of the payload, JSON, payload. Frames
//! travel as payload, so that nothing is encoded twice.

use super::fault::Fault;
use super::mandate::Mandate;
use crate::budget::{Allowance, Held, Packing, Unpacking};
use crate::daemon::DaemonChoice;
use crate::pulse::Sign;
use crate::snapshot::{BaseItem, Continuation, DatabaseEntry, Digest, ItemEntry, StoreFacts};
use crate::store::StoreKind;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Both halves are the same program; a difference means that two versions met.
pub const PROTOCOL: u32 = 6;

/// No message has a larger part: an index of millions of items still fits.
pub(super) const PART_LIMIT: u32 = 512 << 20;
/// Those that come before it is clear what the conversation is about are short.
const FIRST_LIMIT: u32 = 1 << 20;

/// From the user's half to the root half.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    Hello {
        protocol: u32,
    },
    /// Which store the conversation is about. Comes first.
    Store(StoreRequest),
    /// Freeze the database and choose items.
    Save(SaveRequest),
    /// Read, compress and send the frames.
    Pack {
        /// Leave out what the base of the request holds.
        delta: bool,
    },
    /// Prepare a restore. Payload: content of the index frame.
    Restore(RestoreRequest),
    /// Follows where the snapshot is a delta. Payload: content of the index frame of its base.
    Base(StoreFacts),
    /// One frame of the snapshot. Payload: its bytes.
    Frame(FrameId),
    /// Every frame that was asked for has been sent: make the items valid.
    Commit,
    /// Say whether the closures of items are complete. In place of the first frame: as they would be
    /// after the restore. Patterns, see [`crate::store::ItemPattern`].
    Check(Vec<String>),
    /// Name the valid items.
    Valid,
    /// Look at the store and its daemon.
    Examine,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRequest {
    pub kind: StoreKind,
    /// File-system root that the store belongs to.
    pub root: PathBuf,
    /// Directories of a plain store.
    pub paths: Vec<PathBuf>,
    pub daemon: DaemonChoice,
    /// Whether the version of the package manager is to be found out: that takes as long as its program
    /// takes to start.
    pub asks_version: bool,
    /// Where shepherds of the requester may listen; the root half has no environment to tell.
    pub shepherds: Vec<PathBuf>,
    /// How long to wait for locks that somebody else holds.
    pub lock_patience: Duration,
    /// How long to wait until the daemon has stopped or answers.
    pub daemon_patience: Duration,
    /// How long anything else may give no sign of life.
    pub stall: Duration,
    /// On whose behalf: what the root half knows of its own, and takes from nobody.
    #[serde(skip)]
    pub mandate: Mandate,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRequest {
    /// Of zstd.
    pub level: i32,
    /// Large frames over several items, searched far back.
    pub long: bool,
    pub memory: Packing,
    /// Names of items that are not packed although they are valid. Their rows come along.
    pub leave_out: Vec<String>,
    /// What an entry holds already.
    pub known: Vec<KnownItem>,
    /// Items that this job restored, and when each was used last, in seconds since 1970, if the
    /// snapshot says so.
    pub restored: BTreeMap<String, Option<u64>>,
    /// Patterns: only the closures of what matches are saved. All without any.
    pub roots: Vec<String>,
    /// NAR bytes beyond which what was used least recently stays behind.
    pub max_size: Option<u64>,
    /// What the snapshot holds that this one may become a delta on, if there is one.
    pub base: Option<Vec<BaseItem>>,
}

/// Which file of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The entry itself.
    Entry,
    /// What a delta is based on.
    Base,
}

/// One frame of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameId {
    pub which: Which,
    pub number: u32,
}

/// An item of an entry that a save is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownItem {
    pub name: String,
    /// What tells a directory of a plain store from another one in the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
}

/// What would be packed and is not among the known items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    pub items: u64,
    /// Their NAR size; unknown when that of any of them is.
    pub nar_bytes: Option<u64>,
}

/// Which restored items were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub used: u64,
    pub unused: u64,
    /// NAR size of those that were not.
    pub unused_bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    pub store: StoreFacts,
    pub memory: Unpacking,
    /// Plain stores: swap a directory that differs instead of leaving it alone.
    pub replace: bool,
    /// Stores with a database: hash every item again before it becomes valid.
    pub verify_content: bool,
    /// Whether what is restored shall outlive a power cut.
    pub sync: bool,
}

/// From the root half to the user's half.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Hello {
        protocol: u32,
        pid: u32,
    },
    /// Something moved, or what is waited for was seen to be alive. May come before any other reply.
    Alive {
        phase: String,
        sign: Sign,
        text: String,
    },
    /// What the root half found.
    Store(StoreFacts),
    Frozen {
        items: u64,
        nar_bytes: u64,
        facts: StoreFacts,
        /// Valid items that are left out because that was asked for.
        left_out: u64,
        /// Items outside the closures that were asked for.
        outside: u64,
        /// Names of the items that stay behind because all would be too large.
        behind: Vec<String>,
        growth: Growth,
        /// Nothing where reading does not show.
        used: Option<Used>,
        /// What the base does not hold, if there is one.
        own: Option<Growth>,
    },
    /// Payload: the frame.
    Frame {
        raw: u64,
        sha256: Digest,
        continues: Option<Continuation>,
        items: u64,
        raw_total: u64,
    },
    Packed {
        items_under: String,
        items: Vec<ItemEntry>,
        /// What is left to the base, by name.
        inherited: Vec<BaseItem>,
        database: Option<DatabaseEntry>,
        missing: Vec<String>,
        left_out: Vec<String>,
        /// Items that are not packed, and whose rows come along.
        rows_only: Vec<String>,
    },
    /// The frames of the database are wanted.
    NeedDatabase,
    Plan(Plan),
    /// Items and content bytes that are staged.
    Progress {
        items: u64,
        bytes: u64,
    },
    Restored(Restored),
    Checked(Vec<Required>),
    /// Sorted names; none for a plain store.
    Valid(Vec<String>),
    Examined(Vec<Finding>),
    /// The root half undid what it began and ends. First cause first.
    Failed {
        phase: Phase,
        causes: Vec<String>,
        #[serde(default)]
        fault: Fault,
    },
}

/// What a restore is going to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Frames that are needed, in order: those of the base, then those of the entry.
    pub frames: Vec<FrameId>,
    pub wanted: u64,
    pub present: u64,
    /// Name and reason.
    pub skipped: Vec<(String, String)>,
    /// Bytes that the wanted items take on the disk.
    pub disk_bytes: u64,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Restored {
    pub items: u64,
    /// Their names; none for plain directories.
    pub names: Vec<String>,
    /// Items that became valid through somebody else meanwhile.
    pub overtaken: u64,
    /// Items that could not become valid any more, and why.
    pub skipped: Vec<(String, String)>,
    /// Content bytes written.
    pub bytes: u64,
    pub roots: u64,
    /// Why which daemon was taken to be in charge.
    pub daemon: String,
    /// What the user should know although all went well.
    pub warnings: Vec<String>,
    /// Waiting for the disk, while the daemon was up.
    pub sync_seconds: f64,
    pub commit_seconds: f64,
    pub downtime_seconds: f64,
    pub verify_seconds: f64,
    /// Hashing what was unpacked, if that was asked for.
    pub content_seconds: Option<f64>,
}

/// What the store has of something that a job is going to need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Required {
    pub pattern: String,
    /// Whether something matches, and all of its closure is there.
    pub complete: bool,
    /// Valid items that match.
    pub items: u64,
    /// Items in their closures.
    pub closure: u64,
    /// Those of them that are valid, but not on the disk.
    pub missing: Vec<String>,
}

/// One thing that was looked at, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub check: String,
    pub light: Light,
    pub found: String,
    /// What mends it: a command where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// From good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    Green,
    /// A restore may work, or may not do all that it could.
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

/// Where a run is; also the first word of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
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
    /// Whether what was staged is valid by then.
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

/// Reads one message; nothing at the end of the stream. Its payload counts against an allowance as long as
/// it is there; there is no reading on while that is used up.
///
/// # Errors
/// When the stream ends inside a message, or when it is none.
pub fn read_message<M: DeserializeOwned>(
    input: &mut impl Read,
    memory: &Allowance,
) -> Result<Option<(M, Held)>> {
    read_within(PART_LIMIT, input, memory)
}

/// One of the messages that a conversation begins with.
///
/// # Errors
/// As [`read_message`].
pub fn read_first(input: &mut impl Read) -> Result<Option<(Request, Held)>> {
    read_within(FIRST_LIMIT, input, &Allowance::of(0))
}

/// [`read_message`] with another limit on the JSON and on the payload, each in bytes.
///
/// # Errors
/// As [`read_message`].
pub(super) fn read_within<M: DeserializeOwned>(
    limit: u32,
    input: &mut impl Read,
    memory: &Allowance,
) -> Result<Option<(M, Held)>> {
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
        // Takes memory as it is filled: a lying length costs none.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize)?;
        input.by_ref().take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() != length as usize {
            bail!("a message is cut short: got {} of {length} bytes", bytes.len());
        }
        Ok(bytes)
    };
    let json = part(u32::from_be_bytes([a, b, c, d]))?;
    let length = u32::from_be_bytes([e, f, g, h]);
    let claim = (length > 0).then(|| memory.take(length.into())).flatten();
    let payload = Held::new(part(length)?, claim);
    let message = serde_json::from_slice(&json).context("a message does not parse")?;
    Ok(Some((message, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_with_its_payload() {
        let mut bytes = Vec::new();
        let frame = FrameId { which: Which::Base, number: 7 };
        write_message(&mut bytes, &Request::Frame(frame), b"frame").unwrap();
        let memory = Allowance::of(0);
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
