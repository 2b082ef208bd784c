//! Tests of `doctor`: it reports what is wrong with a store, and the command that repairs it.

use crate::support::cache_service::{CacheService, TOKEN, read_only_token};
use crate::support::object_server::{Fault, ObjectServer, SECRETS};
use crate::support::world_runs::{self, report};
use crate::support::{Fixture, Role, World, poll};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use storecache_backend::options::Service;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `doctor` and returns its exit code and its report.
#[track_caller]
fn run_doctor(world: &World, user: &str) -> (i32, Value) {
    run_doctor_with(world, user, &["--backend", "dir:/cache"], &[])
}

#[track_caller]
fn run_doctor_with(world: &World, user: &str, more: &[&str], set: &[(&str, &str)]) -> (i32, Value) {
    let words = ["doctor", "--store", world.package_manager().name(), "--json"];
    let run = world.storecache_as(user, words.into_iter().chain(more.iter().copied()));
    let run = set.iter().fold(run, |run, (name, value)| run.env(name, value));
    let output = run.run();
    let report = report(&output);
    assert_fixes_are_commands(world, &report);
    (output.code(), report)
}

/// Asserts that a shell accepts each proposed command, and that the command's program exists.
#[track_caller]
fn assert_fixes_are_commands(world: &World, report: &Value) {
    for row in report["checks"].as_array().unwrap() {
        let Some(fix) = row["fix"].as_str() else { continue };
        let said = format!("{}: {fix}", row["check"]);
        assert_eq!(world.run(["sh", "-n", "-c", fix]).code(), 0, "{said}");
        let program = fix.split(' ').next().unwrap();
        // The roots of the tests have no curl.
        let there = world.run(["sh", "-c", &format!("command -v {program}")]).code() == 0;
        assert!(there || program == "curl", "{said}");
    }
}

#[track_caller]
fn row<'a>(report: &'a Value, check: &str) -> &'a Value {
    let rows = report["checks"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))
}

/// Returns the names of all rows.
fn checks(report: &Value) -> Vec<&str> {
    let rows = report["checks"].as_array().unwrap().iter();
    rows.map(|row| row["check"].as_str().unwrap()).collect()
}

/// Asserts that a row has this light and these words, and returns its command.
#[track_caller]
fn assert_row(report: &Value, check: &str, light: &str, words: &[&str]) -> String {
    let row = row(report, check);
    assert_eq!(row["light"], light, "{check}: {report}");
    let found = row["found"].as_str().unwrap();
    for word in words {
        assert!(found.contains(word), "{check} without {word:?}: {found}");
    }
    row["fix"].as_str().unwrap_or_default().to_owned()
}

/// Listens on a socket and never answers.
const UNRESPONSIVE_LISTENER: &str = "import os, socket, time
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
fn doctor_is_green_for_a_store_as_installed() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let (code, report) = run_doctor(&world, "runner");
    assert_eq!((code, &report["worst"]), (0, &Value::from("green")), "{report}");
    assert_row(&report, "sudo", "green", &["sudo works"]);
    assert_row(&report, "mount", "green", &["its own mount namespace"]);
    assert_row(&report, "daemon", "green", &["guix-daemon.service"]);
    assert_row(&report, "unit", "green", &["guix-daemon.service is active (running)"]);
    assert_row(&report, "journal", "green", &["ten minutes"]);
    assert_row(&report, "locks", "green", &["no lock is held or stale"]);
    assert_row(&report, "space", "green", &["inodes free for /gnu/store"]);
    assert_row(&report, "backend", "green", &["dir:/cache", "listed and written"]);
    assert_row(&report, "clock", "green", &["20"]);
    assert_row(&report, "runs", "green", &["none on record"]);

    // The page documents each row, and no others.
    let page =
        include_str!("../../docs/doctor.md").lines().filter_map(|line| line.strip_prefix("| `"));
    let page: Vec<&str> = page.filter_map(|line| Some(line.split_once('`')?.0)).collect();
    assert_eq!(page, checks(&report));

    let output = world.storecache_as("runner", ["doctor", "--store", "guix"]).run().ok();
    assert!(output.stdout.contains("green   socket     answers in "), "{output}");
    let words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "storecache"];
    let output = world.ok(words.into_iter().chain(["doctor", "--store", "guix"]));
    assert!(
        output.stdout.contains("a restore stops gnu-store.mount during the commit"),
        "{output}"
    );
}

