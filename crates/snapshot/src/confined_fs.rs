//! Creating files and directories, and setting their attributes, below open directories.
//!
//! The kernel resolves names below a directory that the caller opened, never through a link of any kind and
//! never onto another mount. Everything is newly created: an existing file is never used in place of a new one.

use super::SnapshotError;
use super::tar_header::Attributes;
use super::walk::CONFINED;
use anyhow::{Result, bail};
use rustix::fs::{
    self, AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, openat2,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// How paths below the directory of an extraction are resolved. Everything there was created by the extraction,
/// so it contains no mounts.
const WITHIN: ResolveFlags = CONFINED.union(ResolveFlags::NO_XDEV);
/// Flags to open a directory in which entries are created.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The last component of a path. It has no slash, so it cannot lead the system calls that create directories
/// and links, which do not support confinement, to another directory. `.` and `..` already exist.
#[derive(Clone, Copy)]
pub struct Name<'p>(&'p OsStr);

impl<'p> Name<'p> {
    pub fn parse(path: &'p [u8]) -> Self {
        Name(OsStr::from_bytes(path.rsplit(|&b| b == b'/').next().unwrap_or(path)))
    }
}

/// Returns the path of the directory that a path lies in.
pub fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b".", |slash| &path[..slash])
}

/// Opens the directory that `path`, below `base`, lies in.
pub fn open_parent(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_directory(base, parent_of(path))
}

/// Opens the directory at `path` below `base`.
pub fn open_directory(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    openat2(base, OsStr::from_bytes(path), DIRECTORY, Mode::empty(), WITHIN)
}

/// Opens a directory in another one.
pub fn enter(parent: BorrowedFd<'_>, name: Name<'_>) -> Result<OwnedFd, Errno> {
    openat2(parent, name.0, DIRECTORY, Mode::empty(), WITHIN)
}

/// Creates a directory that only its owner may enter until it is complete.
pub fn make_directory(parent: BorrowedFd<'_>, name: Name<'_>) -> Result<()> {
    match fs::mkdirat(parent, name.0, Mode::RWXU) {
        Err(Errno::EXIST) => {
            bail!(SnapshotError::damaged("a directory and another member have the same name"))
        }
        other => Ok(other?),
    }
}

/// Creates a file, for writing.
pub fn create(parent: BorrowedFd<'_>, name: Name<'_>, mode: u32) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode & 0o777);
    Ok(File::from(openat2(parent, name.0, flags, mode, WITHIN)?))
}

/// Device and inode of a file that [`create`] has made.
pub type Identity = (u64, u64);

pub fn identity(file: &File) -> Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens a file that [`create`] has made again, for writing.
///
/// # Errors
/// If another file has its name now.
pub fn reopen(parent: BorrowedFd<'_>, name: Name<'_>, made: Identity) -> Result<File> {
    // `NONBLOCK`, because opening a pipe would wait.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat2(parent, name.0, flags, Mode::empty(), WITHIN)?);
    if identity(&file)? != made {
        bail!("another process replaced the file");
    }
    Ok(file)
}

