//! Taking the store's locks, and finding the processes that hold them. Which files are locked is in `layout.rs`
//! (`gc_lock`, `big_lock`).
//!
//! Nix has used `flock` since 2.3 (`NixOS/nix:src/libstore/unix/pathlocks.cc`), Guix uses POSIX record locks
//! (`guix-mirror/guix:nix/libstore/pathlocks.cc`). The two do not see each other. A process loses its ordinary
//! record locks on a file when it closes any descriptor of this file. Locks of an open file description do not
//! have this problem, and still conflict with ordinary record locks (`man 2 fcntl`).

use super::Owner;
use super::staging::StagedDir;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, RenameFlags, StatxFlags, flock, makedev, renameat_with, statx,
};
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use storecache_runtime::advice::Advice;
use storecache_runtime::liveness::seconds;
use storecache_runtime::process_stat::{ProcessStat, processes};
use storecache_runtime::{RunContext, disclosure};
use tracing::debug;

/// Pause before the next attempt to take a lock that another process holds. `flock` has no deadline, and a
/// thread that blocks in it could not be canceled.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Interval between two reports that a lock is waited for.
const TELL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// The kind of lock, which decides which programs it excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Excludes programs that use `flock`.
    Flock,
    /// Excludes programs that use record locks.
    OpenFileDescription,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    kind: LockKind,
}

impl Lock {
    /// Releases the lock before the value is dropped.
    pub fn release(&self) -> Result<()> {
        ask(&self.file, self.kind, None).context("release the lock")
    }
}

/// The error that another process held a lock beyond the deadline.
#[derive(Debug, thiserror::Error)]
#[error("the lock on {path} is still held after {seconds} s by {holders}")]
pub struct LockTimeout {
    pub path: String,
    pub seconds: u64,
    pub holders: String,
    #[source]
    pub advice: Advice,
}

/// Advice if a lock is still held.
const WAIT_LONGER: &str = "try again when it has ended, or set --lock-timeout to wait longer";

/// Locks a directory or a file. A missing file is created. `run` receives the holders of the lock during the wait.
///
/// # Errors
/// [`LockTimeout`] after `timeout`; any error of `cancelled`, as soon as it fails.
pub fn lock(
    run: &RunContext,
    path: &Path,
    kind: LockKind,
    mode: LockMode,
    timeout: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<Lock> {
    let file = open(path).with_context(|| format!("lock {}", path.display()))?;
    lock_open(run, file, path, kind, mode, timeout, cancelled)
}

/// As [`lock`], for a file or directory that is already open; `path` is for messages.
pub fn lock_open(
    run: &RunContext,
    file: File,
    path: &Path,
    kind: LockKind,
    mode: LockMode,
    timeout: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<Lock> {
    let context = || format!("lock {}", path.display());
    let started = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        cancelled()?;
        match ask(&file, kind, Some(mode)) {
            Ok(()) => {
                let ms = started.elapsed().as_millis();
                debug!(lock = %path.display(), ?mode, ms, "took a lock");
                return Ok(Lock { file, kind });
            }
            Err(Errno::WOULDBLOCK | Errno::ACCESS) if started.elapsed() < timeout => {
                // Do this rarely: finding the holders examines every process.
                if told.is_none_or(|told| told.elapsed() >= TELL) {
                    let (held, time) = (path.display(), seconds(started.elapsed()));
                    let holders = describe(&holders(&file)?);
                    if told.is_none() {
                        debug!(lock = %held, ?mode, holders, "wait for a lock");
                    }
                    told = Some(Instant::now());
                    run.report_waiting(format!(
                        "the lock on {held} is held by {holders}, waiting for {time}"
                    ));
                }
                std::thread::sleep(ASK_AGAIN.min(timeout));
            }
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => bail!(LockTimeout {
                path: path.display().to_string(),
                seconds: timeout.as_secs(),
                holders: describe(&holders(&file)?),
                advice: Advice::hint(WAIT_LONGER),
            }),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).with_context(context),
        }
    }
}

