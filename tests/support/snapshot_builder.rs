//! Takes snapshots apart and builds altered ones that `save` never writes.

use sha2::{Digest as _, Sha256};
use storecache_entry::Digest;
use storecache_snapshot::{
    Base, DatabaseEntry, Frame, Head, Index, ItemEntry, Opened, SecretKey, SnapshotError,
    SnapshotWriter, Verifier, open,
};

/// Opens a snapshot that is in memory.
pub fn open_bytes(bytes: &[u8]) -> Result<Opened, SnapshotError> {
    open(bytes.len() as u64, &mut |at, buffer| {
        let at = at as usize;
        buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
        Ok(())
    })
}

/// The compressed bytes of a frame.
pub fn frame_bytes<'a>(bytes: &'a [u8], index: &Index, number: usize) -> &'a [u8] {
    let frame = &index.frames[number];
    &bytes[frame.at as usize..][..frame.size as usize]
}

/// Opens and verifies a snapshot to its last byte.
pub fn check(bytes: &[u8]) -> Result<(), SnapshotError> {
    let opened = open_bytes(bytes)?;
    let mut verifier = Verifier::new(&opened.index)?;
    for number in 0..opened.index.frames.len() {
        verifier.frame(number as u32, frame_bytes(bytes, &opened.index, number))?;
    }
    verifier.finish()?;
    Ok(())
}

/// The parts of a snapshot, each of which can be changed before the snapshot is built again.
pub struct SnapshotParts {
    pub head: Head,
    /// Compressed frames with their fields of the index.
    pub frames: Vec<Frame>,
    pub items_under: String,
    pub items: Vec<ItemEntry>,
    pub database: Option<DatabaseEntry>,
    pub base: Option<Base>,
    pub rows_only: Option<Vec<String>>,
}

impl SnapshotParts {
    pub fn new(bytes: &[u8]) -> SnapshotParts {
        let Opened { head, index, .. } = open_bytes(bytes).unwrap();
        let frames = (0..index.frames.len()).map(|number| Frame {
            bytes: frame_bytes(bytes, &index, number).to_vec(),
            raw: index.frames[number].raw,
            sha256: index.frames[number].sha256,
            continues: index.frames[number].continues.clone(),
            progress: Default::default(),
        });
        SnapshotParts {
            head,
            frames: frames.collect(),
            items_under: index.items_under,
            items: index.items,
            database: index.database,
            base: index.base,
            rows_only: index.rows_only,
        }
    }

    /// Builds the whole file with correct digests.
    pub fn build(self) -> Vec<u8> {
        self.build_signed(&[])
    }

    /// As [`SnapshotParts::build`], with signatures.
    pub fn build_signed(self, keys: &[SecretKey]) -> Vec<u8> {
        let writer = SnapshotWriter::new(Vec::new(), &self.head).unwrap();
        let mut writer = writer.signed_with(keys);
        for frame in self.frames {
            writer.frame(frame).unwrap();
        }
        let SnapshotParts { items_under, items, database, base, rows_only, .. } = self;
        writer.finish(&items_under, items, database, base, rows_only).unwrap().0
    }

    /// Position of the last item with a frame that holds only this item, and with no other frame.
    pub fn item_in_its_own_frame(&self) -> usize {
        let holders = |number| self.items.iter().filter(|item| item.is_in(number)).count();
        let alone = |item: &ItemEntry| {
            let (first, last) = item.frames;
            first == last && item.shared.is_empty() && holders(first) == 1
        };
        self.items.iter().rposition(alone).expect("an item in one frame")
    }

    /// Removes the database and its frames.
    pub fn remove_database(&mut self) {
        let (first, last) = self.database.take().unwrap().frames;
        self.frames.drain(first as usize..=last as usize);
        for ItemEntry { frames, shared, .. } in &mut self.items {
            let moved = [&mut frames.0, &mut frames.1].into_iter().chain(shared);
            moved.for_each(|number| *number -= last - first + 1);
        }
    }

    /// Replaces the database with another file.
    pub fn replace_database(&mut self, content: &[u8]) {
        let database = self.database.as_mut().unwrap();
        let (first, last) = database.frames;
        let tar = member(database.path.as_bytes(), b'0', b"", content);
        self.frames.splice(first as usize..=last as usize, [frame(&tar)]);
        database.frames = (first, first);
        database.size = content.len() as u64;
        for item in &mut self.items {
            item.frames.0 -= last - first;
            item.frames.1 -= last - first;
        }
    }

    /// The content of the database.
    pub fn database(&self) -> Vec<u8> {
        let database = self.database.as_ref().unwrap();
        let (first, last) = database.frames;
        let frames = &self.frames[first as usize..=last as usize];
        let tar: Vec<u8> = frames.iter().flat_map(raw_bytes).collect();
        tar[512..][..database.size as usize].to_vec()
    }
}

