//! `inspect --blame`: the size that each item of a snapshot is responsible for, compared with the results of
//! Nix and Guix, and the items that were restored but never read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::html_text::html_text;
use crate::support::plain_env::{PlainEnv, storecache};
use crate::support::world_runs::{attempt, report, run};
use crate::support::{Fixture, Role, World};
use serde_json::Value;

const STATE: &str = "/tmp/job.json";

fn filled(role: Role) -> World {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    world
}

fn blame(world: &World) -> Value {
    run(world, "runner", "inspect", &["--blame"])["blame"].clone()
}

fn name_of(world: &World, path: &str) -> String {
    path[world.store().len() + 1..].to_owned()
}

/// All items that are reachable from these, without paths through `without`.
fn reachable_items(
    references: &BTreeMap<String, BTreeSet<String>>,
    starts: impl Iterator<Item = String>,
    without: Option<&str>,
) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<_> = starts.collect();
    while let Some(path) = pending.pop() {
        if Some(path.as_str()) != without && seen.insert(path.clone()) {
            pending.extend(references[&path].iter().cloned());
        }
    }
    seen
}

/// NAR size of an item and of its closure, as the package manager of the world reports them.
fn nix_sizes(world: &World, path: &str) -> (u64, u64) {
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let own = number(&world.ok(["nix-store", "-q", "--size", path]).stdout);
    // Without this flag, older versions report on the outputs of a derivation.
    let itself = path.ends_with(".drv").then_some("--derivation");
    let words = ["nix", "--extra-experimental-features", "nix-command", "path-info", "-S"];
    let said = world.ok(words.into_iter().chain(itself).chain([path])).stdout;
    (own, number(said.split_whitespace().last().unwrap()))
}

#[test]
fn blame_sizes_match_nix() {
    for role in [Role::Old, Role::New] {
        let world = filled(role);
        run(&world, "runner", "save", &[]);
        let blame = blame(&world);
        let references = world.references_of_all();
        let sizes = world.registrations();
        let size = |paths: &BTreeSet<String>| -> u64 {
            paths.iter().map(|path| sizes[path].nar_size.unwrap() as u64).sum()
        };
        let all: BTreeSet<String> = references.keys().cloned().collect();
        assert_eq!(blame["items"], all.len());
        assert_eq!(blame["bytes"], size(&all));
        assert_eq!(blame["outside"], 0);

        let roots = || {
            let referred = |path: &&String| {
                references.iter().any(|(by, below)| by != *path && below.contains(*path))
            };
            references.keys().filter(move |path| !referred(path)).cloned()
        };
        let largest = blame["largest"].as_array().unwrap();
        assert_eq!(largest.len(), all.len().min(30));
        for item in largest {
            let path = format!("{}/{}", world.store(), item["name"].as_str().unwrap());
            let (own, closure) = nix_sizes(&world, &path);
            assert_eq!((&item["own"], &item["closure"]), (&own.into(), &closure.into()), "{path}");
            let requisites = world.ok(["nix-store", "-qR", &path]).lines();
            assert_eq!(size(&requisites.into_iter().collect()), closure);
            // The items that remain without it.
            let left = reachable_items(&references, roots(), Some(&path));
            assert_eq!(item["retained"], size(&all) - size(&left), "{path}");
            if let Some(above) = item["dominator"].as_str() {
                let above = format!("{}/{above}", world.store());
                assert!(
                    !reachable_items(&references, roots(), Some(&above)).contains(&path),
                    "{path}"
                );
            }
        }
        let retained = |item: &Value| item["retained"].as_u64().unwrap();
        assert!(largest.is_sorted_by(|a, b| retained(a) >= retained(b)));
    }
}

#[test]
fn blame_sizes_match_guix() {
    let world = filled(Role::Guix);
    run(&world, "runner", "save", &[]);
    let blame = blame(&world);
    for item in blame["largest"].as_array().unwrap().iter().take(5) {
        let path = format!("{}/{}", world.store(), item["name"].as_str().unwrap());
        let said = world.command(["guix", "size", &path]).through_daemon().ok().stdout;
        // Path, MiB of the closure, MiB of the item alone, and its percentage.
        let line = said.lines().find(|line| line.starts_with(&path)).unwrap();
        let numbers: Vec<f64> =
            line.split_whitespace().skip(1).take(2).map(|word| word.parse().unwrap()).collect();
        let rounded = |key: &str| {
            (item[key].as_u64().unwrap() as f64 / (1 << 20) as f64 * 10.0).round() / 10.0
        };
        assert_eq!(numbers, [rounded("closure"), rounded("own")], "{said}");
    }
}

