//! Checks that must hold after any fault: the store is unchanged or has everything that was to be restored,
//! and nothing of the run is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use storecache_daemon::await_ready;

use super::store_checks::Registration;
use super::world::World;
use super::world_runs::{StoreState, leftovers, record_state};
use storecache_runtime::RunContext;

/// The documented limit: the daemon answers within this time after a run, however the run ended.
const DAEMON_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The guardian finishes its remaining work after a run within this time.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

type Stamps = BTreeMap<PathBuf, (u64, i64, i64, u32, u64)>;

/// The state of a sound store before a fault.
pub struct Before {
    rows: BTreeMap<String, Registration>,
    listing: Vec<String>,
    /// The stamp of every file of every valid item: a change of a file always updates its ctime.
    stamps: Stamps,
    /// Files in store and state that the store's owner does not own.
    foreign_files: BTreeSet<PathBuf>,
}

/// The state of a store after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    AsBefore,
    Whole,
}

impl Before {
    pub fn now(world: &World) -> Before {
        let rows = world.registrations();
        let stamps = stamps(world, &rows);
        Before { stamps, listing: listing(world), foreign_files: foreign_files(world), rows }
    }

    /// Returns whether the store is unchanged or also has everything that is in `whole`.
    ///
    /// # Errors
    /// If it is neither; the error describes the difference.
    pub fn compare(&self, world: &World, whole: &StoreState) -> Result<Found, String> {
        let rows = world.registrations();
        for (path, row) in &self.rows {
            if rows.get(path) != Some(row) {
                return Err(format!("the row of {path} was {row:?} and is {:?}", rows.get(path)));
            }
        }
        if stamps(world, &self.rows) != self.stamps {
            return Err("a file of an item that was there before was touched".into());
        }
        if let Some(path) = rows.keys().find(|path| !is_there(&world.host(path))) {
            return Err(format!("{path} is valid and has no bytes"));
        }
        if let Some(path) = foreign_files(world).difference(&self.foreign_files).next() {
            return Err(format!("{} does not belong to the owner of the store", path.display()));
        }
        let listing = listing(world);
        if rows.len() == self.rows.len() {
            // An item that was placed and did not become valid would be garbage, which is an error too.
            differ("names in the store and GC roots", &self.listing, &listing)?;
            return Ok(Found::AsBefore);
        }
        let now = record_state(world);
        differ("the rows", &whole.references, &now.references)?;
        differ("the outputs of derivations", &whole.outputs, &now.outputs)?;
        for (path, tree) in &whole.trees {
            differ(path, tree, &now.trees[path])?;
        }
        Ok(Found::Whole)
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    Err(format!("{what} differs: {one:?}\nand now {other:?}"))
}

/// The names in the store and in the program's directory of GC roots.
fn listing(world: &World) -> Vec<String> {
    let names = |directory: String| {
        let entries = fs::read_dir(world.host(&directory)).into_iter().flatten().flatten();
        let names = entries.map(move |it| format!("{directory}/{}", it.file_name().display()));
        names.collect::<Vec<_>>()
    };
    let mut all = names(world.store().to_owned());
    all.extend(names(format!("{}/gcroots/storecache", world.state())));
    all.sort();
    all
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn foreign_files(world: &World) -> BTreeSet<PathBuf> {
    let owner = fs::metadata(world.host(world.state())).unwrap().uid();
    let places = [world.store(), world.state()].map(|place| world.host(place));
    let mut found = BTreeSet::new();
    let mut pending: Vec<PathBuf> = places.into();
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if metadata.uid() != owner {
            found.insert(path);
        }
    }
    found
}

fn stamps(world: &World, rows: &BTreeMap<String, Registration>) -> Stamps {
    let mut found = Stamps::new();
    let mut pending: Vec<PathBuf> = rows.keys().map(|path| world.host(path)).collect();
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let (seconds, nanos) = (metadata.ctime(), metadata.ctime_nsec());
        let stamp = (metadata.ino(), seconds, nanos, metadata.mode(), metadata.size());
        found.insert(path, stamp);
    }
    found
}

/// Returns how long the daemon took to complete a handshake and to answer one query.
///
/// # Errors
/// If it took longer than the documented limit.
pub fn daemon_answers(world: &World) -> Result<Duration, String> {
    let socket = world.host(world.state()).join("daemon-socket/socket");
    let probe = format!("{}/{}-nothing", world.store(), "0".repeat(32));
    let started = Instant::now();
    match await_ready(&RunContext::default(), &socket, &probe, DAEMON_ANSWERS_WITHIN) {
        Ok(_) => Ok(started.elapsed()),
        Err(e) => Err(format!("{e:#}")),
    }
}

/// Waits until nothing of a run is left.
///
/// # Errors
/// If something stays.
pub fn check_no_leftovers(world: &World) -> Result<(), String> {
    wait_until_ok(|| {
        let left = leftovers(world);
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.join(", "))) }
    })
}

fn wait_until_ok<E: Display>(mut probe: impl FnMut() -> Result<(), E>) -> Result<(), String> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    loop {
        match probe() {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(e.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
