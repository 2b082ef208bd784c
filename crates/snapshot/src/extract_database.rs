//! Extracting only the frozen database from a snapshot.

use super::archive_check::{ArchiveCheck, Piece};
use super::{Index, SnapshotError, read_frame};
use std::io::Write;

/// Writes the database in `index` to `out`. `next_frame` returns the compressed bytes of the frame with a given
/// number; it is called in order of the numbers. Frames are checked as a whole.
///
/// # Errors
/// If the index has no database, if a frame does not match the index, or if `next_frame` fails.
pub fn write_database<E: From<SnapshotError>, B: AsRef<[u8]>>(
    index: &Index,
    out: &mut impl Write,
    mut next_frame: impl FnMut(u32) -> Result<B, E>,
) -> Result<(), E> {
    let missing = || SnapshotError::damaged("the snapshot has no database");
    let database = index.database.as_ref().ok_or_else(missing)?;
    let check = ArchiveCheck::new(index, []);
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(SnapshotError::from)?;
    let mut raw = Vec::new();
    let mut left = database.size;
    for number in database.frames.0..=database.frames.1 {
        let entry = index.frames.get(number as usize).ok_or_else(missing)?;
        let compressed = next_frame(number)?;
        read_frame(&mut decompressor, number, entry, compressed.as_ref(), &mut raw)?;
        let mut frame = check.frame(number, &raw)?;
        while let Some(piece) = frame.next_piece()? {
            if let Piece::Database(content) = piece {
                out.write_all(content).map_err(SnapshotError::from)?;
                left = left.saturating_sub(content.len() as u64);
            }
        }
    }
    if left > 0 {
        return Err(
            SnapshotError::damaged(format!("{left} bytes of the database are missing")).into()
        );
    }
    Ok(())
}
