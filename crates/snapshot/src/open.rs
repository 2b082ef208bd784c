//! Opening a snapshot: head and index from the two ends of a file, checked against each other.

use super::skippable::{self, HEAD_LIMIT, HEAD_MAGIC, HEADER_BYTES, INDEX_LIMIT, INDEX_MAGIC};
use super::{Digest, FrameEntry, Head, Index, SnapshotError, seek_table};
use std::io;
use storecache_runtime::untrusted_text::Untrusted;

/// Head and index of a snapshot.
#[derive(Debug, Clone)]
pub struct Opened {
    pub head: Head,
    pub index: Index,
    /// Content of the index frame, which can be passed to another process unchanged.
    pub index_bytes: Vec<u8>,
    /// Size of the file in bytes.
    pub length: u64,
}

/// Reads head and index of a snapshot of `length` bytes. `read_at` reads from it: it fills the whole buffer
/// from an offset, or fails.
///
/// # Errors
/// If the file is truncated, or if any byte outside the data frames is changed, except in the content of the
/// signature block. The data frames are checked by [`read_frame`].
pub fn open(
    length: u64,
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Opened, SnapshotError> {
    let head_frame = read_head(length, read_at)?;
    let head = Head::from_bytes(skippable::unwrap(HEAD_MAGIC, "head", &head_frame)?)?;
    let mut read = |at, count| read_part(length, read_at, at, count);

    let footer_at = length.saturating_sub(seek_table::FOOTER_BYTES as u64);
    let mut footer = [0; seek_table::FOOTER_BYTES];
    footer.copy_from_slice(&read(footer_at, seek_table::FOOTER_BYTES as u64)?);
    let table_size = seek_table::size_from_footer(footer)?;
    let table_at = length
        .checked_sub(table_size)
        .ok_or(SnapshotError::Truncated { got: length, expected: table_size })?;
    let table = [&read(table_at, footer_at.saturating_sub(table_at))?[..], &footer].concat();
    let table = seek_table::decode(&table)?;

    let no_index = || SnapshotError::damaged("the seek table leaves no room for an index");
    let index_size = u64::from(table.last().ok_or_else(no_index)?.compressed);
    let index_at = table_at.checked_sub(index_size).ok_or_else(no_index)?;
    if index_size > INDEX_LIMIT {
        return Err(SnapshotError::damaged(format!("the index is too large ({index_size} bytes)")));
    }
    let index_frame = read(index_at, index_size)?;
    let index_bytes = skippable::unwrap(INDEX_MAGIC, "index", &index_frame)?.to_vec();
    let index = Index::from_bytes(&index_bytes)?;
    index.check()?;

    if Digest::hash(&head_frame) != index.head || head_frame.len() as u64 != index.head_bytes {
        return Err(SnapshotError::damaged("the head does not match the index"));
    }
    let listed = std::iter::once((index.head_bytes, 0))
        .chain(index.frames.iter().map(|f| (f.size, f.raw)))
        .chain([(index_size, 0)]);
    let tabled = table.iter().map(|e| (u64::from(e.compressed), u64::from(e.decompressed)));
    if !listed.eq(tabled) {
        return Err(SnapshotError::damaged("seek table and index disagree"));
    }
    let frames_end = index.frames.last().map_or(index.head_bytes, |f| f.at + f.size);
    if frames_end != index_at {
        return Err(SnapshotError::damaged("unexpected bytes before the index"));
    }
    let base = index.base.as_ref().map(|base| base.entry.as_str());
    if head.format != index.format || head.base.as_ref().map(Untrusted::raw) != base {
        return Err(SnapshotError::damaged("head and index disagree about a base"));
    }
    Ok(Opened { head, index, index_bytes, length })
}

/// Reads only the head, see [`open`]. It is not compared with the index.
pub fn open_head(
    length: u64,
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Head, SnapshotError> {
    let frame = read_head(length, read_at)?;
    Head::from_bytes(skippable::unwrap(HEAD_MAGIC, "head", &frame)?)
}

/// Reads the whole frame of the head.
fn read_head(
    length: u64,
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<u8>, SnapshotError> {
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&read_part(length, read_at, 0, HEADER_BYTES as u64)?);
    let (magic, size) = skippable::parse_header(header);
    if magic != HEAD_MAGIC || u64::from(size) > HEAD_LIMIT {
        return Err(SnapshotError::NotASnapshot("it does not begin with a head".into()));
    }
    let content = read_part(length, read_at, HEADER_BYTES as u64, size.into())?;
    Ok([&header[..], &content].concat())
}

fn read_part(
    length: u64,
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
    at: u64,
    count: u64,
) -> Result<Vec<u8>, SnapshotError> {
    if at.checked_add(count).is_none_or(|end| end > length) {
        let expected = at.saturating_add(count);
        return Err(SnapshotError::Truncated { got: length, expected });
    }
    let mut bytes = vec![0; count as usize];
    read_at(at, &mut bytes)?;
    Ok(bytes)
}

/// Decodes one frame into `raw` after checking it against its digest.
///
/// # Errors
/// If the bytes do not match the index.
pub fn read_frame(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    number: u32,
    entry: &FrameEntry,
    compressed: &[u8],
    raw: &mut Vec<u8>,
) -> Result<(), SnapshotError> {
    if compressed.len() as u64 != entry.size || Digest::hash(compressed) != entry.sha256 {
        return Err(SnapshotError::WrongFrame(number));
    }
    let size = usize::try_from(entry.raw)
        .ok()
        .filter(|&size| size <= super::frames::RAW_LIMIT)
        .ok_or_else(|| SnapshotError::damaged(format!("frame {number} is too large")))?;
    // The bytes must be exactly one zstd frame, without further frames, skippable frames or bytes after it.
    if !matches!(zstd::zstd_safe::find_frame_compressed_size(compressed), Ok(n) if n == compressed.len())
    {
        return Err(SnapshotError::damaged(format!("frame {number} is not a single zstd frame")));
    }
    raw.clear();
    raw.reserve(size);
    decompressor
        .decompress_to_buffer(compressed, raw)
        .map_err(|e| SnapshotError::damaged(format!("frame {number} does not decompress: {e}")))?;
    if raw.len() != size {
        return Err(SnapshotError::damaged(format!(
            "frame {number} contains {} bytes instead of {size}",
            raw.len()
        )));
    }
    Ok(())
}
