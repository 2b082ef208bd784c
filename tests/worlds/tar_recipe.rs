//! Tests of five ways in which the usual recipe loses a store, and of storecache in the same situations. The
//! recipe, a cache action and two steps with `sudo tar`, is in `support/recipe.rs`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::pause_at_open::PauseAtOpen;
use crate::support::poll;
use crate::support::world_runs::{StoreState, assert_same, record_state, restore, save};
use crate::support::{Backend, Fixture, Role, World};
use rusqlite::Connection;

/// Returns a store that both have saved, and its state.
fn saved_by_both(role: Role) -> (Backend, StoreState) {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    // A reader of the database beside a worker leaves an empty log behind, and a log in the recipe's archive
    // would replace the one of the next job.
    wait_for_workers_to_delete_the_log(&world);
    let before = record_state(&world);
    assert!(!has_log(&world));
    world.recipe_save().ok();
    save(&world);
    (world.backend().clone(), before)
}

fn has_log(world: &World) -> bool {
    world.host("/var/guix/db/db.sqlite-wal").exists()
}

fn wait_for_workers_to_delete_the_log(world: &World) {
    poll::until("the last worker to end", Duration::from_secs(60), || {
        if has_log(world) { Err("a write-ahead log") } else { Ok(()) }
    });
    world.wait_until_idle();
}

fn fresh(role: Role, backend: &Backend) -> World {
    let world = World::build(role).backend(backend).start();
    world.start_daemon();
    world.wait_until_idle();
    world
}

fn is_on_disk(world: &World, path: &str) -> bool {
    world.host(path).symlink_metadata().is_ok()
}

fn items_on_disk(world: &World) -> Vec<String> {
    world.store_listing().into_iter().filter(|name| !name.starts_with('.')).collect()
}

fn integrity(world: &World) -> Result<String, rusqlite::Error> {
    let database = world.database().expect("there is a database");
    database.query_row("pragma integrity_check(1)", [], |row| row.get(0))
}

#[test]
fn read_only_store_breaks_the_recipe_but_not_storecache() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = record_state(&world);
    save(&world);
    world.recipe_save().ok();
    world.wipe_store();
    let service = || world.run(["systemctl", "is-active", "guix-daemon.service"]).stdout;
    let touch = || world.run(["touch", "/gnu/store/mine"]);

    let failed = world.recipe_restore().fails();
    assert!(failed.stderr.contains("Read-only file system"), "{failed}");
    assert_eq!(service(), "inactive\n", "the step ended before it started the daemon");
    assert_eq!(world.valid_paths().len(), before.references.len());
    assert_eq!(items_on_disk(&world), [""; 0], "its rows are there, and no item");

    world.wipe_store();
    world.start_daemon();
    restore(&world);
    assert_eq!(service(), "active\n");
    assert_same(&before, &record_state(&world));
    // The daemon runs already; its service restores the mount a little later.
    world.start_daemon();
    assert!(touch().fails().stderr.contains("Read-only file system"));
    world.verify_store();
}

#[test]
fn concurrent_writer_corrupts_the_recipe_but_not_storecache() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    world.add_texts("old", 100);
    world.wait_until_idle();
    // While a client is connected, new rows are in the write-ahead log alone.
    let client = world.connected_client();
    let new = world.add_texts("new", 1);
    let before = record_state(&world);
    let database = world.host("/var/guix/db/db.sqlite");
    let log = world.host("/var/guix/db/db.sqlite-wal");
    assert!(log.metadata().unwrap().len() > 0);

    // The writer works between the reads of the two files. Which file is read first depends on the file system,
    // and does not matter.
    let meanwhile = |program, run: &(dyn Fn() + Sync), later: [&str; 2]| {
        thread::scope(|threads| {
            let gate = PauseAtOpen::hold(program, &[&database, &log]);
            let running = threads.spawn(run);
            gate.wait();
            gate.pass();
            gate.wait();
            world.add_texts(later[0], 100);
            checkpoint(&database);
            world.add_texts(later[1], 1);
            drop(gate);
            running.join().unwrap();
        });
    };
    meanwhile("tar", &|| assert_eq!(world.recipe_save().ok().stderr, ""), ["later", "last"]);
    meanwhile("storecache", &|| drop(save(&world)), ["even-later", "very-last"]);
    drop(client);

    let theirs = fresh(Role::Guix, world.backend());
    theirs.recipe_restore().ok();
    let whole = integrity(&theirs).is_ok_and(|verdict| verdict == "ok");
    let lacks = |path: &String| !theirs.valid_paths().contains(path);
    assert!(!whole || before.references.keys().any(lacks));

    let ours = fresh(Role::Guix, world.backend());
    restore(&ours);
    assert_eq!(integrity(&ours).unwrap(), "ok");
    let after = ours.references_of_all();
    assert!(new.iter().all(|path| after.contains_key(path)));
    assert!(before.references.iter().all(|(path, references)| after[path] == *references));
    ours.verify_store();
}

