//! Writing a snapshot: the head, frames as they arrive, then index and seek table.

use super::index::archive_digest;
use super::skippable::{self, HEAD_LIMIT, HEAD_MAGIC, INDEX_MAGIC};
use super::{
    Base, DELTA, DatabaseEntry, Digest, FULL, Frame, FrameEntry, Head, Index, ItemEntry, SecretKey,
    SnapshotError, seek_table,
};
use std::io::Write;

/// Writes a snapshot to any writer, in order, without seeking.
pub struct SnapshotWriter<W> {
    out: W,
    head: Digest,
    head_bytes: u64,
    at: u64,
    frames: Vec<FrameEntry>,
    keys: Vec<SecretKey>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the head.
    pub fn new(mut out: W, head: &Head) -> Result<Self, SnapshotError> {
        let content = head.to_bytes()?;
        if content.len() as u64 > HEAD_LIMIT {
            return Err(SnapshotError::damaged(
                "the head is larger than 16 MiB; name fewer ingredients",
            ));
        }
        let frame = skippable::wrap(HEAD_MAGIC, &content)?;
        out.write_all(&frame)?;
        let head_bytes = frame.len() as u64;
        Ok(SnapshotWriter {
            out,
            head: Digest::hash(&frame),
            head_bytes,
            at: head_bytes,
            frames: Vec::new(),
            keys: Vec::new(),
        })
    }

    /// Sets the keys that sign the snapshot when it is finished.
    pub fn signed_with(mut self, keys: &[SecretKey]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    /// Appends the next data frame.
    pub fn frame(&mut self, frame: Frame) -> Result<(), SnapshotError> {
        self.out.write_all(&frame.bytes)?;
        let size = frame.bytes.len() as u64;
        self.frames.push(FrameEntry {
            at: self.at,
            size,
            raw: frame.raw,
            sha256: frame.sha256,
            continues: frame.continues,
        });
        self.at += size;
        Ok(())
    }

    /// Writes index and seek table. Returns the writer, the index and the length of the snapshot in bytes. With
    /// a `base` the snapshot is a delta; the head must name the same base. For `rows_only`, see
    /// [`Index::rows_only`].
    pub fn finish(
        mut self,
        items_under: &str,
        items: Vec<ItemEntry>,
        database: Option<DatabaseEntry>,
        base: Option<Base>,
        rows_only: Option<Vec<String>>,
    ) -> Result<(W, Index, u64), SnapshotError> {
        let index = Index {
            format: if base.is_some() { DELTA } else { FULL },
            head: self.head,
            head_bytes: self.head_bytes,
            archive: archive_digest(&self.head, self.frames.iter().map(|f| &f.sha256)),
            frames: self.frames,
            database,
            items_under: items_under.to_owned(),
            items,
            base,
            rows_only,
        };
        let index_frame = skippable::wrap(INDEX_MAGIC, &index.to_signed_bytes(&self.keys)?)?;
        let entry = |compressed: u64, decompressed: u64| -> Result<_, SnapshotError> {
            let fits = |n: u64| {
                u32::try_from(n).map_err(|_| SnapshotError::damaged("a frame is larger than 4 GiB"))
            };
            Ok(seek_table::Entry {
                compressed: fits(compressed)?,
                decompressed: fits(decompressed)?,
            })
        };
        let mut table = vec![entry(self.head_bytes, 0)?];
        for frame in &index.frames {
            table.push(entry(frame.size, frame.raw)?);
        }
        table.push(entry(index_frame.len() as u64, 0)?);
        let table = seek_table::encode(&table)?;
        self.out.write_all(&index_frame)?;
        self.out.write_all(&table)?;
        let length = self.at + (index_frame.len() + table.len()) as u64;
        Ok((self.out, index, length))
    }
}
