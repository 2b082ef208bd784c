//! Detecting whether a tree was read since it was unpacked.
//!
//! Unpacking sets the times of last change and of last access of every file, link and directory of a store item
//! to the same value. The first read updates the access time, even on a mount with `relatime`, because the last
//! access is not after the last change (`mount.8`). So a tree is unread as long as the two times are equal
//! everywhere. Reads by storecache itself must not update the access time.

use anyhow::{Context, Result};
use rustix::fs::{
    self, AtFlags, Dir, FileType, Mode, OFlags, Stat, StatVfsMountFlags, Timespec, Timestamps,
    UTIME_OMIT, fstatvfs,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

/// Opens a file or directory without updating its access time, if that is permitted: only its owner and root
/// may do that (`open.2`, `O_NOATIME`).
pub fn unnoticed<T>(flags: OFlags, open: impl Fn(OFlags) -> Result<T, Errno>) -> Result<T, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}

/// Restores the access time of a symbolic link that `stat` shows as unread and that storecache has read since,
/// because links cannot be read with `O_NOATIME`. If that is not permitted, the link counts as read.
pub fn stays_unread(parent: impl AsFd, name: &CStr, stat: &Stat) {
    if is_unread(stat) {
        let last_access = Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ };
        let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification };
        let _ = fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

fn is_unread(stat: &Stat) -> bool {
    (stat.st_atime, stat.st_atime_nsec) == (stat.st_mtime, stat.st_mtime_nsec)
}

/// Whether reads below this directory update access times.
///
/// # Errors
/// If the mount options cannot be read.
pub fn reading_shows(directory: impl AsFd) -> Result<bool> {
    let hidden = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOATIME;
    Ok(!fstatvfs(directory).context("read mount options")?.f_flag.intersects(hidden))
}

/// Returns when any part of the item `name` in `base` was last read after it was unpacked, in seconds since
/// 1970, or `None` if it was never read or does not exist.
///
/// # Errors
/// If the item cannot be examined.
pub fn last_read(base: impl AsFd, name: &str) -> Result<Option<u64>> {
    let shown = || format!("read the times of {name}");
    let c_name = CString::new(name).with_context(shown)?;
    let base = base.as_fd();
    match fs::statat(base, &c_name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e).with_context(shown),
        Ok(stat) => visit(base, &c_name, &stat).with_context(shown),
    }
}

fn visit(parent: BorrowedFd, name: &CStr, stat: &Stat) -> Result<Option<u64>, Errno> {
    let mut last = (!is_unread(stat)).then(|| u64::try_from(stat.st_atime).unwrap_or(0));
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(last);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = unnoticed(flags, |flags| fs::openat(parent, name, flags, Mode::empty()))?;
    let mut entries = Dir::new(opened)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let directory = entries.fd()?;
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        last = last.max(visit(directory, name, &stat)?);
    }
    Ok(last)
}
