//! The index: which item lies in which frames, and the digest of everything.
//!
//! Content of the skippable frame:
//!
//! ```text
//! u32 LE       length of the body
//! body         JSON, compressed as one zstd frame
//! 32 bytes     SHA-256 of the body
//! u32 LE       length of the signature block; 0 in an unsigned snapshot
//! signatures   JSON, not covered by the digest, because it signs it (`signature.rs`)
//! ```

use super::bounded_list;
use super::delta::{self, Base};
use super::head::refuse_newer_format;
use super::index_validation;
use super::signature;
use super::{Digest, SecretKey, Signature, SnapshotError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An index whose JSON is longer is refused. The JSON of 100,000 items has 30 MiB; parsing this limit takes 500
/// MiB at most, whatever its content.
const BODY_LIMIT: usize = 128 << 20;
/// JSON that is longer than this many times its compressed size is refused, so that a small file cannot take
/// much memory. Compression makes a real index three or four times smaller, because hashes do not compress.
const RATIO_LIMIT: usize = 64;
/// `RATIO_LIMIT` applies only to JSON that is longer than this many bytes.
const RATIO_FREE: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub format: u64,
    /// Digest and size in bytes of the whole head frame.
    pub head: Digest,
    pub head_bytes: u64,
    /// Digest over the digests of head and data frames: the identity of the snapshot's content.
    pub archive: Digest,
    #[serde(deserialize_with = "bounded_list::list")]
    pub frames: Vec<FrameEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseEntry>,
    /// Archive path of the directory that holds the items (`nix/store`); empty if item names are archive paths
    /// themselves.
    pub items_under: String,
    #[serde(deserialize_with = "bounded_list::list")]
    pub items: Vec<ItemEntry>,
    /// Items that are not in this snapshot, but in its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Names of the items that were left out, but have a row in the database. Every other row has an item.
    /// Snapshots of older versions do not have this list; rows without an item are not checked in those.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded_list::some_list"
    )]
    pub rows_only: Option<Vec<String>>,
}

/// One data frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameEntry {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Compressed size in bytes.
    pub size: u64,
    /// Size of the tar bytes inside.
    pub raw: u64,
    /// Digest of the compressed bytes.
    pub sha256: Digest,
    /// Set if the frame begins inside the content of a member that started in an earlier frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continuation>,
}

/// The member that continues in a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// Archive path. Bytes that are not printable ASCII are written as `%XX`.
    pub path: String,
    /// Content bytes in earlier frames.
    pub offset: u64,
    /// Content bytes of the whole member.
    pub size: u64,
}

/// The frozen database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    pub path: String,
    /// First and last frame.
    pub frames: (u32, u32),
    /// Size in bytes.
    pub size: u64,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemEntry {
    pub name: String,
    /// First and last frame that hold its members.
    pub frames: (u32, u32),
    /// Frames with its copies of files that other items have too, in ascending order. They precede its own
    /// frames. An item that consists of a single shared file names that frame both here and in `frames`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded_list::list"
    )]
    pub shared: Vec<u32>,
    /// Number of members: files, directories, symbolic links and hard links.
    pub files: u64,
    /// Bytes that it takes on a disk with blocks of 4 KiB.
    pub disk: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nar_size: Option<u64>,
    /// Hash of the item's NAR, as the database has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nar_hash: Option<String>,
    /// When the item was last used as far as the save knew, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Digest over names, types, modes, owners, times and sizes, for items without a NAR hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
}

impl ItemEntry {
    /// Whether the item has members in this frame.
    pub fn is_in(&self, frame: u32) -> bool {
        (self.frames.0..=self.frames.1).contains(&frame) || self.shares(frame)
    }

    /// Whether this frame holds files that the item shares with other items.
    pub fn shares(&self, frame: u32) -> bool {
        self.shared.binary_search(&frame).is_ok()
    }

    /// Whether the item consists of a single shared file.
    fn is_shared_file(&self) -> bool {
        self.frames.0 == self.frames.1 && self.shared == [self.frames.0]
    }
}

impl Index {
    /// Returns the archive path of an item.
    pub fn archive_path(&self, item: &ItemEntry) -> String {
        if self.items_under.is_empty() {
            item.name.clone()
        } else {
            format!("{}/{}", self.items_under, item.name)
        }
    }