#[test]
fn doctor_reports_an_exposed_socket_and_restore_refuses_it() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        crate::support::world_runs::save(&world);
        world.wipe_store();
        let socket = socket_of(&world);
        let directory = Path::new(&socket).parent().unwrap().display().to_string();
        let pid = world.daemon_pid();
        let refused = |why: &str| {
            let failed =
                crate::support::world_runs::attempt(&world, "runner", "restore", &[]).fails();
            assert!(failed.stderr.contains(why), "{failed}");
            assert!(failed.stderr.contains("only if systemd or a shepherd runs it"), "{failed}");
            assert_eq!(world.daemon_pid(), pid, "the file must not be changed");
        };

        world.sh(&format!("mv {socket} {directory}/real; ln -s real {socket}"));
        let (code, report) = run_doctor(&world, "runner");
        let fix = assert_row(&report, "socket", "yellow", &["answers in", "is a symbolic link"]);
        assert_eq!((code, &report["worst"]), (0, &json!("yellow")), "{report}");
        assert!(fix.starts_with(&format!("rm {socket}; ")), "{fix}");
        refused("is a symbolic link");
        world.sh(&format!("mv -T {directory}/real {socket}"));

        world.sh(&format!("chmod 777 {directory}"));
        let (_, report) = run_doctor(&world, "runner");
        let fix = assert_row(&report, "socket", "yellow", &["another user could put a socket"]);
        refused("another user could put a socket of their own");
        world.sh(&fix);
        assert_row(&run_doctor(&world, "runner").1, "socket", "green", &["answers in"]);
        crate::support::world_runs::restore(&world);
        world.verify_store();
    }
}

#[test]
fn restore_uses_the_unit_behind_a_group_writable_socket() {
    let world = World::build(Role::Mid).fixture(Fixture::Small).container().start();
    assert!(world.daemon_answers());
    world.sh("chgrp nix-users /nix/var/nix/daemon-socket; chmod 770 /nix/var/nix/daemon-socket");
    let (_, report) = run_doctor(&world, "runner");
    assert_row(&report, "socket", "yellow", &["another user could put a socket"]);
    crate::support::world_runs::save(&world);
    world.wipe_store();
    world.sh("chmod 770 /nix/var/nix/daemon-socket");
    let restored = crate::support::world_runs::restore(&world);
    assert!(restored["daemon"].as_str().unwrap().contains("systemd has"), "{restored}");
    world.verify_store();
}

#[test]
fn doctor_reports_problems_with_a_command_that_repairs_them() {
    for role in [Role::Guix, Role::Old] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        assert_eq!(run_doctor(&world, "runner").0, 0);

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
        crate::support::poll::until(
            "the lock to be held",
            std::time::Duration::from_secs(20),
            held,
        );
        let (code, report) = run_doctor(&world, "runner");
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

        // The proposed command repairs it.
        world.sh(row(&report, "owners")["fix"].as_str().unwrap());
        world.sh(&format!("mv /tmp/lost {lost}"));
        world.stop_daemon();
        let (code, report) = run_doctor(&world, "runner");
        assert_eq!(code, 0, "a store may be used without a daemon: {report}");
        assert_eq!(row(&report, "owners")["light"], "green", "{report}");
        assert_eq!(row(&report, "database")["light"], "green", "{report}");
        assert_eq!(row(&report, "daemon")["light"], "yellow", "{report}");
        assert_eq!(row(&report, "socket")["light"], "yellow", "{report}");

        // A process listens on the socket that is not a daemon.
        let deaf = world
            .command(["python3", "-c", UNRESPONSIVE_LISTENER])
            .env("SOCKET", socket_of(&world))
            .spawn();
        let listens = || world.daemon_pid().ok_or_else(|| deaf.stderr());
        crate::support::poll::until(
            "the socket to be taken",
            std::time::Duration::from_secs(20),
            listens,
        );
        let (code, report) = run_doctor(&world, "runner");
        assert_eq!((code, &row(&report, "socket")["light"]), (1, &Value::from("red")), "{report}");
    }
}

