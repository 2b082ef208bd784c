//! Taking the frozen database out of a snapshot, alone.

use super::member::{Kind, decode};
use super::{Index, SnapshotError, read_frame};
use std::io::Write;

/// Writes the database in `index` to `out`. `next_frame` gives the compressed bytes of the frame
/// with a number; frames are asked for in order.
///
/// # Errors
/// When there is no database, when a frame does not match its digest, or when `next_frame` fails.
pub fn write_database<E: From<SnapshotError>, B: AsRef<[u8]>>(
    index: &Index,
    out: &mut impl Write,
    mut next_frame: impl FnMut(u32) -> Result<B, E>,
) -> Result<(), E> {
    let missing = || SnapshotError::damaged("the snapshot has no database");
    let database = index.database.as_ref().ok_or_else(missing)?;
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(SnapshotError::from)?;
    let mut raw = Vec::new();
    let mut left = database.size;
    for number in database.frames.0..=database.frames.1 {
        let entry = index.frames.get(number as usize).ok_or_else(missing)?;
        let compressed = next_frame(number)?;
        read_frame(&mut decompressor, number, entry, compressed.as_ref(), &mut raw)?;
        let mut rest = &raw[..];
        if number == database.frames.0 {
            match decode(&mut rest)? {
                Some(member)
                    if member.kind == Kind::File(database.size)
                        && member.path == database.path.as_bytes() => {}
                _ => {
                    return Err(
                        SnapshotError::damaged("the database is not the first member").into()
                    );
                }
            }
        }
        let part = left.min(rest.len() as u64);
        out.write_all(&rest[..part as usize]).map_err(SnapshotError::from)?;
        left -= part;
    }
    if left > 0 {
        return Err(SnapshotError::damaged(format!("the database lacks {left} bytes")).into());
    }
    Ok(())
}
