//! SIGKILL of any process of a restore at random instants.

use std::time::{Duration, Instant};

use super::kill_target::{KillTarget, Kind, kill, processes};
use super::ptrace::at_call;
use super::store::CampaignStore;
use super::trigger::{PHASES, RestoreView, Trigger};
use crate::support::Role;
use crate::support::campaign_record::FaultTally;
use crate::support::rng::{Rng, count};
use crate::support::world_runs::flags;

const TIMEOUT: Duration = Duration::from_secs(60);
/// After this many kills, and at the end, Nix or Guix hashes the whole store.
const VERIFY_INTERVAL: u64 = 20;

/// Kills this many restores, each of them once.
fn kill_restores(role: Role, container: bool, kills: usize) {
    let scene = CampaignStore::new(role, container);
    let part = format!("kills-restore-{}{}", role.name(), if container { "-systemd" } else { "" });
    let mut dice = Rng::new(&part);
    let mut tally = FaultTally::new(&part);
    let begun = Instant::now();
    scene.restores("the first restore");
    let mut whole = begun.elapsed();
    scene.remove_new_items();
    let items = scene.new_items().count();
    let mut attempts = 0;
    while tally.faults() < kills as u64 {
        attempts += 1;
        assert!(attempts <= 20 * kills, "{}: hardly any kill lands: {tally:?}", scene.what);
        // The phase with the fewest kills so far; ties are resolved at random.
        let phase =
            PHASES.into_iter().min_by_key(|phase| (tally.faults_in_phase(phase), dice.number()));
        let trigger = Trigger::in_phase(phase.unwrap_or_default(), &mut dice, items);
        let victim = dice.choose(&KillTarget::OF_A_RESTORE);
        let what = format!("{}, fault {}: {victim:?} at {trigger:?}", scene.what, tally.faults());
        let view = RestoreView::new(&scene, scene.daemon());
        let words = ["restore"].into_iter().chain(flags(&scene.world));
        let begun = Instant::now();
        let mut run = scene.world.storecache_as("runner", words).spawn();
        let mut came = view.wait(trigger, &mut run, begun, whole, &mut dice);
        if matches!(trigger, Trigger::Part(_)) && !came {
            // The run ended earlier than expected: adjusts to the current speed of this machine.
            whole = begun.elapsed();
        }
        let mut landed = ("", 0);
        let mut killed = Instant::now();
        let mut strike = || {
            let processes = processes(&run);
            landed = (view.phase(&processes), kill(victim, &processes));
            killed = Instant::now();
        };
        let root = || processes(&run).into_iter().find(|(_, kind)| *kind == Kind::Root);
        match (trigger, came) {
            (Trigger::Call(call, nth), true) => {
                came = root().is_some_and(|(pid, _)| at_call(pid, call.numbers(), nth, strike));
            }
            (_, true) => strike(),
            _ => {}
        }
        let (phase, count) = landed;
        let hit = came && count > 0;
        let killed = if hit { killed } else { Instant::now() };
        let what = format!("{what}, in {phase:?}");
        if hit {
            tally.count(victim.name(), phase);
        }
        let said =
            if hit { String::new() } else { format!("; no process was killed: {}", run.stderr()) };
        let what = format!("{what}{said}");
        let recovers = !(hit && victim.leaves_no_process());
        tally.record_daemon_recovery(scene.wait_until_settled(killed, recovers, &what));
        let ended = run.wait(TIMEOUT);
        assert!(hit || ended.status.success(), "{what}: {ended}");
        let what = format!("{what}: {ended}");
        scene.check(&what);
        if recovers {
            scene.assert_clean(&what);
        } else if !container && !scene.daemon_greets() {
            // No process is left to start a bare daemon, and how it was started is not recorded. The next run
            // starts a unit.
            scene.world.start_daemon();
        }
        let verifies = hit && tally.faults().is_multiple_of(VERIFY_INTERVAL);
        // The check uses the daemon, which the next run has to start first.
        let later = container && !recovers;
        if verifies && !later {
            scene.verify_store_content();
        }
        scene.restores(&what);
        scene.assert_clean(&what);
        if verifies && later {
            scene.verify_store_content();
        }
        scene.remove_new_items();
    }
    scene.restores("the last restore");
    scene.verify_store_content();
    for phase in PHASES {
        assert!(tally.faults_in_phase(phase) > 0, "no kill landed in {phase}: {tally:?}");
    }
    tally.finish();
}

#[test]
fn killed_nix_restore_loses_nothing() {
    kill_restores(Role::Mid, false, count(30, 300));
}

#[test]
fn killed_nix_restore_under_systemd_loses_nothing() {
    kill_restores(Role::Old, true, count(25, 250));
}

#[test]
fn killed_guix_restore_loses_nothing() {
    kill_restores(Role::GuixRoot, false, count(20, 200));
}

#[test]
fn killed_guix_restore_under_systemd_loses_nothing() {
    kill_restores(Role::Guix, true, count(20, 200));
}