#[test]
fn doctor_without_root_lists_the_skipped_checks() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let (code, report) = run_doctor(&world, "nosudo");
    assert_eq!(code, 1);
    let fix = assert_row(&report, "sudo", "red", &["sudo refused"]);
    let closed = ["database", "owners", "locks", "journal", "program"];
    assert_row(&report, "skipped", "yellow", &closed);
    let names: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["check"].as_str().unwrap())
        .collect();
    for check in closed {
        assert!(!names.contains(&check), "{names:?}");
    }
    for check in
        ["schema", "space", "daemon", "unit", "socket", "mount", "backend", "clock", "runs"]
    {
        assert_row(&report, check, "green", &[]);
    }

    // The sudo rule that `doctor` proposes suffices for a save too, and allows nothing else.
    world.sh(&fix);
    let (code, report) = run_doctor(&world, "nosudo");
    assert_eq!((code, &report["worst"]), (0, &Value::from("green")), "{report}");
    let other = world.run_as("nosudo", ["sudo", "-n", "id"]);
    assert_ne!(other.code(), 0, "{other}");
}

#[test]
fn doctor_reports_a_daemon_with_a_replaced_program() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let pid = world.daemon_pid().unwrap();
    let program = world.sh(&format!("readlink /proc/{pid}/exe")).stdout;
    let program = program.trim();
    world.sh(&format!("cp {program} /tmp/upgraded && mv /tmp/upgraded {program}"));
    let (code, report) = run_doctor(&world, "runner");
    assert_eq!((code, &row(&report, "program")["light"]), (0, &Value::from("yellow")), "{report}");
    let found = row(&report, "program")["found"].as_str().unwrap();
    assert!(found.contains(&pid.to_string()) && found.contains(program), "{found}");
}

#[test]
fn doctor_distinguishes_stale_held_and_stopped_locks() {
    for role in [Role::Guix, Role::Old] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let (state, store) = (world.state(), world.store());
        // Builds make such lock files, and delete them when they end.
        world.sh(&format!("touch {store}/{}-stale.lock", "0".repeat(32)));
        // A restore that died leaves such a directory.
        world.sh(&format!("mkdir {store}/.storecache-77"));
        let (_, report) = run_doctor(&world, "runner");
        let collect = assert_row(&report, "locks", "yellow", &["-stale.lock", "killed builds"]);
        world.sh(&format!("NIX_REMOTE= {collect}"));
        world.sh(&format!("mkdir -p {store}/.storecache-77"));
        let (_, report) = run_doctor(&world, "runner");
        let fix = assert_row(&report, "locks", "yellow", &[".storecache-77", "killed restore"]);
        world.sh(&fix);
        let (_, report) = run_doctor(&world, "runner");
        assert_row(&report, "locks", "green", &[]);

        // Another restore is stopped in the middle.
        let hold = format!("flock {state} sh -c 'echo held; sleep 1000'");
        let holder = world.command(["sh", "-c", &hold]).spawn();
        let held = || if holder.stdout().contains("held") { Ok(()) } else { Err(holder.stderr()) };
        poll::until("the lock to be held", TIMEOUT, held);
        world.sh("pkill -STOP -x flock; pkill -STOP sleep");
        let (code, report) = run_doctor(&world, "runner");
        let fix = assert_row(&report, "locks", "red", &[state, "flock", "which is stopped"]);
        assert!(code == 1 && fix.starts_with("kill -CONT "), "{fix}");
        world.sh("pkill -CONT -x flock; pkill -CONT sleep");
        let (_, report) = run_doctor(&world, "runner");
        let fix = assert_row(&report, "locks", "yellow", &[state, "flock"]);
        assert!(fix.starts_with("kill "), "{fix}");
        world.sh("pkill sleep");
    }
}

