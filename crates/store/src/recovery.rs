//! Undoes the commits of killed runs.
//!
//! The staging directory of a run contains a list of the items that it was about to place. From this list, a
//! later run finds the items that are in the store without a row, and the roots that lead nowhere.

use super::gc_roots::remove_roots;
use super::install_items::rename;
use super::staging::{AbandonedStaging, Staging};
use super::{ItemName, Layout, LiveDatabase, LockMode, lock};
use anyhow::{Context, Result};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use storecache_runtime::RunContext;
use storecache_runtime::retry::insist;
use tracing::debug;

/// The list of items that a commit is about to root and place, a file in its staging directory. It is not a
/// valid name of an item.
const PLAN: &str = ".placing";
/// How long to wait for processes that use the database. A process that has it open for longer may be building
/// an item that a killed run has placed.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Writes the list. Call it before the first item is rooted or placed.
pub fn record_plan(staging: &Staging, items: &[ItemName]) -> Result<()> {
    let names: String = items.iter().flat_map(|item| [item.as_str(), "\n"]).collect();
    staging.write_file(PLAN, names.as_bytes()).context("record the items to place")
}

/// Undoes the commits of killed runs whose staging is in `parent`, and removes the staging. The caller holds
/// the lock that every run holds, and may write to the store.
///
/// Changes that cannot be undone now, because another process uses the database, are left for the next run.
pub fn clean_up(run: &RunContext, layout: &Layout, parent: &Path) -> Result<()> {
    for staging in AbandonedStaging::all_in(parent)? {
        if undo_one(run, layout, &staging)? {
            debug!(staging = %staging.path().display(), "remove the staging of a killed run");
            staging.remove()?;
        }
    }
    Ok(())
}

/// As [`clean_up`], without removing the staging directories, which may be large.
pub fn undo(run: &RunContext, layout: &Layout, parent: &Path) -> Result<()> {
    let abandoned = AbandonedStaging::all_in(parent)?;
    abandoned.iter().try_for_each(|staging| undo_one(run, layout, staging).map(drop))
}

/// Moves items that were placed but did not become valid back into `staging`, and removes their roots. Returns
/// false if such items are still in the store because another process uses the database.
fn undo_one(run: &RunContext, layout: &Layout, staging: &AbandonedStaging) -> Result<bool> {
    let names = staging.read_file(PLAN).context("read the list of a killed run")?;
    let Some(names) = names else { return Ok(true) };
    if !layout.database().try_exists().context("find the database")? {
        return Ok(true);
    }
    // While this process holds the lock, no other process builds one of these items.
    let (path, kind) = (layout.big_lock(), layout.lock_kind);
    let alone = lock(run, &path, kind, LockMode::Exclusive, LONGEST_WAIT, &|| Ok(())).ok();
    let valid = LiveDatabase::open(layout)?.valid(layout)?;
    let store = File::open(layout.store()).context("open the store")?;
    let staged = staging.directory();
    let mut all = true;
    let names = names.lines().filter_map(ItemName::parse).filter(|name| !valid.contains(name));
    let names: Vec<ItemName> = names.collect();
    remove_roots(layout, names.iter());
    debug!(
        staging = %staging.path().display(),
        items = names.len(),
        alone = alone.is_some(),
        "undo the commit of a killed run"
    );
    for name in &names {
        if alone.is_some() {
            let _ =
                insist(|| match rename(&store, staged, name.as_str(), RenameFlags::NOREPLACE) {
                    // The item was never placed, so there is nothing to undo.
                    Err(Errno::NOENT) => Ok(()),
                    other => other,
                });
        } else if layout.store().join(name.as_str()).symlink_metadata().is_ok() {
            all = false;
        }
    }
    Ok(all)
}
