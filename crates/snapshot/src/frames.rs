//! Cutting the tar stream into frames.
//!
//! Every item starts in a known frame. A large item has frames of its own, so that downloading it downloads
//! nothing else; small neighbors may share a frame. A frame holds whole members; only a member larger than a
//! frame continues in the next one.
//!
//! Content that several items share has frames too, before those of the items. In them, every item has a member
//! of its own for that content. These members are next to each other, so that no item needs another one to be
//! extracted; the compressor sees that all but the first repeat the first.
//!
//! Readers do not depend on the sizes of frames. `FRAME`, `LONG_FRAME` and `LARGEST_FRAME` are in
//! `storecache_runtime::memory`, because the memory of a run is divided by them; `SHARED` and `OWN` are here. All come
//! from measurements. Frames of 4 MiB make a snapshot 0.6 %
//! larger than frames of 16 MiB, and keep every core busy. Compared with shared frames of 1 MiB, frames for
//! each item cost 0.5 % of a snapshot of 431 packages, and 0.2 % of one of 106 packages. In return, a restore
//! that is missing a tenth of the items, here and there, reads 15 % less. Sizes in between gain little: with
//! shared frames of 64 KiB, snapshots are as large as with frames for each item. In the worst case, 2,000
//! derivations and nothing else, a snapshot has 2.3 MB instead of 0.8 MB.

use super::Continuation;
use super::index::escape_path;
use super::tar_header::{END_OF_ARCHIVE, MemberKind, padding};
use super::walk::WalkedMember;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use storecache_runtime::memory::{FRAME, LARGEST_FRAME, LONG_FRAME};

/// Several shared contents are combined in one frame up to this many tar bytes, or up to `together` bytes if that
/// is more. A restore that needs one of them downloads all of them. Compared with 1 MiB, this costs 0.013 % of a
/// store of 764 packages.
const SHARED: u64 = 16 << 10;
/// An item of at least this many tar bytes gets frames of its own.
const OWN: u64 = 128 << 10;
/// Readers refuse a frame that decodes to more than this.
pub const RAW_LIMIT: usize = LARGEST_FRAME as usize;

/// A frame that is planned but not yet read.
#[derive(Default)]
pub struct Job {
    pub number: u32,
    pub pieces: Vec<Piece>,
    /// Tar bytes.
    pub raw: u64,
    pub continues: Option<Continuation>,
    /// Whether the frame has content several times.
    pub repeats: bool,
    /// Number of items that are complete once this frame is written.
    pub items_done: u64,
}

/// A part of the tar bytes of a frame.
pub enum Piece {
    Bytes(Vec<u8>),
    /// Part of a file, followed by `padding` zero bytes.
    File {
        base: Arc<OwnedFd>,
        path: Vec<u8>,
        offset: u64,
        length: u64,
        whole: u64,
        padding: usize,
    },
    /// The last file and its padding once more; the file at this path is equal to it.
    Again(Vec<u8>),
    /// No bytes; the last file is at this path too.
    Alias(Vec<u8>),
}

/// A file that several items have.
pub struct Content {
    pub base: Arc<OwnedFd>,
    /// For each item, a file and then hard links to it.
    pub copies: Vec<Vec<WalkedMember>>,
}

impl Content {
    /// Whether the content is small enough to be shared: two copies must fit into one frame of `largest` tar
    /// bytes.
    pub fn fits(&self, largest: u64) -> bool {
        self.copies.iter().all(|copy| copy_bytes(copy) <= largest / 2)
    }
}

/// Sizes of frames, in tar bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A full frame.
    frame: u64,
    /// A frame that small items share; with 0 each item has its own.
    together: u64,
    /// A frame of several contents that items share.
    shared: u64,
    /// An item of this size gets frames of its own.
    own: u64,
    /// Maximum for a frame of files that items share.
    largest: u64,
}

impl Sizes {
    /// Frames that hold one item each, except for small items if `together` is not 0.
    pub fn short(together: u64, largest: u64) -> Self {
        Sizes { frame: FRAME, together, shared: SHARED.max(together), own: OWN, largest }
    }

    /// Frames over several items, for a search at long distance.
    pub fn long(largest: u64) -> Self {
        let frame = LONG_FRAME;
        Sizes { frame, together: frame, shared: SHARED, own: frame, largest: largest.max(frame) }
    }
}

/// Collects members into jobs and passes each full one to `emit`.
pub struct Planner<F> {
    emit: F,
    sizes: Sizes,
    job: Job,
    items_done: u64,
    item: Item,
}

/// The item that is being added.
#[derive(Default)]
struct Item {
    /// Members whose frame is not chosen yet, with their headers. `bytes` is their size in the archive.
    held: Vec<(Vec<u8>, WalkedMember)>,
    bytes: u64,
    /// First frame of the item, once that is chosen.
    first: Option<u32>,
}

impl<E, F: FnMut(Job) -> Result<(), E>> Planner<F> {
    pub fn new(sizes: Sizes, emit: F) -> Self {
        Planner { emit, sizes, job: Job::default(), items_done: 0, item: Item::default() }
    }

