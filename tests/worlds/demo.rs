//! Runs the demos as a new user would, beside the machine's own store, and checks that they leave nothing
//! behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::plain_env::{binary, output};
use crate::support::{Fixture, Output, Role, World, fixture_cache, programs};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

#[track_caller]
fn assert_all_steps_printed(demo: &Output) {
    for line in ["installs through apt: nothing", "all steps succeeded"] {
        assert!(demo.stdout.contains(line), "{demo}");
    }
    for row in ["filled", "saved", "checked", "wiped", "restored", "verified", "used", "again"] {
        assert!(demo.lines().iter().any(|line| line.starts_with(row)), "{demo}");
    }
}

#[test]
fn nix_demo_runs_twice_and_leaves_the_host_store_unchanged() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    world.start_daemon();
    let own = (world.store_listing(), world.registrations(), world.daemon_pid());
    let inside = world.host("/tmp/demo");
    fs::create_dir(&inside).unwrap();
    for script in ["demo", "demo-nix"] {
        programs::copy(&scripts().join(script), &inside.join(script));
    }
    for user in ["runner", "root"] {
        let demo = world
            .command(["/tmp/demo/demo", "10"])
            .user(user)
            .env("STORECACHE", "/usr/local/bin/storecache")
            .timeout(Duration::from_secs(120))
            .ok();
        assert_all_steps_printed(&demo);
        assert_eq!(world.sh("ls -A /var/tmp").stdout, "", "it cleans up after itself");
    }
    assert_eq!((world.store_listing(), world.registrations(), world.daemon_pid()), own);
    world.verify_store();
}

#[test]
fn guix_demo_boots_a_container_and_leaves_nothing_behind() {
    let mut demo = Command::new(scripts().join("demo"));
    let demo = output(demo.args(["guix", "12"]).env("STORECACHE", binary())).ok();
    assert_all_steps_printed(&demo);
    assert!(demo.stdout.contains("filled by guix (GNU Guix) 1.5.0"), "{demo}");
    let runs = |line: &String| line.starts_with("Guile 3.0.") && line.contains("/gnu/store/");
    assert!(demo.lines().iter().any(runs), "{demo}");
    assert!(demo.stderr.contains("nothing to do: every item is there already"), "{demo}");

    let name = "storecache-demo-";
    let scratch = fs::read_dir(fixture_cache::directory().join("scratch")).unwrap();
    let left =
        scratch.filter(|it| it.as_ref().unwrap().file_name().to_string_lossy().starts_with(name));
    assert_eq!(left.count(), 0);
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(name));
    let groups =
        output(Command::new("find").args(["/sys/fs/cgroup", "-name", "storecache-demo-*"]));
    assert_eq!(groups.stdout, "");
}
