//! Finding files that several items share, because a store makes hard links of equal files.
//!
//! This is a separate pass over all items, because shared files are packed first. A daemon may link files
//! meanwhile, and an inode number may be reused for another file. So after this pass, files are identified by
//! their paths, and the packer checks that all paths of a shared file still have the same content.

use super::access_times::unnoticed;
use super::frames::Content;
use super::pack::PackInput;
use super::tar_header::{Attributes, Member, MemberKind, is_too_deep};
use super::walk::WalkedMember;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::threads;

/// A smaller file is packed in each item. Sharing all of them would make a snapshot 0.3 % smaller, and items
/// would need twice as many shared frames (measured on 33,000 files, optimized by Nix). Guix 1.5 does not link
/// smaller files (`guix/store/deduplication.scm`).
pub const LEAST: u64 = 8192;

/// A file that has names in several items.
pub struct SharedFile {
    pub stamp: Stamp,
    /// Sorted by item, then by path.
    names: Vec<Name>,
}

/// Properties of a file that reveal whether it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    pub executable: bool,
}

struct Name {
    /// Position of the item.
    item: usize,
    /// Path below the item's base.
    path: Vec<u8>,
}

/// Finds all shared files in items of a store. Files that are shared by the same items are adjacent, so that an
/// item is in few frames. The order depends only on names.
///
/// # Errors
/// If a directory or file cannot be read. A missing item shares nothing.
pub fn shared_files(inputs: &[PackInput], threads: usize) -> Result<Vec<SharedFile>> {
    let mut found = linked_files(inputs, threads)?;
    found.sort_unstable_by_key(|&(inode, stamp, _)| (inode, stamp));
    let mut files = Vec::new();
    let mut found = found.into_iter().peekable();
    while let Some((inode, stamp, name)) = found.next() {
        let mut names = vec![name];
        while let Some((.., name)) = found.next_if(|next| (next.0, next.1) == (inode, stamp)) {
            names.push(name);
        }
        if names.iter().any(|name| name.item != names[0].item) {
            names.sort_unstable_by(|a, b| (a.item, &a.path).cmp(&(b.item, &b.path)));
            files.push(SharedFile { stamp, names });
        }
    }
    files.sort_by_cached_key(|file| {
        let items: Vec<usize> = file.by_item().map(|names| names[0].item).collect();
        (items, file.names[0].path.clone())
    });
    Ok(files)
}

impl SharedFile {
    fn by_item(&self) -> impl Iterator<Item = &[Name]> {
        self.names.chunk_by(|a, b| a.item == b.item)
    }

    /// Returns the members to pack: in each item the first name is a file, and the others are links to it.
    pub fn content(&self, inputs: &[PackInput]) -> Content {
        let copies = self.by_item().map(|names| {
            let input = &inputs[names[0].item];
            let archive_path = |name: &Name| {
                [input.archive_path.as_bytes(), &name.path[input.file_name.len()..]].concat()
            };
            let first = archive_path(&names[0]);
            let members = names.iter().enumerate().map(|(nth, name)| {
                let kind = match nth {
                    0 => MemberKind::File(self.stamp.size),
                    _ => MemberKind::HardLink(first.clone()),
                };
                let attributes = Attributes::canonical(&kind, self.stamp.executable);
                let member = Member { path: archive_path(name), kind, attributes };
                WalkedMember { member, path: name.path.clone() }
            });
            members.collect()
        });
        Content { base: Arc::clone(&inputs[self.names[0].item].base), copies: copies.collect() }
    }
}

/// For each item, by position, what it shares with others.
#[derive(Default)]
pub struct Shares(HashMap<usize, Share>);

/// The files that one item shares with others.
#[derive(Default)]
pub struct Share {
    /// Files by path below the base.
    pub files: HashMap<Vec<u8>, Stamp>,
    /// Numbers of frames, in ascending order.
    pub frames: Vec<u32>,
    /// Bytes on a disk with blocks of 4 KiB.
    pub disk: u64,
}

impl Shares {
    /// Records a file. Each item has its copy in one of `frames`.
    pub fn book(&mut self, file: SharedFile, frames: &[u32]) {
        for (names, &frame) in file.by_item().zip(frames) {
            let share = self.0.entry(names[0].item).or_default();
            if share.frames.last() != Some(&frame) {
                share.frames.push(frame);
            }
            share.disk += file.stamp.size.next_multiple_of(4096);
        }
        for name in file.names {
            let share = self.0.entry(name.item).or_default();
            share.files.insert(name.path, file.stamp);
        }
    }

    pub fn take(&mut self, item: usize) -> Share {
        self.0.remove(&item).unwrap_or_default()
    }
}

/// A file that also has other names, in this item or elsewhere.
type Linked = (Inode, Stamp, Name);

/// Device and inode.
type Inode = (u64, u64);

/// Finds all files of all items that have several names, except for small ones.
fn linked_files(inputs: &[PackInput], wanted: usize) -> Result<Vec<Linked>> {
    let next = AtomicUsize::new(0);
    let search = || -> Result<Vec<Linked>> {
        let mut search = Search { item: 0, found: Vec::new() };
        loop {
            search.item = next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = inputs.get(search.item) else { return Ok(search.found) };
            search.top(input)?;
        }
    };
    thread::scope(|scope| {
        let start = || threads::start_in(scope, "to find shared files", search);
        let searches = threads::some(wanted, start)?;
        let mut found = Vec::new();
        for search in searches {
            found.append(
                &mut search
                    .join()
                    .map_err(|_| anyhow!("a thread that finds shared files panicked"))??,
            );
        }
        Ok(found)
    })
}

struct Search {
    item: usize,
    found: Vec<Linked>,
}

impl Search {
    fn top(&mut self, input: &PackInput) -> Result<()> {
        let path = &input.file_name;
        let name = CString::new(path.as_slice()).with_context(|| shown(path))?;
        let base = input.base.as_fd();
        match fs::statat(base, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| shown(path)),
            Ok(stat) => self.visit(base, &name, path, stat),
        }
    }

    fn visit(&mut self, parent: BorrowedFd, name: &CStr, path: &[u8], stat: Stat) -> Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(parent, name, path),
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                if stat.st_nlink > 1 && size >= LEAST {
                    let stamp = Stamp { size, executable: stat.st_mode & 0o100 != 0 };
                    let name = Name { item: self.item, path: path.to_vec() };
                    self.found.push(((stat.st_dev, stat.st_ino), stamp, name));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn directory(&mut self, parent: BorrowedFd, name: &CStr, path: &[u8]) -> Result<()> {
        if is_too_deep(path) {
            bail!(
                anyhow!(
                    "{:.200}…: the directories are nested too deeply to be unpacked",
                    shown(path)
                )
                .hint("remove them")
            );
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |flags| fs::openat(parent, name, flags, Mode::empty());
        let opened = unnoticed(flags, open).with_context(|| shown(path))?;
        let mut entries = Dir::new(opened).with_context(|| shown(path))?;
        while let Some(entry) = entries.read() {
            let entry = entry.with_context(|| shown(path))?;
            let directory = entries.fd().with_context(|| shown(path))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = || [path, b"/", name.to_bytes()].concat();
            match entry.file_type() {
                FileType::Directory => self.directory(directory, name, &below())?,
                FileType::RegularFile | FileType::Unknown => {
                    let path = below();
                    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                        .with_context(|| shown(&path))?;
                    self.visit(directory, name, &path, stat)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn shown(path: &[u8]) -> String {
    Path::new(OsStr::from_bytes(path)).display().to_string()
}
