//! Kills at specific instants, each of which once left something behind.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use nix::libc::{SYS_clone, SYS_clone3, SYS_close, SYS_pidfd_send_signal, c_long};
use rustix::process::{Pid, Signal, kill_process};

use super::kill_target::{KillTarget, Kind, kill, processes};
use super::ptrace::{at_call, at_last_call_of_thread};
use super::store::CampaignStore;
use super::trigger::Call;
use crate::support::world_runs::{self, flags, report};
use crate::support::{Role, Running, poll, procfs};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The calls by which glibc creates a process.
const FORKS: [c_long; 2] = [SYS_clone, SYS_clone3];

fn restore(scene: &CampaignStore) -> Running<'_> {
    let words = ["restore", "--json"].into_iter().chain(flags(&scene.world));
    scene.world.storecache_as("runner", words).spawn()
}

/// Waits for one of the processes of a run.
fn find(run: &Running, wanted: Kind) -> u32 {
    poll::until("a process to begin", TIMEOUT, || {
        let found = processes(run).into_iter().find(|(_, kind)| *kind == wanted);
        found.map(|(pid, _)| pid).ok_or_else(|| run.stderr())
    })
}

/// Kills when the root helper is about to make one of these calls for the `nth` time.
fn kill_at(scene: &CampaignStore, victim: KillTarget, call: Call, nth: usize) {
    let run = restore(scene);
    let root = find(&run, Kind::Root);
    let came = at_call(root, call.numbers(), nth, || _ = kill(victim, &processes(&run)));
    assert!(came, "{victim:?} at {call:?}: {}", run.stderr());
    scene.wait_until_settled(Instant::now(), !victim.leaves_no_process(), "killed at a call");
}

fn wait_for_lock_message(run: &Running) {
    poll::until("the restore to wait for the lock", TIMEOUT, || match run.stderr() {
        stderr if stderr.contains("big-lock is held") => Ok(()),
        stderr => Err(stderr),
    });
}

#[test]
fn root_helper_killed_while_creating_roots_leaves_none() {
    let scene = CampaignStore::new(Role::Mid, false);
    kill_at(&scene, KillTarget::Root, Call::Link, 2);
    scene.check("killed between two roots");
    scene.assert_clean("killed between two roots");
    assert!(!scene.storecache_roots().exists());
}

#[test]
fn next_restore_removes_items_placed_by_a_killed_run() {
    let scene = CampaignStore::new(Role::Mid, false);
    kill_at(&scene, KillTarget::All, Call::Rename, 3);
    let store = scene.world.store_listing();
    assert!(scene.new_items().any(|path| store.contains(path.rsplit('/').next().unwrap())));
    // A dry run does not need the items, but takes them back all the same.
    world_runs::run(&scene.world, "runner", "restore", &["--dry-run"]);
    scene.world.start_daemon();
    scene.check("after the next restore");
    scene.assert_clean("after the next restore");
}

#[test]
fn root_helper_starts_the_daemon_if_the_guardian_is_killed() {
    let scene = CampaignStore::new(Role::Mid, false);
    let lock = scene.world.hold_database();
    let run = restore(&scene);
    poll::until("the daemon to be stopped", TIMEOUT, || match scene.world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", run.stderr())),
    });
    assert_eq!(kill(KillTarget::Guardian, &processes(&run)), 1);
    drop(lock);
    run.wait(TIMEOUT).ok();
    assert!(scene.world.daemon_answers());
    assert!(scene.check("without a guardian"));
    scene.assert_clean("without a guardian");
}

#[test]
fn next_restore_starts_units_that_a_killed_run_left_stopped() {
    let scene = CampaignStore::new(Role::Old, true);
    kill_at(&scene, KillTarget::All, Call::Rename, 1);
    let state = || scene.world.run(["systemctl", "is-active", "nix-daemon.socket"]).stdout;
    assert_eq!(state().trim(), "inactive");
    scene.restores("with units stopped");
    assert_eq!(state().trim(), "active");
    assert!(scene.world.daemon_answers());
    scene.assert_clean("with units stopped");
}

