//! Tests of the events of the root helper and of the guardian, which reach the user process over its connections.

use std::fs;

use crate::support::helper_requests::RULE;
use crate::support::world_runs::{NIX_FLAGS, report, save};
use crate::support::{Fixture, Output, Role, World};

/// Restores as a user who may use sudo.
fn restore(world: &World, more: &[&str]) -> Output {
    world.storecache_as("runner", [&["restore"], &NIX_FLAGS[..], more].concat()).run()
}

/// A world with a running daemon, and with a snapshot of a store that is empty now.
fn saved() -> World {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world.start_daemon();
    world
}

#[test]
fn verbose_restore_shows_events_of_root_helper_and_guardian() {
    let world = saved();
    let restored = restore(&world, &["-v", "--json"]).ok();
    assert_ne!(report(&restored)["items"]["restored"], 0);
    let text = &restored.stderr;
    for expected in [
        "debug: root_helper: start the root helper program=/usr/local/bin/storecache by_sudo=true",
        "debug: root_helper: chose the rights requester=",
        "info: root_helper: begin a phase phase=commit",
        "debug: store: took a lock lock=/nix/var/nix mode=Exclusive",
        "debug: store: took a lock lock=/nix/var/nix/gc.lock mode=Shared",
        "debug: store: took a lock lock=/nix/var/nix/db/big-lock mode=Exclusive",
        "debug: root_helper: the guardian found the daemon daemon=",
        "debug: daemon: found the process that listens listener=",
        "debug: root_helper: ordered the guardian order=stop",
        "debug: root_helper: ordered the guardian order=start",
        "info: root_helper: the items are valid items=",
    ] {
        assert!(text.contains(expected), "{expected}: {restored}");
    }
    assert!(!text.contains("\ntrace: "), "{restored}");
    assert!(!text.contains("dropped"), "{restored}");

    // Without the flag, nothing is shown.
    world.wipe_store();
    world.start_daemon();
    let quiet = restore(&world, &["--quiet"]).ok();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn failed_restore_prints_events_of_the_root_helper_once() {
    let world = saved();
    // Another restore holds the lock.
    let holder = world.command(["flock", "/nix/var/nix", "sleep", "1000"]).spawn();
    world.command(["sh", "-c", "until ! flock -n /nix/var/nix true; do :; done"]).ok();
    let failed = restore(&world, &["--lock-timeout", "1"]).fails();
    drop(holder);
    assert_eq!(failed.code(), 1, "{failed}");
    for once in ["before the failure:", "debug: store: wait for a lock lock=/nix/var/nix mode="] {
        assert_eq!(failed.stderr.matches(once).count(), 1, "{once}: {failed}");
    }
    let [error] = failed.errors()[..] else { panic!("{failed}") };
    assert!(error.contains("the lock on /nix/var/nix is still held after 1 s"), "{failed}");
}

#[test]
fn confined_user_gets_events_of_the_root_helper() {
    let world = saved();
    fs::write(world.host("/etc/sudoers.d/runner"), RULE).unwrap();
    let restored = restore(&world, &["-vv"]).ok();
    assert!(restored.stderr.contains("everywhere=false"), "{restored}");
    assert!(restored.stderr.contains("trace: root_helper: received a frame"), "{restored}");
}
