//! Where the items of an extraction are written, and the directories that were created for them.

use super::confined_fs::{Name, enter, make_directory, open_directory, open_parent, parent_of};
use super::tar_header::{Attributes, components, prefixes};
use super::{Index, SnapshotError};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where an item is written.
#[derive(Clone)]
pub struct Target {
    /// Directory below which the item is written.
    pub directory: Arc<OwnedFd>,
    /// Its name in that directory, one component.
    pub name: String,
}

/// An item that is being extracted.
pub struct Wanted {
    pub target: Target,
    /// Length of its archive path.
    top: usize,
    /// Number of members according to the index.
    expected: u64,
    directories: Mutex<Directories>,
}

/// The directories that the extraction has created, by their path below the target directory, with the
/// attributes that they get once their contents are complete. `None` until the directory's own member was read.
///
/// Only a directory that is in this map, under exactly this name, was created by the extraction. Its existence
/// on disk is not enough: on a file system that takes two names for the same, it could be another directory.
type Directories = HashMap<Box<[u8]>, Option<Attributes>>;

/// Path of a directory below the target directory, and its attributes.
pub type Directory = (Box<[u8]>, Attributes);

impl Wanted {
    /// Returns the path of a member below the target directory.
    pub fn path(&self, archive_path: &[u8]) -> Vec<u8> {
        let below = archive_path.get(self.top..).unwrap_or_default();
        [self.target.name.as_bytes(), below].concat()
    }

    /// Opens the directory that `path` lies in. Missing directories are created: the frame with the directory's
    /// own member may not have arrived yet.
    pub fn open_parent(&self, path: &[u8]) -> Result<OwnedFd> {
        let base = self.target.directory.as_fd();
        let parent = parent_of(path);
        if path.len() == self.target.name.len() {
            return Ok(open_directory(base, b".")?);
        }
        let mut directories = self.directories();
        let known = prefixes(parent).rev().find(|path| directories.contains_key(*path));
        let known = known.unwrap_or_default();
        let start = if known.is_empty() { &b"."[..] } else { known };
        let mut directory = open_directory(base, start)?;
        for missing in prefixes(parent).filter(|prefix| prefix.len() > known.len()) {
            make_directory(directory.as_fd(), Name::parse(missing))?;
            self.keep(&mut directories, missing, None)?;
            directory = enter(directory.as_fd(), Name::parse(missing))?;
        }
        Ok(directory)
    }

    /// Creates the directory `path` in `parent` if it does not exist yet. Its attributes are set at the end.
    pub fn make_directory(
        &self,
        parent: &OwnedFd,
        path: &[u8],
        attributes: Attributes,
    ) -> Result<()> {
        let mut directories = self.directories();
        match directories.get_mut(path) {
            Some(Some(_)) => bail!(SnapshotError::damaged("a directory appears twice")),
            Some(unsaid) => *unsaid = Some(attributes),
            None => {
                make_directory(parent.as_fd(), Name::parse(path))?;
                self.keep(&mut directories, path, Some(attributes))?;
            }
        }
        Ok(())
    }

    fn keep(
        &self,
        directories: &mut Directories,
        path: &[u8],
        attributes: Option<Attributes>,
    ) -> Result<(), SnapshotError> {
        // Each directory is also a member of the item.
        if directories.len() as u64 >= self.expected {
            return Err(SnapshotError::damaged(format!(
                "{} has more directories than the {} members of the index",
                self.target.name, self.expected
            )));
        }
        directories.insert(path.into(), attributes);
        Ok(())
    }

    /// Returns all directories, the deepest first.
    ///
    /// # Errors
    /// If a directory was created and is not a member itself: its attributes are unknown.
    pub fn take_directories(&self) -> Result<Vec<Directory>, SnapshotError> {
        let taken = std::mem::take(&mut *self.directories());
        let described = taken.into_iter().map(|(path, attributes)| match attributes {
            Some(attributes) => Ok((path, attributes)),
            None => Err(SnapshotError::damaged(format!(
                "{} contains files but is not a member itself",
                String::from_utf8_lossy(&path)
            ))),
        });
        let mut directories = described.collect::<Result<Vec<_>, _>>()?;
        directories.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        Ok(directories)
    }

    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wanted items, by their position in the index.
pub struct Targets {
    wanted: HashMap<usize, Wanted>,
    /// Positions of the items, by archive path.
    positions: HashMap<Vec<u8>, usize>,
}

impl Targets {
    /// `wanted` maps positions in `index.items` to targets.
    pub fn new(index: &Index, wanted: impl IntoIterator<Item = (usize, Target)>) -> Result<Self> {
        let mut all = HashMap::new();
        let mut positions = HashMap::new();
        for (position, target) in wanted {
            let item = index.items.get(position).context("the item is not in the index")?;
            let path = index.archive_path(item).into_bytes();
            components(&path)?;
            if components(target.name.as_bytes())?.len() != 1 {
                bail!("not a valid file name: {:?}", target.name);
            }
            let wanted = Wanted {
                target,
                top: path.len(),
                expected: item.files,
                directories: Mutex::default(),
            };
            if positions.insert(path, position).is_some() {
                bail!(SnapshotError::damaged(format!("the item {} is listed twice", item.name)));
            }
            all.insert(position, wanted);
        }
        Ok(Targets { wanted: all, positions })
    }

    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &Wanted> {
        self.wanted.values()
    }

    /// Returns the positions in the index.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.wanted.keys().copied()
    }

    pub fn get(&self, position: usize) -> Option<&Wanted> {
        self.wanted.get(&position)
    }

    /// Returns the parent directory, and the path below the target, of a member that is already on disk.
    pub fn locate(&self, archive_path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let wanted = prefixes(archive_path)
            .find_map(|item| self.wanted.get(self.positions.get(item)?))
            .context("the member belongs to no requested item")?;
        let path = wanted.path(archive_path);
        let parent = open_parent(wanted.target.directory.as_fd(), &path)?;
        Ok((parent, path))
    }
}
