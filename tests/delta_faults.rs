//! What goes wrong while a delta is restored or saved, or a part of a snapshot fetched, or a save limited:
//! each comes whole, or the store and the entries are as they were.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::iter::repeat_n;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::cache_service::{CacheService, Fault, Place as At, TOKEN};
use support::runs::{
    Picture, assert_same, attempt, flags, picture, report, restore, root_half, run, save, staging,
};
use support::{Fixture, Role, World, poll};

const SOON: Duration = Duration::from_secs(60);
/// More often than anybody tries.
const ON_AND_ON: usize = 100;
const STATE: &str = "/tmp/job.json";

/// Puts the cache service of GitHub Actions in the place of the directory.
fn through(world: &World, service: &CacheService, verb: &str, more: &[&str]) -> Value {
    let words =
        [verb, "--store", world.flavour().name(), "--key", "test", "--network-timeout", "1"];
    let words = words.into_iter().chain(more.iter().copied()).chain(["--json"]);
    let run = world
        .storecache_as("runner", words)
        .env("ACTIONS_RESULTS_URL", service.url())
        .env("ACTIONS_CACHE_URL", service.url())
        .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
        .env("ACTIONS_CACHE_SERVICE_V2", "1");
    report(&run.run())
}

fn entry(report: &Value) -> &str {
    report["entry"].as_str().unwrap_or_else(|| panic!("no entry: {report}"))
}

/// Adds items of which none is in the base; they are larger than what is read ahead of a snapshot.
fn add(world: &World, name: &str) {
    if world.role() == Role::Guix {
        world.add_texts(name, 3);
        return;
    }
    world.sh(&format!(
        "for n in 1 2 3; do
             head -c 400000 /dev/urandom >/tmp/{name}-$n
             nix-store --add /tmp/{name}-$n >/dev/null
         done"
    ));
}

/// What a restore must leave as it was.
fn at_rest(world: &World, valid: &BTreeSet<String>, what: &str) {
    assert_eq!(&world.valid_paths(), valid, "{what}");
    assert_eq!(staging(world), [""; 0], "{what}");
    assert!(world.daemon_answers(), "{what}");
}

/// Keeps the leaves that are not named `added-*` and drops all else, so that what lacks is in both files.
fn keep_leaves(world: &World, whole: &Picture) {
    let leaves =
        whole.references.iter().filter(|(path, to)| to.is_empty() && !path.contains("-added"));
    let roots = "/nix/var/nix/gcroots";
    let links: String = leaves
        .enumerate()
        .map(|(at, (path, _))| format!("ln -s {path} {roots}/kept-{at}\n"))
        .collect();
    world.sh(&format!("rm -rf {roots}/storecache {roots}/fixture\n{links}"));
    world.nix(["nix-collect-garbage"]).ok();
    world.sh(&format!("rm {roots}/kept-*"));
}

