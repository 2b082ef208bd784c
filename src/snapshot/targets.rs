//! Where the items of an extraction go, and whether they are complete.

use super::member::{Attributes, below, components, prefixes};
use super::place::{last, open_parent};
use super::{Index, SnapshotError};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where an item goes.
#[derive(Clone)]
pub struct Target {
    /// Directory below which it is written.
    pub directory: Arc<OwnedFd>,
    /// Its name there.
    pub name: String,
}

/// An item on its way.
pub struct Wanted {
    pub target: Target,
    /// Members that the index promises.
    expected: u64,
    seen: AtomicU64,
    directories: Mutex<Directories>,
}

/// Paths below a target directory, and what the directories there get.
type Directories = Vec<(Vec<u8>, Attributes)>;

impl Wanted {
    /// Path below the target directory of what is `below` the item.
    pub fn path(&self, below: &[u8]) -> Vec<u8> {
        let name = self.target.name.as_bytes();
        if below.is_empty() { name.to_vec() } else { [name, b"/", below].concat() }
    }

    /// Books a member; true when it is the last one.
    pub fn count_member(&self) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.expected
    }

    /// Keeps what a directory gets once all is in it.
    pub fn directory(&self, path: Vec<u8>, attributes: Attributes) {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.push((path, attributes));
    }

    /// All that was kept of directories.
    pub fn take_directories(&self) -> Directories {
        std::mem::take(&mut *self.directories.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wanted items, by archive path.
pub struct Targets(HashMap<Vec<u8>, Wanted>);

impl Targets {
    /// `wanted` maps positions in `index.items` to their places.
    pub fn new(index: &Index, wanted: impl IntoIterator<Item = (usize, Target)>) -> Result<Self> {
        let mut by_path = HashMap::new();
        for (position, target) in wanted {
            let item = index.items.get(position).context("an item that the index does not have")?;
            let path = index.archive_path(item).into_bytes();
            components(&path)?;
            let wanted = Wanted {
                target,
                expected: item.files,
                seen: AtomicU64::new(0),
                directories: Mutex::default(),
            };
            if by_path.insert(path, wanted).is_some() {
                bail!(SnapshotError::damaged(format!("the item {} is listed twice", item.name)));
            }
        }
        Ok(Targets(by_path))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &Wanted> {
        self.0.values()
    }

    pub fn get(&self, item: &[u8]) -> Option<&Wanted> {
        self.0.get(item)
    }

    /// Parent directory and name of a member that is on disk already.
    pub fn locate(&self, archive_path: &[u8]) -> Result<(OwnedFd, PathBuf)> {
        let (wanted, item) = prefixes(archive_path)
            .rev()
            .find_map(|item| self.0.get(item).map(|wanted| (wanted, item)))
            .context("a member of no wanted item")?;
        let path = wanted.path(below(archive_path, item));
        let parent = open_parent(wanted.target.directory.as_fd(), &path)?;
        Ok((parent, OsStr::from_bytes(last(&path)).into()))
    }

    /// # Errors
    /// When an item has fewer or more members than the index promises.
    pub fn check_complete(&self) -> Result<(), SnapshotError> {
        for (path, wanted) in &self.0 {
            let seen = wanted.seen.load(Ordering::Relaxed);
            if seen != wanted.expected {
                let shown = String::from_utf8_lossy(path);
                let expected = wanted.expected;
                return Err(SnapshotError::damaged(format!(
                    "{shown} has {seen} of {expected} members"
                )));
            }
        }
        Ok(())
    }
}
