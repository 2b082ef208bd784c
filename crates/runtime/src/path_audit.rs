//! Audits which accounts can change what a path leads to.
//!
//! Ownership of the final file is only part of the answer: a directory on the way may be writable by a group or by
//! every user, a symbolic link may lie in a sticky directory, or an access list may grant rights that the mode bits
//! do not show.

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, getxattr, openat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The number of symbolic links that the kernel follows (`man 7 path_resolution`).
const SYMLINK_LIMIT: u32 = 40;
/// The size in bytes, larger than any file system allows, above which an access list is treated as granting access.
const ACL_LIMIT: usize = 64 << 10;

/// The accounts whose influence on a path is audited.
#[derive(Debug, Clone)]
pub enum Suspects {
    /// One user with their groups.
    User { uid: u32, groups: Vec<u32> },
    /// Every account except root and this user.
    EverybodyBut(u32),
}

impl Suspects {
    /// Returns every account except root.
    pub fn everybody() -> Self {
        Suspects::EverybodyBut(0)
    }

    fn include_user(&self, uid: u32) -> bool {
        match self {
            Suspects::User { uid: suspect, .. } => uid == *suspect,
            Suspects::EverybodyBut(trusted) => uid != 0 && uid != *trusted,
        }
    }

    fn include_group(&self, gid: u32) -> bool {
        match self {
            Suspects::User { groups, .. } => groups.contains(&gid),
            Suspects::EverybodyBut(_) => true,
        }
    }

    /// Returns whether the owner of an entry in a directory such as `/tmp` is not known to be trusted.
    fn could_own_entry(&self, uid: u32) -> bool {
        match self {
            Suspects::User { .. } => uid != 0,
            Suspects::EverybodyBut(_) => self.include_user(uid),
        }
    }

    /// Returns why a suspect can change the content of a file or directory, or `None` if no suspect can. This process
    /// reaches the file at `at`; `shown` is the name for messages. The sticky bit of a directory does not count as
    /// protection here: see [`Suspects::follow`].
    ///
    /// # Errors
    /// If the access list of the file cannot be read.
    pub fn can_write(&self, at: &Path, shown: &Path, found: &Metadata) -> Result<Option<String>> {
        let (shown, mode) = (shown.display(), found.permissions().mode());
        if self.include_user(found.uid()) {
            return Ok(Some(format!("{shown} belongs to user {}", found.uid())));
        }
        // The permissions of a symbolic link are never checked.
        if found.is_symlink() {
            return Ok(None);
        }
        let by_group = mode & 0o020 != 0 && self.include_group(found.gid());
        if by_group || mode & 0o002 != 0 {
            return Ok(Some(match self {
                Suspects::User { uid, .. } => format!("user {uid} may write to {shown}"),
                Suspects::EverybodyBut(_) => {
                    format!("users other than root may write to {shown} (mode {:o})", mode & 0o7777)
                }
            }));
        }
        let granted = acl_grants(at, |uid| self.include_user(uid), |gid| self.include_group(gid))
            .with_context(|| format!("read the access list of {shown}"))?;
        Ok(granted.then(|| format!("an access list lets other users write to {shown}")))
    }

    /// Returns which entries of a directory a suspect could replace with another one: none, only entries that a
    /// suspect owns, or any entry.
    fn can_swap_entries(&self, at: &Path, shown: &Path, found: &Metadata) -> Result<Swap> {
        let Some(reason) = self.can_write(at, shown, found)? else { return Ok(Swap::Never) };
        // In a sticky directory only the owner of an entry, or of the directory, can replace the entry.
        let sticky = found.is_dir()
            && found.permissions().mode() & 0o1000 != 0
            && !self.include_user(found.uid());
        Ok(if sticky { Swap::TheirOwn } else { Swap::Any(reason) })
    }

