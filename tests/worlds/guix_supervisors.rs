//! Tests of how storecache finds the supervisor of a guix-daemon (systemd, a shepherd of the system or of a
//! user, or none), and of two daemons on one socket.

use std::time::Duration;

use crate::support::world_runs::{attempt, flags, report, restore, root_helper_pid, save, staging};
use crate::support::{Fixture, Output, Role, World, poll};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The promised maximum between the death of the root helper and a running daemon.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
const SOCKET: &str = "/var/guix/daemon-socket/socket";
const SYSTEM_SHEPHERD: &str = "/run/shepherd/socket";

/// Returns a world whose store was saved and wiped. The daemon runs only if it is a container.
fn wiped(role: Role, container: bool) -> World {
    let plan = World::build(role).fixture(Fixture::Small);
    let world = if container { plan.container().start() } else { plan.start() };
    world.start_daemon();
    save(&world);
    world.wipe_store();
    if !container {
        world.stop_daemon();
        world.wait_until_idle();
    }
    world
}

/// Returns the pids of the processes that are called guix-daemon, except for workers.
fn daemons(world: &World) -> Vec<u32> {
    let listed = world.run(["ps", "-o", "pid=,ppid=", "-C", "guix-daemon"]).stdout;
    let numbers = listed.split_whitespace().map(|number| number.parse().unwrap());
    let numbers: Vec<u32> = numbers.collect();
    let rows = || numbers.chunks(2);
    let is_worker = |parent: u32| rows().any(|row| row[0] == parent);
    rows().filter(|row| !is_worker(row[1])).map(|row| row[0]).collect()
}

/// Starts a second daemon, which takes over the socket from the first.
fn second_daemon(world: &World) -> u32 {
    let first = world.listener(SOCKET).expect("a first daemon listens");
    let daemon = "guix-daemon --build-users-group=guixbuild --no-substitutes --cores=1";
    world.sh(&format!("setsid --fork {daemon} </dev/null >>/var/log/second.log 2>&1"));
    poll::until("the second daemon to listen", TIMEOUT, || match world.listener(SOCKET) {
        Some(pid) if pid != first => Ok(pid),
        other => Err(format!("{other:?}")),
    })
}

/// Starts a shepherd of `user` at `socket` with that service, which must be named guix-daemon.
fn start_shepherd(world: &World, user: &str, socket: &str, service: &str) {
    start_shepherd_after(world, user, socket, service, "");
}

/// As [`start_shepherd`]; the configuration evaluates `first` before it starts the service.
fn start_shepherd_after(world: &World, user: &str, socket: &str, service: &str, first: &str) {
    let directory = socket.rsplit_once('/').unwrap().0;
    let path = format!("/tmp/shepherd-{user}.scm");
    let config = format!(
        "(register-services (list {service}))\n{first}\n(start-service (lookup-service 'guix-daemon))\n"
    );
    std::fs::write(world.host(&path), config).unwrap();
    world.sh(&format!(
        "mkdir -p -m 700 {directory} && chown {user}: {directory}
         touch /var/log/guix-daemon.log && chown {user}: /var/log/guix-daemon.log"
    ));
    let options = [format!("--config={path}"), format!("--socket={socket}")];
    let log = format!("--logfile=/tmp/shepherd-{user}.log");
    let words = ["setsid", "--fork", "shepherd", "--silent", &options[0], &options[1], &log];
    // Without this variable, a process that a shepherd forks in the background aborts if Guile's garbage
    // collector runs before the exec: repeatedly about one start in twenty failed, and none of 450 without a
    // collector.
    world.command(words).user(user).env("GC_DONT_GC", "1").ok();
    poll::until("the shepherd to have the daemon up", TIMEOUT, || {
        let status = herd(world, user, socket, &["status", "guix-daemon"]);
        if status.stdout.contains("It is running") { Ok(()) } else { Err(status.to_string()) }
    });
    poll::until("a daemon to listen", TIMEOUT, || world.listener(SOCKET).ok_or("none"));
}

fn herd(world: &World, user: &str, socket: &str, words: &[&str]) -> Output {
    let words = ["herd", "--socket", socket].into_iter().chain(words.iter().copied());
    world.command(words).user(user).env("LC_ALL", "C").run()
}

