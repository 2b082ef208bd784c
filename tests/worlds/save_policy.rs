//! Tests of saves that leave items out or do nothing: the baseline, the policy, retention, and the state that a
//! restore leaves for the save.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::support::plain_env::PlainEnv;
use crate::support::world_runs::{assert_same, attempt, record_state, report, run};
use crate::support::{Fixture, Output, PackageManager, Role, World};
use serde_json::{Value, json};

const STATE: &str = "/tmp/job.json";
const WITH_STATE: [&str; 2] = ["--state", STATE];

/// A Nix role and a Guix role.
const ROLES: [Role; 2] = [Role::Mid, Role::Guix];

/// Runs storecache under another key than the one that the other tests use.
fn under(world: &World, key: &str, verb: &str, more: &[&str]) -> Value {
    let words =
        [verb, "--store", world.package_manager().name(), "--backend", "dir:/cache", "--key", key];
    let words = words.into_iter().chain(more.iter().copied()).chain(["--json"]);
    report(&world.storecache_as("runner", words).ok())
}

/// Restores as at the beginning of a job.
fn restore_at_job_start(world: &World) -> Value {
    run(world, "runner", "restore", &WITH_STATE)
}

fn save_at_job_end(world: &World, more: &[&str]) -> Value {
    let more = [&WITH_STATE, &["--policy", "auto"][..], more].concat();
    run(world, "runner", "save", &more)
}

fn state(world: &World) -> Value {
    serde_json::from_slice(&fs::read(world.host(STATE)).unwrap()).unwrap()
}

fn reason(report: &Value) -> &str {
    report["reason"].as_str().unwrap_or_default()
}

#[track_caller]
fn skipped(report: &Value, because: &str) {
    assert_eq!(report["saved"], false, "{report}");
    assert!(reason(report).contains(because), "{report}");
    assert_eq!(report["entry"], Value::Null, "{report}");
}

#[track_caller]
fn saved(report: &Value) {
    assert_eq!(report["saved"], true, "{report}");
    assert_eq!(report["reason"], Value::Null, "{report}");
}

/// Returns the number of entries.
fn entries(world: &World) -> usize {
    world.backend().host_path().read_dir().unwrap().count()
}

#[test]
fn save_leaves_out_items_from_before_the_restore() {
    for role in ROLES {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = record_state(&world);
        let count = before.references.len();
        under(&world, "all", "save", &[]);

        // The items that an installer has put there: one item of the fixture with its closure.
        let leaf = before.references.keys().find(|path| path.ends_with("-leaf")).unwrap();
        let roots = format!("{}/gcroots", world.state());
        world.sh(&format!("rm {roots}/fixture; ln -s {leaf} {roots}/installed"));
        let collect = match world.package_manager() {
            PackageManager::Nix => "nix-collect-garbage",
            PackageManager::Guix => "guix gc",
        };
        world.nix(["sh", "-c", collect]).ok();
        let installed = world.valid_paths();
        assert!(installed.contains(leaf) && installed.len() > 1 && installed.len() < count);
        under(&world, "installer", "save", &[]);

        // The job: the restore misses, and all other items come from elsewhere.
        let missed = restore_at_job_start(&world);
        assert_eq!(missed["hit"], "miss");
        let left = state(&world);
        let names: Vec<_> = installed.iter().map(|path| &path[world.store().len() + 1..]).collect();
        assert_eq!(left["baseline"], json!(names), "{role:?}");
        let file = fs::metadata(world.host(STATE)).unwrap();
        assert_eq!(file.mode() & 0o7777, 0o600, "{role:?}");
        under(&world, "all", "restore", &[]);
        let ended = save_at_job_end(&world, &[]);
        saved(&ended);
        assert_eq!(ended["items"]["saved"], count - installed.len());
        assert_eq!(ended["items"]["baseline"], installed.len());

        // A new machine has the items of the installer, and the restore adds the others.
        let fresh = World::build(role).backend(world.backend()).start();
        fresh.start_daemon();
        under(&fresh, "installer", "restore", &[]);
        assert_eq!(fresh.valid_paths(), installed);
        let restored = restore_at_job_start(&fresh);
        assert_eq!(restored["hit"], "exact");
        assert_eq!(restored["items"]["restored"], count - installed.len());
        assert_eq!(restored["items"]["present"], installed.len());
        assert_eq!(restored["items"]["skipped"], 0);
        assert_same(&before, &record_state(&fresh));
        fresh.assert_nothing_to_build(role, Fixture::Small);
        fresh.verify_store();
        skipped(&save_at_job_end(&fresh, &[]), "unchanged");

        // A machine without the installer gets the items that do not need the baseline; the others are
        // reported.
        let bare = World::build(role).backend(world.backend()).start();
        bare.start_daemon();
        let restored = restore_at_job_start(&bare);
        assert_eq!(
            restored["items"]["restored"].as_u64().unwrap()
                + restored["items"]["skipped"].as_u64().unwrap(),
            count as u64
        );
        assert_ne!(restored["items"]["restored"], 0);
        let said = restored["skipped"].to_string();
        assert!(said.contains("not in the store and cannot be restored"), "{said}");
        bare.verify_store();
        // The job gets the others from elsewhere. The save includes them however little they are, so that the
        // next such machine gets all items.
        under(&bare, "all", "restore", &[]);
        saved(&save_at_job_end(&bare, &["--min-growth", "1G"]));
        bare.wipe_store();
        assert_eq!(restore_at_job_start(&bare)["items"]["restored"], count);
        assert_same(&before, &record_state(&bare));
    }
}

