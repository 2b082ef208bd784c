//! Power cuts at random instants of a restore, after which only the content of the disk counts.
//!
//! The store is on a file system in a file. At some instant, all processes of the run are stopped and the
//! file is copied: the copy is missing all writes that have not reached the disk yet. Mounting the copy in
//! place of the disk replays its journal, as after a reboot. A kernel without device-mapper
//! (`CONFIG_BLK_DEV_DM`) cannot drop single writes behind the file system's back; the copy has all writes
//! that the file system had begun, in their order.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::kill_target::processes;
use crate::support::campaign_record::FaultTally;
use crate::support::rng::{Rng, count};
use crate::support::world_runs::{self, StoreState, flags, record_state, save};
use crate::support::{Fixture, Role, Running, World, tree_digest};

/// Mounts the file `disk` of a world on `/nix`.
fn mount(world: &World, disk: &str) {
    world.sh(&format!("mount -o loop {disk} /nix"));
}

/// Sends a signal to all processes of a run.
fn signal(run: &Running, signal: Signal) {
    for (pid, _) in processes(run) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, signal);
    }
}

/// Asserts that every row has its item as it was saved. Returns the number of rows.
fn check(world: &World, whole: &StoreState, what: &str) -> usize {
    let valid = world.sh("sqlite3 /nix/var/nix/db/db.sqlite 'select path from ValidPaths'");
    let valid: BTreeSet<String> = valid.lines().into_iter().collect();
    assert!(valid.is_empty() || valid.len() == whole.references.len(), "{what}: {valid:?}");
    let root = format!("/proc/{}/root", world.init());
    for path in &valid {
        let tree = tree_digest(format!("{root}{path}"));
        assert_eq!(tree, whole.trees[path], "{what}: {path}");
    }
    world.ok(["nix-store", "--verify", "--check-contents"]);
    valid.len()
}

#[test]
fn power_cut_during_a_restore_loses_nothing() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    let whole = record_state(&world);
    world.wipe_store();
    world.stop_daemon();
    let (nix, empty) = (world.host("/nix"), world.host("/empty"));
    let made = Command::new("mkfs.ext4").args(["-q", "-d"]).args([nix, empty]).arg("400M").output();
    assert!(made.unwrap().status.success());
    world.sh("mknod /dev/loop-control c 10 237
         for n in {0..255}; do mknod /dev/loop$n b 7 $n; done");
    let mut dice = Rng::new("power");
    let mut tally = FaultTally::new("power");
    let mut took = Duration::ZERO;
    let (mut none, mut all) = (0, 0);
    let cuts = count(10, 100);
    // The first run is not cut; it measures the duration.
    for cut in 0..=cuts {
        world.sh("cp --sparse=always /empty /disk");
        mount(&world, "/disk");
        let words = ["restore"].into_iter().chain(flags(&world));
        let begun = Instant::now();
        let run = world.storecache_as("root", words).spawn();
        let what = format!("power cut {cut} of {took:?}");
        if cut == 0 {
            run.wait(Duration::from_secs(60)).ok();
            took = begun.elapsed();
            world.sh("umount /nix");
            continue;
        }
        // Later instants are more likely, because the commit comes at the end.
        let part = dice.below(1000).max(dice.below(1000)) as f64 / 1000.0;
        let end = took.mul_f64(part * 1.1);
        while begun.elapsed() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        signal(&run, Signal::STOP);
        world.sh("cp --sparse=always /disk /after");
        signal(&run, Signal::KILL);
        drop(run);
        world.sh("umount --lazy /nix");
        mount(&world, "/after");
        let found = check(&world, &whole, &what);
        tally.count("power cut", if found == 0 { "before" } else { "after" });
        match found {
            0 => none += 1,
            _ => all += 1,
        }
        world_runs::run(&world, "root", "restore", &[]);
        assert_eq!(check(&world, &whole, &what), whole.references.len(), "{what}");
        assert_eq!(staged(&world), [""; 0], "{what}");
        world.sh("umount /nix && rm /after /disk");
    }
    assert!(none > 0 && (all > 0 || cuts < 50), "{none} before the commit, {all} after it");
    mount(&world, "/empty");
    world_runs::run(&world, "root", "restore", &[]);
    world.sh("umount /nix && mount -o loop /empty /nix");
    assert_eq!(check(&world, &whole, "at the end"), whole.references.len());
    tally.finish();
}

fn staged(world: &World) -> Vec<String> {
    world.sh("ls -A /nix /nix/store /nix/var/nix | grep '^.storecache' || true").lines()
}
