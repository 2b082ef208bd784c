//! Tests of saves with limits: only the closures of some items, or the most recently used items.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use crate::support::world_runs::{attempt, run};
use crate::support::{Fixture, Role, World};
use serde_json::Value;

const STATE: &str = "/tmp/job.json";

/// A Nix role and a Guix role.
const ROLES: [Role; 2] = [Role::Mid, Role::Guix];

fn filled_world(role: Role) -> World {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    world
}

fn save(world: &World, more: &[&str]) -> Value {
    run(world, "runner", "save", more)
}

/// Restores as a new job on an empty machine.
fn wipe_and_restore(world: &World) -> Value {
    world.wipe_store();
    run(world, "runner", "restore", &["--state", STATE])
}

/// Returns an item that contains a file and refers to some items, but not to most.
fn item_with_references(world: &World) -> String {
    let all = world.valid_paths();
    let some = |path: &&String| (2..all.len() / 2).contains(&closure(world, path).len());
    let mut found: Vec<_> = all.iter().filter(some).collect();
    found.retain(|path| world.host(path).is_dir() && !first_file_in(world, path).is_empty());
    found.first().unwrap().to_string()
}

fn first_file_in(world: &World, path: &str) -> String {
    world.sh(&format!("find {path} -type f -print -quit")).ok().stdout.trim().to_owned()
}

/// Returns the pattern that matches this item alone.
fn pattern(world: &World, path: &str) -> String {
    path[world.store().len() + 1..].replacen('-', "?", 1)
}

/// Returns the paths that a path refers to, directly or indirectly, and the path itself.
fn closure(world: &World, path: &str) -> BTreeSet<String> {
    let references = world.references_of_all();
    let mut closure = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        if closure.insert(path.clone()) {
            pending.extend(references[&path].iter().cloned());
        }
    }
    closure
}

/// Returns the total NAR size of these paths according to the store's own database.
fn size(world: &World, paths: &BTreeSet<String>) -> u64 {
    let all = world.registrations();
    paths.iter().map(|path| all[path].nar_size.unwrap() as u64).sum()
}

fn skipped(report: &Value) -> BTreeSet<String> {
    let pairs = report["skipped"].as_array().into_iter().flatten();
    pairs.map(|pair| pair[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn save_with_roots_saves_only_their_closures() {
    for role in ROLES {
        let world = filled_world(role);
        let count = world.valid_paths().len();
        let item_with_references = item_with_references(&world);
        let wanted = closure(&world, &item_with_references);
        let saved = save(&world, &["--roots", &pattern(&world, &item_with_references)]);
        assert_eq!(saved["items"]["saved"], wanted.len());
        assert_eq!(saved["items"]["outside"], count - wanted.len());

        let restored = wipe_and_restore(&world);
        assert_eq!(world.valid_paths(), wanted, "{role:?}");
        assert_eq!(restored["items"]["skipped"], 0, "{restored}");
        world.verify_store();

        let failed = attempt(&world, "runner", "save", &["--roots", "nothing-like-that"]).fails();
        assert!(failed.stderr.contains("no valid item matches nothing-like-that"), "{failed}");
    }
}

#[test]
fn max_size_drops_least_recently_used_items_first() {
    for role in ROLES {
        let world = filled_world(role);
        let all = world.valid_paths();
        let item_with_references = item_with_references(&world);
        let wanted = closure(&world, &item_with_references);
        let limit = size(&world, &wanted).to_string();
        save(&world, &[]);

        // A job reads one file and saves everything: the snapshot records what was used.
        wipe_and_restore(&world);
        world.ok(["cat", &first_file_in(&world, &item_with_references)]);
        save(&world, &["--state", STATE]);
        // The next job reads nothing, and has a smaller limit.
        wipe_and_restore(&world);
        let limited = ["--state", STATE, "--max-size", &limit];
        let planned = save(&world, &[&limited[..], &["--dry-run"]].concat());
        assert_eq!(world.backend().host_path().read_dir().unwrap().count(), 2);
        let saved = save(&world, &limited);
        assert_eq!(skipped(&planned), skipped(&saved), "{role:?}");
        assert_eq!(saved["items"]["saved"], wanted.len());
        let names = all.difference(&wanted).map(|path| path[world.store().len() + 1..].to_owned());
        assert_eq!(skipped(&saved), names.collect(), "{role:?}");
        assert!(saved["skipped"][0][1].as_str().unwrap().contains("least recently"), "{saved}");

        let restored = wipe_and_restore(&world);
        assert_eq!(world.valid_paths(), wanted);
        assert_eq!(restored["items"]["skipped"], 0, "{restored}");
        world.verify_store();
        assert!(world.daemon_answers());
    }
}

#[test]
fn max_size_counts_rooted_and_added_items_as_used() {
    for role in ROLES {
        let world = filled_world(role);
        save(&world, &[]);
        // The search changes times of access, which the restore resets.
        let kept = item_with_references(&world);
        wipe_and_restore(&world);
        symlink(&kept, world.host(format!("{}/gcroots/mine", world.state()))).unwrap();
        let added = world.add_text("added");
        let mut wanted = closure(&world, &kept);
        wanted.insert(added);
        let limit = size(&world, &wanted).to_string();
        save(&world, &["--state", STATE, "--max-size", &limit]);
        wipe_and_restore(&world);
        assert_eq!(world.valid_paths(), wanted, "{role:?}");
        world.verify_store();
    }
}

#[test]
fn roots_and_max_size_are_refused_for_plain_stores() {
    let world = World::new(Role::Mid);
    fs::create_dir_all(world.host("/opt/tool")).unwrap();
    for more in [["--roots", "x"], ["--max-size", "1G"]] {
        let words = ["save", "--store", "plain", "--path", "/opt/tool", "--key", "k"];
        let failed = world.storecache_as("runner", words.into_iter().chain(more)).run();
        assert_eq!(failed.code(), 2, "{failed}");
        assert!(failed.stderr.contains("not for --store plain"), "{failed}");
    }
}
