//! Cutting the tar stream into frames.
//!
//! Every item starts on a known frame. A large item has frames of its own, so that fetching it
//! fetches nothing else; small neighbours may share one. A frame holds whole members; only a member
//! larger than a frame runs over.
//!
//! Content that several items share has frames too, before those of the items. There every item has
//! a member of its own for it, next to each other, so that no item needs another one to be
//! extracted; the compressor sees that the second and all others repeat the first.
//!
//! The sizes bind no reader. They come from measurements: 4 MiB costs 0.6 % of size against
//! 16 MiB and keeps every core busy. Frames for each item cost 0.5 % of a snapshot of 431 packages
//! against shared ones of 1 MiB, and 0.2 % of one of 106; against that, a restore that lacks a tenth
//! of the items, here and there, reads 15 % less. In between there is little: shared frames of 64 KiB are
//! as large as frames for each. At worst, 2,000 derivations and nothing else, it is 2.3 MB for 0.8 MB.

use super::Continuation;
use super::index::escape_path;
use super::member::{END_OF_ARCHIVE, Kind, padding};
use super::walk::Found;
use crate::budget::{FRAME, LARGEST_FRAME, LONG_FRAME};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Tar bytes of a frame with several contents that items share, at least. Whoever wants one fetches all;
/// against 1 MiB it costs 0.013 % of a store of 764 packages.
const SHARED: u64 = 16 << 10;
/// An item of this many tar bytes gets frames of its own.
const OWN: u64 = 128 << 10;
/// No reader accepts a frame that decodes to more than this.
pub const RAW_LIMIT: usize = LARGEST_FRAME as usize;

/// A frame that is planned but not yet read.
#[derive(Default)]
pub struct Job {
    pub number: u32,
    pub pieces: Vec<Piece>,
    /// Tar bytes.
    pub raw: u64,
    pub continues: Option<Continuation>,
    /// Whether content stands in it several times.
    pub repeats: bool,
    /// Items that are whole once this frame is written.
    pub items_done: u64,
}

/// A stretch of tar bytes.
pub enum Piece {
    Bytes(Vec<u8>),
    /// Part of a file; `padding` zero bytes follow.
    File {
        base: Arc<OwnedFd>,
        path: Vec<u8>,
        offset: u64,
        length: u64,
        whole: u64,
        padding: usize,
    },
    /// The last file once more, with its padding; it is at this path too.
    Again(Vec<u8>),
    /// Nothing; the last file is at this path too.
    Alias(Vec<u8>),
}

/// A file that several items have.
pub struct Content {
    pub base: Arc<OwnedFd>,
    /// For each item a file, and then hard links to it.
    pub copies: Vec<Vec<Found>>,
}

impl Content {
    /// Whether it is small enough to be shared: that takes two copies in one frame, of `largest` tar
    /// bytes.
    pub fn fits(&self, largest: u64) -> bool {
        self.copies.iter().all(|copy| copy_bytes(copy) <= largest / 2)
    }
}

/// How large frames become, in tar bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A full one.
    frame: u64,
    /// One that small items share; with 0 each has its own.
    together: u64,
    /// One of several contents that items share.
    shared: u64,
    /// An item of this many gets frames of its own.
    own: u64,
    /// One of files that items have in common.
    largest: u64,
}

impl Sizes {
    /// Frames that hold one item each, but for small ones where `together` is not 0.
    pub fn short(together: u64, largest: u64) -> Self {
        Sizes { frame: FRAME, together, shared: SHARED.max(together), own: OWN, largest }
    }

    /// Frames over several items, for a search at long distance.
    pub fn long(largest: u64) -> Self {
        let frame = LONG_FRAME;
        Sizes { frame, together: frame, shared: SHARED, own: frame, largest: largest.max(frame) }
    }
}

/// Collects members into jobs and hands each full one to `emit`.
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
    /// Members whose frame is not chosen yet, with their headers, and their tar bytes.
    held: Vec<(Vec<u8>, Found)>,
    bytes: u64,
    /// Its first frame, once that is chosen.
    first: Option<u32>,
}

impl<E, F: FnMut(Job) -> Result<(), E>> Planner<F> {
    pub fn new(sizes: Sizes, emit: F) -> Self {
        Planner { emit, sizes, job: Job::default(), items_done: 0, item: Item::default() }
    }

    /// Adds a content that several items share, and that [fits](Content::fits), before all items;
    /// gives back the frame of each copy.
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
            for Found { member, path } in copy {
                let header = member.encode();
                let header_bytes = header.len() as u64;
                self.push(Piece::Bytes(header), header_bytes);
                let (size, padding) = (member.content(), padding(member.content()));
                let piece = match member.kind {
                    Kind::File(_) if again => Piece::Again(path),
                    Kind::File(_) => {
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

    /// Adds a member of the item. What comes first is held back until it is known whether the item gets
    /// frames of its own; a large item is never in memory as a whole.
    pub fn member_of_item(&mut self, base: &Arc<OwnedFd>, found: Found) -> Result<(), E> {
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

    /// Gives back the first and last frame of the item.
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

    /// Chooses the frame that the item begins in, and puts there what was held back.
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

    /// Adds one file that is no item, in frames of its own; gives back its first and last frame.
    pub fn file(&mut self, base: &Arc<OwnedFd>, found: Found) -> Result<(u32, u32), E> {
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

    fn member(&mut self, base: &Arc<OwnedFd>, header: Vec<u8>, found: Found) -> Result<(), E> {
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

/// What a header and this much content take in the archive.
fn tar_bytes(header: &[u8], content: u64) -> u64 {
    header.len() as u64 + content + padding(content) as u64
}

fn copy_bytes(copy: &[Found]) -> u64 {
    copy.iter().map(|found| tar_bytes(&found.member.encode(), found.member.content())).sum()
}
