//! The root helper's part of restoring plain directories: each is staged next to its final path and swapped in by
//! rename.
//!
//! Only directories that the user named are changed, whatever the snapshot contains.

use super::capabilities::Stage;
use super::connection::Conversation;
use super::consistency_checks::check_kind;
use super::protocol::{
    FrameId, Phase, Plan, Reply, RestoreRequest, Restored, SnapshotRole, StoreRequest,
};
use super::snapshot_files::Unpackers;
use super::store_context::{check_space, directory, receive_frames, run_lock, writeback};
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use storecache_runtime::advice::WithAdvice;
use storecache_snapshot::{Index, ItemEntry, Target, Unpacker, fingerprint};
use storecache_store::{Lock, Placement, Staging, StoreKind, clean_stale, in_root, system};
use tracing::debug;

/// The planned changes to the directories of a snapshot.
#[derive(Default)]
struct PlainPlan {
    /// Position in the index, and path.
    wanted: Vec<(usize, PathBuf)>,
    present: u64,
    /// Name and reason.
    skipped: Vec<(String, String)>,
}

/// A parent directory with its staging.
struct Staged {
    place: Arc<OwnedFd>,
    staging: Staging,
}

pub fn restore(
    talk: &Conversation,
    store: &StoreRequest,
    request: &RestoreRequest,
    index: &[u8],
) -> Result<()> {
    talk.enter(Phase::Plan);
    Stage::Restoring.enter()?;
    let index = Arc::new(Index::from_bytes(index)?);
    index.check()?;
    match StoreKind::parse(request.store.kind.raw()) {
        Ok(StoreKind::Plain) => {}
        Ok(StoreKind::Guix | StoreKind::Nix) | Err(_) => {
            bail!("the snapshot is of the store kind {}, not plain", request.store.kind)
        }
    }
    if request.store.system != *system() {
        bail!("the snapshot is for the system {}, but this is {}", request.store.system, system());
    }
    check_kind(StoreKind::Plain, &index)?;
    let _run_locks = run_locks(talk, store)?;
    let plan = plan(store, request, &index)?;
    let numbers = index.frames_of(plan.wanted.iter().map(|(at, _)| *at)).into_iter();
    let frames: Vec<_> =
        numbers.map(|number| FrameId { which: SnapshotRole::Entry, number }).collect();
    check_disks(&plan, &index)?;
    let (wanted, frame_count) = (plan.wanted.len(), frames.len());
    debug!(
        wanted,
        present = plan.present,
        frames = frame_count,
        "chose the directories to restore"
    );
    for (name, reason) in &plan.skipped {
        debug!(name, reason, "skip a directory");
    }
    talk.reply(&Reply::Plan(Plan {
        frames: frames.clone(),
        wanted: plan.wanted.len() as u64,
        present: plan.present,
        skipped: plan.skipped.clone(),
        disk_bytes: plan.wanted.iter().map(|(at, _)| index.items[*at].disk).sum(),
        warnings: talk.warnings.clone(),
    }))?;

    talk.holds(request.memory.compressed);
    let next = talk.receive()?;
    if plan.wanted.is_empty() {
        return talk.reply(&Reply::Restored(Restored::default()));
    }
    talk.enter(Phase::Unpack);
    let mut parents = MadeParents::default();
    let mut staged: BTreeMap<PathBuf, Staged> = BTreeMap::new();
    let mut targets = Vec::new();
    for (at, place) in &plan.wanted {
        let (parent, name) = split(place)?;
        let parent = parents.make(&parent)?;
        if !staged.contains_key(&parent) {
            staged.insert(parent.clone(), stage(&parent)?);
        }
        let directory = Arc::clone(&staged[&parent].staging.directory);
        targets.push((*at, Target { directory, name }));
    }
    let unpackers =
        Unpackers::one(Unpacker::new(&talk.run, &index, targets, None, &request.memory)?);
    let places = staged.values().map(|staged| Arc::clone(&staged.place)).collect();
    let mut writeback = writeback(&talk.run, places, request.sync)?;
    receive_frames(talk, next, &frames, &unpackers, &mut writeback)?;
    let unpacked = unpackers.finish()?;
    let sync_seconds = writeback.end().wait()?.as_secs_f64();

    talk.enter(Phase::Commit);
    let committing = Instant::now();
    let mut placement = Placement::default();
    for (_, place) in &plan.wanted {
        talk.cancel.check()?;
        let (parent, name) = split(place)?;
        let Staged { place, staging } = &staged[&parents.make(&parent)?];
        placement.place(&staging.directory, place, &name)?;
    }
    placement.keep();
    parents.keep();
    talk.reply(&Reply::Restored(Restored {
        items: unpacked.items,
        bytes: unpacked.bytes,
        sync_seconds,
        commit_seconds: committing.elapsed().as_secs_f64(),
        ..Restored::default()
    }))
}

