//! Checking a whole snapshot without writing it anywhere.

use super::index::unescape_path;
use super::member::{Kind, components, decode, prefixes, take_content};
use super::{Index, SnapshotError, read_frame};
use std::collections::HashMap;

/// What a verified snapshot holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verified {
    pub items: u64,
    pub members: u64,
    /// Content bytes.
    pub bytes: u64,
}

/// Takes the frames in order and holds them against the index.
pub struct Verifier<'a> {
    index: &'a Index,
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
    /// Position of each item, by archive path.
    items: HashMap<Vec<u8>, usize>,
    seen: Vec<u64>,
    /// The file whose content goes on in the next frame: path, offset, size.
    open: Option<(Vec<u8>, u64, u64)>,
    verified: Verified,
}

impl<'a> Verifier<'a> {
    pub fn new(index: &'a Index) -> Result<Self, SnapshotError> {
        let paths = index.items.iter().map(|item| index.archive_path(item).into_bytes());
        Ok(Verifier {
            index,
            decompressor: zstd::bulk::Decompressor::new()?,
            raw: Vec::new(),
            items: paths.zip(0..).collect(),
            seen: vec![0; index.items.len()],
            open: None,
            verified: Verified::default(),
        })
    }

    /// Checks the next frame.
    pub fn frame(&mut self, number: u32, compressed: &[u8]) -> Result<(), SnapshotError> {
        let damaged = |what: &str| SnapshotError::damaged(format!("frame {number}: {what}"));
        let entry = self.index.frames.get(number as usize).ok_or_else(|| damaged("none"))?;
        let mut raw = std::mem::take(&mut self.raw);
        read_frame(&mut self.decompressor, number, entry, compressed, &mut raw)?;
        let mut rest = &raw[..];

        let said = entry.continues.as_ref().map(|c| (unescape_path(&c.path), c.offset, c.size));
        let open = self.open.take().map(|(path, offset, size)| (Some(path), offset, size));
        if said != open {
            return Err(damaged("it does not continue the file that the last one left open"));
        }
        if let Some((Some(path), offset, size)) = open {
            self.content(&mut rest, path, offset, size)?;
        }
        while let Some(member) = decode(&mut rest)? {
            components(&member.path)?;
            self.verified.members += 1;
            self.count(number, &member.path)?;
            if let Kind::File(size) = member.kind {
                self.content(&mut rest, member.path, 0, size)?;
            }
        }
        self.raw = raw;
        Ok(())
    }

    /// Checks that nothing is missing.
    pub fn finish(self) -> Result<Verified, SnapshotError> {
        if let Some((path, ..)) = self.open {
            let shown = String::from_utf8_lossy(&path).into_owned();
            return Err(SnapshotError::damaged(format!("{shown} is cut off")));
        }
        for (item, seen) in self.index.items.iter().zip(&self.seen) {
            if item.files != *seen {
                return Err(SnapshotError::damaged(format!(
                    "{} has {seen} of {} members",
                    item.name, item.files
                )));
            }
        }
        Ok(Verified { items: self.index.items.len() as u64, ..self.verified })
    }

    fn content(
        &mut self,
        rest: &mut &[u8],
        path: Vec<u8>,
        offset: u64,
        size: u64,
    ) -> Result<(), SnapshotError> {
        let part = take_content(rest, offset, size)?.len() as u64;
        self.verified.bytes += part;
        if offset + part < size {
            self.open = Some((path, offset + part, size));
        }
        Ok(())
    }

    /// Books a member on its item.
    fn count(&mut self, number: u32, path: &[u8]) -> Result<(), SnapshotError> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        if self.index.database.as_ref().is_some_and(|d| d.path.as_bytes() == path) {
            return Ok(());
        }
        let position = prefixes(path).find_map(|prefix| self.items.get(prefix));
        let &position =
            position.ok_or_else(|| SnapshotError::damaged(format!("{} is in no item", shown())))?;
        if !self.index.items[position].is_in(number) {
            return Err(SnapshotError::damaged(format!("{} is in frame {number}", shown())));
        }
        self.seen[position] += 1;
        Ok(())
    }
}