#[test]
fn whatever_the_service_does_a_delta_or_the_part_that_lacks_comes_whole_or_not_at_all() {
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
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

    world.wipe_store();
    let before = service.seen(At::Range).len();
    through(&world, &service, "restore", &[]);
    assert_same(&whole, &picture(&world));
    // Of each file both ends, and then frames.
    let ranges = service.seen(At::Range).len() - before;
    assert!(ranges >= 6, "{ranges}");
    let (own_end, base_end, last) = (1, 3, ranges - 1);

    let passes = [
        (own_end, Fault::Reset),
        (base_end, Fault::ResetInBody),
        (last, Fault::Short),
        (last, Fault::StallInBody),
        (base_end, Fault::Status(500, "boom")),
        (last, Fault::Later(503, 0)),
        (base_end, Fault::Later(429, 0)),
        (base_end, Fault::Status(403, "expired")),
        (last, Fault::Expire),
        (last, Fault::OtherRange),
    ]
    .map(|(at, fault)| (at, 1, fault, true));
    let lasts = [
        (last, 1, Fault::Evict, false),
        (base_end, ON_AND_ON, Fault::Status(404, "gone"), false),
        (last, ON_AND_ON, Fault::ResetInBody, false),
        (last, ON_AND_ON, Fault::Status(403, "expired"), false),
        (base_end, ON_AND_ON, Fault::Status(503, "busy"), false),
        (last, 1, Fault::OtherTag, false),
    ];
    for (number, (after, times, fault, comes)) in passes.into_iter().chain(lasts).enumerate() {
        // By turns nothing is there, and all that nothing refers to.
        let part = number % 2 == 1;
        let what = format!("{times} times {fault:?} after {after}, with a part: {part}");
        if part {
            through(&world, &service, "restore", &[]);
            keep_leaves(&world, &whole);
        } else {
            world.wipe_store();
        }
        let valid = world.valid_paths();
        assert_eq!(valid.is_empty(), !part, "{what}");
        let service = CacheService::start();
        for (key, version, content) in &stored {
            service.put(key, version, content);
        }
        let faults = repeat_n(Fault::Slow, after).chain(repeat_n(fault, times));
        service.goes_wrong(At::Range, faults);
        let told = through(&world, &service, "restore", &[]);
        service.goes_well();
        if comes {
            assert_eq!(told["entry"], delta["entry"], "{what}: {told}");
            assert_same(&whole, &picture(&world));
            at_rest(&world, &whole.references.keys().cloned().collect(), &what);
        } else {
            assert_eq!(
                (&told["hit"], &told["failed"]),
                (&"miss".into(), &true.into()),
                "{what}: {told}"
            );
            at_rest(&world, &valid, &what);
        }
    }
    through(&world, &service, "restore", &[]);
    assert_same(&whole, &picture(&world));
    world.verify_store();
}

#[test]
fn whatever_the_service_does_to_the_save_of_a_delta_or_a_limited_one_the_entries_before_it_serve() {
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let service = CacheService::start();
    through(&world, &service, "save", &["--full"]);
    world.wipe_store();
    through(&world, &service, "restore", &["--state", STATE]);
    let before = picture(&world);
    add(&world, "added");
    let entries = service.keys();
    let saves: [&[&str]; 3] = [
        &[],
        &["--full", "--state", STATE, "--max-size", "1M"],
        &["--full", "--roots", "*-added-1"],
    ];
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
        let more = saves[number % saves.len()];
        let what = format!("{more:?}: {at:?} {fault:?}");
        service.goes_wrong(at, repeat_n(fault, ON_AND_ON));
        let told = through(&world, &service, "save", more);
        let met = service.unmet() < ON_AND_ON;
        service.goes_well();
        if met {
            assert_ne!(told["saved"], true, "{what}: {told}");
            assert_eq!(service.keys(), entries, "{what}: {told}");
        } else {
            // A small entry goes up in one piece.
            assert_eq!(at, At::BlockList, "{what}: {told}");
            service.evict(entry(&told));
        }
        at_rest(&world, &world.valid_paths(), &what);
    }
    world.wipe_store();
    through(&world, &service, "restore", &[]);
    assert_same(&before, &picture(&world));

    // What passes costs nothing.
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
fn a_delta_restore_that_is_killed_in_its_commit_is_undone_and_can_be_had_again() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        save(&world);
        add(&world, "added");
        let delta = save(&world);
        assert_ne!(delta["items"]["inherited"], 0, "{delta}");
        let whole = picture(&world);
        for (root_dies, read_only) in [(true, false), (false, false), (true, true), (false, true)] {
            if read_only && role == Role::Guix {
                // A bare guix-daemon has to write to it; as installed it is in `read_only.rs`.
                continue;
            }
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
            let lock = world.hold_big_lock();
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
            at_rest(&world, &BTreeSet::new(), &what);
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
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    add(&world, "added");
    let limited = run(&world, "runner", "save", &["--roots", "*-added-?"]);
    assert_eq!(limited["items"]["saved"], 3, "{limited}");
    world.wipe_store();
    restore(&world);
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
    at_rest(&world, &BTreeSet::new(), "without its base");
}
