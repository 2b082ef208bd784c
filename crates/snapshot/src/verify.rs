//! Checking a whole snapshot without extracting it.

use super::archive_check::{ArchiveCheck, Piece};
use super::{Index, SnapshotError, read_frame};

/// Contents of a verified snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verified {
    pub items: u64,
    pub members: u64,
    /// Content bytes.
    pub bytes: u64,
}

/// Checks all frames against the index.
pub struct Verifier<'a> {
    index: &'a Index,
    check: ArchiveCheck<&'a Index>,
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
    verified: Verified,
}

impl<'a> Verifier<'a> {
    pub fn new(index: &'a Index) -> Result<Self, SnapshotError> {
        Ok(Verifier {
            index,
            check: ArchiveCheck::new(index, 0..index.items.len()),
            decompressor: zstd::bulk::Decompressor::new()?,
            raw: Vec::new(),
            // The database is a member too.
            verified: Verified { members: index.database.is_some().into(), ..Verified::default() },
        })
    }

    /// Checks a frame.
    pub fn frame(&mut self, number: u32, compressed: &[u8]) -> Result<(), SnapshotError> {
        let none =
            || SnapshotError::damaged(format!("frame {number}: the index has no such frame"));
        let entry = self.index.frames.get(number as usize).ok_or_else(none)?;
        read_frame(&mut self.decompressor, number, entry, compressed, &mut self.raw)?;
        let mut frame = self.check.frame(number, &self.raw)?;
        while let Some(piece) = frame.next_piece()? {
            let content = match &piece {
                Piece::Database(content) | Piece::Part { content, .. } => content,
                Piece::Member { content, .. } => {
                    self.verified.members += 1;
                    content
                }
            };
            self.verified.bytes += content.len() as u64;
        }
        Ok(())
    }

    /// Checks that no member is missing.
    pub fn finish(self) -> Result<Verified, SnapshotError> {
        self.check.finish()?;
        Ok(Verified { items: self.index.items.len() as u64, ..self.verified })
    }
}
