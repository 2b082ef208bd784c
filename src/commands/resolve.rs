//! From flags to a store, a key and an entry: common first steps of several commands.

use crate::action;
#[cfg(not(all(feature = "github", feature = "object-store")))]
use crate::config::not_built_in;
use crate::config::{BackendOptions, StoreOptions};
use crate::report::{self, Hit, Words};
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
#[cfg(feature = "github")]
use storecache_backend::github::GitHub;
#[cfg(feature = "object-store")]
use storecache_backend::object_store::Objects;
use storecache_backend::{
    Backend, BackendError, Directory, EntryName, FallbackBackend, Notes, ReadAt, StallGuard,
};
use storecache_entry::{Ladder, Rung};
use storecache_key::{Key, KeyOptions};
use storecache_root_helper::Caller;
use storecache_root_helper::protocol::StoreRequest;
use storecache_runtime::RunContext;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_runtime::events;
use storecache_runtime::memory::Traffic;
use storecache_snapshot::{Opened, SnapshotError, cache_version};
use storecache_store::{Layout, StoreKind, system};
use tracing::debug;

/// The kind of store that the options name, or the kind that is found.
pub fn kind(options: &StoreOptions) -> Result<StoreKind> {
    options.kind.map_or_else(|| Layout::detect(&options.root), Ok)
}

pub fn store_request(run: &RunContext, options: &StoreOptions, kind: StoreKind) -> StoreRequest {
    StoreRequest {
        kind,
        root: options.root.clone(),
        paths: options.paths.clone(),
        daemon: options.daemon.clone(),
        asks_version: false,
        shepherds: options.shepherds.clone(),
        lock_timeout: options.lock_timeout,
        daemon_timeout: options.daemon_timeout,
        stall: run.stall_timeout(),
        events: events::most_detailed(),
        mandate: Caller::default(),
    }
}

/// Makes the key; `surveyed` is the version that the root helper found, if it was asked.
pub fn key(
    store: &StoreOptions,
    key: &KeyOptions,
    kind: StoreKind,
    surveyed: Option<&str>,
) -> Result<Key> {
    let version = || {
        // A plain store has no version; this word keeps the format of the key.
        if !kind.has_database() {
            return Ok("any".to_owned());
        }
        let program = kind.program().filter(|_| store.root == Path::new("/"));
        let asked = program.and_then(program_version);
        let surveyed = surveyed.filter(|version| !version.is_empty()).map(str::to_owned);
        asked.or(surveyed).ok_or_else(|| {
            anyhow!("`{} --version` did not print a version", kind.program().unwrap_or_default())
                .hint("set the version with --version, or the whole key with --key")
        })
    };
    let made = Key::make(key, kind.name(), &system(), version).context("make the key")?;
    let words = if key.in_job { action::words() } else { Words::command_line() };
    made.notes().for_each(|note| report::print_note(words.apply(note)));
    Ok(made)
}

/// Runs the package manager on the user's search path with `--version`.
fn program_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `nix-store (Nix) 2.8.0`, `guix (GNU Guix) 1.5.0`
    text.lines().next()?.split_whitespace().next_back().map(str::to_owned)
}

/// Opens the backend for snapshots of a kind of store; several backends are combined in the given order. Returns it
/// with a warning about each backend that cannot be opened.
///
/// # Errors
/// If the backend cannot be opened. Of several backends, if none can be opened: the error of the first.
pub fn backend(
    run: &RunContext,
    options: &[BackendOptions],
    kind: StoreKind,
    traffic: Traffic,
) -> Result<(Arc<dyn Backend>, Vec<String>)> {
    let [one] = options else { return several(run, options, kind, traffic) };
    Ok((one_backend(run, one, kind, traffic)?, Vec::new()))
}

fn several(
    run: &RunContext,
    options: &[BackendOptions],
    kind: StoreKind,
    traffic: Traffic,
) -> Result<(Arc<dyn Backend>, Vec<String>)> {
    let (mut members, mut warnings, mut first) = (Vec::new(), Vec::new(), None);
    for one in options {
        match one_backend(run, one, kind, traffic) {
            Ok(member) => members.push(member),
            Err(e) => {
                let reason = in_one_line(e.as_ref());
                debug!(reason, "a backend cannot be opened");
                warnings.push(format!("a backend is skipped: {reason}"));
                first.get_or_insert(e);
            }
        }
    }
    let limit = options.iter().find_map(BackendOptions::timeouts).map(|timeout| timeout.stall);
    match (members.is_empty(), first) {
        (true, Some(e)) => Err(e),
        (true, None) => Err(anyhow!("no backend is configured")),
        (false, _) => {
            let limit = limit.unwrap_or_else(|| run.stall_timeout());
            Ok((Arc::new(FallbackBackend::new(run, members, limit)), warnings))
        }
    }
}

