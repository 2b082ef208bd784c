//! An open directory, and the only access to the files in it.

use super::FileKind;
use super::file_kind::{check_regular, not_regular, wrong_kind};
use rustix::fs::{
    Access, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, Stat, accessat, fstat, linkat, mkdirat,
    openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::BuildHasher;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The prefix of the name of a file until it is complete. No name of an entry begins with it.
pub const TEMPORARY: &str = ".storecache-";

/// The number of names that are tried for a temporary file.
const TRIES: u32 = 100;

#[derive(Debug)]
pub struct OpenDir {
    /// Opened with `O_PATH`, because a directory can be searchable without being readable.
    fd: OwnedFd,
    path: PathBuf,
}

/// The metadata of a directory entry. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    pub inode: u64,
    pub uid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub modified: (i64, i32),
    /// Time of the last access, in the same form.
    pub accessed: (i64, i32),
}

impl FileFacts {
    fn from_stat(stat: &Stat) -> Self {
        let time = |seconds: i64, nanos| (seconds, i32::try_from(nanos).unwrap_or_default());
        FileFacts {
            kind: FileKind::of_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            inode: stat.st_ino,
            uid: stat.st_uid,
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
        }
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// The flags for every file: links are not followed, and the call does not block.
const FILE: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl OpenDir {
    /// Opens a directory by a path that a user has named. Links in the path are the user's own, and are followed.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(OpenDir { fd, path: path.to_owned() })
    }

    /// Returns the path by which the directory was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the user ID of the owner.
    pub fn owner(&self) -> Result<u32> {
        Ok(fstat(&self.fd)?.st_uid)
    }

    /// Opens a subdirectory.
    ///
    /// # Errors
    /// If no directory has that name. A symbolic link to a directory does not count.
    pub fn subdirectory(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = plain(name.as_ref())?;
        match openat(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(OpenDir { fd, path: self.path.join(name) }),
            Err(e @ (Errno::NOTDIR | Errno::LOOP)) => Err(match self.facts(name) {
                Ok(found) => wrong_kind(found.kind, FileKind::Directory),
                Err(_) => e.into(),
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`OpenDir::subdirectory`], but follows a symbolic link. For directories in which only the user can make links.
    pub(super) fn subdirectory_or_link(&self, name: &str) -> Result<Self> {
        let fd = openat(&self.fd, plain(name.as_ref())?, DIRECTORY, Mode::empty())?;
        Ok(OpenDir { fd, path: self.path.join(name) })
    }

    /// Creates a subdirectory, unless the name exists.
    pub fn make_directory(&self, name: impl AsRef<OsStr>, mode: Mode) -> Result<()> {
        match mkdirat(&self.fd, plain(name.as_ref())?, mode) {
            Err(e) if e != Errno::EXIST => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Returns the names of all entries, in arbitrary order.
    pub fn names(&self) -> Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt;
        let mut names = Vec::new();
        for entry in Dir::new(self.readable()?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    pub fn facts(&self, name: impl AsRef<OsStr>) -> Result<FileFacts> {
        let stat = statat(&self.fd, plain(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileFacts::from_stat(&stat))
    }

    /// Checks that this process may create and remove files in the directory.
    pub fn can_write(&self) -> Result<()> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        Ok(accessat(&self.fd, ".", wanted, AtFlags::empty())?)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// If it is not a regular file: see [`super::kind_in`]. The call never blocks on a FIFO or device.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> Result<File> {
        self.existing(name.as_ref(), OFlags::RDONLY)
    }

    /// As [`OpenDir::open_file`], but does not change the access time if the kernel allows that, which it does for
    /// the owner of the file.
    pub fn open_unnoticed(&self, name: impl AsRef<OsStr>) -> Result<File> {
        let name = name.as_ref();
        match self.existing(name, OFlags::RDONLY | OFlags::NOATIME) {
            Err(e) if e.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                self.existing(name, OFlags::RDONLY)
            }
            opened => opened,
        }
    }

    /// Opens a regular file in order to lock it; nothing is read or written.
    pub fn open_for_lock(&self, name: impl AsRef<OsStr>) -> Result<File> {
        self.existing(name.as_ref(), OFlags::RDWR)
    }

    fn existing(&self, name: &OsStr, access: OFlags) -> Result<File> {
        let name = plain(name)?;
        // Opening a device may already have an effect, so the kind is checked before. The file may be replaced
        // between that check and the open, so the kind is checked again afterwards.
        let kind = self.facts(name)?.kind;
        if kind != FileKind::Regular {
            return Err(not_regular(kind));
        }
        match openat(&self.fd, name, access | FILE, Mode::empty()) {
            Ok(file) => check_regular(file),
            Err(e @ (Errno::LOOP | Errno::NXIO | Errno::ISDIR)) => Err(match self.facts(name) {
                Ok(found) if found.kind != FileKind::Regular => not_regular(found.kind),
                _ => e.into(),
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// Creates a file for writing.
    ///
    /// # Errors
    /// If the name exists.
    pub fn create(&self, name: impl AsRef<OsStr>, mode: Mode) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE;
        Ok(openat(&self.fd, plain(name.as_ref())?, flags, mode)?.into())
    }

    /// Atomically creates a file with these bytes. If the name exists, also as a link, it is replaced; the file that
    /// it stood for is not changed.
    pub fn replace(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> Result<()> {
        let name = plain(name.as_ref())?;
        let (temporary, mut file) = self.create_temporary()?;
        let written = file
            .write_all(bytes)
            // Sets the mode regardless of the umask.
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| Ok(renameat(&self.fd, &temporary, &self.fd, name)?));
        if written.is_err() {
            let _ = self.remove(&temporary);
        }
        written
    }

    fn create_temporary(&self) -> Result<(String, File)> {
        for _ in 0..TRIES {
            // Each `RandomState` has new random keys.
            let name =
                format!("{TEMPORARY}{:016x}", RandomState::new().hash_one(std::process::id()));
            match self.create(&name, Mode::RUSR | Mode::WUSR) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                made => return made.map(|file| (name, file)),
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, "cannot find an unused name for a temporary file"))
    }

    /// Removes an entry that is not a directory.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<()> {
        Ok(unlinkat(&self.fd, plain(name.as_ref())?, AtFlags::empty())?)
    }

    /// Moves an entry into another directory of the same file system.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if the new name exists.
    pub fn move_to(&self, name: &OsStr, other: &OpenDir, new: &OsStr) -> Result<()> {
        let (name, new) = (plain(name)?, plain(new)?);
        Ok(renameat_with(&self.fd, name, &other.fd, new, RenameFlags::NOREPLACE)?)
    }

    /// Flushes the names of the entries to the disk.
    pub fn sync(&self) -> Result<()> {
        self.readable()?.sync_all()
    }

    /// Opens the directory itself for reading, for example in order to lock it.
    pub fn readable(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&self.fd, ".", flags, Mode::empty())?.into())
    }
}

/// Returns the name if it is the name of a directory entry and does not lead out of the directory.
fn plain(name: &OsStr) -> Result<&OsStr> {
    let bytes = name.as_encoded_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        let text = format!("not a valid file name: {name:?}");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(name)
}

/// A new file of a directory. It gets its name when it is complete; if it is dropped before, no file remains.
#[derive(Debug)]
pub struct NewFile<D: AsRef<OpenDir>> {
    directory: D,
    file: File,
    /// The temporary name, if the file system does not support files without a name; `None` after a rename to the
    /// final name.
    temporary: Option<String>,
}

impl<D: AsRef<OpenDir>> NewFile<D> {
    /// Creates a file without a name or, if that is not possible, with a temporary name.
    pub fn create(directory: D) -> Result<Self> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(&directory.as_ref().fd, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(NewFile { directory, file: file.into(), temporary: None }),
            // If the cause lies in the directory, creating a named file fails in the same way.
            Err(_) => Self::with_temporary_name(directory),
        }
    }

    pub fn with_temporary_name(directory: D) -> Result<Self> {
        let (name, file) = directory.as_ref().create_temporary()?;
        Ok(NewFile { directory, file, temporary: Some(name) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn has_name(&self) -> bool {
        self.temporary.is_some()
    }

    /// Links the file into the directory under `name`.
    ///
    /// # Errors
    /// If the name exists.
    pub fn name(mut self, name: &OsStr) -> Result<()> {
        let directory = self.directory.as_ref();
        let name = plain(name)?;
        match &self.temporary {
            None => {
                // This way does not need root (`man 2 open`, O_TMPFILE).
                let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, link, &directory.fd, name, AtFlags::SYMLINK_FOLLOW)?;
            }
            Some(temporary) => match directory.move_to(temporary.as_ref(), directory, name) {
                Ok(()) => self.temporary = None,
                Err(e) if unsupported(&e) => {
                    // `self.temporary` stays set, so the drop of `self` removes the temporary name.
                    linkat(&directory.fd, temporary, &directory.fd, name, AtFlags::empty())?;
                }
                Err(e) => return Err(e),
            },
        }
        Ok(())
    }
}

impl<D: AsRef<OpenDir>> Drop for NewFile<D> {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = self.directory.as_ref().remove(name);
        }
    }
}

/// Returns whether the file system does not support renaming without replacing.
fn unsupported(error: &Error) -> bool {
    let known = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].map(|it| Some(it.raw_os_error()));
    known.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, read, write};
    use std::os::unix::fs::symlink;

    fn place() -> (tempfile::TempDir, OpenDir) {
        let place = tempfile::tempdir().unwrap();
        let directory = OpenDir::open(place.path()).unwrap();
        (place, directory)
    }

    #[test]
    fn open_dir_stays_the_same_after_its_path_is_replaced() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        create_dir(at("first")).unwrap();
        write(at("first/file"), "first").unwrap();
        let directory = OpenDir::open(&at("first")).unwrap();
        std::fs::rename(at("first"), at("moved")).unwrap();
        create_dir(at("first")).unwrap();
        directory.replace("new", b"new", 0o600).unwrap();
        assert_eq!(directory.names().unwrap().len(), 2);
        assert_eq!(read(at("moved/new")).unwrap(), b"new");
        assert!(!at("first/new").exists());
    }

    #[test]
    fn open_dir_never_follows_symlinks() {
        let (place, directory) = place();
        let victim = place.path().join("victim");
        write(&victim, "secret").unwrap();
        for target in [victim.as_path(), Path::new("nowhere")] {
            symlink(target, place.path().join("link")).unwrap();
            let opened = directory.open_file("link").map(drop);
            assert_eq!(kind_of(opened), Some(FileKind::SymbolicLink));
            let made = directory.create("link", Mode::RUSR).unwrap_err();
            assert_eq!(made.kind(), ErrorKind::AlreadyExists);
            directory.replace("link", b"own", 0o600).unwrap();
            assert_eq!(read(place.path().join("link")).unwrap(), b"own");
            directory.remove("link").unwrap();
        }
        assert_eq!(read(&victim).unwrap(), b"secret");
        assert!(!place.path().join("nowhere").exists());
        symlink(place.path(), place.path().join("below")).unwrap();
        let below = directory.subdirectory("below").map(drop);
        assert_eq!(kind_of(below), Some(FileKind::SymbolicLink));
    }

    fn kind_of(result: Result<()>) -> Option<FileKind> {
        super::super::kind_in(&result.unwrap_err())
    }

    #[test]
    fn open_dir_accepts_names_but_no_paths() {
        let (place, directory) = place();
        write(place.path().join("file"), "").unwrap();
        for odd in ["", ".", "..", "/etc/passwd", "../file", "below/file"] {
            assert!(directory.open_file(odd).is_err(), "{odd:?}");
            assert!(directory.replace(odd, b"", 0o600).is_err(), "{odd:?}");
        }
        directory.open_file("file").unwrap();
    }

    #[test]
    fn new_file_never_overwrites_an_existing_name() {
        let (place, directory) = place();
        let directory = std::sync::Arc::new(directory);
        let names = || place.path().read_dir().unwrap().count();
        for make in [NewFile::create, NewFile::with_temporary_name] {
            let before = names();
            let name = before.to_string();
            let file = make(std::sync::Arc::clone(&directory)).unwrap();
            assert!(file.has_name() || names() == before);
            file.name(name.as_ref()).unwrap();
            assert!(place.path().join(&name).exists());
            let again = make(std::sync::Arc::clone(&directory)).unwrap();
            assert!(again.name(name.as_ref()).is_err(), "never overwritten");
            drop(make(std::sync::Arc::clone(&directory)).unwrap());
            assert_eq!(names(), before + 1);
        }
    }
}
