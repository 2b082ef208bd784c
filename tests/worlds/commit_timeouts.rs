//! Tests of waits around a commit: a daemon that stops slowly or never, a user process, root helper or guardian
//! that a signal has stopped, and the deadline in the middle of a commit.

use std::time::Duration;

use crate::support::missing_item::{MissingItemWorld, storecache_processes};
use crate::support::world_runs::{NIX_FLAGS, report, root_helper_pid, save};
use crate::support::{Fixture, Output, Role, Running, World, poll, procfs};
use rustix::process::{Pid, Signal, kill_process};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Texts that name a mere consequence of an abort and must never be reported as a cause.
const CONSEQUENCE_TEXTS: [&str; 5] = [
    "roken pipe",
    "closed the connection",
    "canceled by a signal",
    "ended without a reply",
    "the guardian died",
];

#[track_caller]
fn assert_no_consequences(output: &Output) {
    for text in CONSEQUENCE_TEXTS {
        assert!(!format!("{output}").contains(text), "{text:?} only follows from it:\n{output}");
    }
}

/// Starts a restore in the background.
fn start<'w>(world: &'w World, user: &str, more: &[&str]) -> Running<'w> {
    let words =
        ["restore"].into_iter().chain(NIX_FLAGS).chain(["--json"]).chain(more.iter().copied());
    world.storecache_as(user, words).spawn()
}

#[track_caller]
fn wait_for_stderr(run: &mut Running<'_>, text: &str) {
    poll::until(&format!("{text:?} to be printed"), TIMEOUT, || {
        let said = run.stderr();
        if said.contains(text) {
            return Ok(());
        }
        assert!(run.is_running(), "the run ended without {text:?}: {said}{}", run.stdout());
        Err(said)
    });
}

/// Fails unless the run was a miss for this reason in this phase. Returns the reason.
#[track_caller]
fn reason(output: &Output, phase: &str, words: &[&str]) -> String {
    assert_eq!(output.code(), 1, "{output}");
    let report = report(output);
    assert_eq!(report["hit"], "miss", "{report}");
    let reason = report["reason"].as_str().unwrap().to_owned();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason}");
    }
    assert!(reason.starts_with(&format!("restore: {phase}: ")), "{reason}");
    assert_no_consequences(output);
    reason
}

/// Listens as a daemon, and computes for three seconds after a request to end.
const SLOW_DAEMON: &str = r#"
import os, signal, socket, subprocess, sys, time
path = "/nix/var/nix/daemon-socket/socket"
if os.path.exists(path): os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen(16)
def end(*_):
    until = time.monotonic() + 3
    while time.monotonic() < until: pass
    os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    client, _ = listener.accept()
    subprocess.Popen(["nix-daemon", "--stdio"], stdin=client, stdout=client)
    client.close()
"#;

#[test]
fn commit_waits_for_a_bare_daemon_that_ends_slowly() {
    let lacking = MissingItemWorld::bare(Role::New);
    let world = &lacking.world;
    world.stop_daemon();
    std::fs::write(world.host("/srv/daemon.py"), SLOW_DAEMON).unwrap();
    world.sh("setsid --fork python3 /srv/daemon.py </dev/null >>/var/log/slow.log 2>&1");
    poll::until(
        "the daemon",
        TIMEOUT,
        || if world.daemon_answers() { Ok(()) } else { Err("none") },
    );
    let run = start(world, "runner", &["--daemon-timeout", "1", "--stall-timeout", "1"]);
    let output = run.wait(TIMEOUT).ok();
    assert!(output.stderr.contains("was sent SIGTERM, and it uses the CPU"), "{output}");
    lacking.assert_restored();
}

/// A child that was forked for a client has the socket too, until it closes it. The kernel accepts clients that
/// connect then, but no process answers them.
#[test]
fn socket_held_by_a_child_of_the_daemon_is_not_a_daemon() {
    let lacking = MissingItemWorld::bare(Role::New);
    let world = &lacking.world;
    world.stop_daemon();
    let slow = "    until = time.monotonic() + 3\n    while time.monotonic() < until: pass\n";
    let forks = "    if os.fork() == 0: time.sleep(3)\n";
    assert!(SLOW_DAEMON.contains(slow));
    std::fs::write(world.host("/srv/daemon.py"), SLOW_DAEMON.replace(slow, forks)).unwrap();
    world.sh("setsid --fork python3 /srv/daemon.py </dev/null >>/var/log/slow.log 2>&1");
    poll::until(
        "the daemon",
        TIMEOUT,
        || if world.daemon_answers() { Ok(()) } else { Err("none") },
    );
    start(world, "runner", &["--daemon-timeout", "10"]).wait(TIMEOUT).ok();
    lacking.assert_restored();
}