/// Opens a single backend.
#[cfg_attr(not(any(feature = "github", feature = "object-store")), expect(unused_variables))]
pub fn one_backend(
    run: &RunContext,
    options: &BackendOptions,
    kind: StoreKind,
    traffic: Traffic,
) -> Result<Arc<dyn Backend>> {
    let version = || -> Result<String> {
        let store_dir = match kind {
            StoreKind::Plain => "",
            StoreKind::Guix | StoreKind::Nix => Layout::new(kind, Path::new("/"))?.store_dir,
        };
        Ok(cache_version(kind.name(), store_dir, &system()).to_string())
    };
    match options {
        BackendOptions::Directory { path, sync } => {
            Ok(Arc::new(StallGuard::new(run, Directory::new(path.clone(), *sync).for_run(run))))
        }
        #[cfg(feature = "object-store")]
        BackendOptions::Objects(store) => {
            let objects = Objects::new(run, store, &version()?)?;
            Ok(Arc::new(objects.within(traffic)))
        }
        #[cfg(feature = "github")]
        BackendOptions::GitHub(service) => {
            let github = GitHub::new(run, service, &version()?)?;
            Ok(Arc::new(github.within(traffic)))
        }
        #[cfg(not(feature = "object-store"))]
        BackendOptions::Objects(store) => Err(not_built_in(store.address.service.scheme())),
        #[cfg(not(feature = "github"))]
        BackendOptions::GitHub(_) => Err(not_built_in("github")),
    }
}

/// Returns the newest entry of the first rung of the ladder that has any entry not in `passed`.
pub fn find(
    backend: &dyn Backend,
    ladder: &Ladder,
    passed: &[EntryName],
) -> Result<(Option<(EntryName, Hit)>, Notes), BackendError> {
    let (found, notes) = backend.find(&ladder.rungs, passed)?;
    // A rung after the one that has an entry is not tried.
    for (number, rung) in ladder.rungs.iter().enumerate() {
        let here = found.as_ref().filter(|found| found.rung == number);
        debug!(
            %rung,
            found = here.map_or("nothing".into(), |found| found.name.to_string()),
            "tried a key"
        );
        if here.is_some() {
            break;
        }
    }
    let found = found.map(|found| {
        let hit = match ladder.rungs[found.rung] {
            Rung::Exact(_) => Hit::Exact,
            Rung::Prefix(_) => Hit::Prefix,
        };
        (found.name, hit)
    });
    Ok((found, notes))
}

/// Prints the problems of a lookup, for commands without a report.
pub fn print_notes(notes: &Notes) {
    print_warnings(&LookupNotes::new(notes, &[]).warnings);
}

/// Prints warnings, for commands without a report.
pub fn print_warnings(warnings: &[String]) {
    warnings.iter().for_each(report::print_warning);
}

/// The problems of a lookup, as a report has them.
pub struct LookupNotes {
    pub warnings: Vec<String>,
    /// Entries that the backend skipped because they are not regular files, each with the reason.
    pub skipped: Vec<(String, String)>,
}

impl LookupNotes {
    /// Leaves out the skipped entries that are in `reported` already.
    pub fn new(notes: &Notes, reported: &[(String, String)]) -> Self {
        let skipped = notes.skipped.iter().map(|it| (it.name.to_string(), it.why()));
        let skipped: Vec<_> = skipped.filter(|it| !reported.contains(it)).collect();
        let mut warnings = notes.warnings.clone();
        warnings.extend(skipped_in_words(&skipped));
        LookupNotes { warnings, skipped }
    }
}

/// The skipped entries as one line; `None` if the list is empty.
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

/// Reads head and index of an entry. Adds the bytes read to `downloaded`.
pub fn open(reader: &mut dyn ReadAt, downloaded: &mut u64) -> Result<Opened, SnapshotError> {
    storecache_snapshot::open(reader.size(), &mut |at, buffer| {
        *downloaded += buffer.len() as u64;
        reader.read_at(at, buffer)
    })
}
