//! Tests of `restore --require`: whether the store has the items that a job is going to need.

use crate::support::world_runs::{attempt, report, restore, save};
use crate::support::{Fixture, Role, World};
use serde_json::Value;

/// Returns the report on the only pattern.
fn required(report: &Value) -> &Value {
    let required = report["required"].as_array().unwrap();
    assert_eq!(required.len(), 1);
    &required[0]
}

/// Restores with `--require PATTERN`, and returns the exit code and the report.
fn restore_requiring(world: &World, pattern: &str, more: &[&str]) -> (i32, Value) {
    let more = [more, &["--require", pattern]].concat();
    let output = attempt(world, "runner", "restore", &more);
    (output.code(), report(&output))
}

#[test]
fn require_reports_whether_closures_are_complete() {
    for role in [Role::Guix, Role::Mid] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let references = world.references_of_all();
        let named = |name: &str| references.keys().find(|path| path.ends_with(name)).unwrap();
        let (middle, leaf) = (named("-middle"), named("-leaf"));
        let closure_of = |path: &str| {
            let words = match role {
                Role::Guix => ["guix", "gc", "-R", path],
                _ => ["nix-store", "--query", "-R", path],
            };
            world.nix(words).ok().lines().len()
        };
        let closure = closure_of(middle);
        assert!(closure > 1);
        let complete = |report: &Value| {
            let found = required(report);
            assert_eq!(found["complete"], true, "{report}");
            assert_eq!(found["items"], 1);
            assert_eq!(found["closure"], closure);
            assert_eq!(found["missing"], Value::Array(vec![]));
        };

        // Nothing was saved yet: a miss, but the store has everything that is required.
        let (code, missed) = restore_requiring(&world, "middle", &[]);
        assert_eq!((code, &missed["hit"]), (0, &Value::from("miss")));
        complete(&missed);

        save(&world);
        world.wipe_store();
        let (code, planned) = restore_requiring(&world, middle, &["--dry-run", "--fail-on-miss"]);
        assert_eq!(code, 0);
        complete(&planned);
        assert!(world.valid_paths().is_empty(), "a dry run restores nothing");

        let (code, restored) =
            restore_requiring(&world, &middle[world.store().len() + 1..], &["--fail-on-miss"]);
        assert_eq!((code, &restored["hit"]), (0, &Value::from("exact")));
        complete(&restored);
        let (code, again) = restore_requiring(&world, "middl?", &["--fail-on-miss"]);
        assert_eq!((code, &again["items"]["restored"]), (0, &Value::from(0)));
        complete(&again);

        // Items that are neither in the snapshot nor in the store are reported as absent, also on a hit.
        let (code, absent) = restore_requiring(&world, "hello-*", &["--fail-on-miss"]);
        assert_eq!((code, &absent["hit"]), (3, &Value::from("exact")));
        assert_eq!(required(&absent)["complete"], false);
        assert_eq!(required(&absent)["items"], 0);
        assert_eq!(restore_requiring(&world, "hello-*", &[]).0, 0);

        // If an item is valid in the database but gone from the disk, only items that need it are incomplete.
        world.sh(&format!("rm -rf {leaf}"));
        let (code, broken) = restore_requiring(&world, "middle", &["--fail-on-miss"]);
        assert_eq!(code, 3);
        assert_eq!(required(&broken)["complete"], false);
        assert_eq!(required(&broken)["missing"][0], leaf[world.store().len() + 1..]);
        assert_eq!(restore_requiring(&world, "names", &["--fail-on-miss"]).0, 0);
    }
}

#[test]
fn require_prints_one_line_per_pattern() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let flags = ["restore", "--store", "guix", "--backend", "dir:/cache", "--key", "test"];
    let words = flags.into_iter().chain(["--require", "middle", "--require", "hello"]);
    let output = world.storecache_as("runner", words).run().ok();
    assert!(output.stderr.contains("required middle: complete, a closure of "), "{output}");
    assert!(output.stderr.contains("required hello: missing"), "{output}");

    let words = flags.into_iter().chain(["--require", "["]);
    let refused = world.storecache_as("runner", words).run();
    assert_eq!(refused.code(), 2, "{refused}");
    assert!(refused.stderr.contains("not a valid item pattern"), "{refused}");
    save(&world);
    restore(&world);
}