fn plan(store: &StoreRequest, request: &RestoreRequest, index: &Index) -> Result<PlainPlan> {
    let named: HashSet<&Path> =
        store.paths.iter().map(|path| path.strip_prefix("/").unwrap_or(path)).collect();
    let mut plan = PlainPlan::default();
    for (at, item) in index.items.iter().enumerate() {
        let mut skip = |reason: &str| plan.skipped.push((item.name.clone(), reason.into()));
        if !named.contains(Path::new(&item.name)) {
            skip("not among the directories passed with --path");
            continue;
        }
        let place = in_root(&store.root, Path::new(&item.name))?;
        match state(&place, item)? {
            State::Absent => plan.wanted.push((at, place)),
            State::Same => plan.present += 1,
            State::Other if request.replace => plan.wanted.push((at, place)),
            State::Other => skip("it exists and differs; use --mode replace to overwrite it"),
        }
    }
    let held: HashSet<&Path> = index.items.iter().map(|item| Path::new(&item.name)).collect();
    for path in named.difference(&held) {
        let reason = "not in the snapshot".to_owned();
        plan.skipped.push((path.display().to_string(), reason));
    }
    Ok(plan)
}

enum State {
    /// Missing or empty.
    Absent,
    Same,
    Other,
}

fn state(place: &Path, item: &ItemEntry) -> Result<State> {
    let empty = |path: &Path| path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    let Ok(metadata) = place.symlink_metadata() else {
        return Ok(State::Absent);
    };
    if metadata.is_dir() && empty(place) && item.files > 1 {
        return Ok(State::Absent);
    }
    let (parent, name) = split(place)?;
    let base = directory(&parent)?;
    let found = fingerprint(&base, name.as_bytes(), &item.name)?;
    Ok(if found.is_some() && found == item.fingerprint { State::Same } else { State::Other })
}

/// Directories that were created as parents of restored directories. If this is dropped before [`MadeParents::keep`],
/// it removes them again.
#[derive(Default)]
struct MadeParents(Vec<PathBuf>);

impl MadeParents {
    /// Creates the missing part of `parent`. Returns its real path, which is the same for all names of the directory.
    fn make(&mut self, parent: &Path) -> Result<PathBuf> {
        let mut missing: Vec<&Path> = parent.ancestors().take_while(|p| !p.exists()).collect();
        missing.reverse();
        for directory in missing {
            rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))
                .with_context(|| format!("create {}", directory.display()))?;
            self.0.push(directory.to_owned());
        }
        parent.canonicalize().with_context(|| parent.display().to_string())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for MadeParents {
    fn drop(&mut self) {
        for directory in self.0.drain(..).rev() {
            // The call fails if another process has put something into the directory; then it stays.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn stage(parent: &Path) -> Result<Staged> {
    clean_stale(parent)?;
    Ok(Staged { place: Arc::new(directory(parent)?), staging: Staging::create(parent)? })
}

/// Checks that each disk has enough free space for what will be written to it.
fn check_disks(plan: &PlainPlan, index: &Index) -> Result<()> {
    let mut disks: BTreeMap<u64, (PathBuf, u64, u64)> = BTreeMap::new();
    for (at, place) in &plan.wanted {
        let existing = nearest_directory(place)?;
        let device = existing.metadata()?.dev();
        let (_, bytes, files) = disks.entry(device).or_insert((existing, 0, 0));
        *bytes += index.items[*at].disk;
        *files += index.items[*at].files;
    }
    disks.values().try_for_each(|(place, bytes, files)| check_space(place, *bytes, *files))
}

/// Returns the nearest existing directory above `place`.
fn nearest_directory(place: &Path) -> Result<PathBuf> {
    let existing = place.ancestors().skip(1).find(|path| path.is_dir());
    Ok(existing.context("there is no root directory")?.to_owned())
}

/// Locks the parents of all paths, or the nearest directories that exist, each once and in a fixed order.
fn run_locks(talk: &Conversation, store: &StoreRequest) -> Result<Vec<Lock>> {
    let mut parents: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for path in &store.paths {
        let parent = nearest_directory(&in_root(&store.root, path)?)?;
        let metadata = parent.metadata()?;
        parents.insert((metadata.dev(), metadata.ino()), parent);
    }
    let cancelled = || talk.cancel.check();
    parents
        .values()
        .map(|parent| run_lock(&talk.run, parent, store.lock_timeout, &cancelled))
        .collect()
}

fn split(place: &Path) -> Result<(PathBuf, String)> {
    let name = place.file_name().and_then(|name| name.to_str());
    match (place.parent(), name) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => {
            bail!(anyhow!("{} cannot be replaced", place.display()).hint("pass a directory in it"))
        }
    }
}