/// Does what the daemon does itself when its write-ahead log has grown large.
fn checkpoint(database: &Path) {
    let database = Connection::open(database).unwrap();
    let (_, pages, moved): (i64, i64, i64) = database
        .query_row("pragma wal_checkpoint(passive)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert!(pages > 0 && pages == moved);
}

#[test]
fn recipe_loses_rows_of_the_installer_but_storecache_does_not() {
    let (backend, before) = saved_by_both(Role::Guix);
    let installed = || {
        let world = fresh(Role::Guix, &backend);
        let path = world.add_texts("installed", 1).remove(0);
        world.sh(&format!("ln -s {path} /var/guix/gcroots/installed"));
        world.wait_until_idle();
        (world, path)
    };

    let (theirs, path) = installed();
    theirs.recipe_restore().ok();
    assert!(is_on_disk(&theirs, &path) && !theirs.valid_paths().contains(&path));
    theirs.ok(["guix", "gc"]);
    assert!(!is_on_disk(&theirs, &path), "an item with a root is deleted");

    let (ours, path) = installed();
    restore(&ours);
    ours.ok(["guix", "gc"]);
    let mut expected = before.references.clone();
    expected.insert(path, [].into());
    assert_eq!(ours.references_of_all(), expected);
    ours.verify_store();
}

#[test]
fn stale_wal_hides_rows_of_the_recipe_but_not_of_storecache() {
    // In this version, a worker that is stopped with the service leaves its log behind.
    let (backend, before) = saved_by_both(Role::GuixOld);
    let interrupted = || {
        let world = World::build(Role::GuixOld).backend(&backend).start();
        world.install_fake_systemctl();
        world.sh("systemctl start guix-daemon.service");
        let client = world.connected_client();
        let path = world.add_texts("installed", 1).remove(0);
        world.sh("systemctl stop guix-daemon.service");
        drop(client);
        let log = world.host("/var/guix/db/db.sqlite-wal").metadata();
        log.is_ok_and(|log| log.len() > 0).then_some((world, path))
    };
    // A worker may also end in time to empty its log.
    let interrupted = || (0..5).find_map(|_| interrupted()).expect("a log that is left behind");

    let (theirs, path) = interrupted();
    theirs.recipe_restore().ok();
    assert_eq!(integrity(&theirs).unwrap(), "ok");
    assert_eq!(theirs.valid_paths(), [path].into(), "the restored rows are lost without an error");
    theirs.verify_store();

    let (ours, path) = interrupted();
    ours.sh("systemctl start guix-daemon.service");
    restore(&ours);
    assert_eq!(integrity(&ours).unwrap(), "ok");
    let mut expected = before.references.clone();
    expected.insert(path, [].into());
    assert_eq!(ours.references_of_all(), expected);
    ours.verify_store();
}

#[test]
fn gc_deletes_items_of_the_recipe_but_not_of_storecache() {
    let (backend, before) = saved_by_both(Role::Guix);

    let theirs = fresh(Role::Guix, &backend);
    theirs.recipe_restore().ok();
    assert_same(&before, &record_state(&theirs));
    theirs.ok(["guix", "gc"]);
    assert!(theirs.valid_paths().is_empty());
    assert_eq!(items_on_disk(&theirs), [""; 0]);

    let ours = fresh(Role::Guix, &backend);
    restore(&ours);
    ours.ok(["guix", "gc"]);
    assert_same(&before, &record_state(&ours));
    ours.verify_store();
}