    /// Walks down `path`, which contains no symbolic links, from an open directory. Returns why a suspect could
    /// replace the last component with another file, or `None` if no suspect can. If the last component does not
    /// exist, that is not a reason.
    ///
    /// # Errors
    /// If a directory on the way cannot be opened.
    pub fn walk(&self, root: &OwnedFd, path: &Path) -> Result<Option<String>> {
        let mut here = root.try_clone()?;
        let mut shown = PathBuf::from("/");
        let mut in_sticky = false;
        let names: Vec<_> = path.strip_prefix("/").unwrap_or(path).components().collect();
        for (number, name) in names.iter().enumerate() {
            let at = PathBuf::from(format!("/proc/self/fd/{}", here.as_raw_fd()));
            let found = std::fs::metadata(&at).with_context(|| shown.display().to_string())?;
            if in_sticky && self.could_own_entry(found.uid()) {
                return Ok(Some(format!("any user could have created {}", shown.display())));
            }
            match self.can_swap_entries(&at, &shown, &found)? {
                Swap::Never => in_sticky = false,
                Swap::TheirOwn => in_sticky = true,
                Swap::Any(reason) => return Ok(Some(reason)),
            }
            shown.push(name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            here = match openat(&here, name.as_os_str(), flags, Mode::empty()) {
                Err(Errno::NOENT) if number + 1 == names.len() => return Ok(None),
                opened => opened.with_context(|| shown.display().to_string())?,
            };
        }
        let found = std::fs::metadata(format!("/proc/self/fd/{}", here.as_raw_fd()))?;
        let theirs = in_sticky && self.could_own_entry(found.uid());
        Ok(theirs.then(|| format!("any user could have created {}", shown.display())))
    }

    /// Follows `path` component by component.
    ///
    /// Returns the real path, as far as it exists, if no suspect could make it lead elsewhere. Otherwise returns the
    /// reason: a directory on the way that a suspect can write to, or an entry of a sticky directory that a suspect
    /// could have created or, if it is missing, could still create.
    ///
    /// # Errors
    /// If a component cannot be read, or there are too many symbolic links.
    pub fn follow(&self, path: &Path) -> Result<Result<PathBuf, String>> {
        let mut ahead: Vec<OsString> = Vec::new();
        let push = |ahead: &mut Vec<OsString>, path: &Path| {
            ahead.extend(path.components().rev().map(|it| it.as_os_str().to_owned()));
        };
        push(&mut ahead, path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        let mut in_sticky = false;
        while let Some(name) = ahead.pop() {
            let next = here.join(&name);
            let found = match next.symlink_metadata() {
                Ok(found) => found,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && in_sticky => {
                    return Ok(Err(format!("any user could create {}", next.display())));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    here = next;
                    here.extend(ahead.into_iter().rev());
                    return Ok(Ok(here));
                }
                Err(e) => return Err(e).with_context(|| next.display().to_string()),
            };
            if in_sticky && self.could_own_entry(found.uid()) {
                return Ok(Err(format!("any user could have created {}", next.display())));
            }
            if found.is_symlink() {
                links += 1;
                if links > SYMLINK_LIMIT {
                    bail!("{} contains too many symbolic links", path.display());
                }
                if self.include_user(found.uid()) {
                    let reason = format!("{} belongs to user {}", next.display(), found.uid());
                    return Ok(Err(reason));
                }
                push(&mut ahead, &next.read_link()?);
                continue;
            }
            here = match name == ".." {
                true => here.parent().unwrap_or(Path::new("/")).to_owned(),
                false => next,
            };
            in_sticky = false;
            match self.can_swap_entries(&here, &here, &found)? {
                Swap::Never => {}
                Swap::TheirOwn => in_sticky = true,
                Swap::Any(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(here))
    }
}

/// The entries of a directory that a suspect could replace.
enum Swap {
    Never,
    /// Only entries that belong to a suspect, as in `/tmp`.
    TheirOwn,
    /// Any entry. The text is the reason.
    Any(String),
}

/// Returns whether an access list grants writing to a named user or group (`man 5 acl`). The mode bits show the
/// owner, the mask and all others, so only named entries are checked, regardless of the mask.
///
/// # Errors
/// If the list cannot be read.
fn acl_grants(
    path: &Path,
    user: impl Fn(u32) -> bool,
    group: impl Fn(u32) -> bool,
) -> rustix::io::Result<bool> {
    // A list of NFSv4 or of a richacl file system is not evaluated: its existence is treated as granting access.
    for name in ["system.nfs4_acl", "system.richacl"] {
        match getxattr(path, name, &mut [0u8; 0]) {
            Ok(length) if length > 0 => return Ok(true),
            _ => {}
        }
    }
    let mut list = vec![0u8; 256];
    let length = loop {
        match getxattr(path, "system.posix_acl_access", &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < ACL_LIMIT => {
                let larger = list.len() * 4;
                list.resize(larger, 0);
            }
            Err(Errno::RANGE) => return Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e),
        }
    };
    list.truncate(length);
    Ok(parse_acl(&list).is_none_or(|entries| {
        entries.into_iter().any(|entry| match entry {
            AclEntry { tag: ACL_USER, write: true, id } => user(id),
            AclEntry { tag: ACL_GROUP, write: true, id } => group(id),
            _ => false,
        })
    }))
}

/// Named entries of `struct posix_acl_xattr_entry` (`linux:include/uapi/linux/posix_acl.h`).
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// `struct posix_acl_xattr_header` (`linux:include/uapi/linux/posix_acl_xattr.h`).
const ACL_VERSION: u32 = 2;

struct AclEntry {
    tag: u16,
    write: bool,
    id: u32,
}

/// Parses an access list. Returns `None` if its format is unknown.
fn parse_acl(list: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, entries) = list.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != ACL_VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let entries = entries.chunks_exact(8).map(|entry| AclEntry {
        tag: u16::from_le_bytes([entry[0], entry[1]]),
        write: entry[2] & 2 != 0,
        id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, set_permissions, write};
    use std::os::unix::fs::{lchown, symlink};

    const USER: u32 = 1234;

    fn user() -> Suspects {
        Suspects::User { uid: USER, groups: vec![USER] }
    }

    /// Creates a directory of root that no other user can write to, and in it a directory with the given `mode`.
    fn place(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir_in("/root").unwrap();
        let inner = top.path().join("inner");
        create_dir(&inner).unwrap();
        set_permissions(&inner, PermissionsExt::from_mode(mode)).unwrap();
        write(inner.join("file"), "").unwrap();
        (top, inner)
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn a_directory_of_root_is_trusted() {
        if !is_root() {
            return;
        }
        let (_top, inner) = place(0o755);
        for suspects in [user(), Suspects::everybody()] {
            assert_eq!(suspects.follow(&inner.join("file")).unwrap(), Ok(inner.join("file")));
            assert_eq!(suspects.follow(&inner.join("new")).unwrap(), Ok(inner.join("new")));
        }
    }

    #[test]
    fn a_writable_directory_on_the_way_is_found() {
        if !is_root() {
            return;
        }
        let (_top, inner) = place(0o777);
        for suspects in [user(), Suspects::everybody()] {
            assert!(suspects.follow(&inner.join("file")).unwrap().is_err());
        }
        let (_top, inner) = place(0o775);
        assert!(user().follow(&inner.join("file")).unwrap().is_ok(), "not in the group");
        lchown(&inner, None, Some(USER)).unwrap();
        assert!(user().follow(&inner.join("file")).unwrap().is_err(), "in the group");
        assert!(Suspects::everybody().follow(&inner.join("file")).unwrap().is_err());
    }

    #[test]
    fn a_sticky_directory_protects_what_root_owns() {
        if !is_root() {
            return;
        }
        let (_top, inner) = place(0o1777);
        let file = inner.join("file");
        assert!(user().follow(&file).unwrap().is_ok());
        for owner in [USER, USER + 1] {
            lchown(&file, Some(owner), None).unwrap();
            assert!(user().follow(&file).unwrap().is_err(), "{owner}");
        }
        let link = inner.join("link");
        symlink("/etc", &link).unwrap();
        assert_eq!(user().follow(&link).unwrap(), Ok("/etc".into()));
        lchown(&link, Some(USER), None).unwrap();
        assert!(user().follow(&link).unwrap().is_err(), "a link that they could replace");
    }

    #[test]
    fn a_missing_entry_of_a_sticky_directory_is_not_trusted() {
        if !is_root() {
            return;
        }
        let (_top, inner) = place(0o1777);
        for suspects in [user(), Suspects::everybody()] {
            assert!(suspects.follow(&inner.join("new")).unwrap().is_err());
            assert!(suspects.follow(&inner.join("new/below")).unwrap().is_err());
        }
    }

    #[test]
    fn an_access_list_that_grants_writing_is_found() {
        let entry = |tag: u16, perm: u16, id: u32| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = |named: Vec<u8>| {
            let none = u32::MAX;
            let parts = [2u32.to_le_bytes().to_vec(), entry(0x01, 7, none), entry(0x04, 5, none)];
            // In the order of the tags, followed by the mask and all others.
            let (users, groups) = match named[0] {
                0x02 => (named, Vec::new()),
                _ => (Vec::new(), named),
            };
            let [header, owner, group] = parts;
            [header, owner, users, group, groups, entry(0x10, 7, none), entry(0x20, 5, none)]
                .concat()
        };
        if !is_root() {
            return;
        }
        for (named, expected) in [
            (entry(0x02, 7, USER), true),
            (entry(0x02, 5, USER), false),
            (entry(0x08, 6, USER), true),
            (entry(0x02, 7, USER + 1), false),
        ] {
            let (_top, inner) = place(0o755);
            let set = rustix::fs::setxattr(
                &inner,
                "system.posix_acl_access",
                &list(named),
                rustix::fs::XattrFlags::empty(),
            );
            if set == Err(Errno::OPNOTSUPP) {
                return;
            }
            set.unwrap();
            // The group bits of the mode show the mask, and the group is root's.
            assert_eq!(user().follow(&inner.join("file")).unwrap().is_err(), expected);
        }
    }

    #[test]
    fn access_list_of_an_unknown_form_is_not_parsed() {
        assert!(parse_acl(&[1, 0, 0, 0]).is_none());
        assert!(parse_acl(&[2, 0, 0, 0, 1]).is_none());
        assert!(parse_acl(&[]).is_none());
        assert!(parse_acl(&[2, 0, 0, 0]).is_some_and(|entries| entries.is_empty()));
    }
}