#[test]
fn blame_lists_restored_items_that_were_not_read() {
    for role in [Role::Mid, Role::Guix] {
        let world = filled(role);
        let count = world.valid_paths().len();
        run(&world, "runner", "save", &[]);
        // The first save is not preceded by a restore.
        assert_eq!(blame(&world)["unread"], Value::Null, "{role:?}");
        let said = world.storecache_as(
            "runner",
            ["inspect", "--blame"].into_iter().chain(crate::support::world_runs::flags(&world)),
        );
        let said = said.ok().stdout;
        assert!(said.contains("does not record which items were restored and not read"), "{said}");

        world.wipe_store();
        run(&world, "runner", "restore", &["--state", STATE]);
        let leaf = world.valid_paths().into_iter().find(|path| path.ends_with("-leaf")).unwrap();
        world.sh(&format!("find {leaf} -type f -exec cat {{}} + >/dev/null"));
        let added = world.add_text("added");
        let saved = run(&world, "runner", "save", &["--state", STATE]);
        // The save is a delta, so nearly all items are in its base.
        assert_eq!(saved["items"]["inherited"], count, "{saved}");

        let unread = &blame(&world)["unread"];
        assert_eq!(unread["items"], count - 1, "{role:?} {unread}");
        assert_eq!(unread["items"], saved["items"]["unused"]);
        assert_eq!(unread["bytes"], saved["bytes"]["unused"]);
        let listed = unread["largest"].as_array().unwrap();
        assert_eq!(listed.len(), (count - 1).min(30));
        for item in listed {
            let name = item["name"].as_str().unwrap();
            assert!(name != name_of(&world, &leaf) && name != name_of(&world, &added), "{name}");
            assert!(item["used"].as_str() < unread["since"].as_str(), "{item}");
        }

        // Reads of items that were not restored by the job are not tracked. If such items are saved, no
        // unread items are reported.
        let more = ["--state", STATE, "--baseline", "include", "--full"];
        world.ok(["rm", "-f", STATE]);
        run(&world, "runner", "restore", &["--state", STATE]);
        run(&world, "runner", "save", &more);
        assert_eq!(blame(&world)["unread"], Value::Null, "{role:?}");
    }
}

#[test]
fn blame_page_shows_the_lists() {
    let world = filled(Role::New);
    run(&world, "runner", "save", &[]);
    world.wipe_store();
    run(&world, "runner", "restore", &["--state", STATE]);
    world.add_text("added");
    run(&world, "runner", "save", &["--state", STATE]);
    let output = attempt(&world, "runner", "inspect", &["--html", "/tmp/blame.html"]).ok();
    assert!(report(&output)["blame"]["largest"].is_array());
    let html = fs::read_to_string(world.host("/tmp/blame.html")).unwrap();
    let seen = html_text(&html);
    for text in ["Size by item", "Retained", "Restored, not read", "read no file of them"] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
}

#[test]
fn blame_of_plain_directories_counts_each_alone() {
    let place = PlainEnv::filled();
    place.save(&["/opt/tool", "/var/lib/data"]);
    let snapshot = place.snapshot();
    let words = ["inspect", snapshot.to_str().unwrap(), "--json", "--blame"];
    let blame = report(&storecache(words).ok())["blame"].clone();
    assert_eq!(blame["items"], 2);
    assert_eq!(blame["unread"], Value::Null);
    let largest = blame["largest"].as_array().unwrap();
    assert_eq!(largest[0]["name"], "opt/tool");
    for item in largest {
        assert_eq!(item["own"], item["retained"]);
        assert_eq!(item["own"], item["closure"]);
    }
}

#[test]
fn blame_reports_an_unwritable_page_and_a_damaged_snapshot() {
    let place = PlainEnv::filled();
    place.save(&["/opt/tool"]);
    let snapshot = place.snapshot();
    for page in ["/nowhere/at/all/page.html", "/tmp"] {
        let failed = storecache(["inspect", snapshot.to_str().unwrap(), "--html", page]).fails();
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains(&format!("write the page {page}")), "{failed}");
    }

    let world = filled(Role::Mid);
    run(&world, "runner", "save", &[]);
    let entry = fs::read_dir(world.backend().host_path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&entry).unwrap();
    // The database is in the first frame after the head.
    let head = 8 + u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[head + 50] ^= 1;
    fs::write(&entry, bytes).unwrap();
    let failed = attempt(&world, "runner", "inspect", &["--blame"]).fails();
    assert!(
        report(&failed)["reason"].as_str().unwrap().contains("frame 0 does not match its digest"),
        "{failed}"
    );
}
