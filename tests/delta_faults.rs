//! Tests of faults while a delta is restored or saved, while a part of a snapshot is downloaded, and in limited
//! saves: the run succeeds completely, or the store and the entries are unchanged.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::iter::repeat_n;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::cache_service::{CacheService, Fault, Place as At};
use support::runs::{
    self, Picture, assert_same, attempt, flags, picture, report, restore, root_half, run, save,
    staging,
};
use support::{Fixture, Registration, Role, World, corpus, poll};

const SOON: Duration = Duration::from_secs(60);
/// More faults than any run makes attempts.
const ON_AND_ON: usize = 100;
const STATE: &str = "/tmp/job.json";

/// Runs storecache with a short network timeout.
fn through(world: &World, service: &CacheService, verb: &str, more: &[&str]) -> Value {
    runs::through(world, service, verb, &[more, &["--network-timeout", "1"]].concat())
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
fn at_rest(world: &World, store: &Picture, what: &str) {
    assert_eq!(world.valid_paths(), store.references.keys().cloned().collect(), "{what}");
    assert_same(store, &picture(world));
    assert_eq!(staging(world), [""; 0], "{what}");
    assert!(world.daemon_answers(), "{what}");
}

/// Keeps the items without references that are not named `added-*` and deletes all others, so that the missing
/// items are in both files.
fn keep_leaves(world: &World) {
    let mut leaves = corpus::leaves(world);
    leaves.retain(|path| !path.contains("-added"));
    corpus::keep_only(world, &leaves);
}

/// The range request of a delta's restore before which a fault occurs.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// The end of the delta itself.
    OwnEnd,
    /// The end of its base.
    BaseEnd,
    /// The last of the frames.
    Last,
}
use Before::*;

/// Where the fault occurs, how often, which fault, and whether the restore succeeds nevertheless.
type Trouble = (Before, usize, Fault, bool);

/// Restores a delta with each of these faults, alternately into an empty store and into a store that holds a
/// part of it.
fn a_delta_comes_whole_or_not_at_all(role: Role, troubles: impl IntoIterator<Item = Trouble>) {
    let world = World::build(role).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let service = CacheService::start();
    let base = through(&world, &service, "save", &["--full"]);
    add(&world, "added");
    let delta = through(&world, &service, "save", &[]);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let whole = picture(&world);
    let stored: Vec<(String, String, Vec<u8>)> = [entry(&base), entry(&delta)]
        .map(|key| (key.to_owned(), service.version_of(key), service.content(key)))
        .into();

    // Count the requests for the whole snapshot, and for the missing part.
    let ranges = [World::wipe_store, keep_leaves].map(|prepare| {
        prepare(&world);
        let before = service.seen(At::Range).len();
        through(&world, &service, "restore", &[]);
        assert_same(&whole, &picture(&world));
        // Both ends of each of the two files, and then frames.
        let ranges = service.seen(At::Range).len() - before;
        assert!(ranges >= 6, "{ranges}");
        ranges
    });

    for (number, (before, times, fault, comes)) in troubles.into_iter().enumerate() {
        // Alternate between an empty store and a store that holds the items without references.
        let part = number % 2 == 1;
        let what = format!("{role:?}: {times} times {fault:?} before {before:?}, a part: {part}");
        if part {
            through(&world, &service, "restore", &[]);
            keep_leaves(&world);
        } else {
            world.wipe_store();
        }
        let there = picture(&world);
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
        service.goes_wrong(At::Range, faults);
        let told = through(&world, &service, "restore", &[]);
        assert!(service.unmet() < times, "{what}: nothing went wrong");
        service.goes_well();
        if comes {
            assert_eq!(told["entry"], delta["entry"], "{what}: {told}");
            at_rest(&world, &whole, &what);
        } else {
            assert_eq!(
                (&told["hit"], &told["failed"]),
                (&"miss".into(), &true.into()),
                "{what}: {told}"
            );
            at_rest(&world, &there, &what);
            world.verify_store();
        }
    }
    through(&world, &service, "restore", &[]);
    assert_same(&whole, &picture(&world));
    world.builds_nothing_of(role, Fixture::Small);
    world.verify_store();
}

