//! From flags to a store, a key, an entry: what several verbs begin with.

use super::cancel;
use crate::backend::github::GitHub;
use crate::backend::objects::Objects;
use crate::backend::{Backend, Directory, EntryName, Patient, ReadAt, Several};
use crate::budget::Traffic;
use crate::key::{Key, Ladder, Rung};
use crate::options::{BackendOptions, KeyOptions, StoreOptions};
use crate::privileged::Mandate;
use crate::privileged::protocol::StoreRequest;
use crate::pulse;
use crate::report::{self, Hit, Outcome};
use crate::snapshot::{Opened, SnapshotError, cache_version};
use crate::store::{Layout, StoreKind, system};
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

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
        asks_version: false,
        shepherds: options.shepherds.clone(),
        lock_patience: options.lock_patience,
        daemon_patience: options.daemon_patience,
        stall: pulse::clock(),
        mandate: Mandate::default(),
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
    let made = Key::make(key, kind.name(), &system(), version).context("make the key")?;
    made.notes().for_each(|note| report::note(format!("storecache: {note}")));
    Ok(made)
}

/// Asks the package manager on the user's search path.
fn program_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `nix-store (Nix) 2.8.0`, `guix (GNU Guix) 1.5.0`
    text.lines().next()?.split_whitespace().next_back().map(str::to_owned)
}

/// The backend for snapshots of a kind of store: the one, or all of several in their order.
///
/// # Errors
/// When it cannot be opened, or none of several can: what is wrong with the first.
pub fn backend(
    options: &[BackendOptions],
    kind: StoreKind,
    traffic: Traffic,
) -> Result<Arc<dyn Backend>> {
    let [one] = options else { return several(options, kind, traffic) };
    one_backend(one, kind, traffic)
}

fn several(
    options: &[BackendOptions],
    kind: StoreKind,
    traffic: Traffic,
) -> Result<Arc<dyn Backend>> {
    let (mut members, mut warnings, mut first) = (Vec::new(), Vec::new(), None);
    for one in options {
        match one_backend(one, kind, traffic) {
            Ok(member) => members.push(member),
            Err(e) => {
                warnings.push(format!("a backend is passed over: {e:#}"));
                first.get_or_insert(e);
            }
        }
    }
    let limit = options.iter().find_map(BackendOptions::patience).map(|patience| patience.stall);
    match (members.is_empty(), first) {
        (true, Some(e)) => Err(e),
        (true, None) => Err(anyhow!("no backend is named")),
        (false, _) => {
            let limit = limit.unwrap_or_else(pulse::clock);
            Ok(Arc::new(Several::new(members, limit, warnings)))
        }
    }
}

/// One backend by itself.
pub fn one_backend(
    options: &BackendOptions,
    kind: StoreKind,
    traffic: Traffic,
) -> Result<Arc<dyn Backend>> {
    let version = || -> Result<String> {
        let store_dir = match kind {
            StoreKind::Plain => "",
            kind => Layout::of(kind, Path::new("/"))?.store_dir,
        };
        Ok(cache_version(kind.name(), store_dir, &system()).to_string())
    };
    match options {
        BackendOptions::Directory { path, sync } => {
            Ok(Arc::new(Patient::new(Directory::new(path.clone(), *sync))))
        }
        BackendOptions::Objects(store) => {
            let objects = Objects::new(store, &version()?)?;
            Ok(Arc::new(objects.within(traffic).called_off_by(cancel::flag())))
        }
        BackendOptions::GitHub(service) => {
            let github = GitHub::new(service, &version()?)?;
            Ok(Arc::new(github.within(traffic).called_off_by(cancel::flag())))
        }
    }
}

/// Climbs down the ladder; gives back the newest entry of the first rung that has any besides those that
/// were `passed`.
pub fn find(
    backend: &dyn Backend,
    ladder: &Ladder,
    passed: &[EntryName],
) -> Result<Option<(EntryName, Hit)>> {
    let found = backend.find_besides(&ladder.rungs, passed)?;
    Ok(found.map(|(name, number)| {
        let hit = match ladder.rungs[number] {
            Rung::Exact(_) => Hit::Exact,
            Rung::Prefix(_) => Hit::Prefix,
        };
        (name, hit)
    }))
}

/// Prints what backends did not answer and what was skipped, where no report has it.
pub fn tell_warnings(backend: &dyn Backend) {
    let warnings = backend.warnings();
    let skipped = skipped_in_words(&skipped(backend));
    let warnings = warnings.into_iter().chain(skipped);
    warnings.for_each(|line| report::note(format!("storecache: warning: {line}")));
}

/// Names of entries that stand for something else, each with the reason; those that were not reported yet.
pub fn skipped(backend: &dyn Backend) -> Vec<(String, String)> {
    backend.skipped().into_iter().map(|it| (it.name.to_string(), it.why())).collect()
}

/// The same in one line; nothing without any.
pub fn skipped_in_words(skipped: &[(String, String)]) -> Option<String> {
    const SHOWN: usize = 3;
    let shown = skipped.iter().take(SHOWN).map(|(name, why)| format!("{name}: {why}"));
    let shown = shown.collect::<Vec<_>>().join("; ");
    let more = match skipped.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!skipped.is_empty()).then(|| format!("skipped {shown}{more}"))
}

/// Books the same on a report.
pub fn book_skipped(backend: &dyn Backend, outcome: &mut Outcome) {
    let skipped = skipped(backend);
    outcome.warnings.extend(skipped_in_words(&skipped));
    outcome.passed_over.extend(skipped);
}

/// Reads head and index of an entry; counts what it reads into `downloaded`.
pub fn open(reader: &mut dyn ReadAt, downloaded: &mut u64) -> Result<Opened, SnapshotError> {
    crate::snapshot::open(reader.size(), &mut |at, buffer| {
        *downloaded += buffer.len() as u64;
        reader.read_at(at, buffer)
    })
}
