//! `doctor`: what is wrong with a store is named, with what mends it.

mod support;

use serde_json::Value;
use support::runs::report;
use support::{Fixture, Role, World};

/// The rows by check, and the exit code.
fn examine(world: &World, user: &str) -> (i32, Value) {
    let words = ["doctor", "--store", world.flavour().name(), "--json"];
    let output = world.storecache_as(user, words).run();
    (output.code(), report(&output))
}

#[track_caller]
fn row<'a>(report: &'a Value, check: &str) -> &'a Value {
    let rows = report["checks"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))
}

/// Takes a socket and answers nobody.
const DEAF: &str = "import os, socket, time
s = socket.socket(socket.AF_UNIX)
path = os.environ['SOCKET']
os.path.exists(path) and os.unlink(path)
s.bind(path)
s.listen()
time.sleep(1000)";

fn socket_of(world: &World) -> String {
    format!("{}/daemon-socket/socket", world.state())
}

#[test]
fn a_store_as_installed_is_all_green() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let (code, report) = examine(&world, "runner");
    assert_eq!((code, &report["worst"]), (0, &Value::from("green")), "{report}");
    assert!(row(&report, "mount")["found"].as_str().unwrap().contains("namespace of its own"));
    assert!(row(&report, "daemon")["found"].as_str().unwrap().contains("guix-daemon.service"));

    let told = world.storecache_as("runner", ["doctor", "--store", "guix"]).run().ok();
    assert!(told.stdout.contains("green   socket    answers in "), "{told}");
    let words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "storecache"];
    let told = world.ok(words.into_iter().chain(["doctor", "--store", "guix"]));
    assert!(told.stdout.contains("a restore stops gnu-store.mount meanwhile"), "{told}");
}

#[test]
fn what_is_wrong_is_red_and_says_what_mends_it() {
    for role in [Role::Guix, Role::Old] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        assert_eq!(examine(&world, "runner").0, 0);

        let paths = world.valid_paths();
        let named = |name: &str| paths.iter().find(|path| path.ends_with(name)).unwrap().clone();
        let (lost, strange) = (named("-leaf"), named("-names"));
        world.sh(&format!("mv {lost} /tmp/lost; chown -h nosudo {strange}"));
        let holder = match role {
            Role::Guix => {
                "python3 -c 'import fcntl, time; \
                f = open(\"/var/guix/gc.lock\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_SH); \
                print(\"held\", flush=True); time.sleep(1000)'"
            }
            _ => "flock --shared /nix/var/nix/gc.lock sh -c 'echo held; sleep 1000'",
        };
        let holder = world.command(["sh", "-c", holder]).spawn();
        let held = || if holder.stdout().contains("held") { Ok(()) } else { Err(holder.stderr()) };
        support::poll::until("the lock to be held", std::time::Duration::from_secs(20), held);
        let (code, report) = examine(&world, "runner");
        assert_eq!((code, &report["worst"]), (1, &Value::from("red")));
        let base = |path: &str| path[world.store().len() + 1..].to_owned();
        for (check, light, names) in [
            ("database", "red", base(&lost)),
            ("owners", "red", base(&strange)),
            ("locks", "yellow", "gc.lock".to_owned()),
        ] {
            let row = row(&report, check);
            assert_eq!(row["light"], light, "{report}");
            assert!(row["found"].as_str().unwrap().contains(&names), "{report}");
            assert!(row["fix"].as_str().is_some(), "{report}");
        }
        drop(holder);
        world.sh("pkill -f '[s]leep.1000' || true");

        // What it says mends it.
        world.sh(row(&report, "owners")["fix"].as_str().unwrap());
        world.sh(&format!("mv /tmp/lost {lost}"));
        world.stop_daemon();
        let (code, report) = examine(&world, "runner");
        assert_eq!(code, 0, "a store may be used without a daemon: {report}");
        assert_eq!(row(&report, "owners")["light"], "green", "{report}");
        assert_eq!(row(&report, "database")["light"], "green", "{report}");
        assert_eq!(row(&report, "daemon")["light"], "yellow", "{report}");
        assert_eq!(row(&report, "socket")["light"], "yellow", "{report}");

        // Something has the socket and is no daemon.
        let deaf = world.command(["python3", "-c", DEAF]).env("SOCKET", socket_of(&world)).spawn();
        let listens = || world.daemon_pid().ok_or_else(|| deaf.stderr());
        support::poll::until("the socket to be taken", std::time::Duration::from_secs(20), listens);
        let (code, report) = examine(&world, "runner");
        assert_eq!((code, &row(&report, "socket")["light"]), (1, &Value::from("red")), "{report}");
    }
}

#[test]
fn without_root_there_are_fewer_rows_and_it_says_which() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let (code, report) = examine(&world, "nosudo");
    assert_eq!(code, 1);
    assert_eq!(row(&report, "root")["light"], "red");
    assert!(row(&report, "root")["found"].as_str().unwrap().contains("sudo refused"));
    assert!(row(&report, "skipped")["found"].as_str().unwrap().contains("database"));
    assert_eq!(row(&report, "socket")["light"], "green");
}

#[test]
fn a_daemon_that_runs_another_file_than_the_installed_one_is_named() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let pid = world.daemon_pid().unwrap();
    let program = world.sh(&format!("readlink /proc/{pid}/exe")).stdout;
    let program = program.trim();
    world.sh(&format!("cp {program} /tmp/upgraded && mv /tmp/upgraded {program}"));
    let (code, report) = examine(&world, "runner");
    assert_eq!((code, &row(&report, "program")["light"]), (0, &Value::from("yellow")), "{report}");
    let found = row(&report, "program")["found"].as_str().unwrap();
    assert!(found.contains(&pid.to_string()) && found.contains(program), "{found}");
}
