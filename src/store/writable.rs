//! Writing to a store that is mounted read-only.
//!
//! Guix mounts its store read-only over itself, and so does NixOS; the daemons write through a mount
//! namespace of their own, and so do we. For everybody else the store stays as it is.
//! Source: guix-mirror/guix `etc/gnu-store.mount.in`; `NixOS/nix:src/libstore/local-store.cc`.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, open, statvfs};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Makes `store` writable for this thread and those that it starts from now on, if it is mounted
/// read-only. Gives back the mount namespace that the thread left, for processes that are not to
/// live in the private one.
///
/// # Errors
/// When the store is read-only and must stay so: without `CAP_SYS_ADMIN`, or when the whole file
/// system is. Nothing was changed then.
pub fn make_writable(store: &Path) -> Result<Option<Arc<OwnedFd>>> {
    if !store.exists() || !statvfs(store)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(None);
    }
    let about = || {
        format!(
            "{} is mounted read-only, and this process may not write through it; run where mounting \
             is allowed (CAP_SYS_ADMIN), or mount it writable",
            store.display()
        )
    };
    let ours = open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    unshare(CloneFlags::CLONE_NEWNS).with_context(about)?;
    // Or the next line would be seen outside.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .with_context(about)?;
    mount_remount(store, MountFlags::BIND, c"").with_context(about)?;
    Ok(Some(Arc::new(ours)))
}
