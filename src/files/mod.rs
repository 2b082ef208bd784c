//! Files in directories that other users may write to.
//!
//! A name in such a directory may be a symbolic link to a file of root's, a FIFO that keeps its reader waiting, or
//! change from one into the other between two calls. So a directory is opened once, and everything in it is reached
//! through that descriptor: no link is followed at the last component, no file that is there is truncated, and what
//! is not a regular file is refused before a byte is read.

mod kind;
mod open_dir;
mod place;

pub use kind::{FileKind, kind_in};
pub use open_dir::{FileFacts, NewFile, OpenDir, TEMPORARY};
pub use place::{DirPath, Foreign};

use kind::{check_regular, not_regular};
use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a file that a user names by its path, for reading. They may name a link; what it leads to has to be a
/// regular file.
///
/// # Errors
/// At once when it is anything else: see [`kind_in`].
pub fn open_named(path: &Path) -> io::Result<File> {
    let kind = FileKind::of_mode(std::fs::metadata(path)?.mode());
    if kind != FileKind::Regular {
        return Err(not_regular(kind));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    check_regular(open(path, flags, Mode::empty())?)
}