#[test]
fn next_restore_reports_a_bare_daemon_left_stopped() {
    let scene = CampaignStore::new(Role::Mid, false);
    kill_at(&scene, KillTarget::All, Call::Rename, 1);
    let restored = report(&restore(&scene).wait(TIMEOUT).ok());
    let expected = "a killed restore had stopped the daemon, which cannot be started again: \
                    the command that started it is unknown; start it as you did before";
    assert_eq!(restored["warnings"][0], expected, "{restored}");
    assert!(scene.check("without a daemon"));
    scene.assert_clean("without a daemon");
}

#[test]
fn killed_systemctl_is_run_again() {
    let scene = CampaignStore::new(Role::Old, true);
    // The start does not end before it was seen and killed.
    scene.world.sh("touch /run/start-waits
        mkdir /run/systemd/system/nix-daemon.socket.d
        printf '[Socket]\\nExecStartPre=/bin/sh -c \"while test -e /run/start-waits; do sleep 0.1; done\"\\n' \
            >/run/systemd/system/nix-daemon.socket.d/wait.conf
        systemctl daemon-reload");
    let run = restore(&scene);
    let guardian = find(&run, Kind::Guardian);
    poll::until("systemctl to start the units", TIMEOUT, || {
        let children = super::kill_target::children(guardian);
        let words = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let starts = |pid: &&u32| words(pid).is_ok_and(|it| it.starts_with("systemctl\0start"));
        let pid = children.iter().find(starts).ok_or_else(|| run.stderr())?;
        let pid = Pid::from_raw(*pid as i32).unwrap();
        kill_process(pid, Signal::KILL).map_err(|e| e.to_string())
    });
    scene.world.sh("rm /run/start-waits");
    run.wait(TIMEOUT).ok();
    assert!(scene.world.daemon_answers());
    assert!(scene.check("systemctl killed"));
    scene.assert_clean("systemctl killed");
}

#[test]
fn backup_guardian_recovers_if_helper_and_guardian_are_killed() {
    let scene = CampaignStore::new(Role::Mid, false);
    kill_at(&scene, KillTarget::RootAndGuardian, Call::Rename, 3);
    assert!(scene.daemon_greets());
    assert!(!scene.check("with a backup guardian"));
    scene.assert_clean("with a backup guardian");
    scene.restores("with a backup guardian");
}

#[test]
fn backup_guardian_restarts_a_daemon_that_is_still_ending() {
    let scene = CampaignStore::new(Role::Mid, false);
    let daemon = scene.daemon();
    let signal = |signal| kill_process(Pid::from_raw(daemon as i32).unwrap(), signal).unwrap();
    let lock = scene.world.hold_big_lock();
    let run = restore(&scene);
    wait_for_lock_message(&run);
    // Signals from now on stay pending.
    signal(Signal::STOP);
    drop(lock);
    poll::until("the daemon to get SIGTERM", TIMEOUT, || {
        let pending = u64::from_str_radix(&procfs::status(daemon, "ShdPnd"), 16).unwrap();
        if pending & 1 << (Signal::TERM.as_raw() - 1) != 0 { Ok(()) } else { Err(run.stderr()) }
    });
    let backup = find(&run, Kind::BackupGuardian);
    thread::scope(|scope| {
        let signaled_again =
            scope.spawn(|| at_call(backup, &[SYS_pidfd_send_signal], 1, || signal(Signal::CONT)));
        wait_until_traced(backup);
        assert_eq!(kill(KillTarget::RootAndGuardian, &processes(&run)), 2);
        let signaled_again = signaled_again.join().unwrap();
        assert!(signaled_again, "the backup guardian did not stop the ending daemon");
    });
    scene.wait_until_settled(Instant::now(), true, "a daemon that is still ending");
    assert!(!scene.check("a daemon that is still ending"));
    scene.assert_clean("a daemon that is still ending");
}

#[test]
fn client_that_connects_during_the_stop_is_served_later() {
    let scene = CampaignStore::new(Role::Mid, false);
    let run = restore(&scene);
    let guardian = find(&run, Kind::Guardian);
    let mut client = None;
    // The client's worker waits for the lock, which the restore holds by then.
    let connect = || client = Some(scene.world.greeting_client());
    assert!(at_call(guardian, &[SYS_pidfd_send_signal], 1, connect), "{}", run.stderr());
    run.wait(TIMEOUT).ok();
    let client = client.unwrap();
    poll::until("the client to be answered", TIMEOUT, || {
        if client.stdout().contains("connected") { Ok(()) } else { Err(client.stderr()) }
    });
    drop(client);
    assert!(scene.world.daemon_answers());
    assert!(scene.check("with a client"));
    scene.assert_clean("with a client");
}

/// Runs `daemon` until it has forked a worker for a client and is about to close its own end of the
/// connection. Then sends on `stands`, and lets the daemon continue when a signal is pending for it. A
/// nix-daemon checks for signals again only when the next client has connected.
fn hold_until_a_signal_is_pending(daemon: u32, stands: &Sender<()>) -> bool {
    at_last_call_of_thread(daemon, &[&FORKS, &[SYS_close]], || {
        stands.send(()).unwrap();
        poll::until("the signal", TIMEOUT, || {
            match u64::from_str_radix(&procfs::status(daemon, "SigPnd"), 16).unwrap() {
                0 => Err("no signal"),
                _ => Ok(()),
            }
        });
    })
}

fn wait_until_traced(pid: u32) {
    poll::until("a process to be traced", TIMEOUT, || {
        match procfs::status(pid, "TracerPid").as_str() {
            "0" => Err("no tracer"),
            _ => Ok(()),
        }
    });
}

#[test]
fn bare_daemon_that_misses_a_signal_is_stopped() {
    let scene = CampaignStore::new(Role::Mid, false);
    let daemon = scene.daemon();
    let run = restore(&scene);
    let guardian = find(&run, Kind::Guardian);
    let mut client = None;
    thread::scope(|scope| {
        let (stands, is_standing) = bounded(1);
        let connect = || {
            scope.spawn(move || hold_until_a_signal_is_pending(daemon, &stands));
            wait_until_traced(daemon);
            client = Some(scene.world.greeting_client());
            is_standing.recv_timeout(TIMEOUT).unwrap();
        };
        assert!(at_call(guardian, &[SYS_pidfd_send_signal], 1, connect), "{}", run.stderr());
    });
    run.wait(TIMEOUT).ok();
    drop(client);
    assert!(scene.world.daemon_answers());
    assert!(scene.check("with a client"));
    scene.assert_clean("with a client");
}

#[test]
fn systemd_service_that_misses_a_signal_is_stopped() {
    let scene = CampaignStore::new(Role::Old, true);
    let daemon = scene.daemon();
    let lock = scene.world.hold_big_lock();
    let run = restore(&scene);
    wait_for_lock_message(&run);
    thread::scope(|scope| {
        let (stands, is_standing) = bounded(1);
        let missed = scope.spawn(move || hold_until_a_signal_is_pending(daemon, &stands));
        wait_until_traced(daemon);
        let client = scene.world.greeting_client();
        is_standing.recv_timeout(TIMEOUT).unwrap();
        // After this, nothing keeps the restore from stopping the service.
        drop((client, lock));
        assert!(missed.join().unwrap(), "{}", run.stderr());
    });
    // systemd by itself would wait for longer than this timeout.
    run.wait(TIMEOUT).ok();
    assert!(scene.world.daemon_answers());
    assert!(scene.check("with a client"));
    scene.assert_clean("with a client");
}

#[test]
fn stop_record_in_a_store_starts_nothing() {
    let scene = CampaignStore::new(Role::Mid, false);
    let world = &scene.world;
    world.stop_daemon();
    let start = "touch /tmp/begun";
    let record = format!(
        r#"{{"daemon":{{"command":{{"stop":"true","start":"{start}","run_as":null}}}},"mount":null}}"#
    );
    for owner in ["runner", "root"] {
        world.sh(&format!(
            "mkdir /nix/store/.storecache-1; cd /nix/store/.storecache-1
             printf '%s' '{record}' >.stopped; chown -R {owner} ."
        ));
        let more = ["--dry-run", "--daemon-timeout", "1"];
        let run = world_runs::attempt(world, "runner", "restore", &more);
        assert!(!world.host("/tmp/begun").exists(), "{owner}: {run}");
        // Leftovers of other users are not removed.
        let left = if owner == "root" { &[][..] } else { &[".storecache-1"] };
        assert_eq!(world_runs::leftovers(world), left, "{owner}");
        world.sh("rm -rf /nix/store/.storecache-1");
    }
}
