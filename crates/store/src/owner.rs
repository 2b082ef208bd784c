//! The owner of a store.

use super::{ItemName, Layout};
use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;

/// User and group that the daemon runs as. Every restored file must belong to them, because a daemon cannot
/// collect files of another user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Returns the owner of the live store: of its database directory, or of the state directory while the
    /// database directory does not exist.
    pub fn find(layout: &Layout) -> Result<Self> {
        let database = layout.database_dir();
        let there = database.try_exists().with_context(|| database.display().to_string())?;
        let place = if there { database } else { layout.state() };
        let metadata = std::fs::metadata(&place).with_context(|| place.display().to_string())?;
        Ok(Owner { uid: metadata.uid(), gid: metadata.gid() })
    }

    /// Returns `root` or `user`. A snapshot records only this, because numbers differ between machines.
    pub fn model(self) -> &'static str {
        if self.uid == 0 { "root" } else { "user" }
    }

    /// Changes the owner of a path to this one, without following a link.
    pub fn take(self, path: &std::path::Path) -> Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .with_context(|| path.display().to_string())
    }
}

/// Returns the items that do not belong to the owner of the store, sorted.
pub fn strangers(layout: &Layout, owner: Owner) -> Result<Vec<ItemName>> {
    let store = layout.store();
    if !store.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&store).with_context(|| store.display().to_string())? {
        let entry = entry?;
        let Some(item) = entry.file_name().to_str().and_then(ItemName::parse) else { continue };
        // Ignore an item that a collector deletes meanwhile.
        if entry.metadata().is_ok_and(|metadata| metadata.uid() != owner.uid) {
            found.push(item);
        }
    }
    found.sort_unstable();
    Ok(found)
}
