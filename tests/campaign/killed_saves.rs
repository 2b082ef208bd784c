//! SIGKILL of any process of a save at random instants: the backend has the whole entry or no entry.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::kill_target::{KillTarget, Kind, kill, processes};
use super::store::CampaignStore;
use crate::support::campaign_record::FaultTally;
use crate::support::rng::{Rng, count};
use crate::support::world_runs::{self, flags, leftovers};
use crate::support::{Role, Running};

const TIMEOUT: Duration = Duration::from_secs(60);
/// After this many kills, and at the end, Nix or Guix hashes the whole store, and the entry is restored.
const VERIFY_INTERVAL: u64 = 10;
const PHASES: [&str; 3] = ["start", "freeze", "pack"];

/// The phase of a save: before it has frozen the database, while it reads the copy, or while it writes.
fn phase(scene: &CampaignStore, run: &Running) -> &'static str {
    let processes = processes(run);
    let writes = processes.iter().filter(|(_, kind)| *kind == Kind::User).any(|(pid, _)| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|it| fs::read_link(it.path()).ok())
            .any(|to| to.starts_with("/cache") && to != Path::new("/cache"))
    });
    if writes {
        "pack"
    } else if copies(scene).is_empty() {
        "start"
    } else {
        "freeze"
    }
}

/// Copies of the database.
fn copies(scene: &CampaignStore) -> Vec<String> {
    let names = fs::read_dir(scene.world.host("/tmp")).unwrap().flatten();
    let names = names.filter_map(|it| it.file_name().into_string().ok());
    names.filter(|name| name.contains("storecache")).collect()
}

fn entries(scene: &CampaignStore) -> BTreeSet<String> {
    let names = fs::read_dir(scene.world.backend().host_path()).unwrap().flatten();
    names.map(|it| it.file_name().into_string().unwrap()).collect()
}

fn kill_saves(role: Role, container: bool, kills: usize) {
    let scene = CampaignStore::new(role, container);
    scene.restores("before all");
    let part = format!("kills-save-{}{}", role.name(), if container { "-systemd" } else { "" });
    let mut dice = Rng::new(&part);
    let mut tally = FaultTally::new(&part);
    let first = entries(&scene);
    let words = || ["save", "--full", "--policy", "always"].into_iter().chain(flags(&scene.world));
    let begun = Instant::now();
    scene.world.storecache_as("runner", words()).ok();
    let whole = begun.elapsed();
    let mut attempts = 0;
    while tally.faults() < kills as u64 {
        attempts += 1;
        assert!(attempts <= 20 * kills, "{}: hardly any kill lands: {tally:?}", scene.what);
        let victim = dice.choose(&KillTarget::OF_A_SAVE);
        let wanted =
            PHASES.into_iter().min_by_key(|phase| (tally.faults_in_phase(phase), dice.number()));
        let daemon = scene.daemon();
        let before = entries(&scene);
        let mut run = scene.world.storecache_as("runner", words()).spawn();
        // Waits for the wanted phase of a run that has begun, and then a random time.
        let there = |run: &Running| {
            let begun = processes(run).iter().any(|(_, kind)| *kind == Kind::User);
            begun && wanted.is_none_or(|wanted| phase(&scene, run) == wanted)
        };
        let part = dice.choose(&[0.001, 0.1, 0.4]) * dice.below(1000) as f64 / 1000.0;
        let after = whole.mul_f64(part);
        while run.is_running() && !there(&run) {
            std::thread::sleep(Duration::from_micros(100));
        }
        let end = Instant::now() + after;
        while Instant::now() < end && run.is_running() {
            std::thread::sleep(Duration::from_micros(100));
        }
        let (landed, processes) = (phase(&scene, &run), processes(&run));
        let hit = run.is_running() && kill(victim, &processes) > 0;
        let killed = Instant::now();
        let what = format!("{}, fault {}: {victim:?} in {landed:?}", scene.what, tally.faults());
        tally.record_daemon_recovery(scene.wait_until_settled(killed, true, &what));
        let ended = run.wait(TIMEOUT);
        let what = format!("{what}: {ended}");
        if hit {
            tally.count(victim.name(), landed);
        }
        assert_eq!(scene.daemon(), daemon, "{what}: a save must not stop the daemon");
        // Only the copy of the database may stay, if no process is left to remove it.
        let left = leftovers(&scene.world);
        let none_left = hit && victim.leaves_no_process();
        assert!(left.is_empty() || (none_left && left == copies(&scene)), "{what}: {left:?}");
        // A new entry is whole, and there is no other new file.
        let after = entries(&scene);
        assert!(after.is_superset(&before) && after.len() <= before.len() + 1, "{what}: {after:?}");
        for new in after.difference(&before) {
            assert!(new.ends_with(".tar.zst"), "{what}: {new}");
            let file = format!("/cache/{new}");
            scene.world.storecache_as("runner", ["verify", &file]).ok();
            scene.world.ok(["zstd", "-q", "--test", &file]);
        }
        assert!(
            ended.status.success() <= (after.len() > before.len()),
            "{what}: no new entry was made"
        );
        assert!(scene.check(&what), "{what}: the store has changed");
        // The next save succeeds, and removes what the killed one has left.
        scene.world.storecache_as("runner", words()).ok();
        assert_eq!(leftovers(&scene.world), [""; 0], "{what}");
        assert_eq!(entries(&scene).len(), after.len() + 1, "{what}");
        if tally.faults().is_multiple_of(VERIFY_INTERVAL) {
            scene.verify_store_content();
            scene.remove_new_items();
            scene.restores(&what);
            scene.assert_clean(&what);
        }
        for file in entries(&scene).difference(&first) {
            fs::remove_file(scene.world.backend().host_path().join(file)).unwrap();
        }
    }
    scene.verify_store_content();
    world_runs::restore(&scene.world);
    for phase in PHASES {
        assert!(tally.faults_in_phase(phase) > 0, "no kill landed in {phase}: {tally:?}");
    }
    tally.finish();
}

#[test]
fn killed_nix_save_leaves_a_whole_entry_or_none() {
    kill_saves(Role::New, false, count(12, 120));
}

#[test]
fn killed_guix_save_under_systemd_leaves_a_whole_entry_or_none() {
    kill_saves(Role::Guix, true, count(10, 80));
}