/// Tries once to take a lock, or releases it.
fn ask(file: &File, kind: LockKind, mode: Option<LockMode>) -> Result<(), Errno> {
    match kind {
        LockKind::Flock => flock(
            file,
            match mode {
                Some(LockMode::Shared) => FlockOperation::NonBlockingLockShared,
                Some(LockMode::Exclusive) => FlockOperation::NonBlockingLockExclusive,
                None => FlockOperation::Unlock,
            },
        ),
        LockKind::OpenFileDescription => {
            let l_type = match mode {
                Some(LockMode::Shared) => libc::F_RDLCK,
                Some(LockMode::Exclusive) => libc::F_WRLCK,
                None => libc::F_UNLCK,
            };
            // The whole file. The kernel requires a process ID of 0.
            let whole = libc::flock {
                l_type: l_type as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            fcntl(file, FcntlArg::F_OFD_SETLK(&whole))
                .map(drop)
                .map_err(|e| Errno::from_raw_os_error(e as i32))
        }
    }
}

/// Returns the processes that prevent an exclusive lock; `None` if the lock is free, or the file does not
/// exist. The list is empty if this process cannot see the holders.
///
/// # Errors
/// If the lock cannot be queried.
pub fn held_by(path: &Path, kind: LockKind) -> Result<Option<Vec<Holder>>> {
    let context = || format!("find the holders of the lock on {}", path.display());
    if !path.exists() {
        return Ok(None);
    }
    let file = open(path).with_context(context)?;
    match ask(&file, kind, Some(LockMode::Exclusive)) {
        // Closing the file, on return, releases the lock.
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(Some(holders(&file)?)),
        Err(e) => Err(e).with_context(context),
    }
}

/// Creates the lock file of a store that was never collected, with the owner of the store: a file that belongs
/// to root would lock out the store's own user.
///
/// # Errors
/// If it cannot be created. The file appears with its owner or not at all: a file that the owner cannot open
/// would prevent every later collection.
pub fn make_lock_file(path: &Path, owner: Owner, state: &Path) -> Result<()> {
    let context = || format!("create {}", path.display());
    if path.try_exists().with_context(context)? {
        return Ok(());
    }
    let workshop = StagedDir::create(state).with_context(context)?;
    let new = workshop.path().join("lock");
    open(&new).with_context(context)?;
    owner.take(&new)?;
    match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
        // Another process created it first.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).with_context(context),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if path.is_dir() {
        return File::open(path);
    }
    // As the daemon creates its locks: empty, and accessible to the owner only. A link could lead out of the
    // store.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path)
}

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
    /// Whether a signal has stopped the process, so that it cannot release anything before it is continued.
    pub stopped: bool,
}

/// Returns the other processes that have the same file open, as far as the reader may know of them
/// ([`disclosure`]).
pub fn holders(file: &File) -> Result<Vec<Holder>> {
    let ours = file.metadata()?;
    let own_pid = std::process::id();
    let listed = listed(&ours);
    let mut found = Vec::new();
    for pid in processes()?.filter(|&pid| pid != own_pid) {
        // A process may end during the scan: then it holds nothing.
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let identity = (ours.dev(), ours.ino());
        if descriptors.flatten().any(|fd| known_identity(&fd.path()) == Some(identity)) {
            let words = disclosure::command_line(pid);
            let may_know = listed.contains(&pid) || disclosure::is_open(pid);
            if disclosure::is_limited() && (words.is_none() || !may_know) {
                continue;
            }
            let words = words.unwrap_or_default().into_iter().filter(|word| !word.is_empty());
            let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
            let stopped = ProcessStat::read(pid).is_ok_and(|stat| stat.is_stopped());
            found.push(Holder { pid, command: words.join(" "), stopped });
        }
    }
    Ok(found)
}

/// Returns device and inode of a file that a process has open, as far as the kernel knows them without asking
/// the file system: a file system that does not answer would block this process forever.
fn known_identity(link: &Path) -> Option<(u64, u64)> {
    let found = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// Returns the processes that `/proc/locks`, which every user may read, lists as owners of a lock on a file.
/// Locks of an open file description do not have an owner there (`man 5 proc_locks`).
fn listed(file: &Metadata) -> Vec<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let name = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let owner = |line: &str| -> Option<u32> {
        // 1: FLOCK ADVISORY WRITE 7 08:01:42 0 EOF; a waiting process has `->` before the kind of lock.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == name)?;
        let waits = fields.contains(&"->");
        fields.get(at.checked_sub(1)?)?.parse().ok().filter(|_| !waits)
    };
    locks.lines().filter_map(owner).collect()
}

/// Describes holders for messages.
pub fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() && disclosure::is_limited() {
        return "another process".into();
    }
    if holders.is_empty() {
        return "a process that storecache cannot see".into();
    }
    let each = holders.iter().map(|h| {
        let stopped = if h.stopped { ", which is stopped" } else { "" };
        format!("process {} ({}){stopped}", h.pid, h.command.trim())
    });
    each.collect::<Vec<_>>().join(", ")
}
