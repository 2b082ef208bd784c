//! The complete messages of typical failures on a real store, as snapshots.
//!
//! Failures that need no store are in `tests/fast/failure_messages.rs`.

use crate::support::message_log::MessageLog;
use crate::support::world_runs::save;
use crate::support::{Fixture, Output, Role, World};

/// Runs storecache as a user of the world, with messages for people. The entry of the world has the key `test`.
fn run(world: &World, user: &str, verb: &str, more: &[&str]) -> Output {
    let key = if more.contains(&"--key") { &[][..] } else { &["--key", "test"] };
    let place = ["--store", "nix", "--backend", "dir:/cache"];
    world.storecache_as(user, [&[verb][..], &place, key, more].concat()).run()
}

/// A world with a Nix store, a daemon and one entry.
fn saved() -> World {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    world
}

#[test]
fn user_without_sudo() {
    let world = saved();
    let mut log = MessageLog::new();
    for verb in ["save", "restore"] {
        log.add(verb, &run(&world, "nosudo", verb, &[]));
    }
    let json = run(&world, "nosudo", "save", &["--json"]);
    log.add_json("save --json", &json);
    insta::assert_snapshot!(log.text());
}

#[test]
fn daemon_that_is_not_found() {
    let world = saved();
    world.wipe_store();
    world.stop_daemon();
    let mut log = MessageLog::new();
    for daemon in ["process", "systemd", "shepherd"] {
        let said = run(&world, "root", "restore", &["--daemon", daemon]);
        log.add(&format!("restore --daemon {daemon}"), &said);
    }
    insta::assert_snapshot!(log.text());
}

#[test]
fn disk_that_is_too_small() {
    let world = saved();
    world.wipe_store();
    world.sh("mount -t tmpfs -o size=900m,nr_inodes=100 tmpfs /nix/store");
    let mut log = MessageLog::new();
    log.add("restore", &run(&world, "runner", "restore", &[]));
    insta::assert_snapshot!(log.text());
}

#[test]
fn snapshot_of_another_store() {
    let world = saved();
    let plain =
        ["--store", "plain", "--path", "/etc/sudoers.d", "--backend", "dir:/cache", "--key", "p"];
    world.storecache([&["save"][..], &plain].concat()).ok();
    let mut log = MessageLog::new();
    log.add("restore", &run(&world, "runner", "restore", &["--key", "p"]));
    log.add("save --roots", &run(&world, "runner", "save", &["--roots", "no-such-item"]));
    insta::assert_snapshot!(log.text());
}
