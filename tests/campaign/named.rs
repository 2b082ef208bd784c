//! Kills at instants that have a name: each of them once left something behind.

use std::thread;
use std::time::{Duration, Instant};

use nix::libc::SYS_pidfd_send_signal;
use rustix::process::{Pid, Signal, kill_process};

use super::moment::Call;
use super::scene::Scene;
use super::trace::at_call;
use super::victim::{Kind, Victim, kill, processes};
use crate::support::runs::{self, flags, report};
use crate::support::{Role, Running, poll, procfs};

const SOON: Duration = Duration::from_secs(60);

fn restore(scene: &Scene) -> Running<'_> {
    let words = ["restore", "--json"].into_iter().chain(flags(&scene.world));
    scene.world.storecache_as("runner", words).spawn()
}

/// Waits for one of the processes of a run.
fn find(run: &Running, wanted: Kind) -> u32 {
    poll::until("a process to begin", SOON, || {
        let found = processes(run).into_iter().find(|(_, kind)| *kind == wanted);
        found.map(|(pid, _)| pid).ok_or_else(|| run.stderr())
    })
}

/// Kills when the root half is about to make one of these calls for the `nth` time.
fn kill_at(scene: &Scene, victim: Victim, call: Call, nth: usize) {
    let run = restore(scene);
    let root = find(&run, Kind::Root);
    let came = at_call(root, call.numbers(), nth, || _ = kill(victim, &processes(&run)));
    assert!(came, "{victim:?} at {call:?}: {}", run.stderr());
    scene.settle(Instant::now(), !victim.leaves_nobody_to_clean_up(), "killed at a call");
}

#[test]
fn a_root_half_that_dies_while_it_makes_roots_leaves_none() {
    let scene = Scene::new(Role::Mid, false);
    kill_at(&scene, Victim::Root, Call::Link, 2);
    scene.check("killed between two roots");
    scene.is_clean("killed between two roots");
    assert!(!scene.our_roots().exists());
}

#[test]
fn items_that_were_placed_when_all_died_are_taken_back_by_the_next_restore() {
    let scene = Scene::new(Role::Mid, false);
    kill_at(&scene, Victim::Everybody, Call::Rename, 3);
    let store = scene.world.store_listing();
    assert!(scene.new_items().any(|path| store.contains(path.rsplit('/').next().unwrap())));
    // One that wants nothing of it.
    runs::run(&scene.world, "runner", "restore", &["--dry-run"]);
    scene.world.start_daemon();
    scene.check("after the next restore");
    scene.is_clean("after the next restore");
}

#[test]
fn when_the_guardian_is_killed_the_root_half_starts_the_daemon() {
    let scene = Scene::new(Role::Mid, false);
    let lock = scene.world.hold_database();
    let run = restore(&scene);
    poll::until("the daemon to be stopped", SOON, || match scene.world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", run.stderr())),
    });
    assert_eq!(kill(Victim::Guardian, &processes(&run)), 1);
    drop(lock);
    run.wait(SOON).ok();
    assert!(scene.world.daemon_answers());
    assert!(scene.check("without a guardian"));
    scene.is_clean("without a guardian");
}

#[test]
fn units_that_nobody_was_left_to_start_are_started_by_the_next_restore() {
    let scene = Scene::new(Role::Old, true);
    kill_at(&scene, Victim::Everybody, Call::Rename, 1);
    let state = || scene.world.run(["systemctl", "is-active", "nix-daemon.socket"]).stdout;
    assert_eq!(state().trim(), "inactive");
    scene.restores("with units stopped");
    assert_eq!(state().trim(), "active");
    assert!(scene.world.daemon_answers());
    scene.is_clean("with units stopped");
}

#[test]
fn a_process_that_nobody_was_left_to_start_is_named_by_the_next_restore() {
    let scene = Scene::new(Role::Mid, false);
    let daemon = scene.world.daemon_pid().unwrap();
    kill_at(&scene, Victim::Everybody, Call::Rename, 1);
    let told = report(&restore(&scene).wait(SOON).ok());
    let warning = told["warnings"][0].as_str().unwrap_or_else(|| panic!("{told}"));
    assert!(warning.contains(&format!("process {daemon}")), "{warning}");
    assert!(scene.check("without a daemon"));
    scene.is_clean("without a daemon");
}