/// Returns the snapshot with a changed index, with the correct digest of the index and a correct seek table.
/// It is not signed.
pub fn with_index(bytes: &[u8], change: impl FnOnce(&mut Index)) -> Vec<u8> {
    let mut index = open_bytes(bytes).unwrap().index;
    change(&mut index);
    let content = index.to_bytes().unwrap();
    with_index_content(bytes, &index, &content)
}

/// Returns the snapshot with other signatures. `block` is the JSON of the signatures.
pub fn with_signatures(bytes: &[u8], block: &[u8]) -> Vec<u8> {
    let Opened { index, index_bytes, .. } = open_bytes(bytes).unwrap();
    let (body, _) = split_index(&index_bytes);
    let length = (block.len() as u32).to_le_bytes();
    with_index_content(bytes, &index, &[body, &length, block].concat())
}

/// The signatures of a snapshot as stored in the file.
pub fn signatures(bytes: &[u8]) -> Vec<u8> {
    split_index(&open_bytes(bytes).unwrap().index_bytes).1.to_vec()
}

/// Splits the content of an index into its body with length and digest, and the signatures without their
/// length.
fn split_index(content: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_le_bytes(content[..4].try_into().unwrap()) as usize;
    let (body, signatures) = content.split_at(4 + length + 32);
    (body, &signatures[4..])
}

/// Returns the snapshot with this JSON as its index, compressed and with correct digests.
pub fn with_index_json(bytes: &[u8], json: &[u8]) -> Vec<u8> {
    let index = open_bytes(bytes).unwrap().index;
    let body = zstd::bulk::compress(json, 3).unwrap();
    let digest = Digest::hash(&body);
    let parts = [&(body.len() as u32).to_le_bytes()[..], &body, digest.as_bytes(), &[0; 4]];
    with_index_content(bytes, &index, &parts.concat())
}

fn with_index_content(bytes: &[u8], index: &Index, content: &[u8]) -> Vec<u8> {
    let old = open_bytes(bytes).unwrap().index;
    let end = old.frames.last().map_or(old.head_bytes, |frame| frame.at + frame.size);
    let mut sizes = vec![(index.head_bytes, 0)];
    sizes.extend(index.frames.iter().map(|frame| (frame.size, frame.raw)));
    let index = skippable(0x184D_2A54, content);
    sizes.push((index.len() as u64, 0));
    [&bytes[..end as usize], &index, &seek_table(&sizes)].concat()
}

/// The seek table at the end of a file, from compressed and decompressed sizes.
pub fn seek_table(sizes: &[(u64, u64)]) -> Vec<u8> {
    let mut table: Vec<u8> = Vec::new();
    for (compressed, decompressed) in sizes {
        table.extend((*compressed as u32).to_le_bytes());
        table.extend((*decompressed as u32).to_le_bytes());
    }
    table.extend((sizes.len() as u32).to_le_bytes());
    table.extend([0, 0xB1, 0xEA, 0x92, 0x8F]);
    skippable(0x184D_2A5E, &table)
}

/// A skippable frame of zstd.
pub fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    [&magic.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}

/// The decompressed bytes of a frame.
pub fn raw_bytes(frame: &Frame) -> Vec<u8> {
    zstd::bulk::decompress(&frame.bytes, frame.raw as usize).unwrap()
}

/// A frame with this tar data.
pub fn frame(tar: &[u8]) -> Frame {
    let bytes = zstd::bulk::compress(tar, 3).unwrap();
    Frame {
        sha256: Digest::hash(&bytes),
        bytes,
        raw: tar.len() as u64,
        continues: None,
        progress: Default::default(),
    }
}

/// A tar member with any name, type, target and content, and a correct checksum. Its mode is that of files in
/// a store.
pub fn member(path: &[u8], kind: u8, target: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(match kind {
        b'5' => 0o555,
        b'2' => 0o777,
        _ => 0o444,
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path);
    gnu.linkname[..target.len()].copy_from_slice(target);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub fn directory(path: &[u8]) -> Vec<u8> {
    member(&[path, b"/"].concat(), b'5', b"", b"")
}

pub fn file(path: &[u8], content: &[u8]) -> Vec<u8> {
    member(path, b'0', b"", content)
}

pub fn symlink(path: &[u8], target: &[u8]) -> Vec<u8> {
    member(path, b'2', target, b"")
}

pub fn hard_link(path: &[u8], target: &[u8]) -> Vec<u8> {
    member(path, b'1', target, b"")
}

/// An empty file whose name is longer than 100 bytes, in the encoding of the format.
pub fn long_named_file(path: &[u8]) -> Vec<u8> {
    let mut bytes = member(b"././@LongLink", b'L', b"", &[path, b"\0"].concat());
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    [bytes, member(&path[..100], b'0', b"", b"")].concat()
}

/// An entry of the index.
pub fn item(name: &str, frames: (u32, u32), files: u64) -> ItemEntry {
    ItemEntry {
        name: name.into(),
        frames,
        shared: Vec::new(),
        files,
        disk: 1 << 20,
        nar_size: None,
        used: None,
        nar_hash: None,
        fingerprint: None,
    }
}

/// SHA-256 without the library's own digest type.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