#[test]
fn doctor_checks_schema_disk_space_and_mount() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    let schema = format!("{}/db/schema", world.state());
    let known = world.sh(&format!("cat {schema}")).stdout;
    world.sh(&format!("printf 99 >{schema}"));
    let (code, report) = run_doctor(&world, "runner");
    assert_eq!(code, 1);
    assert_row(&report, "schema", "red", &["99", "a newer storecache"]);
    world.sh(&format!("printf 7 >{schema}"));
    assert_row(&run_doctor(&world, "runner").1, "schema", "red", &["7", "older"]);
    world.sh(&format!("printf {} >{schema}", known.trim()));

    world.sh("mv /nix/store /nix/aside; mkdir /nix/store");
    world.sh("mount -t tmpfs -o size=64m,nr_inodes=100 tmpfs /nix/store");
    let (_, report) = run_doctor(&world, "runner");
    let fix = assert_row(&report, "space", "yellow", &["MiB and 9", "/nix/store", "/nix/var/nix"]);
    assert_eq!(fix, "nix-store --gc");
    // The file system itself is read-only, so that a mount namespace cannot make the store writable.
    world.sh("mount -o remount,ro /nix/store");
    let (code, report) = run_doctor(&world, "runner");
    let fix = assert_row(&report, "mount", "red", &["mounted read-only"]);
    assert_eq!(code, 1);
    world.sh(&fix);
    world.sh("mount -o remount,rw /nix/store");
    assert_row(&run_doctor(&world, "runner").1, "mount", "green", &["writable"]);
}

#[test]
fn doctor_classifies_unit_states_and_journal_messages() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let unit = "guix-daemon.service";
    // Logs as the daemon does: in its unit, and in the format of the journal's own socket.
    let say = |text: &str| {
        world.ok(["systemd-cat", "--identifier=guix-daemon", "--priority=err", "echo", text]);
        let tell = format!(
            "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
             s.connect('/run/systemd/journal/socket'); \
             s.send(b'MESSAGE={text}\\nPRIORITY=3\\nOBJECT_SYSTEMD_UNIT={unit}\\nUNIT={unit}\\n')"
        );
        world.ok(["python3", "-c", &tell]);
        let written = || {
            let output = world.run(["journalctl", "--sync"]);
            let output = format!("{output}{}", world.run(["journalctl", "--unit", unit]));
            if output.contains(text) { Ok(()) } else { Err(output) }
        };
        poll::until("the journal to have it", TIMEOUT, written);
    };
    say("unexpected end-of-file");
    assert_row(
        &run_doctor(&world, "runner").1,
        "journal",
        "green",
        &["client disconnected", "unexpected end-of-file"],
    );
    say("unable to download http://127.0.0.1/x.narinfo");
    let (code, report) = run_doctor(&world, "runner");
    let fix = assert_row(&report, "journal", "yellow", &["network once", "client disconnected"]);
    assert!(code == 0 && fix.starts_with("journalctl "), "{fix}");
    say("error: writing to file: No space left on device");
    say("executing SQLite query: database or disk is full");
    let (code, report) = run_doctor(&world, "runner");
    let fix = assert_row(
        &report,
        "journal",
        "red",
        &["full disk 2 times", "SQLite query", "network once"],
    );
    assert_eq!((code, fix.as_str()), (1, "guix gc"));

    // Older messages do not count.
    world.sh("journalctl --rotate; journalctl --vacuum-time=1s; rm -rf /run/log/journal/*/*@*; \
              systemctl restart systemd-journald");

    // The daemon cannot start.
    world.sh(&format!(
        "mkdir -p /run/systemd/system/{unit}.d; \
         printf '[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n' >/run/systemd/system/{unit}.d/x.conf; \
         systemctl daemon-reload; systemctl restart {unit} || true"
    ));
    let failed = || match world.run(["systemctl", "is-failed", unit]).stdout.trim() {
        "failed" => Ok(()),
        other => Err(other.to_owned()),
    };
    poll::until("the unit to have failed", TIMEOUT, failed);
    let (code, report) = run_doctor(&world, "runner");
    assert_eq!(code, 1);
    let fix = assert_row(&report, "unit", "red", &["is failed", "exit-code"]);
    assert_row(&report, "journal", "red", &["daemon exit"]);
    assert_row(&report, "socket", "yellow", &["no process listens"]);
    world.sh(&format!("rm /run/systemd/system/{unit}.d/x.conf; systemctl daemon-reload"));
    world.sh(&fix);
    assert_row(&run_doctor(&world, "runner").1, "unit", "green", &["active (running)"]);

    // systemd had to start the daemon again; then the daemon was stopped by hand.
    world.sh(&format!(
        "printf '[Service]\nRestart=always\nRestartSec=0\n' >/run/systemd/system/{unit}.d/x.conf; \
         systemctl daemon-reload; kill -9 $(systemctl show --value -p MainPID {unit})"
    ));
    let back = || match world.daemon_answers() {
        true => Ok(()),
        false => Err("no answer".to_owned()),
    };
    poll::until("the daemon to run again", TIMEOUT, back);
    let (_, report) = run_doctor(&world, "runner");
    assert_row(&report, "unit", "yellow", &["restarted automatically 1 times"]);
    world.sh(&format!("systemctl stop {unit}"));
    let (_, report) = run_doctor(&world, "runner");
    let start = assert_row(&report, "unit", "yellow", &["is inactive"]);
    assert_eq!(assert_row(&report, "socket", "yellow", &["no process listens"]), start);
    assert_eq!(assert_row(&report, "daemon", "yellow", &[]), start);
    world.sh(&start);
    let (_, report) = run_doctor(&world, "runner");
    assert_row(&report, "socket", "green", &["answers"]);
}

