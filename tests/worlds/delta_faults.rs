//! Tests of faults while a delta is restored or saved, while a part of a snapshot is downloaded, and in limited
//! saves: the run succeeds completely, or the store and the entries are unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::iter::repeat_n;
use std::time::Duration;

use crate::support::cache_service::{CacheService, Fault, RequestKind};
use crate::support::world_runs::{
    self, StoreState, assert_same, attempt, flags, record_state, report, restore, root_helper_pid,
    run, save, staging,
};
use crate::support::{Fixture, Registration, Role, World, poll, store_content};
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
/// More faults than any run makes attempts.
const MORE_THAN_ALL_RETRIES: usize = 100;
const STATE: &str = "/tmp/job.json";

/// Runs storecache with a short network timeout.
fn run_with_service(world: &World, service: &CacheService, verb: &str, more: &[&str]) -> Value {
    world_runs::run_with_service(
        world,
        service,
        verb,
        &[more, &["--network-timeout", "1"]].concat(),
    )
}

fn entry(report: &Value) -> &str {
    report["entry"].as_str().unwrap_or_else(|| panic!("no entry: {report}"))
}

/// Adds items that are not in the base and are larger than the part of a snapshot that is read ahead.
fn add(world: &World, name: &str) {
    world.sh(&format!("for n in 1 2 3; do head -c 400000 /dev/urandom >/tmp/{name}-$n; done"));
    assert_eq!(world.add_files(&format!("/tmp/{name}-?")).len(), 3);
}

/// Asserts that the store is in this state and that a run left no files behind.
fn assert_store_is(world: &World, store: &StoreState, what: &str) {
    assert_eq!(world.valid_paths(), store.references.keys().cloned().collect(), "{what}");
    assert_same(store, &record_state(world));
    assert_eq!(staging(world), [""; 0], "{what}");
    assert!(world.daemon_answers(), "{what}");
}

/// Keeps the items without references that are not named `added-*` and deletes all others, so that the missing
/// items are in both files.
fn keep_leaves(world: &World) {
    let mut leaves = store_content::leaves(world);
    leaves.retain(|path| !path.contains("-added"));
    store_content::keep_only(world, &leaves);
}

/// The range request of a delta's restore before which a fault occurs.
#[derive(Clone, Copy, Debug)]
enum FaultPoint {
    /// The end of the delta itself.
    OwnEnd,
    /// The end of its base.
    BaseEnd,
    /// The last of the frames.
    Last,
}
use FaultPoint::*;

/// Where the fault occurs, how often, which fault, and whether the restore succeeds nevertheless.
type FaultCase = (FaultPoint, usize, Fault, bool);

/// Restores a delta with each of these faults, alternately into an empty store and into a store that holds a
/// part of it.
fn check_faulty_delta_restores(role: Role, troubles: impl IntoIterator<Item = FaultCase>) {
    let world = World::build(role).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let service = CacheService::start();
    let base = run_with_service(&world, &service, "save", &["--full"]);
    add(&world, "added");
    let delta = run_with_service(&world, &service, "save", &[]);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let whole = record_state(&world);
    let stored: Vec<(String, String, Vec<u8>)> = [entry(&base), entry(&delta)]
        .map(|key| (key.to_owned(), service.version_of(key), service.content(key)))
        .into();

    // Count the requests for the whole snapshot, and for the missing part.
    let ranges = [World::wipe_store, keep_leaves].map(|prepare| {
        prepare(&world);
        let before = service.seen(RequestKind::Range).len();
        run_with_service(&world, &service, "restore", &[]);
        assert_same(&whole, &record_state(&world));
        // Both ends of each of the two files, and then frames.
        let ranges = service.seen(RequestKind::Range).len() - before;
        assert!(ranges >= 6, "{ranges}");
        ranges
    });

    for (number, (before, times, fault, comes)) in troubles.into_iter().enumerate() {
        // Alternate between an empty store and a store that holds the items without references.
        let part = number % 2 == 1;
        let what = format!("{role:?}: {times} times {fault:?} before {before:?}, a part: {part}");
        if part {
            run_with_service(&world, &service, "restore", &[]);
            keep_leaves(&world);
        } else {
            world.wipe_store();
        }
        let there = record_state(&world);
        assert_eq!(there.references.is_empty(), !part, "{what}");
        let service = CacheService::start();
        for (key, version, content) in &stored {
            service.put(key, version, content);
        }
        let after = match before {
            OwnEnd => 1,
            BaseEnd => 3,
            Last => ranges[usize::from(part)] - 1,
        };
        let faults = repeat_n(Fault::Slow, after).chain(repeat_n(fault, times));
        service.inject_faults(RequestKind::Range, faults);
        let report = run_with_service(&world, &service, "restore", &[]);
        assert!(service.unused_faults() < times, "{what}: no fault was injected");
        service.clear_faults();
        if comes {
            assert_eq!(report["entry"], delta["entry"], "{what}: {report}");
            assert_store_is(&world, &whole, &what);
        } else {
            assert_eq!(
                (&report["hit"], &report["failed"]),
                (&"miss".into(), &true.into()),
                "{what}: {report}"
            );
            assert_store_is(&world, &there, &what);
            world.verify_store();
        }
    }
    run_with_service(&world, &service, "restore", &[]);
    assert_same(&whole, &record_state(&world));
    world.assert_nothing_to_build(role, Fixture::Small);
    world.verify_store();
}

