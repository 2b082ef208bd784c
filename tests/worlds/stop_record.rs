//! Tests of the record of a stopped daemon: its location, its content, and how the next restore uses it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use crate::support::world_runs::{attempt, flags, report, root_helper_pid, save};
use crate::support::{Fixture, Role, Running, World, poll, procfs};
use rustix::process::{Signal, kill_process};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a world with a running daemon, whose store was saved and then wiped.
fn saved_and_wiped() -> World {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world
}

/// Starts a restore and waits until it has stopped the daemon and is blocked.
fn in_the_commit<'w>(world: &'w World, more: &[&str]) -> Running<'w> {
    let words = ["restore"].into_iter().chain(flags(world)).chain(more.iter().copied());
    let restore = world.storecache_as("runner", words).spawn();
    poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", restore.stderr())),
    });
    restore
}

/// Kills all processes of a run, the guardians first, so that they cannot start the daemon.
fn kill_all(world: &World, restore: Running) {
    let processes_in_namespace = procfs::processes_in_namespace(world.init()).into_iter();
    let guardians = processes_in_namespace.filter(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"storecache-guardian\0")
            || words.starts_with(b"storecache-backup-guardian\0")
    });
    let helper = root_helper_pid(world);
    for pid in guardians {
        kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    }
    kill_process(helper, Signal::KILL).unwrap();
    restore.wait(TIMEOUT).fails();
}

/// Returns the records in a directory.
fn records(world: &World, place: &str) -> Vec<String> {
    let entries = fs::read_dir(world.host(place)).into_iter().flatten().flatten();
    entries.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect()
}

#[test]
fn record_lies_where_root_alone_writes_and_names_no_command() {
    let world = saved_and_wiped();
    let database = world.hold_database();
    let restore = in_the_commit(&world, &[]);
    let place = fs::metadata(world.host("/run/storecache")).unwrap();
    assert_eq!((place.uid(), place.permissions().mode() & 0o7777), (0, 0o700));
    let [record] = &records(&world, "/run/storecache")[..] else {
        panic!("there must be one record")
    };
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    let store = fs::metadata(world.host("/nix/store")).unwrap();
    assert_eq!(record["store"], serde_json::json!([store.dev(), store.ino()]));
    assert_eq!(record["stopped"], "bare-process");
    let fields: Vec<_> = record.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["boot_id", "mount", "stopped", "store"]);
    drop(database);
    restore.wait(TIMEOUT).ok();
    assert_eq!(records(&world, "/run/storecache"), [""; 0], "the daemon is back");
    world.verify_store();
}

#[test]
fn record_goes_to_var_lib_where_run_cannot_be_used() {
    let world = saved_and_wiped();
    world.sh("rm -rf /run/storecache; touch /run/storecache");
    let database = world.hold_database();
    let restore = in_the_commit(&world, &[]);
    assert_eq!(records(&world, "/var/lib/storecache").len(), 1);
    kill_all(&world, restore);
    drop(database);
    // A bare process is not started from a record; the next restore reports that the daemon is stopped.
    let json = report(&attempt(&world, "runner", "restore", &["--dry-run"]).ok());
    let warnings = json["warnings"].to_string();
    assert!(warnings.contains("the command that started it is unknown"), "{json}");
    assert_eq!(world.daemon_pid(), None);
    world.start_daemon();
    let json = report(&attempt(&world, "runner", "restore", &[]).ok());
    assert!(json.get("warnings").is_none(), "{json}");
    assert_eq!(records(&world, "/var/lib/storecache"), [""; 0]);
    world.verify_store();
}

#[test]
fn record_of_a_users_command_starts_nothing() {
    let world = saved_and_wiped();
    let pid = world.daemon_pid().unwrap();
    let database = world.hold_database();
    let stop = format!("sudo kill {pid}");
    let start = "touch /tmp/first; sudo setsid --fork nix-daemon --daemon >/tmp/log 2>&1";
    let commands = ["--daemon", "command", "--daemon-stop", &stop, "--daemon-start", start];
    let restore = in_the_commit(&world, &commands);
    let record = records(&world, "/run/storecache").concat();
    assert!(record.contains("user-command") && !record.contains("touch"), "{record}");
    kill_all(&world, restore);
    drop(database);
    let report = report(&attempt(&world, "runner", "restore", &["--dry-run"]).ok());
    assert!(report["warnings"].to_string().contains("--daemon-stop"), "{report}");
    assert!(!world.host("/tmp/first").exists(), "no command of a record is run");
    // The next restore uses its own flags.
    let start = "touch /tmp/second; sudo setsid --fork nix-daemon --daemon >/tmp/log 2>&1";
    let commands = ["--daemon", "command", "--daemon-stop", "true", "--daemon-start", start];
    attempt(&world, "runner", "restore", &commands).ok();
    assert!(world.host("/tmp/second").exists() && !world.host("/tmp/first").exists());
    assert!(world.daemon_answers());
    world.verify_store();
}
