//! The kinds of files that a name in a directory may stand for.

use rustix::fs::{FileType, RawMode, fstat};
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Directory,
    SymbolicLink,
    Fifo,
    Socket,
    /// A block or character device.
    Device,
    /// A kind that this program does not know.
    Other,
}

impl FileKind {
    pub(super) fn of_mode(mode: RawMode) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::SymbolicLink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::BlockDevice | FileType::CharacterDevice => FileKind::Device,
            FileType::Unknown => FileKind::Other,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Regular => "a regular file",
            FileKind::Directory => "a directory",
            FileKind::SymbolicLink => "a symbolic link",
            FileKind::Fifo => "a FIFO",
            FileKind::Socket => "a socket",
            FileKind::Device => "a device",
            FileKind::Other => "of an unknown kind",
        })
    }
}

/// The error that a name stands for a file of another kind than the caller wanted to open.
#[derive(Debug, thiserror::Error)]
#[error("it is {found}, not {wanted}")]
struct WrongKind {
    found: FileKind,
    wanted: FileKind,
}

pub(super) fn wrong_kind(found: FileKind, wanted: FileKind) -> Error {
    Error::new(ErrorKind::InvalidInput, WrongKind { found, wanted })
}

pub(super) fn not_regular(found: FileKind) -> Error {
    wrong_kind(found, FileKind::Regular)
}

/// Returns the kind of file that was found instead of the wanted one, or `None` for any other error.
pub fn kind_in(error: &Error) -> Option<FileKind> {
    error.get_ref()?.downcast_ref::<WrongKind>().map(|wrong| wrong.found)
}

/// Returns the file behind a descriptor, if it is a regular file.
pub(super) fn check_regular(file: OwnedFd) -> Result<File> {
    match FileKind::of_mode(fstat(&file)?.st_mode) {
        FileKind::Regular => Ok(file.into()),
        other => Err(not_regular(other)),
    }
}
