//! Tests of runs under systemd: they report their activity to systemd, which restarts runs without activity and
//! leaves slow runs alone. A machine with the units of docs/nightly.md runs this way.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::support::missing_item::MissingItemWorld;
use crate::support::world_runs::{NIX_FLAGS, assert_same, record_state, root_helper_pid};
use crate::support::{Fixture, Role, World, poll, procfs};
use rustix::process::{Pid, Signal, kill_process};

const TIMEOUT: Duration = Duration::from_secs(90);

/// Returns a machine with systemd, whose store is missing one item of its snapshot.
fn machine() -> MissingItemWorld {
    MissingItemWorld::new(World::build(Role::Old).fixture(Fixture::Small).container().start())
}

/// Starts a run as a unit of that name with `Type=notify`, and waits until it is ready.
#[track_caller]
fn start(world: &World, name: &str, user: &str, verb: &str, more: &[&str]) -> String {
    let unit_name = format!("{name}.service");
    let user = format!("User={user}");
    let unit = ["systemd-run", "--quiet", "--unit", &unit_name, "-p", "Type=notify", "-p", &user];
    let watched = ["-p", "WatchdogSec=2", "-p", "Restart=on-failure", "-p", "RestartSec=1"];
    let words = unit.into_iter().chain(watched).chain(["storecache", verb]).chain(NIX_FLAGS);
    world.ok(words.chain(more.iter().copied()));
    unit_name
}

fn property(world: &World, unit: &str, name: &str) -> String {
    let words = ["systemctl", "show", "--value", &format!("--property={name}"), unit];
    world.ok(words).stdout.trim().to_owned()
}

#[track_caller]
fn wait_for_status(world: &World, unit: &str, text: &str) {
    poll::until(&format!("the status to say {text:?}"), TIMEOUT, || {
        let status = property(world, unit, "StatusText");
        if status.contains(text) {
            Ok(())
        } else {
            Err(format!("{status}\n{}", journal(world, unit)))
        }
    });
}

fn journal(world: &World, unit: &str) -> String {
    world.run(["journalctl", "--no-pager", "--unit", unit]).stdout
}

/// Waits until a run succeeds, and returns the number of restarts before.
#[track_caller]
fn wait_for_success(world: &World, unit: &str) -> usize {
    let said = poll::until("the run to be done", TIMEOUT, || {
        let journal = journal(world, unit);
        match journal.contains("Deactivated successfully") {
            true => Ok(journal),
            false => Err(journal),
        }
    });
    said.matches("Scheduled restart job").count()
}

/// Returns the process that systemd started, by its pid as the test process sees it.
fn main_process(world: &World, unit: &str) -> Pid {
    let inner: u32 = property(world, unit, "MainPID").parse().unwrap();
    let is_it = |pid: &u32| procfs::pids(*pid).and_then(|mut pids| pids.pop()) == Some(inner);
    let found =
        procfs::processes_in_namespace(world.init()).into_iter().find(is_it).expect("it runs");
    Pid::from_raw(found as i32).unwrap()
}

#[test]
fn run_notifies_systemd_of_readiness_and_status() {
    let lacking = machine();
    let world = &lacking.world;
    let lock = world.hold_big_lock();
    // `systemd-run` returns when the run has reported that it is ready.
    let unit = &start(world, "first", "runner", "restore", &[]);
    assert_eq!(property(world, unit, "ActiveState"), "active");
    wait_for_status(world, unit, "restore: commit: ");
    wait_for_status(world, unit, "big-lock is held by");
    drop(lock);
    assert_eq!(wait_for_success(world, unit), 0);
    lacking.assert_restored();

    let lock = File::open(world.host("/nix/var/nix/gc.lock")).unwrap();
    lock.lock().unwrap();
    let unit = &start(world, "second", "root", "save", &["--full"]);
    wait_for_status(world, unit, "save: freeze: ");
    wait_for_status(world, unit, "gc.lock is held by");
    drop(lock);
    assert_eq!(wait_for_success(world, unit), 0);
    assert_eq!(fs::read_dir(world.backend().host_path()).unwrap().count(), 2);
}

#[test]
fn watchdog_restarts_a_run_that_hangs_in_its_commit() {
    let lacking = machine();
    let world = &lacking.world;
    // The process that hangs, and the user of the run.
    for (half, user) in [("own", "root"), ("own", "runner"), ("root", "runner")] {
        let lock = world.hold_big_lock();
        let unit = &start(world, &format!("{user}-{half}"), user, "restore", &[]);
        wait_for_status(world, unit, "big-lock is held by");
        let hung = if half == "root" { root_helper_pid(world) } else { main_process(world, unit) };
        kill_process(hung, Signal::STOP).unwrap();
        let said = poll::until("systemd to have started it again", TIMEOUT, || {
            let journal = journal(world, unit);
            match journal.contains("Scheduled restart job") {
                true => Ok(journal),
                false => Err(journal),
            }
        });
        assert!(said.contains("Watchdog timeout"), "{half}: {said}");
        drop(lock);
        assert!(wait_for_success(world, unit) > 0);
        lacking.assert_restored();
        lacking.delete_item_again();
    }
}

#[test]
fn watchdog_does_not_kill_a_slow_active_run() {
    let lacking = machine();
    let world = &lacking.world;
    world.sh("mkdir -p /run/systemd/system/nix-daemon.service.d
        printf '[Service]\nExecStop=/bin/sleep 5\n' >/run/systemd/system/nix-daemon.service.d/stop.conf
        systemctl daemon-reload");
    assert!(world.daemon_answers(), "its service runs");
    let unit = &start(world, "slow", "runner", "restore", &[]);
    wait_for_status(world, unit, "nix-daemon.service is deactivating");
    assert_eq!(wait_for_success(world, unit), 0);
    lacking.assert_restored();
}

#[test]
fn units_of_the_nightly_guide_are_valid_and_save() {
    let MissingItemWorld { world, .. } = &machine();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nightly.md");
    let text = fs::read_to_string(path).unwrap();
    let mut units = Vec::new();
    for part in text.split("`/etc/systemd/system/").skip(1) {
        let (name, rest) = part.split_once('`').unwrap();
        let unit = rest.split("```").nth(1).unwrap().strip_prefix("ini\n").unwrap();
        let file = format!("/etc/systemd/system/{name}");
        fs::write(world.host(&file), unit).unwrap();
        let checked = world.ok(["systemd-analyze", "verify", &file]);
        assert_eq!(checked.stderr.trim(), "", "{checked}");
        units.push(name.to_owned());
    }
    assert_eq!(units, ["storecache-nightly.service", "storecache-nightly.timer"]);
    world.ok(["systemctl", "daemon-reload"]);
    world.ok(["systemctl", "enable", "--now", &units[1]]);
    assert_ne!(property(world, &units[1], "NextElapseUSecRealtime"), "");
    world.ok(["systemctl", "start", &units[0]]);
    assert_eq!(wait_for_success(world, &units[0]), 0);
    let before = record_state(world);
    world.wipe_store();
    let backend = ["--backend", "dir:/var/cache/storecache", "--key-prefix", "nightly"];
    let words = ["restore", "--store", "nix"].into_iter().chain(backend);
    world.storecache_as("runner", words).ok();
    assert_same(&before, &record_state(world));
    world.verify_store();
}
