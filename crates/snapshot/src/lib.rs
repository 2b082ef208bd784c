//! The snapshot file, formats 1 and 2: its bytes, and the conversion of trees of files to them and back.
//!
//! A snapshot is a sequence of zstd frames that any zstd and tar can read:
//!
//! ```text
//! skippable  head        JSON: what this is, for which store, made from what
//! zstd       frame 0..n  tar members: the frozen database, shared files, then the items by name
//! zstd       last frame  the two zero blocks that end a tar archive
//! skippable  index       which item lives in which frames, and the digest of everything
//! skippable  seek table  of the zstd seekable format
//! ```
//!
//! If items of a store share a file of 8 KiB to 32 MiB through hard links, each of them has a whole member for
//! it. These members are next to each other in one zstd frame, so that the content takes space once. A frame is
//! full at 64 MiB, and the next one has the content again. No link leads from one item to another: an item is
//! complete with its own frames and the shared frames that the index lists for it.
//!
//! A file of format 2 is a delta: it holds the items that another snapshot, its base, does not hold, and its
//! index lists the other items by name and hash (`delta.rs`). The database of a delta is complete. A full
//! snapshot is of format 1.
//!
//! - `head`, `index`, `seek_table`, `signature`: the parts of the file
//! - [`open()`], [`read_frame`], [`open_head`]: read the parts and check them against each other
//! - [`pack()`], [`SnapshotWriter`]: make frames of trees, and a file of frames
//! - [`Unpacker`], [`Verifier`]: extract a snapshot, or only check it
//! - [`inherited`]: the items that a delta takes from its base
//! - [`nar_digest`]: the hash of an extracted item as Nix and Guix calculate it
//!
//! This crate owns the layout of the file, the canonical form of members and the confinement of an extraction.
//! It knows bytes and paths. It must not know what a store is, how a daemon is stopped, or where entries are
//! kept. `examples/list_items.rs` reads a snapshot.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod access_times;
mod after_extraction;
mod archive_check;
mod bounded_list;
mod compress;
mod confined_fs;
mod delta;
mod error_class;
mod extract_database;
mod extraction_targets;
mod frames;
mod hardlink_groups;
mod head;
mod index;
mod index_validation;
mod memory_cap;
mod nar;
mod open;
mod pack;
mod relink;
mod seek_table;
mod signature;
mod skippable;
mod tar_header;
mod unpack;
mod verify;
mod walk;
mod write;

pub use access_times::{last_read, reading_shows};
pub use delta::{Base, BaseItem, inherited};
pub use extract_database::write_database;
pub use extraction_targets::Target;
pub use head::{
    DELTA, FORMAT, FULL, Head, Origin, ProfileFacts, StoreFacts, cache_version, cache_version_of,
};
pub use index::{Continuation, DatabaseEntry, FrameEntry, Index, ItemEntry};
pub use nar::nar_digest;
pub use open::{Opened, open, open_head, read_frame};
pub use pack::{Frame, PackInput, PackOptions, Packed, Progress, pack};
pub use signature::{BadKey, PublicKey, SecretKey, Signature, Verdict};
pub use storecache_entry::Digest;
pub use tar_header::Attributes;
pub use unpack::{Unpacked, Unpacker};
pub use verify::{Verified, Verifier};
pub use walk::fingerprint;
pub use write::SnapshotWriter;

/// Why a file cannot be used as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("not a storecache snapshot: {0}")]
    NotASnapshot(String),
    #[error("truncated: got {got} of {expected} bytes")]
    Truncated { got: u64, expected: u64 },
    #[error(
        "the {what} is of format {found}, and this storecache reads formats up to {FORMAT}; \
         use a newer storecache or save a new snapshot"
    )]
    NewerFormat { what: &'static str, found: u64 },
    #[error("damaged: {0}")]
    Damaged(String),
    /// The only damage that may come from the transfer: the caller may download the frame again.
    #[error("damaged: frame {0} does not match its digest")]
    WrongFrame(u32),
    #[error("the snapshot does not match its base: {0}")]
    WrongBase(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl SnapshotError {
    /// Whether the file itself is at fault, so that every other reader would fail too.
    pub fn is_damage(&self) -> bool {
        match self {
            SnapshotError::NotASnapshot(_)
            | SnapshotError::Truncated { .. }
            | SnapshotError::Damaged(_)
            | SnapshotError::WrongFrame(_)
            | SnapshotError::WrongBase(_) => true,
            SnapshotError::NewerFormat { .. } | SnapshotError::Io(_) => false,
        }
    }

    fn damaged(what: impl Into<String>) -> Self {
        SnapshotError::Damaged(what.into())
    }
}
