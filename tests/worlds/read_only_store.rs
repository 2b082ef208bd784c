//! Tests of a store that is mounted read-only where storecache may not create a mount namespace: the unit of
//! the mount stops and starts with the daemon.

use std::time::Duration;

use crate::support::world_runs::{
    assert_same, flags, record_state, report, restore, save, staging,
};
use crate::support::{Fixture, Output, Role, Running, World, poll, store_content};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(60);
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
    poll::until("staging to be gone", TIMEOUT, || match staging(world) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    });
    for unit in ["guix-daemon.service", MOUNT] {
        let active = || world.run(["systemctl", "is-active", unit]).stdout;
        let settled = || if active() == "active\n" { Ok(()) } else { Err(active()) };
        poll::until(unit, TIMEOUT, settled);
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
    poll::until("the database to be held", TIMEOUT, || {
        if holder.stdout().contains("held") { Ok(()) } else { Err(holder.stderr()) }
    });
    holder
}

fn mount_is_inactive(world: &World) -> bool {
    world.run(["systemctl", "is-active", MOUNT]).stdout == "inactive\n"
}

#[test]
fn mount_unit_is_stopped_for_the_commit_and_restarted() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    let restoring = restore_without_mounting(&world, &["--json"]);
    poll::until(
        "staging",
        TIMEOUT,
        || if staging(&world).is_empty() { Err("none") } else { Ok(()) },
    );
    restoring.signal(Signal::STOP);
    assert!(is_read_only(&world), "everything slow happens before");
    restoring.signal(Signal::CONT);
    let restored = restoring.wait(TIMEOUT).ok();
    assert!(restored.stdout.contains("gnu-store.mount"), "{restored}");
    assert_as_installed(&world);
    assert_same(&before, &record_state(&world));
    world.assert_nothing_to_build(Role::Guix, Fixture::Small);
    world.verify_store();
}

#[test]
fn delta_is_restored_in_full_and_in_part() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let base = save(&world);
    world.add_texts("added", 3);
    let delta = save(&world);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let whole = record_state(&world);
    for mounting in [true, false] {
        for part in [false, true] {
            let what = format!("mounting: {mounting}, a part: {part}");
            if part {
                let mut kept = store_content::leaves(&world);
                kept.retain(|path| !path.contains("-added"));
                let gone = store_content::keep_only(&world, &kept);
                assert!(gone.len() > 3 && !world.valid_paths().is_empty(), "{what}: {gone:?}");
            } else {
                world.wipe_store();
            }
            assert!(is_read_only(&world), "{what}");
            let json = match mounting {
                true => restore(&world),
                false => report(&restore_without_mounting(&world, &["--json"]).wait(TIMEOUT).ok()),
            };
            assert_eq!(json["entry"], delta["entry"], "{what}: {json}");
            assert_as_installed(&world);
            assert_same(&whole, &record_state(&world));
            world.verify_store();
        }
    }
    world.assert_nothing_to_build(Role::Guix, Fixture::Small);
}

#[test]
fn mount_is_restored_after_a_failed_or_killed_commit() {
    let world = saved_and_wiped();

    let holder = hold_database(&world);
    let restoring = restore_without_mounting(&world, &[]);
    let away = || if mount_is_inactive(&world) { Ok(()) } else { Err(restoring.stderr()) };
    poll::until("the mount to be away", TIMEOUT, away);
    restoring.signal(Signal::INT);
    let ended = restoring.wait(TIMEOUT).fails();
    drop(holder);
    world.sh("pkill -x sleep || true");
    assert!(ended.stderr.contains("canceled"), "{ended}");
    assert_as_installed(&world);
    assert_untouched(&world, &ended);

    let holder = hold_database(&world);
    let restoring = restore_without_mounting(&world, &[]);
    poll::until("the mount to be away", TIMEOUT, || {
        if mount_is_inactive(&world) { Ok(()) } else { Err(restoring.stderr()) }
    });
    world.sh("pkill --signal KILL --full '^(/usr/local/bin/)?storecache privileged$'");
    poll::until("the daemon to listen", TIMEOUT, || world.daemon_pid().ok_or("no process listens"));
    drop(holder);
    world.sh("pkill -x sleep || true");
    let ended = restoring.wait(TIMEOUT).fails();
    assert_as_installed(&world);
    assert_untouched(&world, &ended);

    restore(&world);
    assert_as_installed(&world);
    world.verify_store();
}

#[test]
fn restore_succeeds_while_a_process_uses_the_store() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = record_state(&world);
    save(&world);
    for mounting in [true, false] {
        world.wipe_store();
        // Now systemd cannot unmount the store, and the service of Guix does not check that it did.
        let busy = world.spawn(["sh", "-c", "cd /gnu/store && echo there && sleep 1000"]);
        poll::until("the shell to be there", TIMEOUT, || {
            if busy.stdout().contains("there") { Ok(()) } else { Err(busy.stderr()) }
        });
        let words = ["restore"].into_iter().chain(flags(&world));
        let restoring = match mounting {
            true => world.storecache_as("runner", words).spawn(),
            false => restore_without_mounting(&world, &[]),
        };
        restoring.wait(TIMEOUT).ok();
        assert!(is_read_only(&world), "as soon as the restore is done");
        assert_as_installed(&world);
        assert_same(&before, &record_state(&world));
        world.assert_nothing_to_build(Role::Guix, Fixture::Small);
        world.sh("pkill -x sleep");
    }
    world.verify_store();
}
