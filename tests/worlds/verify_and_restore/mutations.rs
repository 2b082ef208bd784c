//! Random changes to a snapshot, with valid digests.

use storecache_snapshot::{Frame, ItemEntry};

use super::faults::{insert, summed};
use super::saved_store::try_with_sql;
use crate::support::extract_dir::continuation;
use crate::support::snapshot_builder::{SnapshotParts, frame, raw_bytes};

/// The kind of the change, two positions, and a value.
pub type Mutation = (u8, u16, u16, u32);

const BLOCK: usize = 512;
const KINDS: u8 = 22;

/// Changes to the database; `{n}` is a number.
const SCRIPTS: [&str; 14] = [
    "UPDATE ValidPaths SET hash = 'sha256:' || substr(hash, 9) || '0' WHERE id = {n}",
    "UPDATE ValidPaths SET narSize = {n} WHERE id = {n}",
    "UPDATE ValidPaths SET registrationTime = {n} - 3 WHERE id = {n}",
    "UPDATE ValidPaths SET deriver = path WHERE id = {n}",
    "UPDATE ValidPaths SET deriver = '/etc' WHERE id = {n}",
    "UPDATE ValidPaths SET sigs = char({n} + 30) WHERE id = {n}",
    "UPDATE ValidPaths SET path = path || 'x' WHERE id = {n}",
    "DELETE FROM ValidPaths WHERE id = {n}",
    "DELETE FROM Refs WHERE referrer = {n}",
    "INSERT OR IGNORE INTO Refs VALUES (1, {n})",
    "INSERT OR IGNORE INTO Refs VALUES ({n}, 1)",
    "INSERT OR IGNORE INTO DerivationOutputs SELECT {n}, 'doc', path FROM ValidPaths WHERE id = 1",
    "UPDATE DerivationOutputs SET drv = {n}",
    "INSERT INTO ValidPaths (path, hash, registrationTime) SELECT path || '-{n}', hash, 1 FROM ValidPaths \
     WHERE id = 1",
];