#[test]
fn doctor_tests_a_backend_by_listing_and_writing() {
    let world = World::build(Role::Old).fixture(Fixture::Small).network().start();
    let directory = |path: &str, light: &str, words: &[&str]| {
        let backend = format!("dir:{path}");
        let (code, report) = run_doctor_with(&world, "runner", &["--backend", &backend], &[]);
        assert_row(&report, "backend", light, words);
        assert_eq!(code, i32::from(light == "red"), "{report}");
    };
    directory("/cache", "green", &["listed and written"]);
    directory("/home/runner/a/b", "green", &["will be created by the first save"]);
    world.sh("mkdir -m 555 /tmp/closed; mkdir -m 700 /tmp/hidden");
    directory(
        "/tmp/closed",
        "yellow",
        &["nothing can be saved", "/tmp/closed", "Permission denied"],
    );
    directory("/tmp/hidden", "red", &["list /tmp/hidden", "Permission denied"]);
    assert_eq!(world.sh("ls -A /tmp/closed /cache").stdout.matches("storecache").count(), 0);

    let service = CacheService::start();
    let url = service.url();
    let ask = |token: &str, light: &str, words: &[&str]| {
        let set = [
            ("ACTIONS_RESULTS_URL", url.as_str()),
            ("ACTIONS_RUNTIME_TOKEN", token),
            ("ACTIONS_CACHE_SERVICE_V2", "1"),
        ];
        let more = ["--backend", "github", "--network-timeout", "1"];
        let (_, report) = run_doctor_with(&world, "runner", &more, &set);
        assert_row(&report, "backend", light, words);
        assert!(!report.to_string().contains(TOKEN), "{report}");
        report
    };
    let report = ask(TOKEN, "green", &["github, v2", "accepts a reservation"]);
    assert_row(&report, "clock", "green", &[]);
    assert_eq!(service.keys(), [""; 0], "no entry comes of it");
    ask(&read_only_token(), "yellow", &["answers a lookup", "nothing can be saved"]);

    // `doctor` reports by how much the clock is wrong.
    service.set_date(world.sh("date -u -d '-10 minutes' '+%a, %d %b %Y %T GMT'").stdout.trim());
    let fix = assert_row(
        &ask(TOKEN, "green", &[]),
        "clock",
        "yellow",
        &[" s ahead of the cache service"],
    );
    assert!(fix.starts_with("date --set=@"), "{fix}");
    service.set_date("Thu, 01 Jan 2099 00:00:00 GMT");
    assert_row(&ask(TOKEN, "green", &[]), "clock", "red", &[" s behind the cache service"]);

    drop(service);
    ask(TOKEN, "red", &["github, v2", "Connection refused"]);

    // A database with a time in the future shows that the clock was set back.
    world.sh("touch -d '+1 day' /nix/var/nix/db/db.sqlite");
    assert_row(
        &run_doctor(&world, "runner").1,
        "clock",
        "yellow",
        &["the database of the store was written at"],
    );
}

