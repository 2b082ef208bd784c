//! Files in directories that other users may write to.
//!
//! A name in such a directory may be a symbolic link to a file of root, a FIFO that blocks its reader, or may be
//! swapped from one into the other between two calls. So a directory is opened once, and everything in it is reached
//! through that descriptor: no link is followed at the last component, no existing file is truncated, and anything
//! but a regular file is refused before a byte is read.

mod directory_path;
mod file_kind;
mod open_dir;

pub use directory_path::{DirPath, Foreign};
pub use file_kind::{FileKind, kind_in};
pub use open_dir::{FileFacts, NewFile, OpenDir, TEMPORARY};

use file_kind::{check_regular, not_regular};
use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a file for reading whose path was named by a user. The path may be a symbolic link, but must lead to a
/// regular file.
///
/// # Errors
/// If it is not a regular file: see [`kind_in`]. The call never blocks on a FIFO or device.
pub fn open_named(path: &Path) -> io::Result<File> {
    let kind = FileKind::of_mode(std::fs::metadata(path)?.mode());
    if kind != FileKind::Regular {
        return Err(not_regular(kind));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    check_regular(open(path, flags, Mode::empty())?)
}
