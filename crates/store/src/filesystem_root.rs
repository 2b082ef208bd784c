//! Paths below a file-system root that may not be the root of this machine.
//!
//! A root such as a chroot may belong to a user who does not trust the user of this program, and the other way
//! round. So symbolic links are resolved inside that root and never lead out of it.

use super::StoreKind;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use storecache_runtime::advice::WithAdvice;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Returns the path, for this process, of the directory entry `inside` a root. Symbolic links on the way are
/// resolved inside that root; the entry itself is not followed. Missing directories are kept as written.
///
/// # Errors
/// If `inside` is the root itself, or a link on the way is dangling.
pub fn in_root(root: &Path, inside: &Path) -> Result<PathBuf> {
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
        bail!(
            anyhow!("the root of a file system cannot be a store directory")
                .hint("name directories in it")
        );
    };
    let root =
        open(root, DIRECTORY, Mode::empty()).with_context(|| format!("open {}", root.display()))?;
    for existing in parent.ancestors() {
        let at = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        match openat2(&root, at, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(found) => {
                let found = path_of(&found)?;
                let rest = parent.strip_prefix(existing)?;
                // An entry that exists although it could not be opened is a dangling link in that root.
                let next = rest.components().next().map(|first| found.join(first));
                if let Some(link) = next.filter(|next| next.symlink_metadata().is_ok()) {
                    bail!("{} is a dangling symbolic link", link.display());
                }
                return Ok(found.join(rest).join(name));
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("find {}", parent.display())),
        }
    }
    bail!("the root directory does not exist any longer")
}

/// Returns the path, for this process, of the directory `inside` a root. A link at its end is followed too.
///
/// # Errors
/// As for [`in_root`].
pub(super) fn directory_in_root(root: &Path, inside: &Path) -> Result<PathBuf> {
    let below = inside.strip_prefix("/").unwrap_or(inside);
    let opened =
        open(root, DIRECTORY, Mode::empty()).with_context(|| format!("open {}", root.display()))?;
    match openat2(&opened, below, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(found) => path_of(&found),
        // It does not exist, is not a directory, or is not accessible: the code that opens it reports that.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
            let entry = in_root(root, inside)?;
            if entry.is_symlink() {
                bail!("{} is a dangling symbolic link", entry.display());
            }
            Ok(entry)
        }
        Err(e) => {
            Err(e).with_context(|| format!("find {} in {}", inside.display(), root.display()))
        }
    }
}

fn path_of(directory: &OwnedFd) -> Result<PathBuf> {
    Ok(std::fs::read_link(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))?)
}

/// Refuses a file-system root inside the store directory of this machine or of any other root: users choose the
/// content of an item, although all of it belongs to root.
///
/// # Errors
/// If the root is inside a store directory, under whatever name.
pub fn refuse_root_in_store(root: &Path) -> Result<()> {
    // A missing root is reported where it is used.
    let Ok(real) = root.canonicalize() else { return Ok(()) };
    let in_file_system = path_in_file_system(&real);
    let known = StoreKind::STORE_DIRS.iter().any(|store| {
        let below = |path: &Path| is_below_store_dir(path, Path::new(store));
        below(&real) || in_file_system.as_deref().is_some_and(below)
    });
    if known || is_below_a_store_of_this_machine(&real) {
        bail!(
            "the root {} is inside a store, and a store item cannot be the root of another store",
            root.display()
        );
    }
    Ok(())
}

/// Whether a path contains the components of `store_dir`, with at least one more component after them.
fn is_below_store_dir(path: &Path, store_dir: &Path) -> bool {
    let names = |path: &Path| -> Vec<_> {
        path.components().skip(1).map(|it| it.as_os_str().to_owned()).collect()
    };
    let (path, store_dir) = (names(path), names(store_dir));
    path.windows(store_dir.len() + 1).any(|window| window.starts_with(&store_dir))
}

/// Whether a path is inside a store directory of this machine that has another name there, as behind a bind
/// mount.
fn is_below_a_store_of_this_machine(real: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    let stores: Vec<_> =
        StoreKind::STORE_DIRS.iter().filter_map(|store| identity(Path::new(store))).collect();
    real.ancestors().filter_map(identity).any(|found| stores.contains(&found))
}

/// Returns where a path is in its mounted file system. Behind a bind mount of an item, this still has the
/// item's name (`man 5 proc_pid_mountinfo`, fields 4 and 5).
fn path_in_file_system(real: &Path) -> Option<PathBuf> {
    let opened = open(real, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let about =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounted = fields.into_iter().find(|fields| fields.first() == Some(&mount))?;
    let (source, point) = (unescaped(mounted.get(3)?), unescaped(mounted.get(4)?));
    Some(Path::new(&source).join(real.strip_prefix(point).ok()?))
}

/// Decodes a path of mountinfo, in which white space and backslashes are written in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, create_dir_all};
    use std::os::unix::fs::symlink;

    #[test]
    fn link_resolves_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        create_dir_all(root.join("data/store")).unwrap();
        create_dir(root.join("nix")).unwrap();
        symlink("/data/store", root.join("nix/store")).unwrap();
        symlink("/etc", root.join("nix/var")).unwrap();
        symlink("/etc", root.join("nix/db")).unwrap();
        let directory = |inside: &str| directory_in_root(&root, Path::new(inside));
        assert_eq!(directory("/nix/store").unwrap(), root.join("data/store"));
        assert_eq!(directory("/nix/new").unwrap(), root.join("nix/new"));
        for link in ["/nix/var/nix", "/nix/db"] {
            let error = directory(link).unwrap_err().to_string();
            assert!(error.contains("is a dangling symbolic link"), "{error}");
        }
        let up = root.join("up");
        symlink("../../../../etc", &up).unwrap();
        assert!(directory("/up/cron.d").is_err(), "it does not leave the root");
    }

    #[test]
    fn a_root_in_a_store_directory_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        for store in ["nix/store", "gnu/store"] {
            let item = place.join(store).join("0-evil");
            create_dir_all(item.join("below")).unwrap();
            symlink(&item, place.join(store.replace('/', "-"))).unwrap();
            for root in [&item, &item.join("below"), &place.join(store.replace('/', "-"))] {
                let error = refuse_root_in_store(root).unwrap_err().to_string();
                assert!(error.contains("is inside a store"), "{error}");
            }
            assert!(refuse_root_in_store(&place.join(store)).is_ok());
        }
        assert!(refuse_root_in_store(&place).is_ok());
        assert!(refuse_root_in_store(Path::new("/")).is_ok());
        assert!(refuse_root_in_store(&place.join("not-there")).is_ok());
    }
}