/// A service that runs the daemon itself, as the owner of its shepherd.
const OWN_SERVICE: &str = "(service '(guix-daemon)
  #:start (make-forkexec-constructor '(\"/usr/bin/guix-daemon\" \"--no-substitutes\")
                                     #:log-file \"/var/log/guix-daemon.log\")
  #:stop (make-kill-destructor)
  #:respawn? #t)";

/// Makes a user the owner of the store, so that this user's daemon can serve it.
fn give_store_to(world: &World, user: &str) {
    world.sh(&format!("chown -R {user}: /gnu/store /var/guix /var/log/guix"));
}

/// Restores as `runner`, with a variable that names the shepherd's socket or its directory.
fn restore_with(world: &World, variable: &str, value: &str, more: &[&str]) -> Output {
    let words = ["restore"].into_iter().chain(flags(world)).chain(more.iter().copied());
    let words = words.chain(["--json"]);
    world.storecache_as("runner", words).env(variable, value).run()
}

#[track_caller]
fn assert_restored(world: &World) {
    assert!(world.daemon_answers());
    assert!(world.valid_paths().len() > 30);
    assert_eq!(staging(world), [""; 0]);
    poll::until("exactly one daemon to be up", TIMEOUT, || {
        let all = daemons(world);
        if all.len() == 1 { Ok(()) } else { Err(format!("{all:?}")) }
    });
    world.assert_nothing_to_build(world.role(), Fixture::Small);
    world.verify_store();
}

/// Asserts that nothing was restored and nothing was stopped.
#[track_caller]
fn assert_refused(world: &World, before: &[u32], failed: &Output) {
    assert_eq!(failed.code(), 1, "{failed}");
    assert_eq!(report(failed)["hit"], "miss");
    assert_eq!(daemons(world), before, "{failed}");
    assert!(world.valid_paths().is_empty());
    assert_eq!(staging(world), [""; 0]);
}

fn why(restored: &Value) -> &str {
    restored["daemon"].as_str().unwrap()
}

fn warnings(restored: &Value) -> Vec<&str> {
    let warnings = restored["warnings"].as_array();
    warnings.into_iter().flatten().map(|warning| warning.as_str().unwrap()).collect()
}

#[track_caller]
fn wait_until_read_only(world: &World) {
    poll::until("the store to be mounted read-only", TIMEOUT, || {
        let mounts = world.sh("cat /proc/self/mountinfo").stdout;
        if mounts.contains(" /gnu/store ro") { Ok(()) } else { Err(mounts) }
    });
    let refused = world.run(["sh", "-c", "touch /gnu/store/written 2>&1"]).fails();
    assert!(refused.stdout.contains("Read-only"), "{refused}");
}

