//! Tests of how the daemon is found, stopped and started again around a commit, also after failures.

use std::path::Path;
use std::time::Duration;

use crate::support::world_runs::{
    NIX_FLAGS, assert_same, attempt, record_state, report, restore, root_helper_pid, run, save,
    staging,
};
use crate::support::{Fixture, Role, Running, World, poll};
use rustix::process::{Signal, kill_process};
use storecache_daemon::DaemonChoice;
use storecache_root_helper::protocol::StoreRequest;
use storecache_root_helper::{ArmRequest, Caller, Guardian, GuardianSetup};
use storecache_runtime::RunContext;
use storecache_store::StoreKind;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The promised maximum between the death of the root helper and a running daemon.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

/// Returns a world with a running daemon, whose store was saved and then wiped.
fn saved_and_wiped(role: Role) -> World {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world
}

/// Holds the database open as a client's worker does, in a process that a test can name.
fn hold_big_lock(world: &World) -> Running<'_> {
    let holder = world.spawn(["flock", "--shared", "/nix/var/nix/db/big-lock", "sleep", "1000"]);
    poll::until("the lock to be held", TIMEOUT, || {
        let lock = std::fs::File::open(world.host("/nix/var/nix/db/big-lock")).unwrap();
        match lock.try_lock() {
            Err(_) => Ok(()),
            Ok(()) => Err("the lock is free"),
        }
    });
    holder
}

/// Starts a restore and waits until it is in the middle of its commit: the daemon is stopped, and the restore
/// waits for the database, which `World::hold_database` keeps.
fn start_restore_blocked_in_commit<'w>(world: &'w World, user: &str) -> Running<'w> {
    let words = ["restore"].into_iter().chain(NIX_FLAGS);
    let restore = world.storecache_as(user, words).spawn();
    poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", restore.stderr())),
    });
    restore
}

#[track_caller]
fn assert_untouched(world: &World) {
    assert!(world.valid_paths().is_empty());
    assert_eq!(staging(world), [""; 0]);
    let left: Vec<String> =
        world.store_listing().into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(left, [""; 0], "items were left in the store");
    let roots = world.host("/nix/var/nix/gcroots/storecache");
    assert!(!roots.exists() || roots.read_dir().unwrap().next().is_none());
}

#[track_caller]
fn wait_for_daemon(world: &World, limit: Duration) {
    poll::until("the daemon to answer again", limit, || {
        if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
    });
}

/// Releases the lock that blocked the commit, and asserts that everything was undone.
#[track_caller]
fn assert_rolled_back(world: &World, holder: Running<'_>) {
    drop(holder);
    world.sh("pkill -x sleep || true");
    wait_for_daemon(world, TIMEOUT);
    assert_no_process_left(world);
    assert_untouched(world);
}

#[test]
fn bare_daemon_restarts_with_its_arguments_and_environment() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.sh("cd /srv && COLOUR=blue setsid --fork nix-daemon --daemon --option cores 1 \
         </dev/null >>/var/log/nix-daemon.log 2>&1");
    poll::until("the daemon", TIMEOUT, || world.daemon_pid().ok_or("none"));
    let portrait = |pid: u32| {
        let read = |file: &str| std::fs::read(world.host(format!("/proc/{pid}/{file}"))).unwrap();
        let link = |file: &str| world.sh(&format!("readlink /proc/{pid}/{file}")).stdout;
        (
            read("cmdline"),
            read("comm"),
            sorted(read("environ")),
            link("cwd"),
            link("exe"),
            link("fd/1"),
            link("fd/2"),
        )
    };
    // The order of the variables does not matter.
    fn sorted(environment: Vec<u8>) -> Vec<Vec<u8>> {
        let mut variables: Vec<_> = environment.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        variables.sort();
        variables
    }
    let before = world.daemon_pid().unwrap();
    let portrait_before = portrait(before);
    save(&world);
    assert_eq!(world.daemon_pid(), Some(before), "a save must not stop the daemon");
    world.sh("rm /nix/var/nix/gcroots/fixture");
    world.nix(["nix-collect-garbage"]).ok();

    let restored = restore(&world);
    let after = world.daemon_pid().unwrap();
    assert_ne!(before, after);
    assert!(restored.get("warnings").is_none(), "{restored}");
    assert_eq!(portrait(after), portrait_before);
    assert!(portrait_before.2.contains(&b"COLOUR=blue".to_vec()));
    assert!(restored["daemon"].as_str().unwrap().contains(&format!("process {before} listens")));
    assert!(restored["seconds"]["downtime"].as_f64().unwrap() > 0.0);
    let parent = world.sh(&format!("ps -o ppid= -p {after}")).stdout;
    assert_eq!(parent.trim(), "1", "no files are left behind");
}

