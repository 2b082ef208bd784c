//! The user who runs this program, as the root of a store knows them, and their home directory.

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2, statat, symlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// An account in `etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// A plain name, which can be the name of a directory (see [`is_plain_name`]).
    pub name: String,
    /// Absolute, as programs inside the root see it.
    pub home: PathBuf,
}

impl Person {
    /// Finds the account with this number below `root`; `None` if it is not listed.
    pub fn find(root: &Path, uid: u32) -> Result<Option<Self>> {
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: OwnedFd =
            match openat2(&root, "etc/passwd", flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Ok(file) => file,
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(e).context("read etc/passwd"),
            };
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).context("read etc/passwd")?;
        Ok(Self::in_table(&String::from_utf8_lossy(&bytes), uid))
    }

    fn in_table(table: &str, uid: u32) -> Option<Self> {
        table.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, number, _, _, home, ..] = fields[..] else { return None };
            let found = number.parse() == Ok(uid) && is_plain_name(name);
            found.then(|| Person { name: name.into(), home: home.into() })
        })
    }
}

/// Whether `name`, used as a file name, stays in its directory: it is not empty, does not begin with a dot, and
/// contains no slash or zero byte.
pub fn is_plain_name(name: &str) -> bool {
    !name.starts_with('.') && !name.is_empty() && !name.contains(['/', '\0'])
}

/// Creates the symbolic link `at` below `root`, with its parent directories, unless the name is taken. Links on
/// the way are resolved inside that root.
///
/// # Errors
/// Also if a link on the way is in a directory of another user: it may lead to a directory that only the user
/// of this process can write to.
pub fn make_shortcut(root: &Path, at: &Path, target: &str) -> Result<()> {
    let about = || format!("create {}", at.display());
    let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
        bail!("not a valid path for a link: {}", at.display());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty()).with_context(about)?;
    let enter = |path: &Path| openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let mut so_far = PathBuf::new();
    let mut directory = enter(Path::new(".")).with_context(about)?;
    for part in parent.components().filter(|part| matches!(part, Component::Normal(_))) {
        so_far.push(part);
        let part = part.as_os_str();
        match mkdirat(&directory, part, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) | Err(Errno::EXIST) => {}
            // The directory cannot be created, but may exist already.
            Err(_) if statat(&directory, part, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {}
            Err(e) => return Err(e).with_context(about),
        }
        directory = match openat(&directory, part, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let owner = fstat(&directory).with_context(about)?.st_uid;
                if owner != 0 && owner != rustix::process::geteuid().as_raw() {
                    let link = so_far.display();
                    bail!("/{link} is a symbolic link in a directory of another user");
                }
                enter(&so_far).with_context(about)?
            }
            other => other.with_context(about)?,
        };
    }
    match symlinkat(target, &directory, name) {
        Err(e) if e != Errno::EXIST => Err(e).with_context(about),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_link};
    use std::os::unix::fs::symlink;

    #[test]
    fn account_is_found_by_uid_if_its_name_is_valid() {
        let table = "root:x:0:0:root:/root:/bin/bash\nnonsense\n../up:x:7:7::/:/bin/sh\n\
                     runner:x:1001:1001::/home/runner:/bin/bash\n";
        let runner = Person::in_table(table, 1001).unwrap();
        assert_eq!(
            (runner.name.as_str(), runner.home.as_path()),
            ("runner", "/home/runner".as_ref())
        );
        assert_eq!(Person::in_table(table, 7), None);
        assert_eq!(Person::in_table(table, 1), None);
    }

    #[test]
    fn shortcut_is_created_in_the_root_and_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join("home/me")).unwrap();
        create_dir_all(root.path().join("dotfiles")).unwrap();
        symlink("/dotfiles", root.path().join("home/me/.config")).unwrap();
        let at = Path::new("/home/me/.config/guix/current");
        for target in ["/first", "/second"] {
            make_shortcut(root.path(), at, target).unwrap();
            let made = read_link(root.path().join("dotfiles/guix/current")).unwrap();
            assert_eq!(made, Path::new("/first"));
        }
    }

    #[test]
    fn shortcut_follows_no_link_of_another_user() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join("home/me")).unwrap();
        create_dir_all(root.path().join("etc")).unwrap();
        symlink("/etc", root.path().join("home/me/.config")).unwrap();
        std::os::unix::fs::chown(root.path().join("home/me"), Some(1001), None).unwrap();
        let at = Path::new("/home/me/.config/guix/current");
        let refused = make_shortcut(root.path(), at, "/item").unwrap_err();
        assert!(format!("{refused:#}").contains("symbolic link"), "{refused:#}");
        assert_eq!(root.path().join("etc").read_dir().unwrap().count(), 0);
    }
}
