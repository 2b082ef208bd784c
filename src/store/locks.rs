//! The store's locks, and who holds them.
//!
//! Nix has used `flock` since 2.3 (`NixOS/nix:src/libstore/unix/pathlocks.cc`).

use super::Owner;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a lock that somebody else holds is asked for again. `flock` has no deadline of its
/// own, and a thread blocked in it could not be called off.
const ASK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Lets go of the lock before the value is dropped.
    pub fn release(&self) -> Result<()> {
        flock(&self.file, FlockOperation::Unlock).context("release a lock")
    }
}

/// Somebody else kept a lock beyond the deadline.
#[derive(Debug, thiserror::Error)]
#[error("{path} is still held after {seconds} s by {holders}")]
pub struct Held {
    pub path: String,
    pub seconds: u64,
    pub holders: String,
}

/// Locks a file, which is made if it is not there, or a directory.
///
/// # Errors
/// [`Held`] after `patience`; whatever `cancelled` returns as soon as it fails.
pub fn lock(
    path: &Path,
    mode: LockMode,
    patience: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<Lock> {
    let context = || format!("lock {}", path.display());
    let file = open(path).with_context(context)?;
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let started = Instant::now();
    loop {
        cancelled()?;
        match flock(&file, operation) {
            Ok(()) => return Ok(Lock { file }),
            Err(Errno::WOULDBLOCK) if started.elapsed() < patience => {
                std::thread::sleep(ASK_AGAIN.min(patience));
            }
            Err(Errno::WOULDBLOCK) => bail!(Held {
                path: path.display().to_string(),
                seconds: patience.as_secs(),
                holders: describe(&holders(&file)?),
            }),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).with_context(context),
        }
    }
}

/// Makes the lock file of a store that was never collected, as its owner would: made by root for
/// root, it would lock a store's own user out.
pub fn make_lock_file(path: &Path, owner: Owner) -> Result<()> {
    if !path.exists() {
        open(path).with_context(|| format!("make {}", path.display()))?;
        owner.take(path)?;
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<File> {
    if path.is_dir() {
        return File::open(path);
    }
    // As the daemon makes its locks: empty, for the owner only.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
}

/// The other processes that have the same file open.
pub fn holders(file: &File) -> Result<Vec<Holder>> {
    let ours = file.metadata()?;
    let own_pid = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid == own_pid {
            continue;
        }
        // A process may end while we look at it: then it holds nothing.
        let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let same = descriptors.flatten().any(|fd| {
            std::fs::metadata(fd.path())
                .is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
        });
        if same {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = command.split(|&b| b == 0).filter(|word| !word.is_empty());
            let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
            found.push(Holder { pid, command: words.join(" ") });
        }
    }
    Ok(found)
}

fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "a process that this one cannot see".into();
    }
    let each = holders.iter().map(|h| format!("process {} ({})", h.pid, h.command.trim()));
    each.collect::<Vec<_>>().join(", ")
}
