//! Checks of a store's database, owners, locks, disk and mount.

use super::super::protocol::Finding;
use super::super::store_context::StoreTarget;
use super::some_of;
use anyhow::Result;
use rustix::fs::statvfs;
use rustix::process::geteuid;
use std::path::Path;
use storecache_daemon::MountUnit;
use storecache_runtime::advice::in_one_line;
use storecache_store::{
    Contents, Layout, LockKind, Owner, StaysReadOnly, StoreKind, check_database, describe_holders,
    held_by, is_read_only, left_by_dead_runs, make_writable, strangers,
};

/// Free space below which a warning is shown, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Free inodes below which a warning is shown.
const FEW_INODES: u64 = 50_000;

/// Returns a command of the store's package manager.
fn tell_store(layout: &Layout, guix: &str, nix: &str) -> String {
    match layout.kind {
        StoreKind::Guix => guix.into(),
        StoreKind::Nix => nix.into(),
        // A layout is never of this kind.
        StoreKind::Plain => String::new(),
    }
}

pub fn schema(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let known = layout.schema;
    Ok(match layout.live_schema()? {
        None => Finding::green("no database yet; a restore creates one"),
        Some(live) if live == known => Finding::green(format!("{live}, which is supported")),
        Some(live) if live < known => Finding::red(
            format!("{live}, which is older than {known}, the version that storecache supports"),
            // Opening the database upgrades it.
            Some(tell_store(layout, "guix gc --list-live", "nix-store --init")),
        ),
        Some(live) => Finding::red(
            format!("{live}, but this storecache supports only {known}; use a newer storecache"),
            None,
        ),
    })
}

pub fn database(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    if !layout.database().exists() {
        return Ok(Finding::green("no database yet; a restore creates one"));
    }
    check_database(layout)?;
    let contents = Contents::read(layout)?;
    let missing = contents.missing();
    if missing.is_empty() {
        let valid = contents.valid();
        return Ok(Finding::green(format!("sound; all {valid} valid items are on the disk")));
    }
    let repair = tell_store(layout, "guix gc --verify=repair", "nix-store --verify --repair");
    let found = format!("valid, but not on the disk: {}", some_of(&missing));
    Ok(Finding::red(found, Some(repair)))
}

pub fn owners(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let owner = Owner::find(layout)?;
    let strangers = strangers(layout, owner)?;
    if strangers.is_empty() {
        return Ok(Finding::green(format!("all items belong to user {}", owner.uid)));
    }
    let found = format!(
        "not owned by user {}, so the daemon cannot delete them: {}",
        owner.uid,
        some_of(&strangers)
    );
    let fix = format!("chown -hR {}:{} {}", owner.uid, owner.gid, layout.store().display());
    Ok(Finding::red(found, Some(fix)))
}

/// Locks that are held, and locks and staging that killed programs left behind.
pub fn locks(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let locks = [
        (layout.gc_lock(), layout.lock_kind),
        (layout.big_lock(), layout.lock_kind),
        // The lock with which restores exclude each other.
        (layout.state(), LockKind::Flock),
    ];
    let mut said = Vec::new();
    let mut all = Vec::new();
    for (path, kind) in &locks {
        let Some(holders) = held_by(path, *kind)? else { continue };
        said.push(format!("{} is held by {}", path.display(), describe_holders(&holders)));
        all.extend(holders);
    }
    if let Some(stopped) = all.iter().find(|holder| holder.stopped) {
        // No process gets the lock before the holder continues.
        return Ok(Finding::red(said.join("; "), Some(format!("kill -CONT {}", stopped.pid))));
    }
    if !said.is_empty() {
        // A client that works is not a problem; a client that stays delays a commit.
        let end = all.first().map(|holder| format!("kill {}", holder.pid));
        return Ok(Finding::yellow(said.join("; "), end));
    }
    let stale = stale(layout)?;
    if !stale.is_empty() {
        let found = format!("stale lock files of killed builds: {}", some_of(&stale));
        return Ok(Finding::yellow(found, Some(layout.kind.gc_command().into())));
    }
    let left = left_by_dead_runs(layout)?;
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        let found = format!("no lock is held; left by a killed restore: {}", some_of(&left));
        return Ok(Finding::yellow(found, Some(format!("rm -rf {}", left.join(" ")))));
    }
    Ok(Finding::green("no lock is held or stale"))
}

/// Returns lock files of items that no process holds, sorted. A build removes its own when it ends.
fn stale(layout: &Layout) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    let Ok(entries) = layout.store().read_dir() else { return Ok(stale) };
    for entry in entries {
        let path = entry?.path();
        let is_lock = path.extension().is_some_and(|ending| ending == "lock") && path.is_file();
        if is_lock && held_by(&path, layout.lock_kind)?.is_none() {
            stale.push(path.display().to_string());
        }
    }
    stale.sort_unstable();
    Ok(stale)
}

pub fn space(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let store = layout.store();
    let store = if store.exists() { store } else { layout.root.clone() };
    let (mut said, mut scarce) = (Vec::new(), false);
    let mut seen = Vec::new();
    for place in [store, layout.state()] {
        let device = std::os::unix::fs::MetadataExt::dev(&place.metadata()?);
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let (found, little) = free(&place)?;
        said.push(found);
        scarce |= little;
    }
    Ok(match scarce {
        false => Finding::green(said.join(", ")),
        true => Finding::yellow(said.join(", "), Some(layout.kind.gc_command().into())),
    })
}

/// Returns the free space on the disk of a directory, and whether that is little.
fn free(place: &Path) -> Result<(String, bool)> {
    let disk = statvfs(place)?;
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems create inodes on demand and report none.
    let counted = disk.f_files > 0;
    let inodes = if counted { format!(" and {} inodes", disk.f_favail) } else { String::new() };
    let found = format!("{} MiB{inodes} free for {}", bytes >> 20, place.display());
    Ok((found, bytes < LITTLE_SPACE || (counted && disk.f_favail < FEW_INODES)))
}

pub fn mount(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    if !is_read_only(&layout.store())? {
        return Ok(Finding::green("the store is mounted writable"));
    }
    if !geteuid().is_root() {
        return Ok(Finding::yellow(
            "read-only; only root can check whether a restore may write",
            None,
        ));
    }
    let refused = match make_writable(&layout.store()) {
        Ok(_) => {
            return Ok(Finding::green(
                "read-only; a restore writes through its own mount namespace",
            ));
        }
        Err(e) if e.is::<StaysReadOnly>() => e,
        Err(e) => return Err(e),
    };
    Ok(match MountUnit::find(layout.store_dir)? {
        Some(unit) => {
            Finding::green(format!("read-only; a restore stops {} during the commit", unit.name))
        }
        None => {
            let fix = format!("mount -o remount,bind,rw {}", layout.store().display());
            Finding::red(in_one_line(refused.as_ref()), Some(fix))
        }
    })
}
