//! Walking one item on disk, in the order in which its members are packed.

use super::Digest;
use super::access_times::{stays_unread, unnoticed};
use super::hardlink_groups::Stamp;
use super::tar_header::{Attributes, Member, MemberKind, PATH_LIMIT, is_too_deep};
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use storecache_entry::Digester;
use storecache_runtime::advice::WithAdvice;

/// How a path inside a tree is opened: never through a symbolic link, never out of the tree.
pub const CONFINED: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Summary of an item, apart from its members.
pub struct Walked {
    /// Number of members.
    pub members: u64,
    /// Bytes on a disk with blocks of 4 KiB.
    pub disk: u64,
    /// Digest over everything but the content. Meaningless for canonical members.
    pub fingerprint: Digest,
    /// Sockets, fifos and devices, which snapshots do not hold.
    pub left_out: Vec<String>,
}

/// A member, and where its content is.
pub struct WalkedMember {
    pub member: Member,
    /// Path below the base directory.
    pub path: Vec<u8>,
}

/// Whether members get the attributes of a store or keep their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    Canonical,
    AsFound,
}

/// Walks `path`, one component below `base`. Its members get the archive path `archive_path`. Returns `None` if
/// it does not exist. `each` receives the members sorted: a directory before its entries, entries by their
/// bytes. The files at the paths in `shared` are skipped, because they are packed already.
///
/// # Errors
/// If an entry cannot be read, if a canonical item holds a file type that a store cannot hold, or if a shared
/// file has changed.
pub fn walk(
    base: &OwnedFd,
    path: &[u8],
    archive_path: &str,
    fidelity: Fidelity,
    shared: &HashMap<Vec<u8>, Stamp>,
    each: &mut dyn FnMut(WalkedMember) -> Result<()>,
) -> Result<Option<Walked>> {
    let mut walk = Walk {
        fidelity,
        shared,
        passed: 0,
        each,
        members: 0,
        shape: Digester::default(),
        disk: 0,
        linked: HashMap::new(),
        left_out: Vec::new(),
    };
    match walk.visit(base, path, path.to_vec(), archive_path.as_bytes().to_vec()) {
        Err(e) if e.downcast_ref::<TopIsMissing>().is_some() => {
            if shared.is_empty() {
                return Ok(None);
            }
        }
        other => other?,
    }
    if walk.passed < shared.len() {
        bail!("{archive_path}: files in it disappeared while they were packed; save again");
    }
    Ok(Some(Walked {
        members: walk.members,
        disk: walk.disk,
        fingerprint: walk.shape.finish(),
        left_out: walk.left_out,
    }))
}

/// Returns the fingerprint that the directory `file_name` in `base` would have in an index, or `None` if it
/// does not exist.
pub fn fingerprint(base: &OwnedFd, file_name: &[u8], archive_path: &str) -> Result<Option<Digest>> {
    let walked =
        walk(base, file_name, archive_path, Fidelity::AsFound, &HashMap::new(), &mut |_| Ok(()))?;
    Ok(walked.map(|walked| walked.fingerprint))
}

#[derive(Debug, thiserror::Error)]
#[error("the item does not exist")]
struct TopIsMissing;

struct Walk<'a> {
    fidelity: Fidelity,
    shared: &'a HashMap<Vec<u8>, Stamp>,
    /// Number of shared files that were skipped.
    passed: usize,
    /// Receives the members.
    each: &'a mut dyn FnMut(WalkedMember) -> Result<()>,
    members: u64,
    /// Digest over everything but the content.
    shape: Digester,
    disk: u64,
    /// Archive path of the first name of each file with several names, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    left_out: Vec<String>,
}

impl Walk<'_> {
    fn visit(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        path: Vec<u8>,
        archive_path: Vec<u8>,
    ) -> Result<()> {
        let shown = || Path::new(OsStr::from_bytes(&path)).display().to_string();
        if is_too_deep(&archive_path) {
            bail!(
                anyhow!("{:.200}…: the directories are nested too deeply to be unpacked", shown())
                    .hint("remove them")
            );
        }
        if archive_path.len() > PATH_LIMIT {
            bail!(
                anyhow!("{:.200}…: the path is too long to be unpacked", shown()).hint("rename it")
            );
        }
        let c_name = CString::new(name).with_context(shown)?;
        let stat = match fs::statat(&parent, &c_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if self.members == 0 => return Err(TopIsMissing.into()),
            other => other.with_context(shown)?,
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => MemberKind::Directory,
            FileType::RegularFile => MemberKind::File(size),
            FileType::Symlink => {
                let target = fs::readlinkat(&parent, &c_name, Vec::new()).with_context(shown)?;
                if self.fidelity == Fidelity::Canonical {
                    stays_unread(&parent, &c_name, &stat);
                }
                MemberKind::Symlink(target.into_bytes())
            }
            _ if self.fidelity == Fidelity::AsFound => {
                self.left_out.push(shown());
                return Ok(());
            }
            other => bail!("{}: a store cannot contain a file of type {other:?}", shown()),
        };
        let executable = stat.st_mode & 0o100 != 0;
        if let Some(stamp) = self.shared.get(&path) {
            if kind != MemberKind::File(stamp.size) || executable != stamp.executable {
                bail!("{}: it changed while it was packed; save again", shown());
            }
            self.passed += 1;
            return Ok(());
        }
        let attributes = match self.fidelity {
            Fidelity::Canonical => Attributes::canonical(&kind, executable),
            Fidelity::AsFound => Attributes {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            },
        };
        let kind = match kind {
            MemberKind::File(_) if stat.st_nlink > 1 => {
                match self.linked.get(&(stat.st_dev, stat.st_ino)) {
                    Some(first) => MemberKind::HardLink(first.clone()),
                    None => {
                        let inode = (stat.st_dev, stat.st_ino);
                        self.linked.insert(inode, archive_path.clone());
                        kind
                    }
                }
            }
            kind => kind,
        };
        self.disk += match kind {
            MemberKind::Directory => 4096,
            MemberKind::File(size) => size.next_multiple_of(4096),
            MemberKind::Symlink(_) | MemberKind::HardLink(_) => 0,
        };
        let is_directory = kind == MemberKind::Directory;
        let member = Member { path: archive_path.clone(), kind, attributes };
        if self.fidelity == Fidelity::AsFound {
            self.shape.add(&member.encode());
        }
        self.members += 1;
        (self.each)(WalkedMember { member, path: path.clone() })?;
        if is_directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |flags| fs::openat(&parent, &c_name, flags, Mode::empty());
            let directory = unnoticed(flags, open).with_context(shown)?;
            for entry in sorted_names(&directory).with_context(shown)? {
                let below = |top: &[u8]| [top, b"/", &entry].concat();
                self.visit(&directory, &entry, below(&path), below(&archive_path))?;
            }
        }
        Ok(())
    }
}

/// Returns the names in a directory, sorted by their bytes, without `.` and `..`.
pub fn sorted_names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