    /// Returns the frames that an extraction of the items at `positions` needs, in order. They include the end
    /// of the archive, so that an extraction of all items reads every byte of the file.
    pub fn frames_of(&self, positions: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let mut needed = BTreeSet::new();
        for item in positions.into_iter().filter_map(|at| self.items.get(at)) {
            needed.extend(item.frames.0..=item.frames.1);
            needed.extend(&item.shared);
        }
        if !needed.is_empty() {
            needed.extend((self.frames.len() as u32).checked_sub(1));
        }
        needed.into_iter().collect()
    }

    /// Returns the content of the skippable frame, unsigned.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        self.to_signed_bytes(&[])
    }

    /// As [`Index::to_bytes`], with a signature by each of `keys`.
    pub fn to_signed_bytes(&self, keys: &[SecretKey]) -> Result<Vec<u8>, SnapshotError> {
        let json =
            serde_json::to_vec(self).map_err(|e| SnapshotError::damaged(format!("index: {e}")))?;
        if json.len() > BODY_LIMIT {
            return Err(SnapshotError::damaged("too many items for one index; save fewer"));
        }
        let body = zstd::bulk::compress(&json, 9)?;
        let length = u32::try_from(body.len())
            .map_err(|_| SnapshotError::damaged("the index is larger than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(body.len() + 40);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        let digest = Digest::hash(&body);
        bytes.extend_from_slice(digest.as_bytes());
        let signatures = signature::block(&digest, keys)?;
        bytes.extend_from_slice(&(signatures.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&signatures);
        Ok(bytes)
    }

    /// Digest over data frames and base. It is equal for two snapshots with the same content, whenever and
    /// under whichever key they were saved. [`Index::archive`] also covers the head, so it differs between
    /// them.
    pub fn content(&self) -> Digest {
        let base = self.base.iter().map(|base| &base.index);
        let frames = self.frames.iter().map(|frame| &frame.sha256);
        Digest::of_parts(base.chain(frames).map(|digest| digest.as_bytes().as_slice()))
    }

    /// Returns the digest of the body of an index, by which a delta identifies its base. Signatures are not
    /// part of it.
    pub fn identity(bytes: &[u8]) -> Result<Digest, SnapshotError> {
        let mut rest = bytes;
        let length = take(&mut rest, 4).map(le_u32);
        let body = length.and_then(|length| take(&mut rest, length));
        body.map(Digest::hash).ok_or_else(|| SnapshotError::damaged("the index is cut short"))
    }

    /// Returns the signatures behind the body. They are not checked here; use [`Signature::judge`] with
    /// [`Index::identity`] for that.
    ///
    /// # Errors
    /// If they do not parse.
    pub fn signatures(bytes: &[u8]) -> Result<Vec<Signature>, SnapshotError> {
        let mut rest = bytes;
        let length = take(&mut rest, 4).map(le_u32);
        let end = length.and_then(|length| take(&mut rest, length.checked_add(32 + 4)?));
        end.ok_or_else(|| SnapshotError::damaged("the index is cut short"))?;
        signature::read_block(rest)
    }

    /// Returns the names of the items that are in the base.
    pub fn inherited(&self) -> impl Iterator<Item = &str> {
        let base = self.base.iter().flat_map(|base| &base.items);
        base.map(|item| item.name.as_str())
    }

    /// Whether an item is in this snapshot or in its base.
    pub fn holds(&self, name: &str) -> bool {
        let mut own = self.items.iter().map(|item| item.name.as_str());
        own.any(|own| own == name) || self.inherited().any(|theirs| theirs == name)
    }

    /// Parses the content of an index frame and checks it against its own digest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let cut_short = || SnapshotError::damaged("the index is cut short");
        let mut rest = bytes;
        let body_length = take(&mut rest, 4).map(le_u32).ok_or_else(cut_short)?;
        let body = take(&mut rest, body_length).ok_or_else(cut_short)?;
        let digest = take(&mut rest, 32).ok_or_else(cut_short)?;
        let signatures = take(&mut rest, 4).map(le_u32).ok_or_else(cut_short)?;
        if digest != Digest::hash(body).as_bytes() {
            return Err(SnapshotError::damaged("the index does not match its digest"));
        }
        if rest.len() != signatures {
            return Err(SnapshotError::damaged("the index has the wrong length"));
        }
        let limit = body.len().saturating_mul(RATIO_LIMIT).saturating_add(RATIO_FREE);
        let json = zstd::bulk::decompress(body, limit.min(BODY_LIMIT))
            .map_err(|e| SnapshotError::damaged(format!("the index does not decompress: {e}")))?;
        refuse_newer_format("index", &json)?;
        serde_json::from_slice(&json)
            .map_err(|e| SnapshotError::damaged(format!("the index does not parse: {e}")))
    }

    /// Checks that the numbers of the index agree with each other, so that readers can rely on them.
    pub fn check(&self) -> Result<(), SnapshotError> {
        let mut at = self.head_bytes;
        for (number, frame) in self.frames.iter().enumerate() {
            if frame.at != at {
                return Err(SnapshotError::damaged(format!(
                    "frame {number} does not begin at byte {at}"
                )));
            }
            at = at
                .checked_add(frame.size)
                .ok_or_else(|| SnapshotError::damaged("frame sizes overflow"))?;
        }
        let ranges = self.items.iter().map(|item| (item.name.as_str(), item.frames));
        let database = self.database.iter().map(|db| (db.path.as_str(), db.frames));
        for (name, (first, last)) in ranges.chain(database) {
            if first > last || last as usize >= self.frames.len() {
                return Err(SnapshotError::damaged(format!(
                    "{name}: there are no frames {first} to {last}"
                )));
            }
        }
        for item in self.items.iter().filter(|item| !item.shared.is_empty()) {
            let before = item.shared.last().is_some_and(|&last| last < item.frames.0);
            if !item.shared.is_sorted_by(|a, b| a < b) || !(before || item.is_shared_file()) {
                return Err(SnapshotError::damaged(format!(
                    "{}: its shared frames are not in order before its own",
                    item.name
                )));
            }
        }
        // Items follow each other, so that the spans of all items together are no longer than the file.
        let mut last: Option<&ItemEntry> = None;
        for item in self.items.iter().filter(|item| !item.is_shared_file()) {
            if let Some(last) = last.filter(|last| item.frames.0 < last.frames.1) {
                return Err(SnapshotError::damaged(format!(
                    "{} begins before the end of {}",
                    item.name, last.name
                )));
            }
            last = Some(item);
        }
        index_validation::check(self)?;
        index_validation::check_names(self)?;
        index_validation::check_coverage(self)?;
        let archive = archive_digest(&self.head, self.frames.iter().map(|f| &f.sha256));
        if archive != self.archive {
            return Err(SnapshotError::damaged("the digest over head and frames does not match"));
        }
        delta::check(self)
    }
}

/// Returns the digest over the digests of head and data frames.
pub(super) fn archive_digest<'a>(
    head: &'a Digest,
    frames: impl Iterator<Item = &'a Digest>,
) -> Digest {
    Digest::of_parts(std::iter::once(head).chain(frames).map(|d| d.as_bytes().as_slice()))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn le_u32(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))
}

/// Writes a path of arbitrary bytes as printable ASCII.
pub(super) fn escape_path(path: &[u8]) -> String {
    path.iter().fold(String::with_capacity(path.len()), |mut text, &byte| {
        match byte {
            b'%' | 0..=0x1F | 0x7F.. => text.push_str(&format!("%{byte:02X}")),
            _ => text.push(byte as char),
        }
        text
    })
}

/// Returns the bytes that [`escape_path`] was given, or `None` if an escape in the text is not valid.
pub(super) fn unescape_path(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut path = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        path.push((digit()? * 16 + digit()?) as u8);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_escape_round_trips_any_bytes() {
        for path in [&b"nix/store/a-b/c"[..], b"a%b\xFF\n/\xC3\xA9"] {
            assert_eq!(unescape_path(&escape_path(path)).as_deref(), Some(path));
        }
        assert_eq!(unescape_path("a%G0"), None);
        assert_eq!(unescape_path("a%4"), None);
    }
}
