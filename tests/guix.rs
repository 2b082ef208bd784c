//! Tests of the main job on GNU Guix: 1.5 as installed, with an unprivileged daemon and a read-only store, and
//! daemons that run as root.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::runs::{assert_same, attempt, flags, picture, restore, run, save, staging};
use support::{Fixture, Role, World, corpus, poll, procfs};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_wiped_store_comes_back_whole_and_belongs_to_its_daemon() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = picture(&world);
        let saved = save(&world);
        assert_eq!(saved["items"]["saved"], before.references.len(), "{role:?}");
        world.wipe_store();
        assert!(world.valid_paths().is_empty());
        let restored = restore(&world);
        assert_eq!(restored["items"]["restored"], before.references.len(), "{role:?}");
        assert!(world.daemon_answers());
        assert_same(&before, &picture(&world));
        assert_eq!(staging(&world), [""; 0]);
        assert_eq!(
            world
                .sh(&format!(
                    "find /var/guix/db /var/guix/gc.lock /var/guix/gcroots/storecache ! -user {}",
                    role.owner()
                ))
                .stdout,
            "",
            "{role:?}"
        );
        world.builds_nothing_of(role, Fixture::Small);
        world.verify_store();
        world.nix(["guix", "gc"]).ok();
        assert_same(&before, &picture(&world));
    }
}

#[test]
fn the_daemon_can_delete_what_was_restored() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        save(&world);
        world.wipe_store();
        restore(&world);
        world.sh("rm -r /var/guix/gcroots/storecache");
        world.nix(["guix", "gc"]).ok();
        assert!(world.valid_paths().is_empty(), "{role:?}");
        let left = world.sh("ls /gnu/store").stdout;
        assert_eq!(left.trim(), "", "{role:?}: nothing stays on the disk either");
    }
}

#[test]
fn snapshots_travel_between_owners_and_versions() {
    let roads =
        [(Role::GuixRoot, Role::Guix), (Role::Guix, Role::GuixRoot), (Role::GuixOld, Role::Guix)];
    for (from, to) in roads {
        let saver = World::with_fixture(from, Fixture::Small);
        saver.start_daemon();
        let before = picture(&saver);
        save(&saver);
        let world = World::build(to).backend(saver.backend()).start();
        world.start_daemon();
        restore(&world);
        assert_eq!(world.references_of_all(), before.references, "{from:?} to {to:?}");
        assert_eq!(world.derivation_outputs(), before.outputs);
        let paths: Vec<String> = world.valid_paths().into_iter().collect();
        let strangers = format!("find {} ! -user {}", paths.join(" "), to.owner());
        assert_eq!(world.sh(&strangers).stdout, "", "{from:?} to {to:?}");
        world.verify_store();
    }
}

#[test]
fn as_installed_the_store_is_read_only_before_and_after() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    world.start_daemon();
    let before = picture(&world);
    save(&world);
    world.wipe_store();
    let read_only = || world.run(["sh", "-c", "touch /gnu/store/written 2>&1"]).fails();
    poll::until("the store to be mounted read-only", SOON, || {
        let mounts = world.sh("cat /proc/self/mountinfo").stdout;
        if mounts.contains(" /gnu/store ro") { Ok(()) } else { Err(mounts) }
    });
    assert!(read_only().stdout.contains("Read-only"));
    let restored = restore(&world);
    assert!(restored["daemon"].as_str().unwrap().contains("systemd has guix-daemon.service"));
    assert_same(&before, &picture(&world));
    assert!(read_only().stdout.contains("Read-only"));
    assert_eq!(world.ok(["systemctl", "is-active", "guix-daemon.service"]).stdout, "active\n");
    world.builds_nothing_of(Role::Guix, Fixture::Small);
    world.verify_store();
}

#[test]
fn a_collection_during_a_save_waits_until_all_is_packed() {
    let world = World::with_fixture(Role::Guix, Fixture::Full);
    world.start_daemon();
    let before = picture(&world);
    world.sh("rm -f /var/guix/gcroots/fixture");
    let saving = world.storecache_as("runner", ["save"].into_iter().chain(flags(&world))).spawn();
    // Testing the lock from here would disturb the save: wait for the file of the new entry instead.
    poll::until("the save to begin", SOON, || {
        let mut processes = procfs::companions(world.init()).into_iter();
        if processes.any(procfs::has_unnamed_file) { Ok(()) } else { Err("not yet") }
    });
    saving.signal(Signal::STOP);
    let collecting = world.blocked_collector();
    saving.signal(Signal::CONT);
    saving.wait(SOON).ok();
    collecting.wait(SOON).ok();
    world.wipe_store();
    restore(&world);
    assert_same(&before, &picture(&world));
    world.verify_store();
}

#[test]
fn a_collection_that_begins_during_staging_is_let_through() {
    let bare = World::build(Role::Guix).fixture(Fixture::Small);
    // As installed, the store is mounted over itself, so that state and store are on two mounts.
    for plan in [bare.clone(), bare.container()] {
        let world = plan.start();
        world.start_daemon();
        let before = picture(&world);
        save(&world);
        world.wipe_store();
        let words = ["restore"].into_iter().chain(flags(&world));
        let restoring = world.storecache_as("runner", words).spawn();
        let staged = || if staging(&world).is_empty() { Err("none") } else { Ok(()) };
        poll::until("staging", SOON, staged);
        restoring.signal(Signal::STOP);
        let collecting = world.blocked_collector();
        restoring.signal(Signal::CONT);
        restoring.wait(SOON).ok();
        // When the service of Guix stops, it also ends its workers.
        let collected = collecting.wait(SOON);
        assert!(collected.status.success() || world.is_container(), "{collected}");
        assert_same(&before, &picture(&world));
        assert_eq!(staging(&world), [""; 0]);
        world.nix(["guix", "gc"]).ok();
        assert_same(&before, &picture(&world));
        world.verify_store();
    }
}

#[test]
fn debris_of_guix_is_not_saved_and_the_version_is_asked_for() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let valid = world.valid_paths().len();
    let planted = corpus::debris(&world);
    let saved = run(&world, "runner", "save", &["--dry-run"]);
    assert_eq!(saved["items"]["saved"], valid);
    let words = ["save", "--store", "guix", "--backend", "dir:/cache", "--quiet"];
    world.storecache_as("runner", words).ok();
    let listed = world.sh("ls /cache; zstd -dc /cache/*.tar.zst | tar -t");
    assert!(listed.stdout.starts_with("storecache-guix-x86_64-linux-1.5.0."), "{listed}");
    for name in planted {
        assert!(!listed.stdout.contains(&format!("gnu/store/{name}")), "{name} was packed");
    }
}

#[test]
fn a_newer_schema_and_a_snapshot_of_nix_are_refused() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world.sh("printf 6 >/var/guix/db/schema");
    let refused = attempt(&world, "runner", "restore", &[]).fails();
    assert!(refused.stderr.contains("schema 6"), "{refused}");
    world.sh("printf 7 >/var/guix/db/schema");
    restore(&world);

    let nix = World::build(Role::Mid).backend(world.backend()).start();
    nix.start_daemon();
    let refused = attempt(&nix, "runner", "restore", &[]).fails();
    assert!(refused.stderr.contains("store kind guix"), "{refused}");
}