/// Creates a symbolic link with any target. storecache never follows it.
pub fn make_symlink(
    parent: BorrowedFd<'_>,
    name: Name<'_>,
    target: &[u8],
    attributes: Attributes,
) -> Result<()> {
    fs::symlinkat(OsStr::from_bytes(target), parent, name.0)?;
    let stat = fs::statat(parent, name.0, AtFlags::SYMLINK_NOFOLLOW)?;
    if (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid) {
        let (uid, gid) = (uid(attributes), gid(attributes));
        fs::chownat(parent, name.0, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    fs::utimensat(parent, name.0, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Gives a file another name.
pub fn link(
    from: BorrowedFd<'_>,
    name: Name<'_>,
    to: BorrowedFd<'_>,
    new: Name<'_>,
) -> Result<(), Errno> {
    fs::linkat(from, name.0, to, new.0, AtFlags::empty())
}

/// The attributes that a file had right after its creation. A mount option, the directory or its access list
/// may have changed the requested ones. The next file in the same directory that is created with the same
/// request gets the same attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedAs {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Sets owner, mode and time of a file that [`create`] has made. The mode is set after the owner, because a
/// change of owner clears setuid and setgid. `neighbour` has the attributes at creation of the previous file in
/// the same directory; they are replaced by those of this file.
pub fn finish_file(
    file: &File,
    attributes: Attributes,
    neighbour: &mut Option<CreatedAs>,
) -> Result<()> {
    let Attributes { uid: owner, gid: group, mode, .. } = attributes;
    if *neighbour != Some(CreatedAs { uid: owner, gid: group, mode }) {
        let stat = fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) != (owner, group) {
            fs::fchown(file, uid(attributes), gid(attributes))?;
        }
        let born = stat.st_mode & 0o7777;
        if born != mode {
            fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        *neighbour = Some(CreatedAs { uid: stat.st_uid, gid: stat.st_gid, mode: born });
    }
    fs::futimens(file, &times(attributes))?;
    Ok(())
}

/// Sets owner, mode and time of a directory that [`make_directory`] has made.
pub fn finish_directory(
    parent: BorrowedFd<'_>,
    name: Name<'_>,
    attributes: Attributes,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat2(parent, name.0, flags, Mode::empty(), WITHIN)?;
    finish_file(&File::from(directory), attributes, &mut None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_header::MemberKind;
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};

    /// Returns mode, time and content of everything below `top`, except for the contents of `target`.
    fn outside(top: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut pending = vec![top.to_owned()];
        while let Some(path) = pending.pop() {
            if path.ends_with("target") {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() { std::fs::read(&path).unwrap() } else { vec![] };
            if metadata.is_dir() {
                pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            }
            let times = (metadata.mtime(), metadata.mtime_nsec());
            found.insert(path, (metadata.mode(), times.0, times.1, content));
        }
        found
    }

    /// Does everything that this module can do to a name, without checking the name first.
    fn do_all(base: BorrowedFd<'_>, path: &[u8], attributes: Attributes) {
        let name = Name::parse(path);
        let opened = open_parent(base, path);
        // Even if a wrong directory is used as its parent.
        for parent in [opened.as_ref().map_or(base, AsFd::as_fd), base] {
            if let Ok(file) = create(parent, name, 0o666) {
                let _ = finish_file(&file, attributes, &mut None);
            }
            let _ = make_directory(parent, name);
            let _ = make_symlink(parent, name, b"../outside", attributes);
            let _ = finish_directory(parent, name, attributes);
            let _ =
                enter(parent, name).map(|found| create(found.as_fd(), Name::parse(b"new"), 0o666));
            let _ = link(base, Name::parse(b"file"), parent, name);
            let _ = link(parent, name, base, Name::parse(b"got"));
            let _ = reopen(parent, name, (0, 0));
        }
        let found = open_directory(base, path);
        let _ = found.map(|found| create(found.as_fd(), Name::parse(b"new"), 0o666));
    }

    #[test]
    fn unchecked_name_cannot_leave_the_target() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        std::fs::create_dir_all(top.join("target/it")).unwrap();
        std::fs::create_dir(top.join("outside")).unwrap();
        std::fs::write(top.join("outside/secret"), "secret").unwrap();
        std::fs::write(top.join("target/file"), "x").unwrap();
        for (name, target) in [
            ("up", ".."),
            ("out", "../outside"),
            ("secret", "../outside/secret"),
            ("loop", "loop"),
            ("magic", "/proc/self/cwd"),
            ("root", "/"),
        ] {
            std::os::unix::fs::symlink(target, top.join("target").join(name)).unwrap();
        }
        let before = outside(top);
        let base = std::fs::File::open(top.join("target")).unwrap();
        let attributes =
            Attributes { mode: 0o777, ..Attributes::canonical(&MemberKind::Directory, true) };
        let absolute = top.join("outside/new").into_os_string().into_encoded_bytes();
        let text = "..|.||/|//|../|./|../new|../outside|../outside/new|../outside/secret|it/..|\
             it/../..|it/../../new|it/../../outside/new|it/.|it/|up/new|up/outside/new|out/new|\
             out/secret|out/..|secret|loop/new|magic/new|root/tmp/storecache-canary|new\0/../..|\0|\
             target/../../new|up/..|it/../up";
        for path in text.split('|').map(str::as_bytes).chain([&absolute[..]]) {
            do_all(base.as_fd(), path, attributes);
            assert_eq!(outside(top), before, "{:?}", String::from_utf8_lossy(path));
        }
        assert!(!Path::new("/tmp/storecache-canary").exists());
        // Valid names work.
        do_all(base.as_fd(), b"it/good", attributes);
        assert!(top.join("target/it/good").is_file());
    }
}
