//! Undoing what runs have left that were killed.
//!
//! Their staging has the list of what they were about to place, so whoever finds it knows what lies in the
//! store without a row, and which roots lead nowhere.

use super::placement::rename;
use super::roots::remove_roots;
use super::staging::{AbandonedStaging, Staging};
use super::{ItemName, Layout, LiveDatabase, LockMode, lock};
use crate::undo::insist;
use anyhow::{Context, Result};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// List of the items that a commit is about to root and place, in its staging directory. No item can be
/// called that.
const PLAN: &str = ".placing";
/// How long users of the database are waited for. Whoever has it open longer may be making an item that a
/// dead run has placed.
const PATIENCE: Duration = Duration::from_millis(500);

/// Writes the list. Call it before the first item is rooted or placed.
pub fn record_plan(staging: &Staging, items: &[ItemName]) -> Result<()> {
    let names: String = items.iter().flat_map(|item| [item.as_str(), "\n"]).collect();
    staging.write_file(PLAN, names.as_bytes()).context("record what is about to be placed")
}

/// Undoes what dead runs left in `parent`, and removes it. The caller holds the lock that every run holds,
/// and may write to the store.
///
/// What cannot be undone now, as somebody uses the database, is left for the next run.
pub fn clean_up(layout: &Layout, parent: &Path) -> Result<()> {
    for staging in AbandonedStaging::all_in(parent)? {
        if undo_one(layout, &staging)? {
            staging.remove()?;
        }
    }
    Ok(())
}

/// The same, without the removal of what may be much.
pub fn undo(layout: &Layout, parent: &Path) -> Result<()> {
    let abandoned = AbandonedStaging::all_in(parent)?;
    abandoned.iter().try_for_each(|staging| undo_one(layout, staging).map(drop))
}

/// Moves items that were placed but never became valid back into `staging`, and removes their roots; whether
/// all of them could be moved.
fn undo_one(layout: &Layout, staging: &AbandonedStaging) -> Result<bool> {
    let names = staging.read_file(PLAN).context("read what a dead run was about to place")?;
    let Some(names) = names else { return Ok(true) };
    if !layout.database().try_exists().context("look for the database")? {
        return Ok(true);
    }
    // With the lock nobody is making one of these items.
    let (path, kind) = (layout.big_lock(), layout.lock_kind);
    let alone = lock(&path, kind, LockMode::Exclusive, PATIENCE, &|| Ok(())).ok();
    let valid = LiveDatabase::open(layout)?.valid(layout)?;
    let store = File::open(layout.store()).context("open the store")?;
    let staged = staging.directory();
    let mut all = true;
    let names = names.lines().filter_map(ItemName::parse).filter(|name| !valid.contains(name));
    let names: Vec<ItemName> = names.collect();
    remove_roots(layout, names.iter());
    for name in &names {
        if alone.is_some() {
            let _ =
                insist(|| match rename(&store, staged, name.as_str(), RenameFlags::NOREPLACE) {
                    // It was never placed, which is as good.
                    Err(Errno::NOENT) => Ok(()),
                    other => other,
                });
        } else if layout.store().join(name.as_str()).symlink_metadata().is_ok() {
            all = false;
        }
    }
    Ok(all)
}
