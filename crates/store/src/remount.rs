//! Writes to a store that is mounted read-only.
//!
//! Guix mounts its store read-only over itself, and so does NixOS. The daemons write through their own mount
//! namespace, and so does storecache. For all other processes the store stays read-only. Source:
//! guix-mirror/guix `etc/gnu-store.mount.in`; `NixOS/nix:src/libstore/local-store.cc`.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatVfs, StatVfsMountFlags, fstatvfs, open, openat, statat, statvfs,
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount_change, mount_remount,
    open_tree, unmount,
};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use storecache_runtime::advice::Advice;

/// The error that the store is read-only and this process may not change this for itself. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{store} is mounted read-only, and this process cannot make it writable ({cause})")]
pub struct StaysReadOnly {
    store: String,
    cause: nix::Error,
    #[source]
    advice: Advice,
}

impl StaysReadOnly {
    fn new(store: String, cause: nix::Error) -> Self {
        let hint = "run where mounting is allowed (CAP_SYS_ADMIN), or mount it writable";
        StaysReadOnly { store, cause, advice: Advice::hint(hint) }
    }
}

/// Whether `store` is mounted read-only. False if it does not exist yet.
pub fn is_read_only(store: &Path) -> Result<bool> {
    let context = || store.display().to_string();
    Ok(store.try_exists().with_context(context)?
        && read_only(&statvfs(store).with_context(context)?))
}

/// Makes `store` writable for this thread, and for threads and processes that it starts from now on, if it is
/// mounted read-only. Returns the mount namespace that the thread left, for processes that must not be in the
/// private one.
///
/// # Errors
/// [`StaysReadOnly`] without `CAP_SYS_ADMIN`, or if the whole file system is read-only.
pub fn make_writable(store: &Path) -> Result<Option<Arc<OwnedFd>>> {
    if !is_read_only(store)? {
        return Ok(None);
    }
    let about = || format!("make {} writable in a private mount namespace", store.display());
    let ours = open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|cause| StaysReadOnly::new(store.display().to_string(), cause))?;
    // Otherwise the following changes would propagate to other namespaces.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .with_context(about)?;
    if covers_itself(store) {
        // Without this mount, the store is on the same mount as its parent directory, so that a rename from
        // there into the store is possible.
        unmount(store, UnmountFlags::DETACH).with_context(about)?;
    }
    if is_read_only(store)? {
        mount_remount(store, MountFlags::BIND, c"").with_context(about)?;
    }
    if is_read_only(store)? {
        // The file system itself is read-only, not only the mount.
        let store = store.display().to_string();
        return Err(StaysReadOnly::new(store, nix::Error::EROFS).into());
    }
    Ok(Some(Arc::new(ours)))
}

/// Whether the directory mounted on `store` is `store` itself, and the underlying directory is writable. False
/// on an old kernel without `open_tree`.
fn covers_itself(store: &Path) -> bool {
    let (Some(parent), Some(name)) = (store.parent(), store.file_name()) else {
        return false;
    };
    let below = || -> rustix::io::Result<bool> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // This clones only this one mount, without the mounts below it.
        let clone = open_tree(CWD, parent, flags)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bare = openat(&clone, Path::new(name), flags, Mode::empty())?;
        let (bare_stat, stat) = (
            statat(&bare, c"", AtFlags::EMPTY_PATH)?,
            statat(CWD, store, AtFlags::SYMLINK_NOFOLLOW)?,
        );
        let same = (bare_stat.st_dev, bare_stat.st_ino) == (stat.st_dev, stat.st_ino);
        Ok(same && !read_only(&fstatvfs(&bare)?))
    };
    below().unwrap_or(false)
}

fn read_only(mount: &StatVfs) -> bool {
    mount.f_flag.contains(StatVfsMountFlags::RDONLY)
}