#[test]
fn a_systemctl_that_is_killed_is_run_again() {
    let scene = Scene::new(Role::Old, true);
    let run = restore(&scene);
    let guardian = find(&run, Kind::Guardian);
    poll::until("systemctl to start the units", SOON, || {
        let run_by_it = super::victim::children(guardian);
        let words = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let starts = |pid: &&u32| words(pid).is_ok_and(|it| it.starts_with("systemctl\0start"));
        let pid = run_by_it.iter().find(starts).ok_or_else(|| run.stderr())?;
        let pid = Pid::from_raw(*pid as i32).unwrap();
        kill_process(pid, Signal::KILL).map_err(|e| e.to_string())
    });
    run.wait(SOON).ok();
    assert!(scene.world.daemon_answers());
    assert!(scene.check("systemctl killed"));
    scene.is_clean("systemctl killed");
}

#[test]
fn when_root_half_and_guardian_are_killed_the_deputy_puts_all_right() {
    let scene = Scene::new(Role::Mid, false);
    kill_at(&scene, Victim::RootAndGuardian, Call::Rename, 3);
    assert!(scene.is_greeted());
    assert!(!scene.check("with a deputy"));
    scene.is_clean("with a deputy");
    scene.restores("with a deputy");
}

#[test]
fn a_daemon_that_is_still_ending_when_root_half_and_guardian_are_killed_is_started_again() {
    let scene = Scene::new(Role::Mid, false);
    let daemon = scene.daemon();
    let signal = |signal| kill_process(Pid::from_raw(daemon as i32).unwrap(), signal).unwrap();
    let run = restore(&scene);
    let root = find(&run, Kind::Root);
    // Whatever it is told from then on waits.
    let hold = || signal(Signal::STOP);
    assert!(at_call(root, Call::Link.numbers(), 1, hold), "{}", run.stderr());
    poll::until("the daemon to be told to end", SOON, || {
        let pending = u64::from_str_radix(&procfs::status(daemon, "ShdPnd"), 16).unwrap();
        if pending & 1 << (Signal::TERM.as_raw() - 1) != 0 { Ok(()) } else { Err(run.stderr()) }
    });
    let deputy = find(&run, Kind::Deputy);
    thread::scope(|scope| {
        let told_again =
            scope.spawn(|| at_call(deputy, &[SYS_pidfd_send_signal], 1, || signal(Signal::CONT)));
        poll::until("the deputy to be watched", SOON, || {
            match procfs::status(deputy, "TracerPid").as_str() {
                "0" => Err("nobody does"),
                _ => Ok(()),
            }
        });
        assert_eq!(kill(Victim::RootAndGuardian, &processes(&run)), 2);
        let told_again = told_again.join().unwrap();
        assert!(told_again, "the deputy takes a daemon that is about to end for one that runs");
    });
    scene.settle(Instant::now(), true, "a daemon that is still ending");
    assert!(!scene.check("a daemon that is still ending"));
    scene.is_clean("a daemon that is still ending");
}

#[test]
fn a_client_that_comes_as_the_daemon_stops_does_not_keep_the_daemon_down() {
    let scene = Scene::new(Role::Mid, false);
    scene.world.stop_daemon();
    // Where there are arguments, a worker has its client's number in their place.
    let daemon = "exec nix-daemon </dev/null >/dev/null 2>&1";
    scene.world.ok(["setsid", "--fork", "bash", "-c", daemon]);
    poll::until("the daemon to answer", SOON, || {
        if scene.world.daemon_answers() { Ok(()) } else { Err("nobody does") }
    });
    let words = ["restore", "--lock-timeout", "1"].into_iter().chain(flags(&scene.world));
    let run = scene.world.storecache_as("runner", words).spawn();
    let guardian = find(&run, Kind::Guardian);
    // How the daemon was started is known by then.
    let mut client = None;
    let connect = || client = Some(scene.world.connected_client());
    assert!(at_call(guardian, &[SYS_pidfd_send_signal], 1, connect), "{}", run.stderr());
    scene.settle(Instant::now(), true, "with a client");
    let failed = run.wait(SOON).fails();
    assert!(failed.to_string().contains("big-lock is still held after 1 s"), "{failed}");
    drop(client);
    assert!(!scene.check("with a client"));
    scene.is_clean("with a client");
}

#[test]
fn record_in_a_store_starts_nothing_whoever_left_it() {
    let scene = Scene::new(Role::Mid, false);
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
        let run = runs::attempt(world, "runner", "restore", &more);
        assert!(!world.host("/tmp/begun").exists(), "{owner}: {run}");
        // What another user has left is theirs.
        let left = if owner == "root" { &[][..] } else { &[".storecache-1"] };
        assert_eq!(runs::leftovers(world), left, "{owner}");
        world.sh("rm -rf /nix/store/.storecache-1");
    }
}
