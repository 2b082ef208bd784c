//! storecache's own GC roots: direct links that protect restored items from the collector.
//!
//! Both daemons follow every symbolic link below `gcroots` into the store. Links in `gcroots/auto` do not work
//! for this purpose: the collector removes those whose target does not exist.

use super::{ItemName, Layout, Owner};
use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, chownat, mkdirat, openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storecache_runtime::retry::insist;

/// Returns the items that other roots keep: the targets of links below `gcroots` and `profiles` that lead into
/// the store directly or through one more link. storecache's own roots do not count.
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

/// Returns the item that a link leads to; `None` if the link is dangling, or leads elsewhere.
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
    added: Vec<Added>,
}

/// A link, or a directory that was created for links.
struct Added {
    parent: Arc<OwnedFd>,
    name: OsString,
    is_directory: bool,
}

impl Roots {
    /// Adds roots for `items`. Existing links stay.
    pub fn add(&mut self, layout: &Layout, items: &[ItemName], owner: Owner) -> Result<()> {
        let directory = layout.roots();
        if items.is_empty() {
            return Ok(());
        }
        // Before the first start of a daemon, the parent directory is missing too, and must belong to the owner
        // of the store.
        let above = directory.parent().map(PathBuf::from);
        for missing in above.iter().chain([&directory]).filter(|path| !path.exists()) {
            self.make_directory(missing, owner)
                .with_context(|| format!("create {}", missing.display()))?;
        }
        let about = |name: &str| directory.join(name).display().to_string();
        let parent = Arc::new(open_directory(&directory).with_context(|| about(""))?);
        for item in items {
            let name = item.as_str();
            match symlinkat(layout.path_of(item), &parent, name) {
                Ok(()) => self.note(&parent, name.as_ref(), false),
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(e).with_context(|| about(name)),
            }
            give(&parent, name.as_ref(), owner).with_context(|| about(name))?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &Path, owner: Owner) -> Result<()> {
        let (above, name) =
            path.parent().zip(path.file_name()).context("the path has no parent directory")?;
        let parent = Arc::new(open_directory(above)?);
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        self.note(&parent, name, true);
        Ok(give(&parent, name, owner)?)
    }

    fn note(&mut self, parent: &Arc<OwnedFd>, name: &OsStr, is_directory: bool) {
        let (parent, name) = (Arc::clone(parent), name.to_owned());
        self.added.push(Added { parent, name, is_directory });
    }

    /// Replaces the roots that were added so far with roots for `items`.
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
        for Added { parent, name, is_directory } in self.added.drain(..).rev() {
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let _ = insist(|| unlinkat(&parent, &name, flags));
        }
    }
}

/// Removes the roots of items that did not become valid.
pub(super) fn remove_roots<'i>(layout: &Layout, items: impl Iterator<Item = &'i ItemName>) {
    let directory = layout.roots();
    let Ok(opened) = open_directory(&directory) else { return };
    for item in items {
        let _ = insist(|| match unlinkat(&opened, item.as_str(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        });
    }
    // Only succeeds if the directory is empty.
    let parent = directory.parent().and_then(|above| open_directory(above).ok());
    if let Some((parent, name)) = parent.zip(directory.file_name()) {
        let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
    }
}

/// Opens a directory whose path is already resolved, without following links: the owner of the state directory
/// could have added one since.
fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

fn give(parent: &OwnedFd, name: &OsStr, owner: Owner) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}