#[test]
fn doctor_tests_each_object_store_on_its_own_row() {
    let world = World::build(Role::Old).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let server = ObjectServer::start(Service::S3);
    let variables = server.variables();
    let set: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let ask = |more: &[&str], set: &[(&str, &str)]| {
        let more = [&["--network-timeout", "1"], more].concat();
        let (code, report) = run_doctor_with(&world, "runner", &more, set);
        for secret in SECRETS {
            assert!(!report.to_string().contains(secret), "{report}");
        }
        (code, report)
    };
    let one = ["--backend", server.backend()];
    let (code, report) = ask(&one, &set);
    assert_row(&report, "backend", "green", &["s3://entries/ci/stores", "listed and written"]);
    assert_row(&report, "clock", "green", &["in agreement with the object store"]);
    assert_eq!((code, server.keys_and_uploads()), (0, (Vec::new(), 0)));
    server.log();
    ask(&one, &set);
    assert_eq!(server.log().iter().filter(|it| it[0].starts_with("PUT")).count(), 1, "once");

    server.inject_faults("^PUT", Fault::Status(403, "AccessDenied"), 0, 1000);
    let words = ["can be listed", "nothing can be saved", "AccessDenied"];
    assert_row(&ask(&one, &set).1, "backend", "yellow", &words);
    server.clear_faults();
    let (code, report) = ask(&one, &[]);
    assert_row(&report, "backend", "red", &["no credentials in the environment"]);
    assert_eq!(code, 1);

    // If one of several backends answers, those that do not answer are not a failure.
    let both = ["--backend", "dir:/cache", "--backend", server.backend()];
    drop(server);
    let (code, report) = ask(&both, &set);
    let rows = report["checks"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.filter(|row| row["check"] == "backend").collect();
    let lights: Vec<_> = rows.iter().map(|row| row["light"].as_str().unwrap()).collect();
    assert_eq!((code, &lights[..]), (0, &["green", "yellow"][..]), "{report}");
    assert!(rows[1]["found"].as_str().unwrap().contains("Connection refused"), "{report}");
    assert_row(&ask(&both[2..], &set).1, "backend", "red", &["Connection refused"]);
}

#[test]
fn doctor_shows_the_recorded_runs() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    world.start_daemon();
    let saved = world_runs::save(&world);
    world_runs::run(&world, "runner", "restore", &["--dry-run"]);
    let (_, report) = run_doctor(&world, "runner");
    let entry = saved["entry"].as_str().unwrap();
    assert_row(&report, "runs", "green", &["save wrote", entry]);
    assert!(!row(&report, "runs")["found"].as_str().unwrap().contains("restore"), "{report}");

    world.sh("printf x >>/cache/*.tar.zst");
    world.wipe_store();
    world_runs::attempt(&world, "runner", "restore", &[]);
    let (code, report) = run_doctor(&world, "runner");
    let fix = assert_row(&report, "runs", "yellow", &["restore", "save wrote"]);
    assert_eq!((code, fix.as_str()), (0, "storecache restore --dry-run"));
    assert_row(&run_doctor(&world, "root").1, "runs", "green", &["none on record"]);

    // The record of runs stays small, and a damaged record stops neither a run nor `doctor`.
    let file = "/home/runner/.local/state/storecache/runs.jsonl";
    for _ in 0..25 {
        world_runs::attempt(&world, "runner", "restore", &["--daemon", "none"]);
    }
    assert_eq!(world.sh(&format!("wc -l <{file}")).stdout.trim(), "20");
    world.sh(&format!("printf 'x\\n\\377' >{file}; chmod 0 {file}"));
    assert_row(&run_doctor(&world, "runner").1, "runs", "green", &["none on record"]);
    world.sh("chmod 500 /home/runner/.local/state/storecache");
    assert_eq!(world_runs::save(&world)["failed"], Value::Null);
}
