//! Paths of directories that are named by a user, or chosen by this program below the user's home.

use super::{FileKind, OpenDir, kind_in};
use rustix::fs::Mode;
use rustix::process::geteuid;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;

/// The path of a directory. Symbolic links in the part that a user has named are followed. In the part that this
/// program has chosen, a symbolic link is followed only if the directory that contains it belongs to the user who
/// runs the program: in the home of another user, a link may lead to a directory that only the running user can write
/// to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirPath {
    named: PathBuf,
    chosen: &'static [&'static str],
}

/// The error that another user controls a directory of this program.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct Foreign {
    path: PathBuf,
    why: String,
}

impl Foreign {
    fn error(path: PathBuf, why: String) -> Error {
        Error::new(ErrorKind::PermissionDenied, Foreign { path, why })
    }

    /// Returns whether an I/O error is a [`Foreign`].
    pub fn is(error: &Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Foreign>())
    }
}

impl From<PathBuf> for DirPath {
    fn from(named: PathBuf) -> Self {
        DirPath { named, chosen: &[] }
    }
}

impl DirPath {
    /// Returns the directory for state of this user that is not a cache. Source for this and [`DirPath::cache`]: XDG
    /// Base Directory Specification.
    pub fn state() -> Option<Self> {
        Self::of_user("XDG_STATE_HOME", &[".local", "state", "storecache"])
    }

    /// Returns the directory for the user's cache.
    pub fn cache() -> Option<Self> {
        Self::of_user("XDG_CACHE_HOME", &[".cache", "storecache"])
    }

    /// Returns the last component of `below` in the directory that the variable names, or else all of `below` in the
    /// home.
    fn of_user(variable: &str, below: &'static [&'static str]) -> Option<Self> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
        let last = &below[below.len().saturating_sub(1)..];
        let named = set(variable).map(|named| DirPath { named, chosen: last });
        named.or_else(|| Some(DirPath { named: set("HOME")?, chosen: below }))
    }

    /// Returns the whole path.
    pub fn path(&self) -> PathBuf {
        self.chosen.iter().fold(self.named.clone(), |path, part| path.join(part))
    }

    /// Opens the directory. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Foreign`] if the path contains a link that another user may have created.
    pub fn open(&self) -> Result<Option<OpenDir>> {
        match self.walk(false) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens the directory, after creating it and its missing parents.
    pub fn make(&self) -> Result<OpenDir> {
        self.walk(true)
    }

    fn walk(&self, make: bool) -> Result<OpenDir> {
        let mut directory = match OpenDir::open(&self.named) {
            Err(e) if make && e.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.named)?;
                OpenDir::open(&self.named)?
            }
            opened => opened?,
        };
        for part in self.chosen {
            if make {
                directory.make_directory(part, Mode::RWXU | Mode::RWXG | Mode::RWXO)?;
            }
            directory = enter(&directory, part)?;
        }
        Ok(directory)
    }
}

/// Opens a subdirectory. Follows a symbolic link only if the parent belongs to the user.
fn enter(directory: &OpenDir, part: &str) -> Result<OpenDir> {
    match directory.subdirectory(part) {
        Err(e) if kind_in(&e) == Some(FileKind::SymbolicLink) => {
            let owner = directory.owner()?;
            if owner != geteuid().as_raw() {
                let why = "it is a symbolic link in a directory of another user".to_owned();
                let why = format!("{why} (user ID {owner})");
                return Err(Foreign::error(directory.path().join(part), why));
            }
            directory.subdirectory_or_link(part)
        }
        opened => opened,
    }
}

impl OpenDir {
    /// Returns the directory if it belongs to the user who runs this program.
    ///
    /// # Errors
    /// [`Foreign`] if it belongs to another user.
    pub fn check_own(self) -> Result<Self> {
        let owner = self.owner()?;
        if owner == geteuid().as_raw() {
            return Ok(self);
        }
        let why = format!("it belongs to another user (user ID {owner})");
        Err(Foreign::error(self.path().to_owned(), why))
    }
}
