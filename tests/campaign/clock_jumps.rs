//! Wall clocks that jump while a save or a restore runs. The result must be the same, and the next lookup
//! must find the newest save.
//!
//! The kernel has one wall clock for all processes, so a library that all programs of a world load shifts the
//! time (`clock.c`). Waits use the monotonic clock, which never jumps.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::cache_service::{CacheService, TOKEN};
use crate::support::campaign_record::FaultTally;
use crate::support::rng::{Rng, count};
use crate::support::world_runs::{StoreState, assert_same, leftovers, record_state, report};
use crate::support::{Fixture, Role, World, poll};

const TIMEOUT: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// Offsets of the clock from the true time, in seconds. The last one leads to a time before 1970.
const JUMPS: [i64; 6] = [5 * HOUR, -7 * HOUR, 3 * YEAR, -4 * YEAR, 20 * YEAR, -63 * YEAR];
/// The dynamically linked build of this machine, because a static one does not load the library.
const PROGRAM: &str = "/usr/local/bin/storecache-here";

/// A world whose clock can be set.
struct WorldWithClock {
    world: World,
    file: File,
}

impl WorldWithClock {
    fn new() -> WorldWithClock {
        let plan = World::build(Role::New).fixture(Fixture::Small).network();
        let world = plan.bind_mount(env!("CARGO_BIN_EXE_storecache"), PROGRAM).start();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/clock_jumps.c");
        let library = world.host("/usr/local/lib/clock.so");
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
        assert!(compile.status().unwrap().success());
        let file = world.host("/var/lib/clock");
        fs::write(&file, 0i64.to_ne_bytes()).unwrap();
        fs::write(world.host("/etc/ld.so.preload"), "/usr/local/lib/clock.so\n").unwrap();
        let file = File::options().write(true).open(file).unwrap();
        let clock = WorldWithClock { world, file };
        clock.set(20 * YEAR);
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let shifted: i64 = clock.world.sh("date +%s").stdout.trim().parse().unwrap();
        assert!(shifted > now + 19 * YEAR, "the clock cannot be set");
        clock.set(0);
        clock.world.start_daemon();
        clock
    }

    /// Shifts the clock by this many seconds, at once and for all programs.
    fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Runs the program, and lets the clock jump after the time `after`.
    fn run(
        &self,
        words: &[&str],
        service: Option<&CacheService>,
        after: Duration,
        to: i64,
    ) -> Value {
        let words = [PROGRAM, words[0], "--store", "nix", "--key", "test", "--json"]
            .into_iter()
            .chain(words[1..].iter().copied());
        let run = self.world.command(words).user("runner");
        let run = match service {
            None => run,
            Some(service) => run
                .env("ACTIONS_RESULTS_URL", service.url())
                .env("ACTIONS_CACHE_URL", service.url())
                .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
                .env("ACTIONS_CACHE_SERVICE_V2", "1"),
        };
        let begun = Instant::now();
        let mut run = run.spawn();
        while begun.elapsed() < after && run.is_running() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.set(to);
        let report = report(&run.wait(TIMEOUT).ok());
        assert!(report.get("warnings").is_none(), "{report}");
        for (name, seconds) in report["seconds"].as_object().unwrap() {
            let seconds = seconds.as_f64().unwrap();
            assert!((0.0..600.0).contains(&seconds), "{name} took {seconds} s: {report}");
        }
        report
    }

    fn assert_whole(&self, whole: &StoreState, what: &str) {
        assert_same(whole, &record_state(&self.world));
        assert_eq!(leftovers(&self.world), [""; 0], "{what}");
        assert!(self.world.daemon_answers(), "{what}");
    }
}

/// Saves and restores while the clock jumps, with a directory or the cache service as the backend.
fn run_clock_jumps(part: &str, through_service: bool, times: usize) {
    let clock = WorldWithClock::new();
    let service = through_service.then(CacheService::start);
    let service = service.as_ref();
    let directory = ["--backend", "dir:/cache"];
    let backend: &[&str] = if through_service { &[] } else { &directory };
    let with = |words: &[&'static str]| [words, backend].concat();
    let mut dice = Rng::new(part);
    let mut tally = FaultTally::new(part);
    clock.run(&with(&["save"]), service, Duration::ZERO, 0);
    for number in 0..times {
        let jump = JUMPS[number % JUMPS.len()];
        let what = format!("fault {number}: the clock jumps by {jump} s");
        let after = Duration::from_millis(dice.below(400) as u64);
        clock.world.sh(&format!("head -c 100000 /dev/urandom >/tmp/grown-{number}"));
        clock.world.add_files(&format!("/tmp/grown-{number}"));
        let whole = record_state(&clock.world);
        let saved = clock.run(&with(&["save", "--full"]), service, after, jump);
        assert_eq!(saved["saved"], true, "{what}: {saved}");
        tally.count("clock jump", "save");
        let found = clock.run(&with(&["restore", "--lookup-only"]), service, Duration::ZERO, jump);
        assert_eq!(found["entry"], saved["entry"], "{what}: the newest entry is found");
        // A save that starts after the jump, too.
        let again =
            clock.run(&with(&["save", "--full", "--policy", "always"]), service, after, jump);
        let found = clock.run(&with(&["restore", "--lookup-only"]), service, Duration::ZERO, jump);
        assert_eq!(found["entry"], again["entry"], "{what}");
        clock.world.wipe_store();
        let restored = clock.run(&with(&["restore"]), service, after, -jump);
        assert_eq!(restored["entry"], again["entry"], "{what}: {restored}");
        tally.count("clock jump", "restore");
        clock.assert_whole(&whole, &what);
    }
    if !through_service {
        // `--keep` must keep the newest saves, whatever the clock showed.
        let last = || clock.run(&with(&["restore", "--lookup-only"]), None, Duration::ZERO, 0);
        let before = last()["entry"].clone();
        let kept = ["save", "--full", "--policy", "always", "--keep", "2"];
        let saved = clock.run(&with(&kept), None, Duration::ZERO, -63 * YEAR);
        let names = clock.world.sh("ls /cache").lines();
        let expected = [before, saved["entry"].clone()];
        let expected = expected.map(|name| format!("{}.tar.zst", name.as_str().unwrap()));
        assert_eq!(names, expected, "{saved}");
    }
    clock.set(0);
    clock.world.verify_store();
    tally.finish();
}

#[test]
fn clock_jumps_do_not_change_results() {
    run_clock_jumps("clock-directory", false, count(6, 60));
}

#[test]
fn clock_jumps_do_not_change_results_with_the_cache_service() {
    run_clock_jumps("clock-service", true, count(4, 30));
}

#[test]
fn lock_wait_is_independent_of_the_wall_clock() {
    let clock = WorldWithClock::new();
    let world = &clock.world;
    clock.run(&["save", "--backend", "dir:/cache"], None, Duration::ZERO, 0);
    let whole = record_state(world);
    for jump in [20 * YEAR, -63 * YEAR] {
        clock.set(0);
        world.wipe_store();
        let lock = world.hold_database();
        let words =
            [PROGRAM, "restore", "--store", "nix", "--key", "test", "--backend", "dir:/cache"];
        let mut run = world.command(words).user("runner").spawn();
        poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
            None => Ok(()),
            Some(pid) => Err(format!("process {pid} listens; {}", run.stderr())),
        });
        clock.set(jump);
        // The restore polls the lock many times meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        assert!(run.is_running(), "{}", run.stderr());
        drop(lock);
        run.wait(TIMEOUT).ok();
        clock.assert_whole(&whole, "a restore that waits for a lock");
    }
}
