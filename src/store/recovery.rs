//! Undoing the commit of a run that was killed in the middle of it.

use super::placement::rename;
use super::{ItemName, Layout, LiveDatabase};
use anyhow::{Context, Result};
use rustix::fs::RenameFlags;
use std::fs::File;
use std::path::Path;

/// List of the items that a commit is about to place, in its staging directory. No item can be
/// called that.
const PLAN: &str = ".placing";

/// Writes the list. Call it before the first item is placed.
pub fn record_plan(staging: &Path, items: &[ItemName]) -> Result<()> {
    let names: String = items.iter().flat_map(|item| [item.as_str(), "\n"]).collect();
    std::fs::write(staging.join(PLAN), names).context("record what is about to be placed")
}

/// Moves items that were placed but never became valid back into `staging`, and removes their
/// roots. The caller knows that the run is dead and that the daemon is stopped.
pub fn recover(layout: &Layout, staging: &Path) -> Result<()> {
    let names = match std::fs::read_to_string(staging.join(PLAN)) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context("read what a dead run was about to place"),
    };
    let valid = LiveDatabase::open(layout)?.valid(layout)?;
    let [store, staged] = [layout.store().as_path(), staging].map(File::open);
    let (store, staged) = (store.context("open the store")?, staged.context("open staging")?);
    for name in names.lines().filter_map(ItemName::parse).filter(|name| !valid.contains(name)) {
        // Fails where the item was never placed, which is as good.
        let _ = rename(&store, &staged, name.as_str(), RenameFlags::NOREPLACE);
        let _ = std::fs::remove_file(layout.roots().join(name.as_str()));
    }
    Ok(())
}
