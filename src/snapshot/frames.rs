//! Cutting the tar stream into frames.
//!
//! Every item starts on a known frame. A large item has frames of its own, so that fetching it
//! fetches nothing else; small neighbours share one, because a zstd frame of a few kilobytes
//! compresses badly. A frame holds whole members; only a member larger than a frame runs over.
//!
//! Content that several items share has frames too, before those of the items. There every item has
//! a member of its own for it, next to each other, so that no item needs another one to be
//! extracted; the compressor sees that the second and all others repeat the first.
//!
//! The sizes bind no reader. They come from measurements: 4 MiB costs 0.6 % of size against
//! 16 MiB and keeps every core busy; a shared frame of 1 MiB costs 3 % of a small part.

use super::Continuation;
use super::index::escape_path;
use super::member::{END_OF_ARCHIVE, padding};
use super::walk::Found;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Tar bytes of a full frame.
const FRAME: u64 = 4 << 20;
/// Tar bytes of a frame that small items share, or the small contents of several items.
const SHARED: u64 = 1 << 20;
/// An item of this many tar bytes gets frames of its own.
const OWN: u64 = 128 << 10;
/// No reader accepts a frame that decodes to more than this.
pub const RAW_LIMIT: usize = 64 << 20;

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
    /// The last file once more, with its padding.
    Again,
}

/// A file that several items have.
pub struct Content {
    pub base: Arc<OwnedFd>,
    /// Path of one of its names below the base.
    pub path: Vec<u8>,
    /// Size in bytes.
    pub size: u64,
    /// One for each item.
    pub copies: Vec<Headers>,
}

/// Header blocks for all the names that one item has for a content.
pub struct Headers {
    /// Of a regular file.
    pub file: Vec<u8>,
    /// Of the hard links to it that follow.
    pub links: Vec<u8>,
}

impl Headers {
    /// With a content of `size` bytes.
    fn tar_bytes(&self, size: u64) -> u64 {
        let headers = (self.file.len() + self.links.len() + padding(size)) as u64;
        headers.saturating_add(size)
    }
}

impl Content {
    /// Whether it is small enough to be shared: that takes two copies in one frame.
    pub fn fits(&self) -> bool {
        let limit = RAW_LIMIT as u64 / 2;
        self.copies.iter().all(|headers| headers.tar_bytes(self.size) <= limit)
    }
}

/// Collects members into jobs and hands each full one to `emit`.
pub struct Planner<F> {
    emit: F,
    job: Job,
    items_done: u64,
}

impl<E, F: FnMut(Job) -> Result<(), E>> Planner<F> {
    pub fn new(emit: F) -> Self {
        Planner { emit, job: Job::default(), items_done: 0 }
    }

    /// Adds a content that several items share, and that [fits](Content::fits), before all items;
    /// gives back the frame of each copy.
    pub fn content(&mut self, content: Content) -> Result<Vec<u32>, E> {
        let Content { base, path, size, copies } = content;
        let total: u64 = copies.iter().map(|headers| headers.tar_bytes(size)).sum();
        if self.job.raw + total > SHARED {
            self.flush()?;
        }
        let mut frames: Vec<u32> = Vec::with_capacity(copies.len());
        for headers in copies {
            if self.job.raw + headers.tar_bytes(size) > RAW_LIMIT as u64 {
                self.flush()?;
            }
            let padding = padding(size);
            let piece = if frames.last() == Some(&self.job.number) {
                Piece::Again
            } else {
                let (base, path) = (Arc::clone(&base), path.clone());
                Piece::File { base, path, offset: 0, length: size, whole: size, padding }
            };
            let header_bytes = headers.file.len() as u64;
            self.push(Piece::Bytes(headers.file), header_bytes);
            self.push(piece, size + padding as u64);
            let link_bytes = headers.links.len() as u64;
            self.push(Piece::Bytes(headers.links), link_bytes);
            self.job.repeats = true;
            frames.push(self.job.number);
        }
        Ok(frames)
    }

    /// Adds an item; gives back its first and last frame.
    pub fn item(&mut self, base: &Arc<OwnedFd>, members: Vec<Found>) -> Result<(u32, u32), E> {
        let headers: Vec<Vec<u8>> = members.iter().map(|f| f.member.encode()).collect();
        let total: u64 = headers
            .iter()
            .zip(&members)
            .map(|(header, found)| {
                let content = found.member.content();
                header.len() as u64 + content + padding(content) as u64
            })
            .sum();
        let own = total >= OWN;
        if own || self.job.repeats || self.job.raw + total > SHARED {
            self.flush()?;
        }
        let first = self.job.number;
        for (header, found) in headers.into_iter().zip(members) {
            self.member(base, header, found)?;
        }
        self.items_done += 1;
        self.job.items_done = self.items_done;
        let last = self.job.number;
        if own {
            self.flush()?;
        }
        Ok((first, last))
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
        let whole = header_bytes + size + padding(size) as u64;
        if self.job.raw > 0 && self.job.raw + whole > FRAME {
            self.flush()?;
        }
        self.push(Piece::Bytes(header), header_bytes);
        let mut offset = 0;
        while offset < size {
            // Always a multiple of the block size, so a remainder fits together with its padding.
            let room = FRAME - self.job.raw;
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