/// Returns the first file of the item at `path`, which may be a file itself.
fn first_file_in(world: &World, path: &str) -> String {
    world.sh(&format!("find {path} -type f -print -quit")).ok().lines().remove(0)
}

#[test]
fn save_reports_used_and_unused_restored_items() {
    for role in ROLES {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let count = record_state(&world).references.len();
        under(&world, "some", "save", &[]);
        run(&world, "runner", "save", &[]);

        // This restore brought no items, so the use of restored items is not reported.
        restore_at_job_start(&world);
        assert_eq!(save_at_job_end(&world, &[])["items"].get("used"), None, "{role:?}");

        world.wipe_store();
        assert_eq!(restore_at_job_start(&world)["items"]["restored"], count);
        let untouched = save_at_job_end(&world, &[]);
        skipped(&untouched, "unchanged");
        assert_eq!(untouched["items"]["used"], 0, "{role:?}");
        assert_eq!(untouched["items"]["unused"], count);
        let all = untouched["bytes"]["unused"].as_u64().unwrap();

        // Items that the job adds are not counted, and a save reads files without updating their times of
        // access.
        let leaf = world.valid_paths().into_iter().find(|path| path.ends_with("-leaf")).unwrap();
        let file = first_file_in(&world, &leaf);
        world.ok(["cat", &file]);
        world.add_text("new");
        saved(&save_at_job_end(&world, &["--min-growth", "0"]));
        let summary = "/tmp/summary.md";
        let report = save_at_job_end(&world, &["--summary", summary]);
        assert_eq!(report["items"]["used"], 1, "{role:?} {file}");
        assert_eq!(report["items"]["unused"], count - 1);
        let unused = report["bytes"]["unused"].as_u64().unwrap();
        assert!(0 < unused && unused < all, "{unused} of {all}");
        let text = fs::read_to_string(world.host(summary)).unwrap();
        assert!(text.contains(&format!("| Used | 1 of {count} restored items")), "{text}");

        // If a mount hides the times of access, nothing is reported.
        world.sh(&format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", world.store()));
        assert_eq!(save_at_job_end(&world, &[])["items"].get("used"), None, "{role:?}");
    }
}

#[test]
fn baseline_include_saves_the_baseline() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let valid = world.valid_paths().len();
    restore_at_job_start(&world);
    skipped(&save_at_job_end(&world, &[]), "nothing to save");
    let ended = save_at_job_end(&world, &["--baseline", "include"]);
    saved(&ended);
    assert_eq!(ended["items"]["saved"], valid);
    assert_eq!(ended["items"]["baseline"], 0);
    // Without a state file, the save has no baseline.
    assert_eq!(run(&world, "runner", "save", &[])["items"]["saved"], valid);
}

