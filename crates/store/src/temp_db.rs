//! Private temporary directories for copies of a database, outside of any store.
//!
//! SQLite opens files by name, so the copy must have a name while it is read. The process that creates a
//! directory holds a lock on it. A directory without a lock belongs to a killed run, and the next run removes
//! it.

use super::staging::remove;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use std::os::fd::OwnedFd;
use std::path::Path;
use tempfile::TempDir;

/// No other program uses this prefix for directories.
const PREFIX: &str = "storecache-database-";

/// A directory that only the current user can access, removed when this is dropped.
pub struct TempDb {
    directory: TempDir,
    handle: OwnedFd,
}

impl TempDb {
    /// Creates a directory, and removes those of killed runs.
    pub fn create() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        Self::create_in(&parent)
            .with_context(|| format!("create a temporary directory in {}", parent.display()))
    }

    fn create_in(parent: &Path) -> Result<Self> {
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            let handle = open_directory(directory.path())?;
            // Before it was locked, another run may have mistaken it for that of a killed run, and removed it.
            let locked = flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && is_there(directory.path(), &handle) {
                return Ok(TempDb { directory, handle });
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a descriptor of the directory.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }
}

impl Drop for TempDb {
    fn drop(&mut self) {
        let _ = remove(self.path());
    }
}

/// Removes the directories that killed runs of this user left.
pub fn clean_refuges() {
    sweep(&std::env::temp_dir());
}

/// Removes abandoned directories in `parent`. Those that cannot be examined or removed stay: they do not affect
/// any run.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in
        entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    {
        let path = entry.path();
        // Ignore links, and directories of other users.
        let Ok(handle) = open_directory(&path) else { continue };
        let ours = fstat(&handle).is_ok_and(|it| it.st_uid == rustix::process::geteuid().as_raw());
        if ours && flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove(&path);
        }
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn is_there(path: &Path, handle: &OwnedFd) -> bool {
    let named = stat(path).map(|it| (it.st_dev, it.st_ino));
    named.is_ok() && named == fstat(handle).map(|it| (it.st_dev, it.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_removes_only_databases_of_dead_runs() {
        let parent = tempfile::tempdir().unwrap();
        let live = TempDb::create_in(parent.path()).unwrap();
        let dead = parent.path().join("storecache-database-dead");
        let others = parent.path().join("storecache-test");
        let link = parent.path().join("storecache-database-link");
        for directory in [&dead, &others] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("db.sqlite"), "rows").unwrap();
        }
        std::os::unix::fs::symlink(&others, &link).unwrap();
        sweep(parent.path());
        assert!(live.path().exists() && others.join("db.sqlite").exists() && link.is_symlink());
        assert!(!dead.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