#[test]
fn nix_delta_restore_is_complete_or_changes_nothing() {
    check_faulty_delta_restores(
        Role::Mid,
        [
            (OwnEnd, 1, Fault::Reset, true),
            (BaseEnd, 1, Fault::ResetInBody, true),
            (Last, 1, Fault::Short, true),
            (Last, 1, Fault::StallInBody, true),
            (BaseEnd, 1, Fault::Status(500, "boom"), true),
            (Last, 1, Fault::Later(503, 0), true),
            (BaseEnd, 1, Fault::Later(429, 0), true),
            (BaseEnd, 1, Fault::Status(403, "expired"), true),
            (Last, 1, Fault::Expire, true),
            (Last, 1, Fault::OtherRange, true),
            (Last, 1, Fault::Evict, false),
            (BaseEnd, MORE_THAN_ALL_RETRIES, Fault::Status(404, "gone"), false),
            (Last, MORE_THAN_ALL_RETRIES, Fault::ResetInBody, false),
            (Last, MORE_THAN_ALL_RETRIES, Fault::Status(403, "expired"), false),
            (BaseEnd, MORE_THAN_ALL_RETRIES, Fault::Status(503, "busy"), false),
            (Last, 1, Fault::OtherTag, false),
        ],
    );
}

#[test]
fn guix_delta_restore_is_complete_or_changes_nothing() {
    check_faulty_delta_restores(
        Role::Guix,
        [
            (BaseEnd, 1, Fault::ResetInBody, true),
            (Last, 1, Fault::StallInBody, true),
            (OwnEnd, 1, Fault::Later(503, 0), true),
            (Last, 1, Fault::Expire, true),
            (BaseEnd, MORE_THAN_ALL_RETRIES, Fault::Status(404, "gone"), false),
            (Last, MORE_THAN_ALL_RETRIES, Fault::ResetInBody, false),
            (Last, 1, Fault::Evict, false),
            (Last, 1, Fault::OtherTag, false),
        ],
    );
}

/// A store, and the state in which a failed save must leave it.
struct StateBefore<'w> {
    world: &'w World,
    store: StoreState,
    rows: BTreeMap<String, Registration>,
    daemon: Option<u32>,
}

impl StateBefore<'_> {
    fn now(world: &World) -> StateBefore<'_> {
        let (store, rows) = (record_state(world), world.registrations());
        StateBefore { world, store, rows, daemon: world.daemon_pid() }
    }

    /// Asserts that the failed save changed nothing.
    fn check(&self, what: &str) {
        assert_eq!(world_runs::leftovers(self.world), [""; 0], "{what}");
        assert_same(&self.store, &record_state(self.world));
        assert_eq!(self.world.registrations(), self.rows, "{what}");
        assert_eq!(self.world.daemon_pid(), self.daemon, "{what}: another daemon");
        assert!(self.world.daemon_answers(), "{what}");
    }
}

/// Saves that hold some of the added items: a delta, the most recently used items, and the closure of an item.
const SAVES: [&[&str]; 3] =
    [&[], &["--full", "--state", STATE, "--max-size", "4M"], &["--full", "--roots", "*-added-1"]];

