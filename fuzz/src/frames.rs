//! Fuzzes frames of tar members and the index that describes them. An input is
//!
//! ```text
//! 1 byte     bit 0: attributes are kept, as for plain directories; bit 1: frames come last first;
//!            bit 2: only every other item is wanted; bit 3: two threads
//! JSON       the index, ended by a zero byte; offsets, sizes and digests of frames do not matter
//! tar bytes  of all frames, with the lengths that the index gives; checksums do not matter
//! ```
//!
//! The target compresses the frames, fills in all digests, and unpacks the result.

use super::yard::Yard;
use super::{mend_archive_digest, split};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use storecache_entry::Digest;
use storecache_runtime::RunContext;
use storecache_runtime::memory::Unpacking;
use storecache_snapshot::{
    Index, SnapshotError, Target, Unpacked, Unpacker, Verifier, write_database,
};

/// Size of a block of a tar archive, and (`MAGIC`) the position of the magic in a header.
pub const BLOCK: usize = 512;
const MAGIC: std::ops::Range<usize> = 257..262;
/// Limits of frames and items: larger inputs only slow down a run.
const FRAMES: usize = 32;
const ITEMS: usize = 64;

thread_local! {
    static YARD: Yard = Yard::new();
}

pub fn run(input: &[u8]) -> bool {
    let Some((&flags, rest)) = input.split_first() else { return false };
    let Some((json, tar)) = split(rest) else { return false };
    let Ok(mut index) = serde_json::from_slice::<Index>(json) else { return false };
    if index.frames.len() > FRAMES || index.items.len() > ITEMS {
        return false;
    }
    let mut tar = tar.to_vec();
    mend_check_sums(&mut tar);
    let frames = cut(&mut index, &tar);
    if index.check().is_err() {
        return false;
    }
    let verified = verify(&index, &frames);
    let has_database = read_database(&index, &frames);
    let index = Arc::new(index);
    let unpacked = YARD.with(|yard| unpack(yard, &index, &frames, flags));
    // A restore of no items reads no frames, and a restore of some items does not read all frames. Restoring
    // owners needs rights that the fuzzer may not have.
    if flags & 5 == 0 && !index.items.is_empty() {
        let restored = has_database && unpacked.is_ok();
        assert_eq!(verified.is_ok(), restored, "{verified:?}, {unpacked:?}");
    }
    unpacked.is_ok()
}

/// Corrects the checksum of every block that looks like a header.
fn mend_check_sums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[MAGIC] == *b"ustar") {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

/// Compresses the tar bytes of each frame, and updates the index.
fn cut(index: &mut Index, mut tar: &[u8]) -> Vec<Vec<u8>> {
    let mut at = index.head_bytes;
    let mut cut = Vec::new();
    for frame in &mut index.frames {
        let raw = tar.len().min(usize::try_from(frame.raw).unwrap_or(usize::MAX));
        let bytes = zstd::bulk::compress(&tar[..raw], 1).unwrap();
        tar = &tar[raw..];
        (frame.at, frame.size, frame.raw) = (at, bytes.len() as u64, raw as u64);
        frame.sha256 = Digest::hash(&bytes);
        at = at.saturating_add(frame.size);
        cut.push(bytes);
    }
    mend_archive_digest(index);
    cut
}

fn verify(index: &Index, frames: &[Vec<u8>]) -> Result<(), SnapshotError> {
    let mut verifier = Verifier::new(index)?;
    for (number, frame) in (0..).zip(frames) {
        verifier.frame(number, frame)?;
    }
    verifier.finish().map(drop)
}

/// Returns false if the database is not as the index describes it.
fn read_database(index: &Index, frames: &[Vec<u8>]) -> bool {
    let mut database = Vec::new();
    let next = |number: u32| Ok::<_, SnapshotError>(&frames[number as usize]);
    let written = write_database(index, &mut database, next).is_ok();
    if written {
        let size = index.database.as_ref().map(|database| database.size);
        assert_eq!(Some(database.len() as u64), size);
    }
    written || index.database.is_none()
}

fn unpack(yard: &Yard, index: &Arc<Index>, frames: &[Vec<u8>], flags: u8) -> anyhow::Result<()> {
    let target = yard.target();
    let canonical = flags & 1 == 0;
    let wanted: Vec<usize> =
        (0..index.items.len()).step_by(if flags & 4 == 0 { 1 } else { 2 }).collect();
    let done = try_unpack(&target, index, frames, &wanted, flags);
    yard.assert_untouched();

    let names: BTreeSet<String> = wanted.iter().map(|&at| name_of(index, at)).collect();
    let found: BTreeSet<String> = fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().expect("names are those of items"))
        .collect();
    assert!(found.is_subset(&names), "{found:?} are more than {names:?}");
    let owner = target.metadata().unwrap();
    look(&target, canonical.then_some((owner.uid(), owner.gid())), done.is_ok());
    let done = done?;
    assert_eq!(done.items, wanted.len() as u64);
    let promised = wanted.iter().filter(|&&at| index.items[at].files > 0);
    for name in promised.map(|&at| name_of(index, at)) {
        assert!(found.contains(&name), "{name} was said to be there");
    }
    Ok(())
}

fn try_unpack(
    target: &Path,
    index: &Arc<Index>,
    frames: &[Vec<u8>],
    wanted: &[usize],
    flags: u8,
) -> anyhow::Result<Unpacked> {
    let directory = Arc::new(OwnedFd::from(fs::File::open(target)?));
    let metadata = target.metadata()?;
    let owner = (flags & 1 == 0).then_some((metadata.uid(), metadata.gid()));
    let targets = wanted
        .iter()
        .map(|&at| (at, Target { directory: Arc::clone(&directory), name: name_of(index, at) }));
    let memory = Unpacking::on(if flags & 8 == 0 { 1 } else { 2 });
    let unpacker = Unpacker::new(&RunContext::default(), index, targets, owner, &memory)?;
    let mut numbers = index.frames_of(wanted.iter().copied());
    if flags & 2 != 0 {
        numbers.reverse();
    }
    for number in numbers {
        unpacker.submit(number, frames[number as usize].clone())?;
    }
    unpacker.finish()
}

/// Returns the name under which an item is unpacked: its own name in a store, or a generated one if its name
/// may be any path.
fn name_of(index: &Index, at: usize) -> String {
    let name = &index.items[at].name;
    let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if is_plain { name.clone() } else { format!("item-{at}") }
}

/// Checks every file that was created.
fn look(top: &Path, owner: Option<(u32, u32)>, done: bool) {
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{}", path.display());
            if let Some(owner) = owner {
                assert_eq!(metadata.mode() & 0o7000, 0, "{}", path.display());
                assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
                // Skip directories: one that has no member of its own, but contains members, keeps its mode.
                let writable = metadata.mode() & 0o222 != 0 && !kind.is_symlink() && !kind.is_dir();
                assert!(!done || !writable, "{}", path.display());
            }
            if kind.is_dir() {
                pending.push(path);
            }
        }
    }
}
