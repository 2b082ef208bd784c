//! Staging: a hidden directory in which a restore is prepared, on the same mount as the items, so that
//! placing an item is a rename.
//!
//! It lies beside the items. To the daemon it is garbage there: only the shared `gc.lock` of its maker
//! keeps a collector from removing it. While the lock has to be let go, or while nobody may write to
//! the store, it lies aside, in a directory that no collector reads.

use super::Layout;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, mkdir, open};
use std::fs::DirEntry;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = ".storecache-";

/// A staging directory, removed with all its content when it is dropped.
pub struct Staging {
    path: PathBuf,
    pub directory: Arc<OwnedFd>,
}

impl Staging {
    /// Makes a staging directory in `parent`.
    pub fn create(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        mkdir(&path, Mode::RWXU)
            .with_context(|| format!("make the staging directory {}", path.display()))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty());
        let directory = directory.with_context(|| path.display().to_string());
        match directory {
            Ok(directory) => Ok(Staging { path, directory: Arc::new(directory) }),
            Err(e) => {
                let _ = std::fs::remove_dir(&path);
                Err(e)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the store, if it is there, for a place that no collector reads.
    ///
    /// # Errors
    /// When no such place is on the same mount. It stays where it is then.
    pub fn step_aside(&mut self, layout: &Layout) -> Result<()> {
        if self.path.parent() != Some(&layout.store()) {
            return Ok(());
        }
        let name = self.path.file_name().context("a staging directory has a name")?;
        for place in aside(layout) {
            let path = place.join(name);
            if std::fs::rename(&self.path, &path).is_ok() {
                self.path = path;
                return Ok(());
            }
        }
        bail!("{} is on a mount of its own", layout.store().display())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// Removes a staging directory with all that is in it. Items are read-only, and who is not root has to
/// change that first.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Lets its owner remove what is in a directory.
fn open_up(directory: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Where a staging directory is now that was at `path` when it was made; it may have stepped aside.
pub fn staging_now(layout: &Layout, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let moved = aside(layout).map(|place| place.join(name));
    moved.into_iter().find(|moved| moved.exists()).unwrap_or_else(|| path.to_owned())
}

/// Where staging may lie that no collector reads; the first is on one mount with a store that has none
/// of its own.
pub fn aside(layout: &Layout) -> [PathBuf; 2] {
    let store = layout.store();
    [store.parent().map_or_else(|| layout.root.clone(), Path::to_owned), layout.state()]
}

/// Staging that is there although nobody may be at work: the caller has seen that no run holds the lock
/// that every run holds. Sorted.
pub fn left_by_dead_runs(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for parent in aside(layout).into_iter().chain([layout.store()]) {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        for entry in entries {
            let entry = entry.with_context(|| parent.display().to_string())?;
            if is_staging(&entry) {
                left.push(entry.path());
            }
        }
    }
    left.sort_unstable();
    Ok(left)
}

fn is_staging(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Removes what dead runs left in `parent`. The caller holds the lock that every run holds.
pub fn clean_stale(parent: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| parent.display().to_string()),
    };
    for entry in entries {
        let entry = entry?;
        if is_staging(&entry) {
            let path = entry.path();
            remove(&path)
                .with_context(|| format!("remove {}, left by a dead run", path.display()))?;
        }
    }
    Ok(())
}