#[test]
fn grown_store_is_saved_as_the_next_generation() {
    for role in ROLES {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let first = run(&world, "runner", "save", &[]);
        under(&world, "other", "save", &[]);
        world.wipe_store();

        assert_eq!(restore_at_job_start(&world)["hit"], "exact");
        let ended = save_at_job_end(&world, &[]);
        skipped(&ended, "unchanged: test.");
        assert_eq!(ended["growth"]["items"], 0);

        let new = world.add_text("news");
        skipped(&save_at_job_end(&world, &[]), "grown by 1 item");
        assert_eq!(entries(&world), 2, "{role:?}");
        let ended = save_at_job_end(&world, &["--min-growth", "0"]);
        saved(&ended);
        assert_eq!(ended["growth"]["items"], 1);
        assert_ne!(ended["entry"], first["entry"]);
        assert_eq!(entries(&world), 3, "{role:?}");
        skipped(&save_at_job_end(&world, &["--min-growth", "0"]), "unchanged");

        world.wipe_store();
        let restored = restore_at_job_start(&world);
        assert_eq!(restored["entry"], ended["entry"]);
        assert!(world.valid_paths().contains(&new), "{role:?}");
        world.verify_store();
    }
}

#[test]
fn keep_deletes_only_superseded_generations() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let save = |more: &[&str]| run(&world, "runner", "save", more);
    let others = ["tes", "test-2", "TEST"].map(|key| under(&world, key, "save", &[]));
    let old = [save(&[]), save(&[]), save(&[])];
    let newest = save(&["--keep", "2"]);
    assert_eq!(newest["deleted"], json!([old[1]["entry"], old[0]["entry"]]));
    let held = |report: &Value| {
        let file = format!("{}.tar.zst", report["entry"].as_str().unwrap());
        world.backend().host_path().join(file).exists()
    };
    assert!(others.iter().chain([&old[2], &newest]).all(held));
    assert!(!held(&old[0]) && !held(&old[1]));
    let refused = attempt(&world, "runner", "save", &["--keep", "0"]);
    assert_eq!(refused.code(), 2, "{refused}");
}

#[test]
fn failed_job_saves_only_with_save_on_failure() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let failed = save_at_job_end(&world, &["--job-status", "failure"]);
    skipped(&failed, "the job failed");
    assert_eq!(failed["job_status"], "failure");
    skipped(
        &save_at_job_end(&world, &["--job-status", "cancelled", "--save-on-failure"]),
        "canceled",
    );
    let never = attempt(&world, "nosudo", "save", &["--policy", "never"]).ok();
    skipped(&report(&never), "the policy is never to save");
    assert_eq!(entries(&world), 0);

    saved(&save_at_job_end(&world, &["--job-status", "failure", "--save-on-failure"]));
    let flags = ["--job-status", "failure", "--policy", "always"];
    saved(&run(&world, "runner", "save", &flags));
    let refused = attempt(&world, "runner", "save", &["--save-on-failure"]);
    assert_eq!(refused.code(), 2, "{refused}");
}

#[test]
fn read_only_backend_is_detected_before_packing() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let cache = world.backend().host_path();
    fs::set_permissions(&cache, PermissionsExt::from_mode(0o555)).unwrap();
    let ended = save_at_job_end(&world, &[]);
    skipped(&ended, "this run cannot write: /cache: ");
    assert_eq!(ended["bytes"]["packed"], 0);
    let always = attempt(&world, "runner", "save", &[]).fails();
    assert!(always.stderr.contains("this run cannot write"), "{always}");
    fs::set_permissions(&cache, PermissionsExt::from_mode(0o1777)).unwrap();
    saved(&save_at_job_end(&world, &[]));
}

#[test]
fn save_supersedes_an_entry_that_failed_to_restore() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    run(&world, "runner", "save", &[]);
    world.wipe_store();
    let file = world.backend().host_path().read_dir().unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();

    let failed = attempt(&world, "runner", "restore", &WITH_STATE).fails();
    assert_eq!(report(&failed)["failed"], true);
    world.add_text("rebuilt");
    let ended = save_at_job_end(&world, &[]);
    saved(&ended);
    world.wipe_store();
    assert_eq!(restore_at_job_start(&world)["items"]["restored"], 1);

    // If even the index cannot be read, a save notices that without a restore.
    let newest = world.backend().host_path().join(ended["entry"].as_str().unwrap());
    let newest = PathBuf::from(format!("{}.tar.zst", newest.display()));
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() - 9]).unwrap();
    let ended = run(&world, "runner", "save", &["--policy", "auto"]);
    saved(&ended);
    assert!(ended["warnings"].to_string().contains("cannot be read"), "{ended}");
}

