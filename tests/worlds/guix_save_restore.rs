//! Tests of the main job on GNU Guix: 1.5 as installed, with an unprivileged daemon and a read-only store, and
//! daemons that run as root.

use std::time::Duration;

use crate::support::world_runs::{
    assert_same, attempt, flags, record_state, restore, run, save, staging,
};
use crate::support::{Fixture, Role, World, poll, procfs, store_content};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn wiped_guix_store_is_restored_with_its_owner() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = record_state(&world);
        let saved = save(&world);
        assert_eq!(saved["items"]["saved"], before.references.len(), "{role:?}");
        world.wipe_store();
        assert!(world.valid_paths().is_empty());
        let restored = restore(&world);
        assert_eq!(restored["items"]["restored"], before.references.len(), "{role:?}");
        assert!(world.daemon_answers());
        assert_same(&before, &record_state(&world));
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
        world.assert_nothing_to_build(role, Fixture::Small);
        world.verify_store();
        world.nix(["guix", "gc"]).ok();
        assert_same(&before, &record_state(&world));
    }
}

#[test]
fn guix_daemon_can_delete_restored_items() {
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
fn guix_snapshots_restore_across_owners_and_versions() {
    let roads =
        [(Role::GuixRoot, Role::Guix), (Role::Guix, Role::GuixRoot), (Role::GuixOld, Role::Guix)];
    for (from, to) in roads {
        let saver = World::with_fixture(from, Fixture::Small);
        saver.start_daemon();
        let before = record_state(&saver);
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
fn installed_guix_store_stays_read_only_after_a_restore() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    let read_only = || world.run(["sh", "-c", "touch /gnu/store/written 2>&1"]).fails();
    poll::until("the store to be mounted read-only", TIMEOUT, || {
        let mounts = world.sh("cat /proc/self/mountinfo").stdout;
        if mounts.contains(" /gnu/store ro") { Ok(()) } else { Err(mounts) }
    });
    assert!(read_only().stdout.contains("Read-only"));
    let restored = restore(&world);
    assert!(restored["daemon"].as_str().unwrap().contains("systemd has guix-daemon.service"));
    assert_same(&before, &record_state(&world));
    assert!(read_only().stdout.contains("Read-only"));
    assert_eq!(world.ok(["systemctl", "is-active", "guix-daemon.service"]).stdout, "active\n");
    world.assert_nothing_to_build(Role::Guix, Fixture::Small);
    world.verify_store();
}

#[test]
fn gc_during_a_save_waits_until_all_is_packed() {
    let world = World::with_fixture(Role::Guix, Fixture::Full);
    world.start_daemon();
    let before = record_state(&world);
    world.sh("rm -f /var/guix/gcroots/fixture");
    let saving = world.storecache_as("runner", ["save"].into_iter().chain(flags(&world))).spawn();
    // Testing the lock from here would disturb the save: wait for the file of the new entry instead.
    poll::until("the save to begin", TIMEOUT, || {
        let mut processes = procfs::processes_in_namespace(world.init()).into_iter();
        if processes.any(procfs::has_unnamed_file) { Ok(()) } else { Err("not yet") }
    });
    saving.signal(Signal::STOP);
    let collecting = world.blocked_collector();
    saving.signal(Signal::CONT);
    saving.wait(TIMEOUT).ok();
    collecting.wait(TIMEOUT).ok();
    world.wipe_store();
    restore(&world);
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

#[test]
fn gc_during_staging_completes_and_keeps_restored_items() {
    let bare = World::build(Role::Guix).fixture(Fixture::Small);
    // As installed, the store is mounted over itself, so that state and store are on two mounts.
    for plan in [bare.clone(), bare.container()] {
        let world = plan.start();
        world.start_daemon();
        let before = record_state(&world);
        save(&world);
        world.wipe_store();
        let words = ["restore"].into_iter().chain(flags(&world));
        let restoring = world.storecache_as("runner", words).spawn();
        let staged = || if staging(&world).is_empty() { Err("none") } else { Ok(()) };
        poll::until("staging", TIMEOUT, staged);
        restoring.signal(Signal::STOP);
        let collecting = world.blocked_collector();
        restoring.signal(Signal::CONT);
        restoring.wait(TIMEOUT).ok();
        // When the service of Guix stops, it also ends its workers.
        let collected = collecting.wait(TIMEOUT);
        assert!(collected.status.success() || world.is_container(), "{collected}");
        assert_same(&before, &record_state(&world));
        assert_eq!(staging(&world), [""; 0]);
        world.nix(["guix", "gc"]).ok();
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}

#[test]
fn save_excludes_invalid_items_and_asks_guix_for_its_version() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let valid = world.valid_paths().len();
    let planted = store_content::add_unregistered_files(&world);
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
fn other_schema_and_other_store_kind_are_refused() {
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