#[test]
fn whatever_the_service_does_a_delta_or_the_part_that_lacks_comes_whole_or_not_at_all() {
    a_delta_comes_whole_or_not_at_all(
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
            (BaseEnd, ON_AND_ON, Fault::Status(404, "gone"), false),
            (Last, ON_AND_ON, Fault::ResetInBody, false),
            (Last, ON_AND_ON, Fault::Status(403, "expired"), false),
            (BaseEnd, ON_AND_ON, Fault::Status(503, "busy"), false),
            (Last, 1, Fault::OtherTag, false),
        ],
    );
}

#[test]
fn on_guix_too_a_delta_or_the_part_that_lacks_comes_whole_or_not_at_all() {
    a_delta_comes_whole_or_not_at_all(
        Role::Guix,
        [
            (BaseEnd, 1, Fault::ResetInBody, true),
            (Last, 1, Fault::StallInBody, true),
            (OwnEnd, 1, Fault::Later(503, 0), true),
            (Last, 1, Fault::Expire, true),
            (BaseEnd, ON_AND_ON, Fault::Status(404, "gone"), false),
            (Last, ON_AND_ON, Fault::ResetInBody, false),
            (Last, 1, Fault::Evict, false),
            (Last, 1, Fault::OtherTag, false),
        ],
    );
}

/// A store, and the state in which a failed save must leave it.
struct Untouched<'w> {
    world: &'w World,
    store: Picture,
    rows: BTreeMap<String, Registration>,
    daemon: Option<u32>,
}

impl Untouched<'_> {
    fn now(world: &World) -> Untouched<'_> {
        let (store, rows) = (picture(world), world.registrations());
        Untouched { world, store, rows, daemon: world.daemon_pid() }
    }

    /// Asserts that the failed save changed nothing.
    fn check(&self, what: &str) {
        assert_eq!(runs::leftovers(self.world), [""; 0], "{what}");
        assert_same(&self.store, &picture(self.world));
        assert_eq!(self.world.registrations(), self.rows, "{what}");
        assert_eq!(self.world.daemon_pid(), self.daemon, "{what}: another daemon");
        assert!(self.world.daemon_answers(), "{what}");
    }
}

/// Saves that hold some of the added items: a delta, the most recently used items, and the closure of an item.
const SAVES: [&[&str]; 3] =
    [&[], &["--full", "--state", STATE, "--max-size", "4M"], &["--full", "--roots", "*-added-1"]];

fn a_save_comes_whole_or_leaves_no_trace(role: Role) {
    let world = World::build(role).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let service = CacheService::start();
    let first = through(&world, &service, "save", &["--full"]);
    world.wipe_store();
    through(&world, &service, "restore", &["--state", STATE]);
    let before = picture(&world);
    add(&world, "added");
    let untouched = Untouched::now(&world);
    let entries = service.keys();
    for (number, (at, fault)) in [
        (At::Reserve, Fault::Status(500, "boom")),
        (At::Block, Fault::Reset),
        (At::Block, Fault::Status(503, "busy")),
        (At::BlockList, Fault::Status(400, "no")),
        (At::Finalize, Fault::Status(503, "busy")),
        (At::Reserve, Fault::Later(429, 900)),
    ]
    .into_iter()
    .enumerate()
    {
        let more = SAVES[number % SAVES.len()];
        let what = format!("{role:?} {more:?}: {at:?} {fault:?}");
        service.goes_wrong(at, repeat_n(fault, ON_AND_ON));
        let told = through(&world, &service, "save", more);
        let met = service.unmet() < ON_AND_ON;
        service.goes_well();
        if met {
            assert_ne!(told["saved"], true, "{what}: {told}");
            assert_eq!(service.keys(), entries, "{what}: {told}");
        } else {
            // A small entry is uploaded in a single request.
            assert_eq!(at, At::BlockList, "{what}: {told}");
            service.evict(entry(&told));
        }
        untouched.check(&what);
        let found = through(&world, &service, "restore", &["--lookup-only"]);
        assert_eq!(found["entry"], first["entry"], "{what}: {found}");
    }
    world.wipe_store();
    through(&world, &service, "restore", &[]);
    assert_same(&before, &picture(&world));

    // A transient fault does not fail the save.
    add(&world, "more");
    let all = picture(&world);
    for (at, fault) in [
        (At::Reserve, Fault::Status(502, "bad gateway")),
        (At::Block, Fault::Reset),
        (At::Block, Fault::Later(429, 0)),
        (At::Finalize, Fault::LostAnswer),
    ] {
        service.goes_wrong(at, [fault.clone()]);
        let told = through(&world, &service, "save", &[]);
        service.goes_well();
        assert_eq!(told["saved"], true, "{at:?} {fault:?}: {told}");
        assert_ne!(told["items"]["inherited"], 0, "{told}");
    }
    world.wipe_store();
    through(&world, &service, "restore", &[]);
    assert_same(&all, &picture(&world));
    world.verify_store();
}