#[test]
fn systemd_units_are_active_again_after_a_restore() {
    let world = World::build(Role::Old).fixture(Fixture::Small).container().start();
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    let state = |unit: &str| world.run(["systemctl", "is-active", unit]).stdout;
    let units = (state("nix-daemon.socket"), state("nix-daemon.service"));
    let restored = restore(&world);
    assert!(restored["daemon"].as_str().unwrap().contains("systemd has nix-daemon.socket"));
    assert_eq!((state("nix-daemon.socket"), state("nix-daemon.service")), units);
    assert_same(&before, &record_state(&world));
    world.assert_nothing_to_build(Role::Old, Fixture::Small);
    world.verify_store();
    let journal = world.daemon_log();
    assert!(journal.contains("Stopped") && journal.contains("Started"), "{journal}");
}

#[test]
fn restore_works_with_only_the_socket_unit_active() {
    let world = World::build(Role::New).fixture(Fixture::Small).container().start();
    save(&world);
    let before = record_state(&world);
    world.wipe_store();
    world.stop_daemon();
    world.ok(["systemctl", "start", "nix-daemon.socket"]);
    assert_eq!(world.daemon_pid(), Some(1), "systemd itself listens");
    restore(&world);
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

#[test]
fn socket_unit_may_activate_a_service_of_another_name() {
    let world = World::build(Role::Old).fixture(Fixture::Small).container().start();
    world.sh("systemctl stop nix-daemon.socket nix-daemon.service
        mkdir -p /run/systemd/system/nix-daemon.socket.d
        mv /lib/systemd/system/nix-daemon.service /run/systemd/system/worker.service
        printf '[Socket]\nService=worker.service\n' >/run/systemd/system/nix-daemon.socket.d/test.conf
        systemctl daemon-reload && systemctl start nix-daemon.socket");
    save(&world);
    let before = record_state(&world);
    world.sh("rm /nix/var/nix/gcroots/fixture");
    world.nix(["nix-collect-garbage"]).ok();
    let restored = restore(&world);
    let why = restored["daemon"].as_str().unwrap();
    assert_eq!(why, "systemd has nix-daemon.socket active, and systemd itself listens");
    assert_same(&before, &record_state(&world));
    assert!(world.daemon_answers());
    world.verify_store();
}

#[test]
fn unit_at_its_start_limit_is_started_again() {
    let world = World::build(Role::Old).fixture(Fixture::Small).container().start();
    save(&world);
    let before = record_state(&world);
    world.wipe_store();
    // As after job steps that restart the daemon, for which systemd has a limit (by default five starts in ten
    // seconds).
    world.sh("mkdir -p /run/systemd/system/nix-daemon.service.d
        printf '[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n' \
            >/run/systemd/system/nix-daemon.service.d/test.conf
        systemctl daemon-reload
        systemctl reset-failed nix-daemon.service
        systemctl restart nix-daemon.service");
    restore(&world);
    assert!(world.daemon_answers());
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

#[test]
fn custom_daemon_commands_run_as_the_user() {
    let world = saved_and_wiped(Role::Mid);
    let stop = "id -un >>/tmp/stopped; sudo kill $(sudo fuser /nix/var/nix/daemon-socket/socket)";
    let pid = world.daemon_pid().unwrap();
    let stop = stop.replace("$(sudo fuser /nix/var/nix/daemon-socket/socket)", &pid.to_string());
    let start = "id -un >>/tmp/started; sudo setsid --fork nix-daemon --daemon >/tmp/log 2>&1";
    let commands = ["--daemon", "command", "--daemon-stop", &stop, "--daemon-start", start];
    run(&world, "runner", "restore", &commands);
    assert_eq!(world.sh("cat /tmp/stopped /tmp/started").stdout, "runner\nrunner\n");
    assert!(world.daemon_answers());
    world.verify_store();
}

#[test]
fn start_command_without_effect_fails_and_names_the_step() {
    let world = saved_and_wiped(Role::Mid);
    let pid = world.daemon_pid().unwrap();
    let stop = format!("sudo kill {pid}");
    let commands = ["--daemon", "command", "--daemon-stop", &stop, "--daemon-start", "true"];
    let more: Vec<&str> = commands.into_iter().chain(["--daemon-timeout", "1"]).collect();
    let failed = attempt(&world, "runner", "restore", &more).fails();
    assert_eq!(failed.code(), 1);
    assert!(failed.stderr.contains("failed step: connect"), "{failed}");
    assert!(failed.stderr.contains("the items are valid"), "{failed}");
    assert!(!failed.stderr.contains("as it was"), "{failed}");
    world.start_daemon();
    world.verify_store();
}

#[test]
fn restore_without_a_daemon_needs_only_the_locks() {
    let world = saved_and_wiped(Role::Mid);
    world.stop_daemon();
    world.wait_until_idle();
    let restored = restore(&world);
    assert!(restored["daemon"].as_str().unwrap().contains("no process listens"));
    assert_eq!(world.daemon_pid(), None);
    world.start_daemon();
    world.verify_store();
}

/// Returns the path of the file that the daemon runs, from which a restore would start it again.
fn program(world: &World) -> String {
    let pid = world.daemon_pid().unwrap();
    world.sh(&format!("readlink /proc/{pid}/exe")).stdout.trim().to_owned()
}

#[test]
fn daemon_with_a_deleted_library_is_not_stopped() {
    let world = saved_and_wiped(Role::Mid);
    let pid = world.daemon_pid();
    // The daemon's clients need the library too: replace it by a copy, which has another inode.
    let maps = world.sh(&format!("cat /proc/{}/maps", pid.unwrap())).stdout;
    let library = maps.split_whitespace().find(|it| it.contains("/libsqlite3")).unwrap();
    world.sh(&format!("cp {library} {library}.new && mv {library}.new {library}"));
    let failed = attempt(&world, "runner", "restore", &[]).fails();
    assert!(failed.stderr.contains("libsqlite3"), "{failed}");
    assert!(failed.stderr.contains("no longer on disk"), "{failed}");
    assert_eq!(world.daemon_pid(), pid);
    assert_untouched(&world);
}

#[test]
fn bare_daemon_with_a_replaced_program_restarts_the_old_one() {
    let world = saved_and_wiped(Role::Old);
    let program = program(&world);
    let file = |path: &str| world.sh(&format!("stat -Lc %i {path}")).stdout;
    let running = || file(&format!("/proc/{}/exe", world.daemon_pid().unwrap()));
    let old = running();
    world.sh(&format!("cp {program} /tmp/copy; mv /tmp/copy {program}"));
    let before = world.daemon_pid().unwrap();
    let restored = restore(&world);
    let warnings = restored["warnings"].as_array().unwrap();
    // The user can read the daemon's command line in /proc, but not the path of its executable.
    let expected = format!(
        "the program of the daemon, process {before}, was replaced on disk since it started: nix-daemon; \
         a restore starts the old program again, so restart the daemon"
    );
    assert!(warnings.iter().any(|it| *it == expected), "{restored}");
    assert!(world.daemon_answers());
    assert_eq!(running(), old, "the program that ran before runs again");
    assert_ne!(file(&program), old);
    world.verify_store();
}

#[test]
fn unit_with_a_replaced_program_restarts_the_new_one() {
    let world = World::build(Role::Old).fixture(Fixture::Small).container().start();
    world.start_daemon();
    save(&world);
    world.wipe_store();
    assert!(world.daemon_answers());
    let program = program(&world);
    world.sh(&format!("cp {program} /tmp/copy; mv /tmp/copy {program}"));
    let before = world.daemon_pid().unwrap();
    let restored = restore(&world);
    let warnings = restored["warnings"].as_array().unwrap();
    let named =
        warnings.iter().find_map(|it| it.as_str().filter(|it| it.contains("was replaced on disk")));
    let named = named.unwrap_or_else(|| panic!("{restored}"));
    assert!(named.contains(&format!("process {before}")), "{named}");
    assert!(named.contains("nix-daemon"), "{named}");
    assert!(world.daemon_answers());
    let now = world.sh(&format!("stat -Lc %i {program} /proc/$(pgrep -ox nix-daemon)/exe")).lines();
    assert_eq!(now[0], now[1], "the new program runs");
    world.verify_store();
    world.wipe_store();
    assert!(
        restore(&world).get("warnings").is_none(),
        "the replaced program is reported only once"
    );
}

#[test]
fn second_daemon_on_the_socket_is_used_and_first_reported() {
    for container in [false, true] {
        let plan = World::build(Role::New).fixture(Fixture::Small);
        let world = if container { plan.container().start() } else { plan.start() };
        world.start_daemon();
        save(&world);
        world.wipe_store();
        let pids = || world.run(["pgrep", "-x", "nix-daemon"]).lines();
        // A process that the daemon forked for a client has the same name and exits a moment later.
        let first = poll::until("a daemon without clients", TIMEOUT, || match pids() {
            first if first.len() == 1 => Ok(first),
            more => Err(format!("{more:?}")),
        });
        // Debian's packages let a group replace the socket, and storecache refuses a bare daemon on such a
        // socket.
        world.sh("chmod 755 /nix/var/nix/daemon-socket");
        world.sh("setsid --fork nix-daemon --daemon --option cores 1 </dev/null >>/var/log/b 2>&1");
        let socket = "/nix/var/nix/daemon-socket/socket";
        let second = poll::until("the second daemon to listen", TIMEOUT, || {
            let pid = world.listener(socket).map(|pid| pid.to_string());
            pid.filter(|pid| pid != "1" && !first.contains(pid)).ok_or("no process listens")
        });
        let restored = restore(&world);
        let why = restored["daemon"].as_str().unwrap();
        assert!(why.contains(&format!("process {second} listens on its socket")), "{why}");
        let warnings = restored["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{restored}");
        let warning = warnings[0].as_str().unwrap();
        if container {
            assert!(why.contains("systemd has nix-daemon.socket"), "{why}");
            assert!(warning.contains("systemctl restart nix-daemon.socket"), "{warning}");
        } else {
            assert!(warning.contains(&format!("process {} (nix-daemon", first[0])), "{warning}");
        }
        assert!(first.iter().all(|pid| pids().contains(pid)), "the first daemon still runs");
        assert!(!pids().contains(&second));
        assert!(world.daemon_answers());
        world.verify_store();
    }
}

#[test]
fn daemon_in_another_container_is_refused_and_not_stopped() {
    let world = saved_and_wiped(Role::Mid);
    let pid = world.daemon_pid();
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "storecache", "restore"];
    let failed = world.command(words.into_iter().chain(NIX_FLAGS)).run().fails();
    assert!(failed.stderr.contains("another container"), "{failed}");
    assert_eq!(world.daemon_pid(), pid);
    assert_untouched(&world);
}

#[test]
fn commit_waits_for_a_client_and_continues_when_it_leaves() {
    for role in [Role::Old, Role::New] {
        let world = saved_and_wiped(role);
        let client = world.connected_client();
        let pid = world.daemon_pid();
        let words = ["restore"].into_iter().chain(NIX_FLAGS);
        let restore = world.storecache_as("runner", words).spawn();
        poll::until("the restore to wait for the lock", TIMEOUT, || match restore.stderr() {
            said if said.contains("big-lock is held by") => Ok(()),
            said => Err(said),
        });
        assert_eq!(world.daemon_pid(), pid, "the daemon is up meanwhile");
        assert!(world.daemon_answers());
        drop(client);
        restore.wait(TIMEOUT).ok();
        assert!(world.daemon_answers());
        world.verify_store();
        world.assert_nothing_to_build(role, Fixture::Small);
    }
}

#[test]
fn connected_client_causes_a_miss_that_names_its_worker() {
    let world = saved_and_wiped(Role::Mid);
    let client = world.connected_client();
    let failed = attempt(&world, "runner", "restore", &["--lock-timeout", "1"]).fails();
    assert_eq!(failed.code(), 1);
    let report = report(&failed);
    assert_eq!(report["hit"], "miss");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("big-lock is still held after 1 s by process"), "{reason}");
    assert!(reason.contains("nix-daemon"), "{reason}");
    drop(client);
    wait_for_daemon(&world, TIMEOUT);
    assert_untouched(&world);
    restore(&world);
    world.verify_store();
}

#[test]
fn lock_held_by_another_process_causes_a_miss_that_names_it() {
    let world = saved_and_wiped(Role::New);
    let pid = world.daemon_pid();
    let holder = hold_big_lock(&world);
    let failed = attempt(&world, "runner", "restore", &["--lock-timeout", "1"]).fails();
    assert!(failed.stderr.contains("sleep 1000"), "{failed}");
    drop(holder);
    assert_eq!(world.daemon_pid(), pid, "the daemon was never stopped");
    assert_untouched(&world);
    world.sh("pkill -x sleep || true");
    restore(&world);
    world.verify_store();
}

#[test]
fn signal_during_commit_rolls_back_and_restarts_the_daemon() {
    for (signal, user) in [
        (Signal::INT, "runner"),
        (Signal::TERM, "runner"),
        (Signal::HUP, "root"),
        // The killed user process sends no message: the root helper sees its input close.
        (Signal::KILL, "runner"),
    ] {
        let world = saved_and_wiped(Role::Mid);
        let holder = world.hold_database();
        let restore = start_restore_blocked_in_commit(&world, user);
        restore.signal(signal);
        let ended = restore.wait(TIMEOUT).fails();
        if signal != Signal::KILL {
            assert_eq!(ended.code(), 1, "{ended}");
            assert!(ended.stderr.contains("canceled"), "{ended}");
        }
        poll::until("the daemon to listen", TIMEOUT, || {
            world.daemon_pid().ok_or("no process listens")
        });
        assert_rolled_back(&world, holder);
    }
}

#[test]
fn staging_and_roots_are_complete_before_the_daemon_stops() {
    let world = saved_and_wiped(Role::Mid);
    let holder = world.hold_database();
    let restore = start_restore_blocked_in_commit(&world, "runner");
    // All items are staged, the roots exist, and the guardian waits to start the daemon again.
    let listed = |directory: String| {
        let entries = std::fs::read_dir(world.host(directory)).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let staging = staging(&world).remove(0);
    let staged = listed(format!("/nix/store/{staging}"));
    let staged = staged.iter().filter(|name| !name.starts_with('.')).count();
    let roots = listed("/nix/var/nix/gcroots/storecache".into()).len();
    assert!(roots > 0);
    world.ok(["pgrep", "--full", "^storecache-guardian "]);
    drop(holder);
    restore.wait(TIMEOUT).ok();
    assert_eq!(world.valid_paths().len(), staged);
    assert_eq!(listed("/nix/var/nix/gcroots/storecache".into()).len(), roots);
    world.verify_store();
}

#[test]
fn damaged_live_database_is_refused_before_the_daemon_stops() {
    let world = saved_and_wiped(Role::Mid);
    world.nix(["nix-store", "--add", "/etc/hostname"]).ok();
    world.sh("sqlite3 -cmd '.timeout 20000' /nix/var/nix/db/db.sqlite 'PRAGMA foreign_keys = OFF;
         INSERT INTO Refs SELECT min(id), 999999 FROM ValidPaths'");
    let (pid, valid) = (world.daemon_pid(), world.valid_paths());
    let failed = attempt(&world, "runner", "restore", &[]).fails();
    assert!(failed.stderr.contains("db.sqlite is damaged: repair the store first"), "{failed}");
    assert_eq!(world.daemon_pid(), pid);
    assert_eq!(world.valid_paths(), valid);
    assert_eq!(staging(&world), [""; 0]);
}

#[test]
fn guardian_starts_the_daemon_if_the_root_helper_is_killed() {
    for container in [false, true] {
        let plan = World::build(Role::Old).fixture(Fixture::Small);
        let world = if container { plan.container().start() } else { plan.start() };
        world.start_daemon();
        save(&world);
        world.wipe_store();
        let holder = world.hold_database();
        let restore = start_restore_blocked_in_commit(&world, "runner");
        kill_process(root_helper_pid(&world), Signal::KILL).unwrap();
        world.run(["pkill", "--signal", "KILL", "--full", "storecache privileged"]);
        poll::until("the daemon to listen", RECOVERY_LIMIT, || {
            world.daemon_pid().ok_or("no process listens")
        });
        let ended = restore.wait(TIMEOUT).fails();
        assert!(ended.stderr.contains("ended without a reply"), "{ended}");
        assert_rolled_back(&world, holder);
        crate::support::world_runs::restore(&world);
        world.verify_store();
    }
}

#[track_caller]
fn assert_no_process_left(world: &World) {
    poll::until("our processes to end", TIMEOUT, || {
        let left = world
            .run([
                "pgrep",
                "--list-full",
                "--full",
                "^(sudo .*)?(/usr/local/bin/)?storecache(-guardian|-backup-guardian)? ",
            ])
            .stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// Mounts the store read-only over itself, as Guix and NixOS do.
fn mount_read_only(world: &World) {
    world.sh("mount --bind /nix/store /nix/store && mount -o remount,bind,ro /nix/store
         ! touch /nix/store/written 2>/dev/null");
}

#[test]
fn read_only_mounted_store_is_restored_and_stays_read_only() {
    let world = saved_and_wiped(Role::Mid);
    world.stop_daemon();
    world.wait_until_idle();
    mount_read_only(&world);
    world.start_daemon();
    let mounts = world.sh("cat /proc/self/mountinfo").stdout;
    restore(&world);
    assert_eq!(world.sh("cat /proc/self/mountinfo").stdout, mounts);
    world.sh("! touch /nix/store/written 2>/dev/null");
    world.assert_nothing_to_build(Role::Mid, Fixture::Small);
    world.verify_store();
}

#[test]
fn killed_commit_into_a_read_only_mount_is_rolled_back() {
    let world = saved_and_wiped(Role::Mid);
    mount_read_only(&world);
    let holder = world.hold_database();
    let restore = start_restore_blocked_in_commit(&world, "runner");
    kill_process(root_helper_pid(&world), Signal::KILL).unwrap();
    poll::until("the daemon to listen", RECOVERY_LIMIT, || {
        world.daemon_pid().ok_or("no process listens")
    });
    restore.wait(TIMEOUT).fails();
    assert_rolled_back(&world, holder);
}

#[test]
fn read_only_store_is_refused_without_cap_sys_admin() {
    let world = saved_and_wiped(Role::Mid);
    mount_read_only(&world);
    let pid = world.daemon_pid();
    let words = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let words = words.into_iter().chain(["storecache", "restore"]).chain(NIX_FLAGS);
    let failed = world.command(words).run().fails();
    assert!(failed.stderr.contains("mounted read-only"), "{failed}");
    assert!(failed.stderr.contains("CAP_SYS_ADMIN"), "{failed}");
    assert_eq!(world.daemon_pid(), pid);
    assert_untouched(&world);
}

#[test]
fn store_on_a_read_only_file_system_is_refused() {
    let world = saved_and_wiped(Role::Mid);
    world.sh("mount -t tmpfs -o ro tmpfs /nix/store");
    let pid = world.daemon_pid();
    let failed =
        world.storecache_as("runner", ["restore"].into_iter().chain(NIX_FLAGS)).run().fails();
    assert!(failed.stderr.contains("/nix/store is mounted read-only"), "{failed}");
    assert!(failed.stderr.contains("mount it writable"), "{failed}");
    assert_eq!(world.daemon_pid(), pid);
}

#[test]
fn guardian_starts_the_daemon_after_a_panic() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("nix/var/nix")).unwrap();
    let started = root.path().join("started");
    let start = format!("echo started >>{}", started.display());
    let store = StoreRequest {
        kind: StoreKind::Nix,
        root: root.path().into(),
        paths: Vec::new(),
        daemon: DaemonChoice::Command { stop: "true".into(), start },
        asks_version: false,
        events: None,
        shepherds: Vec::new(),
        lock_timeout: Duration::ZERO,
        daemon_timeout: Duration::ZERO,
        stall: Duration::from_secs(60),
        mandate: Caller::default(),
    };
    let mandate = store.mandate;
    let ward = GuardianSetup { store, mandate, restores: true };
    let program = Path::new(env!("CARGO_BIN_EXE_storecache"));
    let panicked = std::panic::catch_unwind(|| {
        let mut guardian = Guardian::start_with(&RunContext::default(), program).unwrap();
        guardian.watch(&ward).unwrap();
        let _armed = guardian.arm(&ArmRequest { takes_mount: false }).unwrap();
        assert!(!started.exists());
        panic!("between stop and start");
    });
    assert!(panicked.is_err());
    assert_eq!(std::fs::read_to_string(started).unwrap(), "started\n");
}

#[test]
fn restore_leaves_no_processes_or_temporary_files() {
    let world = saved_and_wiped(Role::Mid);
    restore(&world);
    assert_no_process_left(&world);
    assert_eq!(world.sh("ls -A /tmp").stdout, "", "temporary files");
    assert!(!Path::new(&world.host("/nix/var/nix/db/db.sqlite-journal")).exists());
}
