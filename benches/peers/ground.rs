//! Where things are put while something is measured: a directory on the disk that holds the cache
//! directory, and a file system in memory.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::shell::sh;
use crate::support::Scratch;

/// A directory with one for each use; gone with its value.
pub struct Ground {
    scratch: Scratch,
}

impl Ground {
    pub fn new() -> Ground {
        Ground { scratch: Scratch::new() }
    }

    /// A directory of this name, made when it is asked for first.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// An empty file system in memory.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn memory(&self) -> Result<Memory> {
        let mount = self.directory("memory")?;
        sh(&format!("mount -t tmpfs -o mode=755 bench {}", mount.display()))?;
        Ok(Memory { mount })
    }
}

/// A mounted tmpfs; unmounted with its value. The bench has a mount namespace of its own, so that it
/// goes with the process too.
pub struct Memory {
    mount: PathBuf,
}

impl Memory {
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("umount {}", self.mount.display())) {
            eprintln!("bench: {error:#}");
        }
    }
}