/// Returns the number of cases.
pub fn cases() -> u32 {
    let set = std::env::var("STORECACHE_TEST_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// Returns the snapshot with all of these changes, or `None` if one of them is impossible.
pub fn apply(bytes: &[u8], mutations: &[Mutation]) -> Option<Vec<u8>> {
    let mut parts = SnapshotParts::new(bytes);
    for mutation in mutations {
        change(&mut parts, *mutation)?;
    }
    Some(parts.build())
}

fn change(parts: &mut SnapshotParts, (kind, here, there, value): Mutation) -> Option<()> {
    let (here, there) = (usize::from(here), usize::from(there));
    let number = here.checked_rem(parts.frames.len())?;
    let item = here.checked_rem(parts.items.len());
    if parts.frames[number].raw == 0 {
        return None;
    }
    let small = value % 5;
    match kind % KINDS {
        0..=4 => blocks(parts, number, kind % KINDS, there, value),
        5 => header(parts, number, there, value),
        6 => {
            let continues = &mut parts.frames[number].continues;
            match (continues.as_mut(), small) {
                (Some(_), 0) => *continues = None,
                (Some(continues), 1) => continues.offset ^= 512,
                (Some(continues), 2) => continues.size ^= 1,
                (Some(continues), _) => continues.path.push('x'),
                (None, _) => {
                    let path = format!("nix/store/{}", parts.items.get(there % 8)?.name);
                    *continues = continuation(&path, 512, 1024);
                }
            }
        }
        7 => {
            let files = &mut parts.items[item?].files;
            *files = if small == 0 { files.saturating_sub(1) } else { *files + 1 };
        }
        8 => {
            let frames = &mut parts.items[item?].frames;
            let end = if small % 2 == 0 { &mut frames.0 } else { &mut frames.1 };
            *end = if small < 2 { end.saturating_sub(1) } else { *end + 1 };
        }
        9 => match parts.items[item?].shared.pop() {
            Some(_) => {}
            None => parts.items[item?].shared.push(small),
        },
        10 => parts.items[item?].disk = u64::from(value % 20_000),
        11 => parts.items[item?].nar_size = Some(value.into()),
        12 => {
            let name = parts.items[item?].name.clone();
            match (parts.rows_only.as_mut(), small) {
                (_, 0) => parts.rows_only = None,
                (Some(names), 1) => drop(names.pop()),
                (Some(names), 2) => names.push(name),
                (Some(names), _) => names.push(format!("{}-x", "9".repeat(32))),
                (None, _) => parts.rows_only = Some(Vec::new()),
            }
        }
        13 => {
            let other = there % parts.frames.len();
            parts.frames.swap(number, other);
        }
        14 => {
            let removed = item?;
            let entry = parts.items.remove(removed);
            if small > 0 {
                parts.rows_only.as_mut()?.push(entry.name);
            }
        }
        15 => {
            let again = parts.frames[there % parts.frames.len()].clone();
            insert(parts, number as u32, again);
        }
        16 => insert(parts, number as u32, frame(&vec![0; BLOCK * (1 + small as usize)])),
        17 | 18 => split(parts, number, there)?,
        19 => {
            let script = SCRIPTS[there % SCRIPTS.len()].replace("{n}", &(value % 10).to_string());
            let database = try_with_sql(&database(parts)?, &script).ok()?;
            parts.replace_database(&database);
        }
        20 => {
            let database = parts.database.as_mut()?;
            match small {
                0 => database.size += 1,
                1 => database.frames.1 += 1,
                2 => database.path.push('x'),
                _ => parts.database = None,
            }
        }
        _ => {
            // A byte of content, or of a header.
            let mut raw = raw_bytes(&parts.frames[number]);
            let at = value as usize % raw.len();
            raw[at] ^= 1;
            replace(parts, number, &raw);
        }
    }
    Some(())
}

/// Returns the content of the database, if it is still where the index has it.
fn database(parts: &SnapshotParts) -> Option<Vec<u8>> {
    let database = parts.database.as_ref()?;
    let frames = parts.frames.get(database.frames.0 as usize..=database.frames.1 as usize)?;
    let tar: Vec<u8> = frames.iter().flat_map(raw_bytes).collect();
    let content = tar.get(BLOCK..BLOCK.checked_add(database.size as usize)?)?;
    content.starts_with(b"SQLite format 3\0").then(|| content.to_vec())
}

fn replace(parts: &mut SnapshotParts, number: usize, raw: &[u8]) {
    let continues = parts.frames[number].continues.clone();
    parts.frames[number] = Frame { continues, ..frame(raw) };
}

/// Changes whole blocks of a frame.
fn blocks(parts: &mut SnapshotParts, number: usize, kind: u8, there: usize, value: u32) {
    let raw = raw_bytes(&parts.frames[number]);
    let mut blocks: Vec<Vec<u8>> = raw.chunks(BLOCK).map(<[u8]>::to_vec).collect();
    let (one, other) = (there % blocks.len(), value as usize % blocks.len());
    match kind {
        0 => drop(blocks.remove(one)),
        1 => blocks.insert(other, blocks[one].clone()),
        2 => blocks.swap(one, other),
        3 => blocks.insert(one, vec![0; BLOCK]),
        _ => {
            let from = raw_bytes(&parts.frames[value as usize % parts.frames.len()]);
            let headers: Vec<&[u8]> = from.chunks(BLOCK).filter(|block| is_header(block)).collect();
            if let Some(header) = headers.get(there % headers.len().max(1)) {
                blocks.insert(one, header.to_vec());
            }
        }
    }
    replace(parts, number, &blocks.concat());
}

fn is_header(block: &[u8]) -> bool {
    block.get(257..262) == Some(b"ustar")
}

/// Changes a field of a header, mostly with a valid checksum.
fn header(parts: &mut SnapshotParts, number: usize, there: usize, value: u32) {
    let raw = raw_bytes(&parts.frames[number]);
    let mut blocks: Vec<Vec<u8>> = raw.chunks(BLOCK).map(<[u8]>::to_vec).collect();
    let headers: Vec<usize> = (0..blocks.len()).filter(|&at| is_header(&blocks[at])).collect();
    let Some(&at) = headers.get(there % headers.len().max(1)) else { return };
    let other = blocks[headers[value as usize / 16 % headers.len()]].clone();
    let block = &mut blocks[at];
    let end = |block: &[u8]| block[..100].iter().position(|&b| b == 0).unwrap_or(99);
    match value % 16 {
        0 => block[156] = b"0125LKx7\0"[value as usize / 16 % 9],
        1 => block[..100].copy_from_slice(&other[..100]),
        2 => {
            // Below another member.
            let length = end(&other).min(97);
            block[..100].fill(0);
            block[..length].copy_from_slice(&other[..length]);
            block[length..length + 2].copy_from_slice(b"/x");
        }
        3 => {
            let last = end(block).saturating_sub(1);
            block[last] = b"/.xy\0"[value as usize / 16 % 5];
        }
        4 => {
            let size = format!("{:011o}", value / 16 % 2000);
            block[124..135].copy_from_slice(size.as_bytes());
        }
        5 => block[157..257].copy_from_slice(&other[..100]),
        6 => block[157..257].fill(0),
        7 => block[157] = b"/.x"[value as usize / 16 % 3],
        8 => block[100..108].copy_from_slice(b"0000555\0"),
        9 => block[100..108].copy_from_slice(b"0000755\0"),
        10 => block[147] ^= 0x20,
        11 => block[146] = b'3',
        12 => block[115] = b'1',
        // A hard link to another member.
        13 => {
            block[156] = b'1';
            block[157..257].copy_from_slice(&other[..100]);
            block[124..135].copy_from_slice(b"00000000000");
        }
        14 => block[150] ^= 1,
        _ => block[value as usize / 16 % BLOCK] ^= 1,
    }
    if value % 16 != 14 {
        blocks[at] = summed(std::mem::take(&mut blocks[at]));
    }
    replace(parts, number, &blocks.concat());
}

/// Splits a frame, and sets in the index which file the second part continues, as far as the headers tell.
fn split(parts: &mut SnapshotParts, number: usize, there: usize) -> Option<()> {
    let raw = raw_bytes(&parts.frames[number]);
    let count = raw.len() / BLOCK;
    let cut = (1 + there % count.checked_sub(1).filter(|&count| count > 0)?) * BLOCK;
    let open = open_at(
        &raw,
        parts.frames[number].continues.as_ref().map(|c| (c.size - c.offset, c)),
        cut,
    )?;
    let continues = parts.frames[number].continues.clone();
    parts.frames[number] = Frame { continues, ..frame(&raw[..cut]) };
    let second = Frame { continues: open, ..frame(&raw[cut..]) };
    let holders: Vec<usize> = (0..parts.items.len())
        .filter(|&at| {
            let ItemEntry { frames, .. } = &parts.items[at];
            frames.1 == number as u32
        })
        .collect();
    insert(parts, number as u32 + 1, second);
    for at in holders {
        parts.items[at].frames.1 += 1;
    }
    let database = parts.database.as_mut()?;
    if database.frames.1 == number as u32 {
        database.frames.1 += 1;
    }
    Some(())
}

type Open<'a> = Option<(u64, &'a storecache_snapshot::Continuation)>;

/// Returns the file that continues at an offset of a frame, or `None` if the offset is between the headers of a
/// member.
#[allow(clippy::option_option)]
fn open_at(
    raw: &[u8],
    begun: Open<'_>,
    cut: usize,
) -> Option<Option<storecache_snapshot::Continuation>> {
    let mut at = 0;
    if let Some((left, continues)) = begun {
        if (cut as u64) < left {
            let offset = continues.offset + cut as u64;
            return Some(continuation(&continues.path, offset, continues.size));
        }
        at = left.next_multiple_of(BLOCK as u64) as usize;
    }
    let mut archive = tar::Archive::new(raw.get(at..)?);
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        let size = entry.header().entry_size().ok()?;
        let (header, content) =
            (at + entry.raw_header_position() as usize, at + entry.raw_file_position() as usize);
        if cut <= header {
            return Some(None);
        }
        if cut < content {
            return None;
        }
        if (cut as u64) < content as u64 + size {
            let path: String = entry.path_bytes().iter().map(|&byte| byte as char).collect();
            return path.is_ascii().then(|| continuation(&path, (cut - content) as u64, size));
        }
    }
    Some(None)
}