    /// Adds a content that several items share, and that [fits](Content::fits). All contents precede all items.
    /// Returns the frame of each copy.
    pub fn content(&mut self, content: Content) -> Result<Vec<u32>, E> {
        let total: u64 = content.copies.iter().map(|copy| copy_bytes(copy)).sum();
        if self.job.raw + total > self.sizes.shared {
            self.flush()?;
        }
        let mut frames: Vec<u32> = Vec::with_capacity(content.copies.len());
        for copy in content.copies {
            if self.job.raw + copy_bytes(&copy) > self.sizes.largest {
                self.flush()?;
            }
            let again = frames.last() == Some(&self.job.number);
            for WalkedMember { member, path } in copy {
                let header = member.encode();
                let header_bytes = header.len() as u64;
                self.push(Piece::Bytes(header), header_bytes);
                let (size, padding) = (member.content(), padding(member.content()));
                let piece = match member.kind {
                    MemberKind::File(_) if again => Piece::Again(path),
                    MemberKind::File(_) => {
                        let base = Arc::clone(&content.base);
                        Piece::File { base, path, offset: 0, length: size, whole: size, padding }
                    }
                    _ => Piece::Alias(path),
                };
                self.push(piece, size + padding as u64);
            }
            self.job.repeats = true;
            frames.push(self.job.number);
        }
        Ok(frames)
    }

    /// Begins an item; its members follow, then [`Planner::end_item`].
    pub fn begin_item(&mut self) {
        self.item = Item::default();
    }

    /// Adds a member of the item. The first members are held back until it is known whether the item gets
    /// frames of its own; a large item is never in memory as a whole.
    pub fn member_of_item(&mut self, base: &Arc<OwnedFd>, found: WalkedMember) -> Result<(), E> {
        let header = found.member.encode();
        if self.item.first.is_some() {
            return self.member(base, header, found);
        }
        self.item.bytes += tar_bytes(&header, found.member.content());
        self.item.held.push((header, found));
        if self.item.bytes >= self.sizes.own {
            self.place_item(base)?;
        }
        Ok(())
    }

    /// Ends the item. Returns its first and last frame.
    pub fn end_item(&mut self, base: &Arc<OwnedFd>) -> Result<(u32, u32), E> {
        let first = match self.item.first {
            Some(first) => first,
            None => self.place_item(base)?,
        };
        self.items_done += 1;
        self.job.items_done = self.items_done;
        let last = self.job.number;
        if self.item.bytes >= self.sizes.own {
            self.flush()?;
        }
        Ok((first, last))
    }

    /// Chooses the frame that the item begins in, and adds the members that were held back.
    fn place_item(&mut self, base: &Arc<OwnedFd>) -> Result<u32, E> {
        let own = self.item.bytes >= self.sizes.own;
        let full = self.job.raw + self.item.bytes > self.sizes.together;
        if own || self.job.repeats || full {
            self.flush()?;
        }
        let first = self.job.number;
        self.item.first = Some(first);
        for (header, found) in std::mem::take(&mut self.item.held) {
            self.member(base, header, found)?;
        }
        Ok(first)
    }

    /// Adds a file that does not belong to an item, in frames of its own. Returns its first and last frame.
    pub fn file(&mut self, base: &Arc<OwnedFd>, found: WalkedMember) -> Result<(u32, u32), E> {
        self.flush()?;
        let first = self.job.number;
        self.member(base, found.member.encode(), found)?;
        self.flush()?;
        Ok((first, self.job.number - 1))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<(), E> {
        self.flush()?;
        self.push(Piece::Bytes(END_OF_ARCHIVE.to_vec()), END_OF_ARCHIVE.len() as u64);
        self.flush()
    }

    fn member(
        &mut self,
        base: &Arc<OwnedFd>,
        header: Vec<u8>,
        found: WalkedMember,
    ) -> Result<(), E> {
        let size = found.member.content();
        let header_bytes = header.len() as u64;
        let whole = tar_bytes(&header, size);
        if self.job.raw > 0 && self.job.raw + whole > self.sizes.frame {
            self.flush()?;
        }
        self.push(Piece::Bytes(header), header_bytes);
        let mut offset = 0;
        while offset < size {
            // Always a multiple of the block size, so a remainder fits together with its padding.
            let room = self.sizes.frame - self.job.raw;
            let length = room.min(size - offset);
            let padding = if offset + length == size { padding(size) } else { 0 };
            let piece = Piece::File {
                base: Arc::clone(base),
                path: found.path.clone(),
                offset,
                length,
                whole: size,
                padding,
            };
            self.push(piece, length + padding as u64);
            offset += length;
            if offset < size {
                self.flush()?;
                self.job.continues =
                    Some(Continuation { path: escape_path(&found.member.path), offset, size });
            }
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece, bytes: u64) {
        self.job.pieces.push(piece);
        self.job.raw += bytes;
    }

    fn flush(&mut self) -> Result<(), E> {
        if self.job.raw == 0 {
            return Ok(());
        }
        let next =
            Job { number: self.job.number + 1, items_done: self.items_done, ..Job::default() };
        (self.emit)(std::mem::replace(&mut self.job, next))
    }
}

/// Returns the size of a header and this much content in the archive.
fn tar_bytes(header: &[u8], content: u64) -> u64 {
    header.len() as u64 + content + padding(content) as u64
}

fn copy_bytes(copy: &[WalkedMember]) -> u64 {
    copy.iter().map(|found| tar_bytes(&found.member.encode(), found.member.content())).sum()
}
