//! Staging: a hidden directory beside the items, in which a restore is prepared.
//!
//! It lies on the same file system, so that placing an item is a rename. To the daemon it is
//! garbage: only the shared `gc.lock` of its maker keeps a collector from removing it. While the
//! lock has to be let go it steps aside, into a directory that no collector reads.

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, mkdir, open};
use std::os::fd::OwnedFd;
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
    ///
    /// # Errors
    /// Also when `parent` is read-only; the error says so.
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

    /// Moves to `directory`, which must be on the same mount.
    pub fn step_to(&mut self, directory: &Path) -> Result<()> {
        let name = self.path.file_name().context("a staging directory has a name")?;
        let path = directory.join(name);
        std::fs::rename(&self.path, &path)
            .with_context(|| format!("move {} to {}", self.path.display(), directory.display()))?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes what dead runs left in `parent`. The caller holds the lock that every run holds.
pub fn clean_stale(parent: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| parent.display().to_string()),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let path = entry.path();
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("remove {}, left by a dead run", path.display()))?;
        }
    }
    Ok(())
}
