//! Directories for measurements: on the disk that holds the cache directory, in a new file system on that disk, and in
//! a file system in memory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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

    /// Makes an empty ext4 in a sparse file. It can hold `bytes` twice, with a file for every 4 KiB of them.
    ///
    /// # Errors
    /// If it cannot be made or mounted.
    pub fn disk(&self, bytes: u64) -> Result<Disk> {
        let image = self.directory("disk")?.join("image");
        let disk = Disk { image, mount: self.directory("mounted")?, bytes: 2 * bytes + (1 << 30) };
        disk.mount_new()?;
        Ok(disk)
    }
}

/// A mounted ext4, which can be replaced by an empty one. It is unmounted and deleted when this value is dropped.
///
/// Programs are compared on a new file system each, because for some minutes after a deletion ext4 needs longer to
/// create a file: it searches for an inode that was not deleted recently (`recently_deleted` in
/// Linux:fs/ext4/ialloc.c). After 70,000 deletions this makes any program ten times as slow, and a job deletes nothing
/// before it restores.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    bytes: u64,
}

impl Disk {
    /// Returns a directory on the disk, which does not exist on a new one.
    pub fn out(&self) -> PathBuf {
        self.mount.join("out")
    }

    /// Replaces the file system by an empty one.
    ///
    /// # Errors
    /// If it is in use, or cannot be made or mounted.
    pub fn renew(&self) -> Result<()> {
        self.unmount()?;
        self.mount_new()
    }

    fn mount_new(&self) -> Result<()> {
        let Disk { image, mount, bytes } = self;
        let (image, mount) = (image.display(), mount.display());
        // Inode tables and journal are written now. By default the kernel writes them during the first minutes.
        let options = "-i 4096 -E lazy_itable_init=0,lazy_journal_init=0";
        sh(&format!(
            "truncate -s {bytes} {image}
             mkfs.ext4 -q -F {options} {image}
             mount -o loop {image} {mount}
             sync -f {mount}"
        ))
        .context("make an ext4 in a file")
        .map(drop)
    }

    fn unmount(&self) -> Result<()> {
        let Disk { image, mount, .. } = self;
        sh(&format!("umount {} && rm {}", mount.display(), image.display())).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("bench: {error:#}");
        }
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
