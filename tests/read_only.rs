//! Tests of a store that is mounted read-only where storecache may not create a mount namespace: the unit of
//! the mount stops and starts with the daemon.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::runs::{assert_same, flags, picture, report, restore, save, staging};
use support::{Fixture, Output, Role, Running, World, corpus, poll};

const SOON: Duration = Duration::from_secs(60);
const MOUNT: &str = "gnu-store.mount";

/// Returns Guix as installed, with its store saved and wiped.
fn saved_and_wiped() -> World {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    save(&world);
    world.wipe_store();
    world
}

/// Starts a restore as root without the right to mount.
fn restore_without_mounting<'w>(world: &'w World, more: &[&str]) -> Running<'w> {
    let words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "storecache"];
    let words = words.into_iter().chain(["restore"]).chain(flags(world));
    world.command(words.chain(more.iter().copied())).spawn()
}

#[track_caller]
fn assert_as_installed(world: &World) {
    assert!(world.daemon_answers());
    // After a kill the guardian cleans up, once the daemon runs.
    poll::until("staging to be gone", SOON, || match staging(world) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    });
    for unit in ["guix-daemon.service", MOUNT] {
        let active = || world.run(["systemctl", "is-active", unit]).stdout;
        let settled = || if active() == "active\n" { Ok(()) } else { Err(active()) };
        poll::until(unit, SOON, settled);
    }
    assert!(is_read_only(world));
}

fn is_read_only(world: &World) -> bool {
    let touched = world.run(["touch", "/gnu/store/written"]);
    touched.stderr.contains("Read-only file system")
}

#[track_caller]
fn assert_untouched(world: &World, ended: &Output) {
    assert!(ended.stderr.contains("the store is as it was"), "{ended}");
    assert!(world.valid_paths().is_empty());
    assert!(world.store_listing().iter().all(|name| name.starts_with('.')));
}

/// Holds the commit at the beginning of its transaction, when all units are stopped.
fn hold_database(world: &World) -> Running<'_> {
    let holder = world.command(["sqlite3", "/var/guix/db/db.sqlite"]);
    let holder = holder.input("begin immediate;\n.print held\n.shell sleep 1000\n").spawn();
    poll::until("the database to be held", SOON, || {
        if holder.stdout().contains("held") { Ok(()) } else { Err(holder.stderr()) }
    });
    holder
}

fn mount_is_away(world: &World) -> bool {
    world.run(["systemctl", "is-active", MOUNT]).stdout == "inactive\n"
}

#[test]
fn the_unit_of_the_mount_stops_for_the_commit_and_comes_back() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = picture(&world);
    save(&world);
    world.wipe_store();
    let restoring = restore_without_mounting(&world, &["--json"]);
    poll::until("staging", SOON, || if staging(&world).is_empty() { Err("none") } else { Ok(()) });
    restoring.signal(Signal::STOP);
    assert!(is_read_only(&world), "everything slow happens before");
    restoring.signal(Signal::CONT);
    let restored = restoring.wait(SOON).ok();
    assert!(restored.stdout.contains("gnu-store.mount"), "{restored}");
    assert_as_installed(&world);
    assert_same(&before, &picture(&world));
    world.builds_nothing_of(Role::Guix, Fixture::Small);
    world.verify_store();
}

#[test]
fn a_delta_comes_whole_and_so_does_the_part_of_it_that_lacks() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let base = save(&world);
    world.add_texts("added", 3);
    let delta = save(&world);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let whole = picture(&world);
    for mounting in [true, false] {
        for part in [false, true] {
            let what = format!("mounting: {mounting}, a part: {part}");
            if part {
                let mut kept = corpus::leaves(&world);
                kept.retain(|path| !path.contains("-added"));
                let gone = corpus::keep_only(&world, &kept);
                assert!(gone.len() > 3 && !world.valid_paths().is_empty(), "{what}: {gone:?}");
            } else {
                world.wipe_store();
            }
            assert!(is_read_only(&world), "{what}");
            let told = match mounting {
                true => restore(&world),
                false => report(&restore_without_mounting(&world, &["--json"]).wait(SOON).ok()),
            };
            assert_eq!(told["entry"], delta["entry"], "{what}: {told}");
            assert_as_installed(&world);
            assert_same(&whole, &picture(&world));
            world.verify_store();
        }
    }
    world.builds_nothing_of(Role::Guix, Fixture::Small);
}

#[test]
fn the_mount_is_back_when_the_commit_fails_or_is_killed() {
    let world = saved_and_wiped();

    let holder = hold_database(&world);
    let restoring = restore_without_mounting(&world, &[]);
    let away = || if mount_is_away(&world) { Ok(()) } else { Err(restoring.stderr()) };
    poll::until("the mount to be away", SOON, away);
    restoring.signal(Signal::INT);
    let ended = restoring.wait(SOON).fails();
    drop(holder);
    world.sh("pkill -x sleep || true");
    assert!(ended.stderr.contains("canceled"), "{ended}");
    assert_as_installed(&world);
    assert_untouched(&world, &ended);

    let holder = hold_database(&world);
    let restoring = restore_without_mounting(&world, &[]);
    poll::until("the mount to be away", SOON, || {
        if mount_is_away(&world) { Ok(()) } else { Err(restoring.stderr()) }
    });
    world.sh("pkill --signal KILL --full '^(/usr/local/bin/)?storecache privileged$'");
    poll::until("the daemon to listen", SOON, || world.daemon_pid().ok_or("it does not"));
    drop(holder);
    world.sh("pkill -x sleep || true");
    let ended = restoring.wait(SOON).fails();
    assert_as_installed(&world);
    assert_untouched(&world, &ended);

    restore(&world);
    assert_as_installed(&world);
    world.verify_store();
}

#[test]
fn a_store_that_somebody_works_in_is_no_hindrance_to_the_daemon() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = picture(&world);
    save(&world);
    for mounting in [true, false] {
        world.wipe_store();
        // Now systemd cannot unmount the store, and the service of Guix does not check that it did.
        let busy = world.spawn(["sh", "-c", "cd /gnu/store && echo there && sleep 1000"]);
        poll::until("the shell to be there", SOON, || {
            if busy.stdout().contains("there") { Ok(()) } else { Err(busy.stderr()) }
        });
        let words = ["restore"].into_iter().chain(flags(&world));
        let restoring = match mounting {
            true => world.storecache_as("runner", words).spawn(),
            false => restore_without_mounting(&world, &[]),
        };
        restoring.wait(SOON).ok();
        assert!(is_read_only(&world), "as soon as the restore is done");
        assert_as_installed(&world);
        assert_same(&before, &picture(&world));
        world.builds_nothing_of(Role::Guix, Fixture::Small);
        world.sh("pkill -x sleep");
    }
    world.verify_store();
}
