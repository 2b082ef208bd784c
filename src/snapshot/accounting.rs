//! Whether the sizes in an index account for each other, so that nothing that a reader does with them is
//! without bound: what an extraction decodes follows from what it may write, and that is held against
//! the disk before it begins.

use super::frames::RAW_LIMIT;
use super::member::{BLOCK, components};
use super::{Index, ItemEntry, SnapshotError};
use std::collections::HashSet;

/// A larger database is not taken out of a snapshot. One with 100,000 items has 150 MiB.
const DATABASE_LIMIT: u64 = 2 << 30;
/// Tar bytes that a member takes beside its content, at most: its header, a name and a target of 4 KiB,
/// a precise time, and padding.
const MEMBER: u64 = 12 << 10;
/// Tar bytes beside all items: headers of the database, the end of the archive.
const BESIDE: u64 = 16 << 10;
/// What a frame may have beyond what zstd says that it takes at most.
const FRAME_SLACK: u64 = 64;

/// # Errors
/// When frames are larger than their content, or all of them hold more than items and files do.
pub fn check(index: &Index) -> Result<(), SnapshotError> {
    let mut raw = 0u64;
    for (number, frame) in index.frames.iter().enumerate() {
        let refused = |what: &str| Err(SnapshotError::damaged(format!("frame {number} {what}")));
        if frame.raw > RAW_LIMIT as u64 {
            return refused("is too large");
        }
        if frame.raw == 0 || !frame.raw.is_multiple_of(BLOCK as u64) {
            return refused("does not hold whole blocks of tar");
        }
        if frame.size > zstd::compress_bound(frame.raw as usize) as u64 + FRAME_SLACK {
            return refused("is larger than what it holds");
        }
        // At most a million of 64 MiB.
        raw += frame.raw;
    }
    let overflow = || SnapshotError::damaged("the sizes of its items overflow");
    let (mut disk, mut files, mut nar) = (0u64, 0u64, 0u64);
    for item in &index.items {
        disk = disk.checked_add(item.disk).ok_or_else(overflow)?;
        files = files.checked_add(item.files).ok_or_else(overflow)?;
        nar = nar.checked_add(item.nar_size.unwrap_or(0)).ok_or_else(overflow)?;
    }
    let database = index.database.as_ref().map_or(0, |database| database.size);
    if database > DATABASE_LIMIT {
        return Err(SnapshotError::damaged(format!("a database of {} MiB", database >> 20)));
    }
    let headers = files.checked_mul(MEMBER).ok_or_else(overflow)?;
    let accounted = disk.saturating_add(headers).saturating_add(database + BESIDE);
    if raw > accounted {
        return Err(SnapshotError::damaged(format!(
            "its frames hold {raw} bytes, and its items account for {accounted} at most"
        )));
    }
    Ok(())
}

/// # Errors
/// When two items have one name or one lies in another, or a name leads anywhere but down.
pub fn check_names(index: &Index) -> Result<(), SnapshotError> {
    if !index.items_under.is_empty() {
        components(index.items_under.as_bytes())?;
    }
    if let Some(database) = &index.database {
        components(database.path.as_bytes())?;
    }
    let mut names = HashSet::with_capacity(index.items.len());
    for item in &index.items {
        components(item.name.as_bytes())?;
        if item.files == 0 {
            return Err(SnapshotError::damaged(format!("the item {} has no members", item.name)));
        }
        if !names.insert(item.name.as_str()) {
            return Err(SnapshotError::damaged(format!("the item {} is listed twice", item.name)));
        }
    }
    for item in &index.items {
        let above = item.name.match_indices('/').map(|(at, _)| &item.name[..at]);
        if let Some(above) = above.into_iter().find(|above| names.contains(above)) {
            return Err(SnapshotError::damaged(format!(
                "the item {} lies in the item {above}",
                item.name
            )));
        }
    }
    if let Some(database) = &index.database {
        let clashes = |item: &&ItemEntry| {
            let path = index.archive_path(item);
            lies_in(&database.path, &path) || lies_in(&path, &database.path)
        };
        if let Some(item) = index.items.iter().find(clashes) {
            return Err(SnapshotError::damaged(format!(
                "the item {} and the database {} lie in one another",
                item.name, database.path
            )));
        }
    }
    let held: HashSet<&str> = index.inherited().collect();
    let mut rows = HashSet::new();
    for name in index.rows_only.iter().flatten() {
        if names.contains(name.as_str()) || held.contains(name.as_str()) {
            return Err(SnapshotError::damaged(format!(
                "the item {name} is listed, and as left out too"
            )));
        }
        if !rows.insert(name) {
            return Err(SnapshotError::damaged(format!("the item {name} is left out twice")));
        }
    }
    Ok(())
}

/// Whether a path is another one, or lies below it.
fn lies_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks that every frame belongs to something, so that whatever takes all items sees all frames. The last one
/// has the end of the archive.
///
/// # Errors
/// When a frame does not.
pub fn check_coverage(index: &Index) -> Result<(), SnapshotError> {
    let mut used = vec![false; index.frames.len()];
    let own = index.items.iter().map(|item| item.frames);
    let database = index.database.iter().map(|database| database.frames);
    // Items follow each other, so this is no more than all frames, and one for each item.
    for number in own.chain(database).flat_map(|(first, last)| first..=last) {
        if let Some(used) = used.get_mut(number as usize) {
            *used = true;
        }
    }
    for number in index.items.iter().flat_map(|item| &item.shared) {
        if let Some(used) = used.get_mut(*number as usize) {
            *used = true;
        }
    }
    used.pop();
    match used.iter().position(|used| !used) {
        Some(number) => {
            Err(SnapshotError::damaged(format!("frame {number} belongs to no item of the index")))
        }
        None => Ok(()),
    }
}
