//! Directories for measurements: on the disk that holds the cache directory, and in a file system in memory.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::shell::sh;
use crate::support::Scratch;

/// A temporary directory with a subdirectory for each use. It is removed when this value is dropped.
pub struct Ground {
    scratch: Scratch,
}

impl Ground {
    pub fn new() -> Ground {
        Ground { scratch: Scratch::new() }
    }

    /// Returns a subdirectory, which is created on first use.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Mounts an empty file system in memory.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn memory(&self) -> Result<Memory> {
        let mount = self.directory("memory")?;
        sh(&format!("mount -t tmpfs -o mode=755 bench {}", mount.display()))?;
        Ok(Memory { mount })
    }
}

/// A mounted tmpfs, which is unmounted when this value is dropped. The bench has a mount namespace of its own, so the
/// mount also ends with the process.
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
