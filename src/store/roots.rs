//! Our roots: direct links that keep restored items from the collector.
//!
//! Both daemons follow every symbolic link below `gcroots` into the store. Links in `gcroots/auto`
//! would not do: the collector removes those whose target is gone.

use super::{ItemName, Layout, Owner};
use crate::undo::insist;
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// Items that somebody else keeps: links below `gcroots` and `profiles` that lead into the store, at
/// once or through one more link. Ours do not count.
///
/// Source: `NixOS/nix:src/libstore/gc.cc`, `findRoots`.
pub fn live_roots(layout: &Layout) -> Result<HashSet<ItemName>> {
    let state = layout.state();
    let mut found = HashSet::new();
    let mut pending = vec![state.join("gcroots"), state.join("profiles")];
    while let Some(directory) = pending.pop() {
        if directory == layout.roots() {
            continue;
        }
        let entries = match std::fs::read_dir(&directory) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.with_context(|| directory.display().to_string())?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_symlink() {
                found.extend(item_behind(&path, layout));
            } else if path.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(found)
}

/// A link that leads nowhere, or elsewhere, is no root.
fn item_behind(link: &Path, layout: &Layout) -> Option<ItemName> {
    let item = |target: &Path| {
        let inside = target.strip_prefix(layout.store_dir).ok()?;
        ItemName::parse(inside.components().next()?.as_os_str().to_str()?)
    };
    let target = std::fs::read_link(link).ok()?;
    item(&target).or_else(|| {
        let inside = target.strip_prefix("/").ok()?;
        item(&std::fs::read_link(layout.root.join(inside)).ok()?)
    })
}

/// Roots that were added. Dropped before [`Roots::keep`], it removes them again.
#[derive(Default)]
pub struct Roots {
    added: Vec<PathBuf>,
}

impl Roots {
    /// Roots `items`; a link that is there already stays.
    pub fn add(&mut self, layout: &Layout, items: &[ItemName], owner: Owner) -> Result<()> {
        let directory = layout.roots();
        if items.is_empty() {
            return Ok(());
        }
        // Where no daemon has been yet, the one above is missing too, and has to be the daemon's.
        let above = directory.parent().map(PathBuf::from);
        for missing in above.iter().chain([&directory]).filter(|path| !path.exists()) {
            std::fs::DirBuilder::new()
                .mode(0o755)
                .create(missing)
                .with_context(|| missing.display().to_string())?;
            self.added.push(missing.clone());
            owner.take(missing)?;
        }
        for item in items {
            let link = directory.join(item.as_str());
            match symlink(layout.path_of(item), &link) {
                Ok(()) => self.added.push(link.clone()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).with_context(|| link.display().to_string()),
            }
            owner.take(&link)?;
        }
        Ok(())
    }

    /// Roots these instead of what was added so far.
    pub fn change(&mut self, layout: &Layout, items: &[ItemName], owner: Owner) -> Result<()> {
        *self = Roots::default();
        self.add(layout, items, owner)
    }

    pub fn keep(mut self) {
        self.added.clear();
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        for path in self.added.drain(..).rev() {
            let _ = insist(|| match std::fs::remove_file(&path) {
                Err(e) if e.kind() == ErrorKind::IsADirectory => std::fs::remove_dir(&path),
                other => other,
            });
        }
    }
}