#[test]
fn whatever_the_service_does_to_the_save_of_a_delta_or_a_limited_one_the_entries_before_it_serve() {
    a_save_comes_whole_or_leaves_no_trace(Role::Mid);
}

#[test]
fn on_guix_too_the_entries_before_a_save_that_fails_serve() {
    a_save_comes_whole_or_leaves_no_trace(Role::Guix);
}

#[test]
fn a_save_to_a_disk_that_is_full_leaves_no_file_there_and_the_base_serves() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let first = save(&world);
        world.wipe_store();
        run(&world, "runner", "restore", &["--state", STATE]);
        let before = picture(&world);
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
        let untouched = Untouched::now(&world);
        let through = |verb: &str, more: &[&str]| {
            let words = [verb, "--store", world.flavour().name(), "--backend", "dir:/tmp/full"];
            let words = words.iter().chain(&["--key", "test", "--json"]).chain(more);
            report(&world.storecache_as("runner", words).run())
        };
        for more in SAVES {
            let what = format!("{role:?} {more:?}");
            let told = through("save", more);
            let reason = told["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("No space left"), "{what}: {told}");
            assert_ne!(told["saved"], true, "{what}: {told}");
            let limited = more.contains(&"--max-size");
            assert_eq!(told["items"]["skipped"] != 0, limited, "{what}: {told}");
            assert_eq!(listing(), there, "{what}");
            untouched.check(&what);
        }
        world.wipe_store();
        assert_eq!(through("restore", &[])["entry"], first["entry"], "{role:?}");
        assert_same(&before, &picture(&world));
        world.verify_store();
    }
}

#[test]
fn a_delta_restore_that_is_killed_in_its_commit_is_undone_and_can_be_had_again() {
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
        let whole = picture(&world);
        let cases = mounts.iter().flat_map(|&read_only| [(true, read_only), (false, read_only)]);
        for (root_dies, read_only) in cases {
            let what = format!("{role:?}, the root half: {root_dies}, read-only: {read_only}");
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
            poll::until("the daemon to be stopped", SOON, || match world.daemon_pid() {
                None => Ok(()),
                Some(pid) => Err(format!("{what}: process {pid} listens; {}", restore.stderr())),
            });
            match root_dies {
                true => kill_process(root_half(&world), Signal::KILL).unwrap(),
                false => restore.signal(Signal::KILL),
            }
            restore.wait(SOON).fails();
            drop(lock);
            poll::until("the daemon to answer again", SOON, || {
                if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
            });
            poll::until("staging to be gone", SOON, || match staging(&world) {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{what}: {left:?}")),
            });
            at_rest(&world, &Picture::default(), &what);
            let left = world.store_listing();
            assert!(left.iter().all(|name| name.starts_with('.')), "{what}: {left:?}");
            let roots = world.host(world.state()).join("gcroots/storecache");
            assert!(!roots.exists() || fs::read_dir(roots).unwrap().next().is_none(), "{what}");

            let restored = support::runs::restore(&world);
            assert_eq!(restored["entry"], delta["entry"], "{what}");
            assert_same(&whole, &picture(&world));
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
fn a_snapshot_of_some_closures_or_of_a_size_can_be_the_base_of_a_delta_and_lose_it() {
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
        let whole = picture(&world);
        world.wipe_store();
        restore(&world);
        assert_same(&whole, &picture(&world));
        world.verify_store();

        world.wipe_store();
        let file = format!("{}.tar.zst", entry(&limited));
        fs::remove_file(world.backend().host_path().join(file)).unwrap();
        let missed = report(&attempt(&world, "runner", "restore", &[]));
        assert_eq!(missed["hit"], "miss", "{missed}");
        at_rest(&world, &Picture::default(), "without its base");
    }
}