fn check_faulty_saves(role: Role) {
    let world = World::build(role).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let service = CacheService::start();
    let first = run_with_service(&world, &service, "save", &["--full"]);
    world.wipe_store();
    run_with_service(&world, &service, "restore", &["--state", STATE]);
    let before = record_state(&world);
    add(&world, "added");
    let untouched = StateBefore::now(&world);
    let entries = service.keys();
    for (number, (at, fault)) in [
        (RequestKind::Reserve, Fault::Status(500, "boom")),
        (RequestKind::Block, Fault::Reset),
        (RequestKind::Block, Fault::Status(503, "busy")),
        (RequestKind::BlockList, Fault::Status(400, "no")),
        (RequestKind::Finalize, Fault::Status(503, "busy")),
        (RequestKind::Reserve, Fault::Later(429, 900)),
    ]
    .into_iter()
    .enumerate()
    {
        let more = SAVES[number % SAVES.len()];
        let what = format!("{role:?} {more:?}: {at:?} {fault:?}");
        service.inject_faults(at, repeat_n(fault, MORE_THAN_ALL_RETRIES));
        let report = run_with_service(&world, &service, "save", more);
        let met = service.unused_faults() < MORE_THAN_ALL_RETRIES;
        service.clear_faults();
        if met {
            assert_ne!(report["saved"], true, "{what}: {report}");
            assert_eq!(service.keys(), entries, "{what}: {report}");
        } else {
            // A small entry is uploaded in a single request.
            assert_eq!(at, RequestKind::BlockList, "{what}: {report}");
            service.evict(entry(&report));
        }
        untouched.check(&what);
        let found = run_with_service(&world, &service, "restore", &["--lookup-only"]);
        assert_eq!(found["entry"], first["entry"], "{what}: {found}");
    }
    world.wipe_store();
    run_with_service(&world, &service, "restore", &[]);
    assert_same(&before, &record_state(&world));

    // A transient fault does not fail the save.
    add(&world, "more");
    let all = record_state(&world);
    for (at, fault) in [
        (RequestKind::Reserve, Fault::Status(502, "bad gateway")),
        (RequestKind::Block, Fault::Reset),
        (RequestKind::Block, Fault::Later(429, 0)),
        (RequestKind::Finalize, Fault::LostAnswer),
    ] {
        service.inject_faults(at, [fault.clone()]);
        let report = run_with_service(&world, &service, "save", &[]);
        service.clear_faults();
        assert_eq!(report["saved"], true, "{at:?} {fault:?}: {report}");
        assert_ne!(report["items"]["inherited"], 0, "{report}");
    }
    world.wipe_store();
    run_with_service(&world, &service, "restore", &[]);
    assert_same(&all, &record_state(&world));
    world.verify_store();
}

#[test]
fn nix_entries_stay_usable_after_a_failed_save() {
    check_faulty_saves(Role::Mid);
}

#[test]
fn guix_entries_stay_usable_after_a_failed_save() {
    check_faulty_saves(Role::Guix);
}