#[test]
fn bare_daemon_that_does_not_end_hits_the_daemon_timeout() {
    let lacking = MissingItemWorld::bare(Role::New);
    let world = &lacking.world;
    world.stop_daemon();
    let ends = "    until = time.monotonic() + 3\n    while time.monotonic() < until: pass\n    os._exit(0)";
    assert!(SLOW_DAEMON.contains(ends));
    std::fs::write(world.host("/srv/daemon.py"), SLOW_DAEMON.replace(ends, "    pass")).unwrap();
    world.sh("setsid --fork python3 /srv/daemon.py </dev/null >>/var/log/slow.log 2>&1");
    poll::until(
        "the daemon",
        TIMEOUT,
        || if world.daemon_answers() { Ok(()) } else { Err("none") },
    );
    let pid = world.daemon_pid().unwrap();
    let output = start(world, "runner", &["--daemon-timeout", "1"]).wait(TIMEOUT);
    let daemon = format!("the daemon, process {pid},");
    let words = [&daemon, "did not end within 1 s of SIGTERM", "last activity"];
    reason(&output, "commit", &words);
    lacking.assert_no_leftovers();
    world.sh(&format!("kill -KILL {pid}"));
    poll::until("it to end", TIMEOUT, || world.daemon_pid().map_or(Ok(()), Err));
    world.start_daemon();
    lacking.assert_unchanged();
}

#[test]
fn bare_daemon_that_does_not_answer_is_not_stopped() {
    let lacking = MissingItemWorld::bare(Role::Mid);
    let world = &lacking.world;
    let pid = world.daemon_pid().unwrap();
    world.sh(&format!("kill -STOP {pid}"));
    let output = start(world, "runner", &["--daemon-timeout", "1"]).wait(TIMEOUT);
    let process = format!("process {pid} (nix-daemon");
    reason(&output, "commit", &[&process, "does not answer like a", "the daemon does not answer"]);
    lacking.assert_no_leftovers();
    world.sh(&format!("kill -CONT {pid}"));
    assert_eq!(world.daemon_pid(), Some(pid));
    lacking.assert_unchanged();
}

#[test]
fn daemon_timeout_applies_only_to_inactive_user_commands() {
    let lacking = MissingItemWorld::bare(Role::Mid);
    let world = &lacking.world;
    let pid = world.daemon_pid().unwrap();
    let commands = |stop: &str, starts: &str| {
        let more = ["--daemon", "command", "--daemon-stop", stop, "--daemon-start", starts];
        let clocks = ["--daemon-timeout", "2", "--stall-timeout", "1"];
        start(world, "runner", &[&more[..], &clocks].concat()).wait(TIMEOUT)
    };
    let output = commands("exec sleep 1000", "true");
    let words = ["the command \"exec sleep 1000\" showed no activity for 2 s", "last activity"];
    reason(&output, "commit", &words);
    lacking.assert_unchanged();
    let starts = "sudo setsid --fork nix-daemon --daemon >/tmp/log 2>&1";
    let stop =
        format!("t=$(date +%s); while [ $(date +%s) -lt $((t + 4)) ]; do :; done; sudo kill {pid}");
    commands(&stop, starts).ok();
    lacking.assert_restored();
}

/// Returns a container whose daemon stops in this way.
fn container_with_stop_settings(lines: &str) -> MissingItemWorld {
    let lacking =
        MissingItemWorld::new(World::build(Role::Old).fixture(Fixture::Small).container().start());
    lacking.world.sh(&format!(
        "mkdir -p /run/systemd/system/nix-daemon.service.d
         printf '[Service]\n{lines}\n' >/run/systemd/system/nix-daemon.service.d/stop.conf
         systemctl daemon-reload"
    ));
    assert!(lacking.world.daemon_answers(), "its service runs");
    lacking
}

