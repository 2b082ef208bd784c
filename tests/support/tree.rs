//! The attributes and contents of a tree of files, for comparison.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// One file, with the attributes that are comparable between two worlds. The link count is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    pub uid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// The SHA-256 of a file in hex, or the target of a symlink with special bytes escaped.
    pub content: String,
}

/// The entries of a tree by their path relative to `top`. The path of `top` is empty.
pub fn tree_digest(top: impl AsRef<Path>) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    collect(top.as_ref(), Path::new(""), &mut found);
    found
}

fn collect(top: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Entry>) {
    let path = if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) };
    let metadata =
        fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if metadata.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            collect(top, &below.join(entry.unwrap().file_name()), found);
        }
    }
    found.insert(below.to_owned(), entry(&path, &metadata));
}

fn entry(path: &Path, metadata: &Metadata) -> Entry {
    let content = if metadata.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
    } else if metadata.is_file() {
        Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        String::new()
    };
    Entry {
        mode: metadata.mode(),
        uid: metadata.uid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if metadata.is_dir() { 0 } else { metadata.size() },
        content,
    }
}
