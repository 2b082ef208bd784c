//! The seek table of the zstd seekable format, so that other readers can seek in a snapshot.
//!
//! Source: zstd `contrib/seekable_format/zstd_seekable_compression_format.md`, version 0.1.0. Every frame of
//! the file has an entry, including the skippable head and index (with a decompressed size of 0), because
//! readers find offsets by adding up the compressed sizes.

use super::SnapshotError;
use super::bounded_list::LIST_LIMIT;
use super::skippable::{self, HEADER_BYTES, SEEK_TABLE_MAGIC};

/// The last four bytes of every seekable file.
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// Frame count (4), descriptor (1), magic (4).
pub const FOOTER_BYTES: usize = 9;
/// Compressed and decompressed size. storecache writes no checksums, because the index has SHA-256 digests.
const ENTRY_BYTES: usize = 8;

/// Sizes of one frame in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub compressed: u32,
    pub decompressed: u32,
}

/// Returns the skippable frame that ends a snapshot.
pub fn encode(entries: &[Entry]) -> Result<Vec<u8>, SnapshotError> {
    let count = u32::try_from(entries.len())
        .map_err(|_| SnapshotError::damaged("too many frames for a seek table"))?;
    let mut content = Vec::with_capacity(entries.len() * ENTRY_BYTES + FOOTER_BYTES);
    for entry in entries {
        content.extend_from_slice(&entry.compressed.to_le_bytes());
        content.extend_from_slice(&entry.decompressed.to_le_bytes());
    }
    content.extend_from_slice(&count.to_le_bytes());
    content.push(0);
    content.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
    skippable::wrap(SEEK_TABLE_MAGIC, &content)
}

/// Returns the size in bytes of the whole table frame, from the last bytes of the file.
///
/// # Errors
/// If these bytes do not end a seekable file, because it is truncated or of another type.
pub fn size_from_footer(footer: [u8; FOOTER_BYTES]) -> Result<u64, SnapshotError> {
    let [c0, c1, c2, c3, descriptor, m0, m1, m2, m3] = footer;
    if u32::from_le_bytes([m0, m1, m2, m3]) != FOOTER_MAGIC {
        return Err(SnapshotError::damaged(
            "no seek table at the end: the file is truncated, or its end was changed",
        ));
    }
    if descriptor != 0 {
        return Err(SnapshotError::damaged(format!(
            "the seek table has the descriptor {descriptor:#04x}, which storecache never writes"
        )));
    }
    let count = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
    // Head and index are frames too.
    if count > LIST_LIMIT as u64 + 2 {
        return Err(SnapshotError::damaged(format!(
            "the seek table has too many frames ({count})"
        )));
    }
    Ok((HEADER_BYTES + FOOTER_BYTES) as u64 + count * ENTRY_BYTES as u64)
}

/// Returns the entries of a whole table frame.
pub fn decode(frame: &[u8]) -> Result<Vec<Entry>, SnapshotError> {
    let content = skippable::unwrap(SEEK_TABLE_MAGIC, "seek table", frame)?;
    let entries = content
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or_else(|| SnapshotError::damaged("the seek table is cut short"))?;
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(content[..entries]
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| Entry { compressed: word(&entry[..4]), decompressed: word(&entry[4..]) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seek_table_of_two_frames_has_the_expected_bytes() {
        let entries = [
            Entry { compressed: 0x0102, decompressed: 0 },
            Entry { compressed: 3, decompressed: 0x0A0B_0C0D },
        ];
        let bytes = encode(&entries).unwrap();
        let expected: [u8; 33] = [
            0x5E, 0x2A, 0x4D, 0x18, 25, 0, 0, 0, // skippable frame of 25 bytes
            0x02, 0x01, 0, 0, 0, 0, 0, 0, // frame 0
            0x03, 0, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A, // frame 1
            2, 0, 0, 0, 0, 0xB1, 0xEA, 0x92, 0x8F, // two frames, no checksums, magic
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes).unwrap(), entries);
        let footer = *bytes.last_chunk().unwrap();
        assert_eq!(size_from_footer(footer).unwrap(), 33);
    }
}