#[test]
fn commit_waits_while_systemd_stops_the_daemon() {
    let lacking = container_with_stop_settings("ExecStop=/bin/sleep 6\nTimeoutStopSec=60");
    let world = &lacking.world;
    let run = start(world, "runner", &["--daemon-timeout", "1", "--stall-timeout", "1"]);
    let output = run.wait(TIMEOUT).ok();
    let alive = "nix-daemon.service is deactivating (stop)";
    assert!(output.stderr.contains(alive), "{output}");
    assert!(output.stderr.contains("still working: commit: "), "{output}");
    lacking.assert_restored();

    // The stop takes as long, in a run whose deadline is too early for it.
    lacking.delete_item_again();
    assert!(world.daemon_answers());
    let output = start(world, "runner", &["--deadline", "5"]).wait(TIMEOUT);
    let report = report(&output);
    reason(&output, "commit", &["the deadline of 5 s has passed", alive]);
    assert_eq!(report["cut"]["clock"], "deadline", "{report}");
    lacking.assert_unchanged();
}

#[test]
fn endless_stop_hits_the_timeout_and_the_daemon_restarts() {
    let lacking = container_with_stop_settings("ExecStop=/bin/sleep 1000\nTimeoutStopSec=infinity");
    let output = start(&lacking.world, "runner", &["--daemon-timeout", "1"]).wait(TIMEOUT);
    let words =
        ["nix-daemon.service is deactivating (stop)", "sleep 1000), asleep", "last activity"];
    reason(&output, "commit", &words);
    lacking.world.sh("pkill -x sleep");
    lacking.assert_unchanged();
}

#[test]
fn stopped_helper_in_the_commit_leaves_the_store_unchanged() {
    for user in ["root", "runner"] {
        let lacking = MissingItemWorld::bare(Role::Mid);
        let world = &lacking.world;
        let lock = world.hold_big_lock();
        let mut run = start(world, user, &["--stall-timeout", "1"]);
        wait_for_stderr(&mut run, "big-lock is held by");
        kill_process(root_helper_pid(world), Signal::STOP).unwrap();
        let output = run.wait(TIMEOUT);
        let words =
            ["the root helper (process", "showed no activity for 1", "is stopped", "big-lock"];
        reason(&output, "commit", &words);
        assert_eq!(report(&output)["cut"]["clock"], "stall-timeout");
        drop(lock);
        lacking.assert_unchanged();
    }
}

/// Returns the guardian of a run, by its pid as the test process sees it.
fn guardian(world: &World) -> Pid {
    let is_guardian = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(b"storecache-guardian\0")
    };
    let found = poll::until("the guardian", TIMEOUT, || {
        procfs::processes_in_namespace(world.init()).into_iter().find(is_guardian).ok_or("none")
    });
    Pid::from_raw(found as i32).unwrap()
}

#[test]
fn guardian_finishes_after_sigstop_and_sigterm() {
    let lacking = MissingItemWorld::bare(Role::Mid);
    let world = &lacking.world;
    for signal in [Signal::STOP, Signal::TERM] {
        let lock = world.hold_big_lock();
        let mut run = start(world, "runner", &["--stall-timeout", "1"]);
        wait_for_stderr(&mut run, "big-lock is held by");
        kill_process(guardian(world), signal).unwrap();
        drop(lock);
        run.wait(TIMEOUT).ok();
        lacking.assert_restored();
        lacking.delete_item_again();
    }
}

#[test]
fn deadline_rolls_back_a_commit_that_waits_for_the_big_lock() {
    let lacking = MissingItemWorld::bare(Role::Mid);
    let lock = lacking.world.hold_big_lock();
    let output = start(&lacking.world, "runner", &["--deadline", "5"]).wait(TIMEOUT);
    let words = ["the deadline of 5 s has passed", "big-lock is held by"];
    reason(&output, "commit", &words);
    drop(lock);
    lacking.assert_unchanged();
}

#[test]
fn hanging_sudo_is_aborted_and_named() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    let sudo = "/usr/local/sbin/sudo";
    world.sh(&format!("printf '#!/bin/sh\nexec sleep 1000\n' >{sudo}; chmod 755 {sudo}"));
    for (flag, words) in [
        ("--stall-timeout", ["the start of the root helper (process", "showed no activity for 1"]),
        ("--deadline", ["the deadline of 1 s has passed", "last activity"]),
    ] {
        let words_of_run = ["/usr/local/bin/storecache", "restore"].into_iter().chain(NIX_FLAGS);
        let words_of_run = words_of_run.chain(["--json", flag, "1"]);
        let output = world.command(words_of_run).user("runner").run();
        reason(&output, "start", &words);
        assert_eq!(storecache_processes(&world), [""; 0], "no process is left");
    }
}