#[test]
fn system_shepherd_restarts_the_daemon_and_its_dependents() {
    for role in [Role::Guix, Role::GuixRoot] {
        let world = wiped(role, false);
        world.start_shepherd();
        let publisher = "(register-services (list (service '(publisher)
            #:requirement '(guix-daemon) #:start (const #t) #:stop (const #f))))
            (start-service (lookup-service 'publisher))";
        std::fs::write(world.host("/tmp/publisher.scm"), publisher).unwrap();
        world.ok(["herd", "load", "root", "/tmp/publisher.scm"]);
        let before = world.daemon_pid().unwrap();
        let shepherd = world.listener(SYSTEM_SHEPHERD);

        let restored = restore(&world);
        let expected = format!(
            "the shepherd at {SYSTEM_SHEPHERD} runs the service guix-daemon, and its process {before} \
             listens"
        );
        assert_eq!(why(&restored), expected);
        assert_eq!(warnings(&restored), [""; 0]);
        assert_restored(&world);
        assert_ne!(world.daemon_pid(), Some(before));
        assert_eq!(world.listener(SYSTEM_SHEPHERD), shepherd);
        let status = |service: &str| world.ok(["herd", "status", service]).stdout;
        assert!(status("publisher").contains("It is running"), "{}", status("publisher"));
        let daemon = status("guix-daemon");
        assert!(daemon.contains(&format!("Main PID: {}", world.daemon_pid().unwrap())), "{daemon}");
        assert!(!daemon.contains("Last respawned"), "the shepherd had to revive it: {daemon}");
    }
}

#[test]
fn socket_activating_shepherd_is_detected() {
    for (role, rights) in
        [(Role::GuixRoot, ""), (Role::Guix, "#:user \"guix-daemon\" #:group \"guix-daemon\"")]
    {
        let world = wiped(role, false);
        let group = if role == Role::GuixRoot { "\"--build-users-group=guixbuild\"" } else { "" };
        let activated = format!(
            "(service '(guix-daemon)
               #:start (make-systemd-constructor
                        '(\"/usr/bin/guix-daemon\" \"--no-substitutes\" {group})
                        (list (endpoint (make-socket-address AF_UNIX \"{SOCKET}\")))
                        {rights})
               #:stop (make-systemd-destructor))"
        );
        start_shepherd(&world, "root", SYSTEM_SHEPHERD, &activated);
        let shepherd = world.listener(SYSTEM_SHEPHERD);
        assert_eq!(world.listener(SOCKET), shepherd, "the shepherd itself listens");
        let restored = restore(&world);
        assert!(why(&restored).contains("runs the service guix-daemon"), "{restored}");
        assert!(why(&restored).contains("the shepherd itself listens"), "{restored}");
        assert_eq!(warnings(&restored), [""; 0]);
        assert_eq!(world.listener(SOCKET), shepherd);
        assert_restored(&world);
        delete_restored_items(&world);
        let before = daemons(&world);
        let failed = attempt(&world, "runner", "restore", &["--daemon", "process"]).fails();
        assert!(failed.stderr.contains("use --daemon shepherd"), "{failed}");
        assert_refused(&world, &before, &failed);
    }
}

/// Has the daemon delete the restored items.
fn delete_restored_items(world: &World) {
    world.sh("rm -r /var/guix/gcroots/storecache");
    world.nix(["guix", "gc"]).ok();
    assert!(world.valid_paths().is_empty());
}

#[test]
fn user_shepherd_is_found_in_the_runtime_directory() {
    let world = wiped(Role::Guix, false);
    give_store_to(&world, "runner");
    world.sh("mkdir -p -m 700 /run/user/1001 && chown runner: /run/user/1001");
    let socket = "/run/user/1001/shepherd/socket";
    // As Guix Home does: the shepherd that listens is not the process that created the socket.
    let services =
        format!("{OWN_SERVICE}))\n(perform-service-action root-service 'daemonize)\n(list (list ");
    start_shepherd(&world, "runner", socket, &services);
    let began = world.listener(socket).unwrap();
    world.run(["test", "-e", &format!("/proc/{began}")]).fails();
    let before = daemons(&world);

    let unaware = attempt(&world, "runner", "restore", &["--daemon", "shepherd"]).fails();
    assert!(unaware.stderr.contains("no shepherd listens on /run/shepherd/socket"), "{unaware}");
    assert!(unaware.stderr.contains("SHEPHERD_SOCKET"), "{unaware}");
    assert_refused(&world, &before, &unaware);

    let restored = report(&restore_with(&world, "XDG_RUNTIME_DIR", "/run/user/1001", &[]).ok());
    assert!(why(&restored).contains(&format!("the shepherd at {socket} runs")), "{restored}");
    assert_eq!(warnings(&restored), [""; 0]);
    assert_restored(&world);
    let status = herd(&world, "runner", socket, &["status", "guix-daemon"]).stdout;
    assert!(status.contains(&format!("Main PID: {}", daemons(&world)[0])), "{status}");
    assert!(!status.contains("Last respawned"), "{status}");
}

#[test]
fn user_shepherd_may_run_the_daemon_through_sudo() {
    let world = wiped(Role::GuixRoot, false);
    let socket = "/home/runner/guix/socket";
    // Its `stop` procedure does not wait until the daemon has ended.
    let service = "(service '(guix-daemon)
        #:start (make-forkexec-constructor
                 '(\"/usr/bin/sudo\" \"-n\" \"/usr/bin/guix-daemon\"
                   \"--build-users-group=guixbuild\" \"--no-substitutes\"))
        #:stop (lambda (process)
                 (system* \"sudo\" \"setsid\" \"--fork\" \"/tmp/end-later\")
                 #f)
        #:respawn? #t)";
    std::fs::write(
        world.host("/tmp/end-later"),
        "#!/bin/sh\npid=$(pgrep -ox guix-daemon)\nsleep 1\nkill $pid\n",
    )
    .unwrap();
    world.sh("chmod +x /tmp/end-later");
    start_shepherd(&world, "runner", socket, service);
    for more in [&["--daemon", "shepherd"][..], &[]] {
        let before = world.listener(SOCKET).unwrap();
        let restored = report(&restore_with(&world, "SHEPHERD_SOCKET", socket, more).ok());
        let expected = format!(
            "the shepherd at {socket} runs the service guix-daemon, and its process {before} \
             listens"
        );
        assert_eq!(why(&restored), expected);
        assert_restored(&world);
        assert_ne!(world.listener(SOCKET), Some(before));
        delete_restored_items(&world);
    }
}

#[test]
fn shepherd_socket_of_another_user_is_not_used() {
    let world = wiped(Role::GuixRoot, false);
    let socket = "/home/nosudo/guix/socket";
    let service = "(service '(guix-daemon) #:start (const #t)
        #:stop (lambda _ (call-with-output-file \"/tmp/stopped\" (const #t)) #f))";
    world.start_daemon();
    start_shepherd(&world, "nosudo", socket, service);
    let before = daemons(&world);
    let failed = restore_with(&world, "SHEPHERD_SOCKET", socket, &["--daemon", "shepherd"]).fails();
    assert!(failed.stderr.contains("belongs to the user 1002"), "{failed}");
    assert_refused(&world, &before, &failed);

    let restored = report(&restore_with(&world, "SHEPHERD_SOCKET", socket, &[]).ok());
    assert!(why(&restored).contains(&format!("process {} listens", before[0])), "{restored}");
    assert!(warnings(&restored)[0].contains("belongs to the user 1002"), "{restored}");
    assert_restored(&world);
    assert!(!world.host("/tmp/stopped").exists());

    // If the shepherd of another user keeps the daemon running, the restore is refused.
    let world = wiped(Role::Guix, false);
    give_store_to(&world, "nosudo");
    start_shepherd(&world, "nosudo", socket, OWN_SERVICE);
    let before = daemons(&world);
    let failed = restore_with(&world, "SHEPHERD_SOCKET", socket, &[]).fails();
    assert!(failed.stderr.contains("would start it again"), "{failed}");
    assert!(failed.stderr.contains("belongs to the user 1002"), "{failed}");
    assert_refused(&world, &before, &failed);
}

#[test]
fn unsuitable_shepherd_is_refused_before_anything_stops() {
    let world = wiped(Role::GuixRoot, false);
    world.start_shepherd();
    let before = daemons(&world);
    let refusal = |more: &[&str]| attempt(&world, "runner", "restore", more).fails();
    let failed = refusal(&["--daemon", "process"]);
    assert!(failed.stderr.contains("use --daemon shepherd"), "{failed}");
    assert_refused(&world, &before, &failed);

    let shepherd = world.listener(SYSTEM_SHEPHERD).unwrap();
    world.sh(&format!("kill -STOP {shepherd}"));
    let failed = refusal(&["--daemon-timeout", "1"]);
    assert!(failed.stderr.contains("no answer within 1 s"), "{failed}");
    assert_refused(&world, &before, &failed);
    world.sh(&format!("kill -CONT {shepherd}"));

    world.ok(["herd", "stop", "guix-daemon"]);
    let failed = refusal(&["--daemon", "shepherd"]);
    assert!(failed.stderr.contains("start it with `herd start guix-daemon`"), "{failed}");
    assert_refused(&world, &[], &failed);

    world.ok(["herd", "unload", "root", "guix-daemon"]);
    let failed = refusal(&["--daemon", "shepherd"]);
    assert!(failed.stderr.contains("has no service guix-daemon"), "{failed}");
    assert_refused(&world, &[], &failed);
}

#[test]
fn shepherd_runs_the_daemon_again_after_a_killed_restore() {
    for killed in [true, false] {
        let world = wiped(Role::GuixRoot, false);
        world.start_shepherd();
        let holder = world.hold_database();
        let words = ["restore"].into_iter().chain(flags(&world));
        let restoring = world.storecache_as("runner", words).spawn();
        poll::until("the daemon to be stopped", TIMEOUT, || match world.listener(SOCKET) {
            None => Ok(()),
            Some(pid) => Err(format!("process {pid} listens; {}", restoring.stderr())),
        });
        if killed {
            kill_process(root_helper_pid(&world), Signal::KILL).unwrap();
            poll::until("the daemon to listen", RECOVERY_LIMIT, || {
                world.listener(SOCKET).ok_or("no process listens")
            });
        } else {
            restoring.signal(Signal::INT);
        }
        let ended = restoring.wait(TIMEOUT).fails();
        assert_eq!(ended.code(), 1, "{ended}");
        drop(holder);
        poll::until("the daemon to answer again", TIMEOUT, || {
            if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
        });
        let status = world.ok(["herd", "status", "guix-daemon"]).stdout;
        assert!(status.contains("It is running"), "{status}");
        assert!(world.valid_paths().is_empty());
        restore(&world);
        assert_restored(&world);
    }
}

#[test]
fn systemd_keeps_the_daemon_stopped_during_the_commit() {
    let world = wiped(Role::Guix, true);
    let main = || world.ok(["systemctl", "show", "--value", "-p", "MainPID", "guix-daemon"]).stdout;
    let before = main().trim().to_owned();
    let restarts = || world.ok(["systemctl", "show", "-p", "NRestarts", "guix-daemon"]).stdout;
    let restarted = restarts();
    let unit = world.ok(["systemctl", "show", "-p", "Restart", "guix-daemon"]).stdout;
    assert_eq!(unit, "Restart=always\n");

    let failed = attempt(&world, "runner", "restore", &["--daemon", "process"]).fails();
    assert!(failed.stderr.contains("would start it again\nnote: "), "{failed}");
    assert_refused(&world, &[before.parse().unwrap()], &failed);
    let failed = attempt(&world, "runner", "restore", &["--daemon", "shepherd"]).fails();
    assert!(failed.stderr.contains("use --daemon systemd"), "{failed}");
    assert_refused(&world, &[before.parse().unwrap()], &failed);

    // This unit is stopped along with the daemon, and is not started again with it.
    world.sh(
        "printf '[Unit]\nRequires=guix-daemon.service\n[Service]\nExecStart=/bin/sleep 1000\n' \
             >/run/systemd/system/publisher.service
         systemctl daemon-reload && systemctl start publisher",
    );
    let restored = restore(&world);
    let expected =
        format!("systemd has guix-daemon.service active, and its process {before} listens");
    assert_eq!(why(&restored), expected);
    assert_eq!(warnings(&restored), [""; 0]);
    assert_eq!(restarts(), restarted, "nothing was revived");
    assert_eq!(world.run(["systemctl", "is-active", "publisher"]).stdout, "active\n");
    assert_eq!(daemons(&world), [main().trim().parse::<u32>().unwrap()]);
    wait_until_read_only(&world);
    assert_eq!(world.ok(["systemctl", "is-active", "gnu-store.mount"]).stdout, "active\n");
    assert_restored(&world);
    wait_until_read_only(&world);
}

#[test]
fn second_daemon_beside_systemd_is_used_and_reported() {
    let world = wiped(Role::GuixRoot, true);
    let first = daemons(&world)[0];
    let second = second_daemon(&world);
    let failed = attempt(&world, "runner", "restore", &["--daemon", "systemd"]).fails();
    assert!(failed.stderr.contains(&format!("active as process {first}")), "{failed}");
    assert!(failed.stderr.contains(&format!("but process {second} (guix-daemon")), "{failed}");
    let mut both = [first, second];
    both.sort();
    let mut seen = daemons(&world);
    seen.sort();
    assert_eq!(seen, both, "{failed}");
    assert!(world.valid_paths().is_empty());

    let restored = restore(&world);
    assert!(why(&restored).contains(&format!("process {second} listens")), "{restored}");
    assert!(why(&restored).contains("systemd has guix-daemon.service active"), "{restored}");
    let warnings = warnings(&restored);
    assert_eq!(warnings.len(), 1, "{restored}");
    for part in [
        format!("guix-daemon.service active as process {first}"),
        format!("process {second} (guix-daemon --build-users-group=guixbuild"),
        "systemctl restart guix-daemon.service".to_owned(),
    ] {
        assert!(warnings[0].contains(&part), "{part}: {restored}");
    }
    assert_the_second_was_restarted(&world, first, second);
    wait_until_read_only(&world);

    // Follow the advice of the warning.
    let now = world.listener(SOCKET).unwrap();
    world.sh(&format!("kill {now}; systemctl restart guix-daemon.service"));
    assert_restored(&world);

    // The second daemon ends, and the first no longer has a socket that clients reach.
    delete_restored_items(&world);
    let second = second_daemon(&world);
    end(&world, second);
    let restored = restore(&world);
    let expected = "systemd has guix-daemon.service active, and no process listens";
    assert_eq!(why(&restored), expected);
    assert_restored(&world);
}

/// Kills a daemon, as a user might do.
fn end(world: &World, pid: u32) {
    world.sh(&format!("kill {pid}"));
    poll::until("no process to listen", TIMEOUT, || match world.listener(SOCKET) {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} does")),
    });
}

#[test]
fn second_daemon_beside_a_shepherd_is_used_and_reported() {
    let world = wiped(Role::GuixRoot, false);
    world.start_shepherd();
    let first = daemons(&world)[0];
    let second = second_daemon(&world);
    let before = daemons(&world);
    let failed = attempt(&world, "runner", "restore", &["--daemon", "shepherd"]).fails();
    assert!(failed.stderr.contains(&format!("guix-daemon as process {first}")), "{failed}");
    assert!(failed.stderr.contains(&format!("but process {second} (guix-daemon")), "{failed}");
    assert_refused(&world, &before, &failed);

    let restored = restore(&world);
    assert!(why(&restored).contains(&format!("process {second} listens")), "{restored}");
    assert!(why(&restored).contains("runs the service guix-daemon"), "{restored}");
    let warnings = warnings(&restored);
    assert_eq!(warnings.len(), 1, "{restored}");
    let advice = format!("herd --socket={SYSTEM_SHEPHERD} restart guix-daemon");
    assert!(warnings[0].contains(&advice), "{restored}");
    assert_the_second_was_restarted(&world, first, second);
}

#[test]
fn second_daemon_beside_a_bare_one_is_used_and_first_reported() {
    let world = wiped(Role::GuixRoot, false);
    world.start_daemon();
    let first = daemons(&world)[0];
    let second = second_daemon(&world);
    let restored = restore(&world);
    assert_eq!(why(&restored), format!("process {second} listens on its socket"));
    let warnings = warnings(&restored);
    assert_eq!(warnings.len(), 1, "{restored}");
    assert!(warnings[0].contains(&format!("process {first} (guix-daemon")), "{restored}");
    assert!(warnings[0].contains("lost the socket"), "{restored}");
    assert_the_second_was_restarted(&world, first, second);

    // When the second daemon has ended, no daemon listens, and the first does not prevent a restore.
    delete_restored_items(&world);
    end(&world, world.listener(SOCKET).unwrap());
    let restored = restore(&world);
    assert_eq!(why(&restored), "no process listens on its socket");
    assert!(self::warnings(&restored)[0].contains(&format!("process {first} (guix-daemon")));
    assert_eq!(daemons(&world), [first]);
    world.sh(&format!("kill {first}"));
    world.start_daemon();
    assert_restored(&world);
}

#[track_caller]
fn assert_the_second_was_restarted(world: &World, first: u32, second: u32) {
    let all = daemons(world);
    assert!(all.contains(&first) && !all.contains(&second), "{all:?}");
    assert_eq!(all.len(), 2);
    let now = world.listener(SOCKET).expect("a daemon listens");
    assert_ne!(now, first);
    let words = world.sh(&format!("cat /proc/{now}/cmdline")).stdout;
    assert!(words.contains("--cores=1"), "{words}");
    assert!(world.daemon_answers());
    world.assert_nothing_to_build(Role::GuixRoot, Fixture::Small);
    world.verify_store();
}

#[test]
fn daemon_of_an_unknown_supervisor_is_not_started_twice() {
    assert_left_to_its_supervisor("guix-daemon --build-users-group=guixbuild --no-substitutes");
}

#[test]
fn restore_waits_until_a_supervisor_restarts_its_daemon() {
    // The delay is between the supervisor's fork and the daemon's bind of the socket.
    assert_left_to_its_supervisor(
        "(sleep 2; exec guix-daemon --build-users-group=guixbuild --no-substitutes)",
    );
}

/// Restores while an unknown supervisor runs the daemon, and asserts that this supervisor starts it again.
fn assert_left_to_its_supervisor(daemon: &str) {
    let world = wiped(Role::GuixRoot, false);
    let keep_up = format!("while :; do {daemon}; done </dev/null >>/var/log/guix-daemon.log 2>&1");
    world.ok(["setsid", "--fork", "bash", "-c", &keep_up]);
    let before = poll::until("the daemon", TIMEOUT, || world.listener(SOCKET).ok_or("none"));
    let parent = |pid: u32| world.sh(&format!("ps -o ppid= -p {pid}")).stdout;
    let supervisor = parent(before);
    let restored = restore(&world);
    assert_eq!(why(&restored), format!("process {before} listens on its socket"));
    let now = world.listener(SOCKET).unwrap();
    assert_ne!(now, before);
    assert_eq!(parent(now), supervisor, "it is the supervisor's");
    assert_restored(&world);
}

#[test]
fn unprivileged_daemon_restarts_with_its_capability() {
    let world = wiped(Role::Guix, false);
    world.start_daemon();
    let rights = || {
        let pid = world.listener(SOCKET).unwrap();
        world.sh(&format!("grep -E '^(Uid|Gid|Groups|Cap|Umask)' /proc/{pid}/status")).stdout
    };
    let before = rights();
    assert!(before.contains("CapAmb:\t0000000000000001"), "{before}");
    restore(&world);
    assert_eq!(rights(), before);
    assert_restored(&world);
}

#[test]
fn daemon_behind_a_script_is_reported_only_if_replaced() {
    for container in [false, true] {
        let world = wiped(Role::GuixRoot, container);
        // As `guix pull` creates it: a script that execs the daemon under its own name.
        world.sh(
            "mkdir -p /opt/guix && cp /usr/bin/guix-daemon /opt/guix/.daemon
             printf '#!/bin/bash\\nexec -a \"$0\" /opt/guix/.daemon \"$@\"\\n' >/opt/guix/guix-daemon
             chmod +x /opt/guix/guix-daemon",
        );
        let daemon = "/opt/guix/guix-daemon --build-users-group=guixbuild --no-substitutes";
        if container {
            world.sh(&format!(
                "mkdir -p /run/systemd/system/guix-daemon.service.d
                 printf '[Service]\\nExecStart=\\nExecStart={daemon}\\n' \
                     >/run/systemd/system/guix-daemon.service.d/zz.conf
                 systemctl daemon-reload && systemctl restart guix-daemon"
            ));
        } else {
            world.sh(&format!("setsid --fork {daemon} </dev/null >>/var/log/log 2>&1"));
        }
        poll::until("the daemon to listen", TIMEOUT, || world.listener(SOCKET).ok_or("none"));
        let restored = restore(&world);
        assert_eq!(warnings(&restored), [""; 0], "{restored}");

        delete_restored_items(&world);
        world.sh("cp /opt/guix/.daemon /opt/guix/new && mv /opt/guix/new /opt/guix/.daemon");
        let before = world.listener(SOCKET).unwrap();
        let restored = restore(&world);
        let warnings = warnings(&restored);
        assert_eq!(warnings.len(), 1, "{restored}");
        let and_then = match container {
            true => "the new one runs from now on",
            false => "a restore starts the old program again, so restart the daemon",
        };
        let expected = format!(
            "the program of the daemon, process {before}, was replaced on disk since it started: \
             /opt/guix/guix-daemon; {and_then}"
        );
        assert_eq!(warnings[0], expected);
        assert!(world.daemon_answers());
        world.verify_store();
    }
}
