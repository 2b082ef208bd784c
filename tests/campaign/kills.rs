//! SIGKILL of any process of a restore at random instants.

use std::time::{Duration, Instant};

use super::moment::{Moment, PHASES, View};
use super::scene::Scene;
use super::trace::at_call;
use super::victim::{Kind, Victim, kill, processes};
use crate::support::Role;
use crate::support::dice::{Dice, count};
use crate::support::record::Tally;
use crate::support::runs::flags;

const SOON: Duration = Duration::from_secs(60);
/// After this many kills, and at the end, Nix or Guix hashes the whole store.
const JUDGED: u64 = 20;

/// Kills this many restores, each of them once.
fn restores_are_killed(role: Role, container: bool, kills: usize) {
    let scene = Scene::new(role, container);
    let part = format!("kills-restore-{}{}", role.name(), if container { "-systemd" } else { "" });
    let mut dice = Dice::of(&part);
    let mut tally = Tally::of(&part);
    let begun = Instant::now();
    scene.restores("the first restore");
    let mut whole = begun.elapsed();
    scene.forget_the_new();
    let items = scene.new_items().count();
    let mut attempts = 0;
    while tally.faults() < kills as u64 {
        attempts += 1;
        assert!(attempts <= 20 * kills, "{}: hardly any kill lands: {tally:?}", scene.what);
        // The phase with the fewest kills so far; ties are resolved at random.
        let phase = PHASES.into_iter().min_by_key(|phase| (tally.landed_in(phase), dice.number()));
        let moment = Moment::in_phase(phase.unwrap_or_default(), &mut dice, items);
        let victim = dice.choose(&Victim::OF_A_RESTORE);
        let what = format!("{}, fault {}: {victim:?} at {moment:?}", scene.what, tally.faults());
        let view = View::new(&scene, scene.daemon());
        let words = ["restore"].into_iter().chain(flags(&scene.world));
        let begun = Instant::now();
        let mut run = scene.world.storecache_as("runner", words).spawn();
        let mut came = view.wait(moment, &mut run, begun, whole, &mut dice);
        if matches!(moment, Moment::Part(_)) && !came {
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
        match (moment, came) {
            (Moment::Call(call, nth), true) => {
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
            if hit { String::new() } else { format!("; nobody was killed: {}", run.stderr()) };
        let what = format!("{what}{said}");
        let somebody = !(hit && victim.leaves_nobody_to_clean_up());
        tally.daemon_was_back_after(scene.settle(killed, somebody, &what));
        let ended = run.wait(SOON);
        assert!(hit || ended.status.success(), "{what}: {ended}");
        let what = format!("{what}: {ended}");
        scene.check(&what);
        if somebody {
            scene.is_clean(&what);
        } else if !container && !scene.is_greeted() {
            // No process is left to start a bare daemon, and how it was started is not recorded. The next run
            // starts a unit.
            scene.world.start_daemon();
        }
        let judged = hit && tally.faults().is_multiple_of(JUDGED);
        // The check uses the daemon, which the next run has to start first.
        let later = container && !somebody;
        if judged && !later {
            scene.judge();
        }
        scene.restores(&what);
        scene.is_clean(&what);
        if judged && later {
            scene.judge();
        }
        scene.forget_the_new();
    }
    scene.restores("the last restore");
    scene.judge();
    for phase in PHASES {
        assert!(tally.landed_in(phase) > 0, "no kill landed in {phase}: {tally:?}");
    }
    tally.finish();
}

#[test]
fn a_restore_of_nix_that_is_killed_anywhere_loses_nothing() {
    restores_are_killed(Role::Mid, false, count(30, 300));
}

#[test]
fn a_restore_of_nix_under_systemd_that_is_killed_anywhere_loses_nothing() {
    restores_are_killed(Role::Old, true, count(25, 250));
}

#[test]
fn a_restore_of_guix_that_is_killed_anywhere_loses_nothing() {
    restores_are_killed(Role::GuixRoot, false, count(20, 200));
}

#[test]
fn a_restore_of_guix_under_systemd_that_is_killed_anywhere_loses_nothing() {
    restores_are_killed(Role::Guix, true, count(20, 200));
}