#[test]
fn invalid_state_file_is_a_warning_and_all_items_are_saved() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let valid = world.valid_paths().len();
    restore_at_job_start(&world);
    let good = state(&world);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut state = good.clone();
        change(&mut state);
        state.to_string()
    };
    let bad = [
        (String::new(), "damaged or not a state file"),
        ("\0\u{1}garbage".into(), "damaged or not a state file"),
        (good.to_string()[..good.to_string().len() / 2].into(), "damaged or not a state file"),
        (with(&|state| state["state"] = json!(2)), "version 2"),
        (with(&|state| state["baseline"] = json!("all")), "damaged"),
        (with(&|state| state["restore"]["store"] = json!("guix")), "belongs to a guix store"),
        (with(&|state| state["root"] = json!("/elsewhere")), "store below /elsewhere"),
    ];
    for (text, cause) in bad {
        fs::write(world.host(STATE), &text).unwrap();
        let ended = run(&world, "runner", "save", &WITH_STATE);
        saved(&ended);
        assert_eq!(ended["items"]["saved"], valid, "{text:?}");
        let warnings = ended["warnings"].to_string();
        assert!(warnings.contains(cause), "{cause}: {warnings}");
    }
    fs::remove_file(world.host(STATE)).unwrap();
    let ended = run(&world, "runner", "save", &WITH_STATE);
    assert!(ended["warnings"].to_string().contains("No such file"), "{ended}");

    // Unknown fields, which a later version may add, are ignored.
    fs::write(world.host(STATE), with(&|state| state["news"] = json!([1]))).unwrap();
    let ended = run(&world, "runner", "save", &WITH_STATE);
    assert_eq!((&ended["items"]["baseline"], &ended["warnings"]), (&json!(valid), &Value::Null));

    // A restore that cannot write the state does not fail.
    let restored = run(&world, "runner", "restore", &["--state", "/nowhere/job.json"]);
    assert!(restored["warnings"].to_string().contains("/nowhere/job.json"), "{restored}");
}

#[test]
fn save_uses_the_key_of_the_restore() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    world.sh("mkdir -m 777 /tmp/tree; echo one >/tmp/tree/lock");
    let words = |verb: &'static str| {
        let flags = ["--store", "nix", "--backend", "dir:/cache", "--hash-files", "lock", "--json"];
        let words = [verb].into_iter().chain(flags).chain(WITH_STATE);
        let done: Output = world.storecache_as("runner", words).cd("/tmp/tree").ok();
        report(&done)
    };
    let began = words("restore");
    world.add_text("job");
    world.sh("echo two >/tmp/tree/lock");
    let ended = words("save");
    assert_eq!(ended["key"], began["key"]);
    world.sh("rm /tmp/tree/lock");
    let inspected = {
        let words = ["inspect", "--backend", "dir:/cache", "--store", "nix", "--json", "--key"];
        let words = words.into_iter().chain([began["key"].as_str().unwrap()]);
        report(&world.storecache_as("runner", words).ok())
    };
    assert!(inspected["head"]["ingredients"]["files:lock"].is_string(), "{inspected}");
    // The job began with a miss, so the snapshot records how long the job took.
    let cold = inspected["head"]["cold_seconds"].as_f64().unwrap();
    assert!(cold > 0.0);
    world.sh("echo one >/tmp/tree/lock");
    assert_eq!(words("restore")["seconds"]["cold"], cold);
    world.add_text("more");
    assert_eq!(words("save")["seconds"]["cold"], cold, "a hit leaves it as it was");
}

#[test]
fn plain_directories_are_saved_when_they_have_changed() {
    let place = PlainEnv::filled();
    let paths = ["/opt/tool"];
    let state = place.root().join("job.json");
    let auto = ["--state", state.to_str().unwrap(), "--policy", "auto", "--json"];
    let save = || report(&place.attempt("save", &paths, &auto).ok());
    place.restore(&paths, &auto[..2]);
    let first = save();
    saved(&first);
    assert_eq!(first["items"]["baseline"], 0);
    skipped(&save(), "unchanged");
    place.write("/opt/tool/new", "x");
    let grown = save();
    saved(&grown);
    assert_eq!(grown["growth"]["items"], 1);
}
