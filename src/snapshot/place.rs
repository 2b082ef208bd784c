//! Creating files, directories and their attributes below open directories.
//!
//! Names are resolved by the kernel, beneath a directory that the caller opened and never through a
//! symbolic link.

use super::SnapshotError;
use super::member::Attributes;
use super::walk::CONFINED;
use anyhow::{Result, bail};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

pub fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b".", |slash| &path[..slash])
}

pub fn open_parent(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(base, OsStr::from_bytes(parent_of(path)), flags, Mode::empty(), CONFINED)
}

pub fn make_parents(base: BorrowedFd<'_>, parent: &[u8]) -> Result<()> {
    let slashes = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    for end in slashes.chain([parent.len()]) {
        let path = &parent[..end];
        make_directory(open_parent(base, path)?.as_fd(), last(path))?;
    }
    Ok(())
}

/// Makes a directory that only we may enter until it is complete; one that is there is fine.
pub fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match fs::mkdirat(parent, OsStr::from_bytes(name), Mode::RWXU) {
        Err(Errno::EXIST) => {
            let stat = fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
            if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::Directory {
                bail!(SnapshotError::damaged("a directory and something else have one name"));
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

pub fn create(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(name);
    Ok(File::from(fs::openat(parent, name, flags, Mode::from_raw_mode(mode & 0o777))?))
}

/// What a file has that was just made: a mount option, the directory or its access list may have changed
/// what was asked for. The next file in that directory of which the same is asked has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Born {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Owner, mode and time of a file that [`create`] has made. The mode comes after the owner, since a
/// change of owner clears setuid and setgid. `neighbour` is what the last one in its directory was born
/// with, and then this one.
pub fn finish_file(
    file: &File,
    attributes: Attributes,
    neighbour: &mut Option<Born>,
) -> Result<()> {
    let Attributes { uid: owner, gid: group, mode, .. } = attributes;
    if *neighbour != Some(Born { uid: owner, gid: group, mode }) {
        let stat = fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) != (owner, group) {
            fs::fchown(file, uid(attributes), gid(attributes))?;
        }
        let born = stat.st_mode & 0o7777;
        if born != mode {
            fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        *neighbour = Some(Born { uid: stat.st_uid, gid: stat.st_gid, mode: born });
    }
    fs::futimens(file, &times(attributes))?;
    Ok(())
}

pub fn set_attributes(
    parent: impl AsFd,
    name: &Path,
    attributes: Attributes,
    directory: bool,
) -> Result<()> {
    let stat = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid) {
        let owner = (uid(attributes), gid(attributes));
        fs::chownat(&parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if directory {
        fs::chmodat(&parent, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    }
    fs::utimensat(&parent, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn uid(attributes: Attributes) -> Option<Uid> {
    Some(Uid::from_raw(attributes.uid))
}

fn gid(attributes: Attributes) -> Option<Gid> {
    Some(Gid::from_raw(attributes.gid))
}

fn times(attributes: Attributes) -> Timestamps {
    let (tv_sec, nanos) = attributes.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
