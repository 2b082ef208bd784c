//! Skippable frames of zstd: four bytes of magic, four bytes of length, and arbitrary content.
//!
//! Source: RFC 8878, section 3.1.2. Sixteen magic numbers are reserved for users; decoders skip such a frame
//! whatever its content.

use super::SnapshotError;

/// Magic of the head. One of the sixteen numbers of RFC 8878.
pub const HEAD_MAGIC: u32 = 0x184D_2A53;
/// Magic of the index.
pub const INDEX_MAGIC: u32 = 0x184D_2A54;
/// Magic of the seek table (zstd: `contrib/seekable_format/zstd_seekable_compression_format.md`).
pub const SEEK_TABLE_MAGIC: u32 = 0x184D_2A5E;

/// Bytes before the content.
pub const HEADER_BYTES: usize = 8;

/// A head of more bytes than this is refused before it is read. Real ones have some KiB.
pub const HEAD_LIMIT: u64 = 16 << 20;
/// An index of more bytes than this is refused before it is read. One of 100,000 items has 10 MiB.
pub const INDEX_LIMIT: u64 = 64 << 20;

/// Returns the whole frame around `content`.
///
/// # Errors
/// If the length of the content does not fit into 32 bits.
pub fn wrap(magic: u32, content: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let length = u32::try_from(content.len())
        .map_err(|_| SnapshotError::damaged("a skippable frame cannot hold over 4 GiB"))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + content.len());
    frame.extend_from_slice(&magic.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(content);
    Ok(frame)
}

/// Returns magic and content length of the frame that begins with these bytes.
pub fn parse_header(header: [u8; HEADER_BYTES]) -> (u32, u32) {
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    (word(0), word(4))
}

/// Returns the content of `frame`, which must be one whole frame of the kind `magic`.
pub fn unwrap<'a>(
    magic: u32,
    what: &'static str,
    frame: &'a [u8],
) -> Result<&'a [u8], SnapshotError> {
    let (header, content) = frame
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| SnapshotError::damaged(format!("the {what} is cut short")))?;
    let (found, length) = parse_header(*header);
    if found != magic {
        return Err(SnapshotError::damaged(format!(
            "the {what} begins with {found:#010x} instead of {magic:#010x}"
        )));
    }
    if length as usize != content.len() {
        return Err(SnapshotError::damaged(format!(
            "the {what} states a length of {length} bytes, but has {}",
            content.len()
        )));
    }
    Ok(content)
}
