//! Flags that select the store.

use super::daemon_and_locks::{DEFAULT_DAEMON_TIMEOUT, DEFAULT_LOCK_TIMEOUT};
use crate::config::StoreOptions;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;
use storecache_daemon::DaemonChoice;
use storecache_store::StoreKind;

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// Kind of store
    #[arg(long, value_enum, default_value_t = Store::Auto)]
    store: Store,
    /// Directory of a plain store; repeatable
    #[arg(long = "path", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Root directory of the system that the store belongs to, such as a chroot
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    Auto,
    Guix,
    Nix,
    Plain,
}

impl Store {
    /// Returns the chosen kind, or `None` if it is to be detected.
    pub(super) fn kind(self) -> Option<StoreKind> {
        match self {
            Store::Auto => None,
            Store::Guix => Some(StoreKind::Guix),
            Store::Nix => Some(StoreKind::Nix),
            Store::Plain => Some(StoreKind::Plain),
        }
    }

    fn is_plain(self) -> bool {
        self.kind().is_some_and(|kind| !kind.has_database())
    }
}

impl StoreArgs {
    pub(super) fn options(self) -> Result<StoreOptions> {
        if self.store.is_plain() && self.paths.is_empty() {
            bail!("--store plain needs --path DIR, once for each directory");
        }
        self.options_without_paths()
    }

    pub(super) fn options_without_paths(self) -> Result<StoreOptions> {
        if !self.store.is_plain() && !self.paths.is_empty() {
            bail!("--path is for --store plain");
        }
        Ok(StoreOptions {
            kind: self.store.kind(),
            root: absolute(&self.root)?,
            paths: distinct(self.paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?)?,
            daemon: DaemonChoice::Auto,
            shepherds: shepherds(),
            lock_timeout: Duration::from_secs(DEFAULT_LOCK_TIMEOUT),
            daemon_timeout: Duration::from_secs(DEFAULT_DAEMON_TIMEOUT),
        })
    }
}

/// Returns the sockets on which the user's own shepherds may listen (`shepherd/support.scm`).
pub(super) fn shepherds() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let runtime = set("XDG_RUNTIME_DIR").map(|directory| directory.join("shepherd/socket"));
    let sockets = [set("SHEPHERD_SOCKET"), runtime].into_iter().flatten();
    sockets.filter_map(|socket| absolute(&socket).ok()).collect()
}

/// Sorts paths and removes duplicates. Refuses a path inside another, because a restore swaps each as a whole.
pub(super) fn distinct(mut paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    paths.sort();
    paths.dedup();
    if let Some(pair) = paths.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
        bail!("--path {} is inside --path {}", pair[1].display(), pair[0].display());
    }
    Ok(paths)
}

/// Returns an absolute path without dots. The path does not have to exist.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    use std::path::Component;
    let full = std::path::absolute(path).with_context(|| path.display().to_string())?;
    if full.to_str().is_none() {
        bail!("the path {} is not UTF-8, so a snapshot cannot contain it", full.display());
    }
    let mut clean = PathBuf::new();
    for component in full.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_without_dots() {
        assert_eq!(absolute(Path::new("/a/./b/../c")).unwrap(), Path::new("/a/c"));
        assert!(absolute(Path::new("a")).unwrap().is_absolute());
    }
}
