//! From flags to a store, a key, an entry: what several verbs begin with.

use crate::backend::{Backend, Directory, Entry, ReadAt};
use crate::key::{Key, Ladder, Rung};
use crate::options::{BackendOptions, KeyOptions, StoreOptions};
use crate::privileged::protocol::StoreRequest;
use crate::report::Hit;
use crate::snapshot::{Opened, SnapshotError};
use crate::store::{Layout, StoreKind, system};
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use std::process::{Command, Stdio};

/// The kind of store that is meant.
pub fn kind(options: &StoreOptions) -> Result<StoreKind> {
    options.kind.map_or_else(|| Layout::detect(&options.root), Ok)
}

pub fn store_request(options: &StoreOptions, kind: StoreKind) -> StoreRequest {
    StoreRequest {
        kind,
        root: options.root.clone(),
        paths: options.paths.clone(),
        daemon: options.daemon.clone(),
        shepherds: options.shepherds.clone(),
        lock_patience: options.lock_patience,
        daemon_patience: options.daemon_patience,
    }
}

/// The key; `surveyed` is the version that the root half found, if it was asked.
pub fn key(
    store: &StoreOptions,
    key: &KeyOptions,
    kind: StoreKind,
    surveyed: Option<&str>,
) -> Result<Key> {
    let version = || {
        // A plain store has no version; the word keeps the shape of the key.
        if kind == StoreKind::Plain {
            return Ok("any".to_owned());
        }
        let program = kind.program().filter(|_| store.root == Path::new("/"));
        let asked = program.and_then(program_version);
        let surveyed = surveyed.filter(|version| !version.is_empty()).map(str::to_owned);
        asked.or(surveyed).ok_or_else(|| {
            anyhow!(
                "{} --version gave no answer; give the version with --version, or the whole key \
                 with --key",
                kind.program().unwrap_or_default()
            )
        })
    };
    Key::make(key, kind.name(), &system(), version).context("make the key")
}

/// Asks the package manager on the user's search path.
fn program_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `nix-store (Nix) 2.8.0`, `guix (GNU Guix) 1.5.0`
    text.lines().next()?.split_whitespace().next_back().map(str::to_owned)
}

pub fn backend(options: &BackendOptions) -> Box<dyn Backend> {
    match options {
        BackendOptions::Directory(path) => Box::new(Directory::new(path.clone())),
    }
}

/// Climbs down the ladder; gives back the newest entry of the first rung that has any.
pub fn find(backend: &dyn Backend, ladder: &Ladder) -> Result<Option<(Entry, Hit)>> {
    for rung in &ladder.rungs {
        let entries = backend.entries(&|key| rung.holds(key))?;
        if let Some(entry) = entries.into_iter().next() {
            let hit = match rung {
                Rung::Exact(_) => Hit::Exact,
                Rung::Prefix(_) => Hit::Prefix,
            };
            return Ok(Some((entry, hit)));
        }
    }
    Ok(None)
}

/// Reads head and index of an entry; counts what it reads into `downloaded`.
pub fn open(
    reader: &mut dyn ReadAt,
    size: u64,
    downloaded: &mut u64,
) -> Result<Opened, SnapshotError> {
    crate::snapshot::open(size, &mut |at, buffer| {
        *downloaded += buffer.len() as u64;
        reader.read_at(at, buffer)
    })
}