#[test]
fn save_to_a_full_disk_leaves_no_file_and_keeps_the_base() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let first = save(&world);
        world.wipe_store();
        run(&world, "runner", "restore", &["--state", STATE]);
        let before = record_state(&world);
        add(&world, "added");
        // Leave space for the entry that is there, and for the beginning of another one.
        let room = first["bytes"]["snapshot"].as_u64().unwrap().next_multiple_of(4096) + 4096;
        world.sh(&format!(
            "mkdir /tmp/full
             mount -t tmpfs -o size={room},mode=777 full /tmp/full
             cp /cache/*.tar.zst /tmp/full"
        ));
        let listing = || world.sh("ls -A /tmp/full").stdout;
        let there = listing();
        let untouched = StateBefore::now(&world);
        let through = |verb: &str, more: &[&str]| {
            let words =
                [verb, "--store", world.package_manager().name(), "--backend", "dir:/tmp/full"];
            let words = words.iter().chain(&["--key", "test", "--json"]).chain(more);
            report(&world.storecache_as("runner", words).run())
        };
        for more in SAVES {
            let what = format!("{role:?} {more:?}");
            let json = through("save", more);
            let reason = json["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("No space left"), "{what}: {json}");
            assert_ne!(json["saved"], true, "{what}: {json}");
            let limited = more.contains(&"--max-size");
            assert_eq!(json["items"]["skipped"] != 0, limited, "{what}: {json}");
            assert_eq!(listing(), there, "{what}");
            untouched.check(&what);
        }
        world.wipe_store();
        assert_eq!(through("restore", &[])["entry"], first["entry"], "{role:?}");
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}

#[test]
fn killed_delta_restore_is_rolled_back_and_can_be_repeated() {
    // A bare guix-daemon has to write to the store's mount, which a daemon that runs as root arranges itself;
    // `read_only.rs` tests Guix as installed.
    for (role, mounts) in
        [(Role::Mid, &[false, true][..]), (Role::Guix, &[false]), (Role::GuixRoot, &[true])]
    {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        save(&world);
        add(&world, "added");
        let delta = save(&world);
        assert_ne!(delta["items"]["inherited"], 0, "{delta}");
        let whole = record_state(&world);
        let cases = mounts.iter().flat_map(|&read_only| [(true, read_only), (false, read_only)]);
        for (root_dies, read_only) in cases {
            let what = format!("{role:?}, root helper killed: {root_dies}, read-only: {read_only}");
            world.wipe_store();
            let store = world.store();
            if read_only {
                world.stop_daemon();
                world.wait_until_idle();
                world.sh(&format!(
                    "mount --bind {store} {store} && mount -o remount,bind,ro {store}"
                ));
                world.start_daemon();
            }
            let lock = world.hold_database();
            let restore =
                world.storecache_as("runner", ["restore"].into_iter().chain(flags(&world)));
            let restore = restore.spawn();
            poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
                None => Ok(()),
                Some(pid) => Err(format!("{what}: process {pid} listens; {}", restore.stderr())),
            });
            let root_helper = root_helper_pid(&world);
            match root_dies {
                true => kill_process(root_helper, Signal::KILL).unwrap(),
                false => restore.signal(Signal::KILL),
            }
            restore.wait(TIMEOUT).fails();
            // It must have seen the end of the user process before it may go on, or it commits.
            poll::until("the root helper to end", TIMEOUT, || {
                if test_kill_process(root_helper).is_err() { Ok(()) } else { Err("it is there") }
            });
            drop(lock);
            poll::until("the daemon to answer again", TIMEOUT, || {
                if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
            });
            poll::until("staging to be gone", TIMEOUT, || match staging(&world) {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{what}: {left:?}")),
            });
            assert_store_is(&world, &StoreState::default(), &what);
            let left = world.store_listing();
            assert!(left.iter().all(|name| name.starts_with('.')), "{what}: {left:?}");
            let roots = world.host(world.state()).join("gcroots/storecache");
            assert!(!roots.exists() || fs::read_dir(roots).unwrap().next().is_none(), "{what}");

            let restored = crate::support::world_runs::restore(&world);
            assert_eq!(restored["entry"], delta["entry"], "{what}");
            assert_same(&whole, &record_state(&world));
            if read_only {
                world.sh(&format!("! touch {store}/written 2>/dev/null"));
                world.stop_daemon();
                world.wait_until_idle();
                world.sh(&format!("umount {store}"));
                world.start_daemon();
            }
        }
        world.verify_store();
    }
}

#[test]
fn limited_snapshot_can_be_the_base_of_a_delta() {
    let limits = [["--roots", "*-added-?"], ["--max-size", "4M"]];
    for (role, limit) in
        [Role::Mid, Role::Guix].into_iter().flat_map(|role| limits.map(|it| (role, it)))
    {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        add(&world, "added");
        let all = world.valid_paths().len();
        let limited = run(&world, "runner", "save", &limit);
        let saved = limited["items"]["saved"].as_u64().unwrap() as usize;
        assert!((3..all).contains(&saved), "{limited}");
        world.wipe_store();
        assert_eq!(restore(&world)["items"]["restored"], saved);
        add(&world, "more");
        let delta = run(&world, "runner", "save", &["--rebase-at", "2"]);
        assert_eq!(delta["base"]["entry"], limited["entry"], "{delta}");
        let whole = record_state(&world);
        world.wipe_store();
        restore(&world);
        assert_same(&whole, &record_state(&world));
        world.verify_store();

        world.wipe_store();
        let file = format!("{}.tar.zst", entry(&limited));
        fs::remove_file(world.backend().host_path().join(file)).unwrap();
        let missed = report(&attempt(&world, "runner", "restore", &[]));
        assert_eq!(missed["hit"], "miss", "{missed}");
        assert_store_is(&world, &StoreState::default(), "without its base");
    }
}
