//! Consistency checks of the sizes, names and frames in an index, so that everything that a reader does with
//! them is bounded. The amount of decoded data follows from what an extraction may write, and that is compared
//! with the free space before the extraction begins.

use super::frames::RAW_LIMIT;
use super::tar_header::{BLOCK, components};
use super::{Index, ItemEntry, SnapshotError};
use std::collections::HashSet;

/// Largest database that is extracted from a snapshot. One with 100,000 items has 150 MiB.
const DATABASE_LIMIT: u64 = 2 << 30;
/// Maximum number of tar bytes of a member besides its content: its header, a name and a target of 4 KiB, a
/// precise time, and padding.
const MEMBER: u64 = 12 << 10;
/// Tar bytes besides all items: headers of the database, the end of the archive.
const BESIDE: u64 = 16 << 10;
/// Bytes that a frame may have beyond the maximum that zstd states.
const FRAME_SLACK: u64 = 64;

/// Checks the sizes of frames and items against each other.
///
/// # Errors
/// If a frame is larger than its content allows, or if all frames together hold more than items and files
/// account for.
pub fn check(index: &Index) -> Result<(), SnapshotError> {
    let mut raw = 0u64;
    for (number, frame) in index.frames.iter().enumerate() {
        let refused = |what: &str| Err(SnapshotError::damaged(format!("frame {number} {what}")));
        if frame.raw > RAW_LIMIT as u64 {
            return refused("is too large");
        }
        if frame.raw == 0 || !frame.raw.is_multiple_of(BLOCK as u64) {
            return refused("does not consist of whole tar blocks");
        }
        if frame.size > zstd::compress_bound(frame.raw as usize) as u64 + FRAME_SLACK {
            return refused("is larger than its content");
        }
        // Cannot overflow: there are at most a million frames of at most 64 MiB.
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
        return Err(SnapshotError::damaged(format!(
            "the database is too large ({} MiB)",
            database >> 20
        )));
    }
    let headers = files.checked_mul(MEMBER).ok_or_else(overflow)?;
    let accounted = disk.saturating_add(headers).saturating_add(database + BESIDE);
    if raw > accounted {
        return Err(SnapshotError::damaged(format!(
            "the frames contain {raw} bytes, but the items account for at most {accounted}"
        )));
    }
    Ok(())
}

/// Checks the names of items and of the database.
///
/// # Errors
/// If two items have the same name, if an item lies in another one or overlaps with the database, if a name is
/// not a plain path downwards, if an item has no members, or if it is both listed and left out.
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
                "the paths of the item {} and the database {} overlap",
                item.name, database.path
            )));
        }
    }
    let held: HashSet<&str> = index.inherited().collect();
    let mut rows = HashSet::new();
    for name in index.rows_only.iter().flatten() {
        if names.contains(name.as_str()) || held.contains(name.as_str()) {
            return Err(SnapshotError::damaged(format!(
                "the item {name} is listed both as saved and as left out"
            )));
        }
        if !rows.insert(name) {
            return Err(SnapshotError::damaged(format!(
                "the item {name} is listed as left out twice"
            )));
        }
    }
    Ok(())
}

/// Whether `path` is `directory`, or lies below it.
fn lies_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks that every frame belongs to an item or to the database, so that a reader of all items reads all
/// frames. The last frame has the end of the archive.
///
/// # Errors
/// If a frame belongs to no item.
pub fn check_coverage(index: &Index) -> Result<(), SnapshotError> {
    let mut used = vec![false; index.frames.len()];
    let own = index.items.iter().map(|item| item.frames);
    let database = index.database.iter().map(|database| database.frames);
    // Items follow each other, so these are at most as many numbers as there are frames and items.
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
