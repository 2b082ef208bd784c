//! Tests of deltas: saves that hold only new items, and restores of them with their base, without a base, and
//! with a forged base or delta.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::cache_service::{CacheService, Fault, RequestKind};
use crate::support::snapshot_builder::{SnapshotParts, frame_bytes, open_bytes, with_index};
use crate::support::world_runs::{
    StoreState, assert_same, attempt, record_state, report, restore, run, run_with_service, save,
    staging,
};
use crate::support::{Fixture, PackageManager, Role, World, store_content};
use serde_json::{Value, json};
use storecache_entry::Digest;
use storecache_snapshot::{Index, ItemEntry};

const STATE: [&str; 2] = ["--state", "/tmp/job.json"];

/// A Nix role and a Guix role.
const ROLES: [Role; 2] = [Role::Mid, Role::Guix];

/// Returns a world with a filled store and a running daemon.
fn filled(role: Role) -> World {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    world
}

/// Adds a file to the store, as a job does, and returns its path.
fn add(world: &World, name: &str) -> String {
    match world.package_manager() {
        PackageManager::Guix => world.add_texts(name, 1).remove(0),
        PackageManager::Nix => {
            fs::write(world.host(format!("/tmp/{name}")), name).unwrap();
            world.nix(["nix-store", "--add", &format!("/tmp/{name}")]).ok().lines().remove(0)
        }
    }
}

/// Runs storecache under another key than the one that the other tests use.
fn under(world: &World, key: &str, verb: &str, more: &[&str]) -> Value {
    let words =
        [verb, "--store", world.package_manager().name(), "--backend", "dir:/cache", "--key", key];
    let words = words.into_iter().chain(more.iter().copied()).chain(["--json"]);
    report(&world.storecache_as("runner", words).ok())
}

fn name(report: &Value) -> &str {
    report["entry"].as_str().unwrap_or_else(|| panic!("no entry: {report}"))
}

/// Returns the path of the file of a report's entry.
fn file(world: &World, report: &Value) -> PathBuf {
    world.backend().host_path().join(format!("{}.tar.zst", name(report)))
}

fn count(world: &World) -> usize {
    world.valid_paths().len()
}

/// Asserts that a save is a delta on the entry of another report, and holds this many items itself.
#[track_caller]
fn assert_delta_on(saved: &Value, base: &Value, own: usize) {
    assert_eq!(saved["saved"], true, "{saved}");
    assert_eq!(saved["base"]["entry"], base["entry"], "{saved}");
    assert_eq!(saved["base"]["reason"], Value::Null, "{saved}");
    let number = |name| saved["items"][name].as_u64().unwrap();
    assert_eq!(number("saved") - number("inherited"), own as u64, "{saved}");
}

#[track_caller]
fn full(saved: &Value, because: &str) {
    assert_eq!(saved["saved"], true, "{saved}");
    assert_eq!(saved["items"]["inherited"], 0, "{saved}");
    let reason = saved["base"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(because), "{saved}");
}

/// Returns the members of a file as GNU tar lists them.
fn members(file: &std::path::Path) -> BTreeSet<String> {
    let mut zstd =
        Command::new("zstd").arg("-dc").arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let tar = Command::new("tar").arg("-t").stdin(zstd.stdout.take().unwrap()).output().unwrap();
    assert!(zstd.wait().unwrap().success() && tar.status.success());
    String::from_utf8(tar.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn job_saves_a_delta_and_a_wiped_store_gets_all_items() {
    for role in ROLES {
        let world = filled(role);
        let first = save(&world);
        full(&first, "no snapshot");
        let there = count(&world);
        world.wipe_store();
        run(&world, "runner", "restore", &STATE);
        let added = add(&world, "news");
        let second = run(&world, "runner", "save", &STATE);
        assert_delta_on(&second, &first, 1);
        assert_eq!(second["items"]["inherited"], there, "{role:?}");
        assert!(second["base"]["share"].as_f64().unwrap() < 0.01, "{second}");
        let sizes = [&first, &second].map(|saved| saved["bytes"]["snapshot"].as_u64().unwrap());
        assert!(sizes[1] * 5 < sizes[0], "{role:?}: {sizes:?}");

        // The base of a delta is never a delta itself, so the next delta has the same base.
        let more = add(&world, "more");
        let third = save(&world);
        assert_delta_on(&third, &first, 2);
        let before = record_state(&world);

        world.wipe_store();
        let restored = restore(&world);
        assert_eq!(restored["entry"], third["entry"]);
        assert_eq!(restored["base"]["entry"], first["entry"]);
        assert_eq!(restored["items"]["restored"], there + 2, "{role:?}: {restored}");
        assert_eq!(restored["items"]["skipped"], 0);
        assert_same(&before, &record_state(&world));
        assert!(before.references.contains_key(&added) && before.references.contains_key(&more));
        assert_eq!(staging(&world), [""; 0]);
        world.assert_nothing_to_build(role, Fixture::Small);
        world.verify_store();

        // Other programs see a tarball of the added items and the database.
        let listed = members(&file(&world, &third));
        let items = world.store()[1..].to_owned();
        let tops: BTreeSet<&str> =
            listed.iter().filter_map(|path| path.strip_prefix(&items)?.split('/').nth(1)).collect();
        let added = [&added, &more].map(|path| &path[world.store().len() + 1..]);
        assert_eq!(tops, added.into_iter().collect(), "{role:?}");
        assert_eq!(listed.len(), 3, "{listed:?}");
    }
}

#[test]
fn partial_store_restores_the_rest_from_delta_and_base() {
    let world = filled(Role::Mid);
    let first = save(&world);
    let added = add(&world, "news");
    let second = save(&world);
    assert_delta_on(&second, &first, 1);
    let before = record_state(&world);
    // Keep the items without references and delete all others: the missing items are then in both files.
    let mut leaves = store_content::leaves(&world);
    leaves.retain(|path| *path != added);
    store_content::keep_only(&world, &leaves);
    let kept = count(&world);
    assert!(0 < kept && kept < before.references.len());
    let dry = run(&world, "runner", "restore", &["--dry-run", "--require", "*-news"]);
    assert_eq!(dry["items"]["restored"], before.references.len() - kept);
    assert_eq!(dry["required"][0]["complete"], true, "{dry}");
    let restored = restore(&world);
    assert_eq!(restored["items"]["present"], kept);
    assert_same(&before, &record_state(&world));
    world.verify_store();
    assert!(restore(&world)["reason"].as_str().unwrap().contains("nothing to do"));
}

#[test]
fn save_after_a_prefix_hit_is_a_delta_on_that_entry() {
    let world = filled(Role::Guix);
    let first = under(&world, "store-old", "save", &[]);
    world.wipe_store();
    let more = [&STATE[..], &["--restore-key", "store-"]].concat();
    let restored = under(&world, "store-new", "restore", &more);
    assert_eq!(restored["hit"], "prefix");
    add(&world, "news");
    let more = [&STATE[..], &["--policy", "auto", "--min-growth", "0"]].concat();
    let saved = under(&world, "store-new", "save", &more);
    assert_delta_on(&saved, &first, 1);
    let before = record_state(&world);
    // A prefix match can find a delta too.
    world.wipe_store();
    let restored = under(&world, "another", "restore", &["--restore-key", "store-n"]);
    assert_eq!((&restored["hit"], &restored["entry"]), (&json!("prefix"), &saved["entry"]));
    assert_same(&before, &record_state(&world));
    // The delta's base belongs to another key, and is kept as long as the delta.
    let next = under(&world, "store-old", "save", &["--full", "--keep", "1"]);
    full(&next, "--full");
    assert_eq!(next["deleted"], Value::Null, "{next}");
    world.wipe_store();
    under(&world, "store-new", "restore", &[]);
    assert_same(&before, &record_state(&world));
    world.verify_store();
    under(&world, "store-new", "save", &["--full", "--keep", "1"]);
    let last = under(&world, "store-old", "save", &["--full", "--keep", "1"]);
    assert_eq!(last["deleted"], json!([next["entry"], first["entry"]]), "{last}");
}

#[test]
fn unchanged_store_is_detected_across_delta_and_base() {
    let world = filled(Role::Mid);
    let first = save(&world);
    add(&world, "news");
    let second = save(&world);
    assert_delta_on(&second, &first, 1);
    let auto = run(&world, "runner", "save", &["--policy", "auto"]);
    assert_eq!(auto["saved"], false);
    assert!(auto["reason"].as_str().unwrap().contains("unchanged"), "{auto}");
    // This save has no new items at all.
    let third = save(&world);
    assert_delta_on(&third, &first, 1);
    world.wipe_store();
    assert_eq!(restore(&world)["items"]["skipped"], 0);
}

#[test]
fn delta_without_its_base_counts_as_absent() {
    for role in ROLES {
        let world = filled(role);
        let oldest = save(&world);
        add(&world, "one");
        let base = run(&world, "runner", "save", &["--full"]);
        add(&world, "two");
        let delta = save(&world);
        assert_delta_on(&delta, &base, 1);
        let there = count(&world);
        under(&world, "test-2", "save", &["--full"]);
        fs::remove_file(file(&world, &base)).unwrap();

        // The next older generation is restored.
        world.wipe_store();
        let looked = run(&world, "runner", "restore", &["--lookup-only"]);
        assert_eq!(looked["entry"], oldest["entry"]);
        let restored = run(&world, "runner", "restore", &STATE);
        assert_eq!((&restored["hit"], &restored["entry"]), (&json!("exact"), &oldest["entry"]));
        let reason = format!("its base {} is gone", name(&base));
        assert_eq!(restored["passed_over"], json!([[delta["entry"], reason]]), "{restored}");
        assert_eq!(restored["warnings"], Value::Null, "{restored}");
        world.verify_store();

        // A save skips the delta without a base too: it builds on the entry that can be restored.
        let more = [&STATE[..], &["--policy", "auto"]].concat();
        let saved = run(&world, "runner", "save", &more);
        assert!(saved["reason"].as_str().unwrap().contains("unchanged"), "{saved}");
        add(&world, "three");
        let saved = save(&world);
        assert_delta_on(&saved, &oldest, 1);
        fs::remove_file(file(&world, &oldest)).unwrap();

        // The next rung is restored.
        world.wipe_store();
        let restored = run(&world, "runner", "restore", &["--restore-key", "test"]);
        assert_eq!(
            (&restored["hit"], &restored["matched_key"]),
            (&json!("prefix"), &json!("test-2"))
        );
        assert_eq!(restored["items"]["restored"], there, "{role:?}");
        assert_eq!(restored["passed_over"].as_array().unwrap().len(), 2, "{restored}");

        // Nothing can be restored, which is not an error; the save after it is a full snapshot.
        world.wipe_store();
        let missed = restore(&world);
        assert_eq!((&missed["hit"], &missed["entry"]), (&json!("miss"), &Value::Null), "{missed}");
        let code = attempt(&world, "runner", "restore", &["--fail-on-miss"]).code();
        assert_eq!(code, 3);
        add(&world, "four");
        let more = ["--policy", "auto", "--min-growth", "0"];
        full(&run(&world, "runner", "save", &more), "no snapshot");
        world.wipe_store();
        assert_eq!(restore(&world)["items"]["restored"], 1);
    }
}

#[test]
fn save_falls_back_to_full_and_reports_why() {
    let world = filled(Role::Mid);
    let first = save(&world);
    add(&world, "news");
    let all = count(&world);
    let rebased = run(&world, "runner", "save", &["--rebase-at", "0"]);
    full(&rebased, "more than 0 %");
    assert_eq!(rebased["base"]["entry"], first["entry"]);
    assert_eq!(rebased["items"]["saved"], all);
    full(&run(&world, "runner", "save", &["--full"]), "--full");
    let refused = attempt(&world, "runner", "save", &["--rebase-at", "much"]);
    assert_eq!(refused.code(), 2, "{refused}");

    // A save does not build on an entry that could not be restored or cannot be read.
    let last = save(&world);
    world.wipe_store();
    let base = file(&world, &json!({ "entry": last["base"]["entry"] }));
    let good = fs::read(&base).unwrap();
    let mut bad = good.clone();
    let frames = open_bytes(&good).unwrap().index.frames;
    bad[frames[frames.len() / 2].at as usize + 20] ^= 1;
    fs::write(&base, &bad).unwrap();
    let restored = run(&world, "runner", "restore", &STATE);
    assert_eq!(restored["passed_over"][0][0], last["entry"], "{restored}");
    assert!(restored["passed_over"][0][1].as_str().unwrap().contains("digest"), "{restored}");
    assert_eq!(staging(&world), [""; 0]);
    add(&world, "rebuilt");
    let saved = run(&world, "runner", "save", &STATE);
    assert_ne!(saved["base"]["entry"], last["base"]["entry"], "{saved}");
    let newest = file(&world, &saved);
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() - 1]).unwrap();
    full(&save(&world), "cannot be read");
}

#[test]
fn base_is_kept_as_long_as_a_delta_needs_it() {
    let world = filled(Role::Guix);
    let first = save(&world);
    let mut deltas = Vec::new();
    for at in 0..3 {
        add(&world, &format!("news-{at}"));
        let saved = run(&world, "runner", "save", &["--keep", "2"]);
        assert_delta_on(&saved, &first, at + 1);
        deltas.push(saved);
    }
    assert_eq!(deltas[2]["deleted"], json!([deltas[0]["entry"]]));
    assert!(file(&world, &first).exists());
    let rebased = run(&world, "runner", "save", &["--full", "--keep", "2"]);
    assert_eq!(rebased["deleted"], json!([deltas[1]["entry"]]));
    add(&world, "last");
    let last = run(&world, "runner", "save", &["--keep", "1"]);
    assert_delta_on(&last, &rebased, 1);
    assert_eq!(last["deleted"], json!([deltas[2]["entry"], first["entry"]]));
    let before = record_state(&world);
    world.wipe_store();
    restore(&world);
    assert_same(&before, &record_state(&world));
}

#[test]
fn inspect_and_verify_report_the_base_of_a_delta() {
    let world = filled(Role::Mid);
    let there = count(&world);
    let first = save(&world);
    add(&world, "news");
    let second = save(&world);
    let path = format!("/cache/{}.tar.zst", name(&second));
    let ask = |verb: &str, more: &[&str]| {
        let words = [verb, "--json"].into_iter().chain(more.iter().copied());
        report(&world.storecache_as("runner", words).ok())
    };
    let by_key = ["--store", "nix", "--backend", "dir:/cache", "--key", "test"];
    for which in [&[path.as_str()][..], &by_key] {
        let seen = ask("inspect", which);
        assert_eq!((&seen["format"], &seen["items"]), (&json!(2), &json!(1)), "{seen}");
        assert_eq!(seen["base"]["entry"], first["entry"]);
        assert_eq!((&seen["base"]["items"], &seen["base"]["there"]), (&json!(there), &json!(true)));
        let verified = ask("verify", which);
        assert_eq!((&verified["items"], &verified["base"]["ok"]), (&json!(1), &json!(true)));
        assert_eq!(verified["database_rows"], there + 1);
    }
    let output = world.storecache_as("runner", ["inspect", "--items", &path]).ok();
    assert_eq!(output.stdout.matches("in base").count(), there, "{output}");

    // `verify` of a delta reports a damaged base; if the base is missing, it checks the delta alone.
    let base = file(&world, &first);
    let mut bytes = fs::read(&base).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&base, bytes).unwrap();
    world.storecache_as("runner", ["verify", &path]).run().fails();
    fs::remove_file(&base).unwrap();
    assert_eq!(ask("inspect", &[&path])["base"]["there"], false);
    assert_eq!(ask("verify", &[&path])["base"]["ok"], false);
    let output = world.storecache_as("runner", ["verify", &path]).ok();
    assert!(output.stdout.contains("missing, so not checked"), "{output}");
}

/// A delta and its base in a world, to be replaced by forged files.
struct ForgedPair {
    world: World,
    base: PathBuf,
    delta: PathBuf,
    good: [Vec<u8>; 2],
    before: StoreState,
}

impl ForgedPair {
    fn new() -> ForgedPair {
        let world = filled(Role::Mid);
        // The base has a key of its own, so there is no older entry to fall back to.
        let base = file(&world, &under(&world, "base", "save", &[]));
        world.wipe_store();
        run(&world, "runner", "restore", &[&STATE[..], &["--restore-key", "base"]].concat());
        add(&world, "news");
        let delta = file(&world, &run(&world, "runner", "save", &STATE));
        let good = [&base, &delta].map(|path| fs::read(path).unwrap());
        world.wipe_store();
        let before = record_state(&world);
        ForgedPair { world, base, delta, good, before }
    }

    /// Writes both files, the base under the name that the delta gives, and expects a refusal.
    #[track_caller]
    fn refuses(&self, what: &str, base: &[u8], delta: &[u8], word: &str) {
        fs::write(&self.base, base).unwrap();
        fs::write(&self.delta, delta).unwrap();
        let failed = attempt(&self.world, "runner", "restore", &[]);
        assert_eq!(failed.code(), 1, "{what}: {failed}");
        let reason = report(&failed)["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(word), "{what}: {reason}");
        assert!(!failed.stderr.contains("panicked"), "{what}: {failed}");
        assert_eq!(staging(&self.world), [""; 0], "{what}");
        assert_same(&self.before, &record_state(&self.world));
    }
}

/// Returns the delta with the digest of `base` as the base's identity.
fn rebased(delta: &[u8], base: &[u8]) -> Vec<u8> {
    let identity = Index::identity(&open_bytes(base).unwrap().index_bytes);
    let identity: Digest = identity.unwrap();
    with_index(delta, |index| index.base.as_mut().unwrap().index = identity)
}

/// A name for the forgery, the change to the index, and a word that the error must contain.
type IndexForgery<'a> = (&'a str, &'a dyn Fn(&mut Index), &'a str);

#[test]
fn delta_and_base_that_do_not_match_are_refused() {
    let pair = ForgedPair::new();
    let [base, delta] = &pair.good;
    let forge = |change: &dyn Fn(&mut SnapshotParts)| {
        let mut parts = SnapshotParts::new(base);
        change(&mut parts);
        parts.build()
    };
    let lie = |change: &dyn Fn(&mut Index)| with_index(delta, change);

    // The base is another one than the delta was made on.
    let other = forge(&|it| it.head.created = "2020-01-01T00:00:00Z".into());
    pair.refuses("another snapshot", &other, delta, "is not the snapshot");
    pair.refuses("a delta on itself", delta, delta, "is not the snapshot");
    pair.refuses("a delta on a delta", delta, &rebased(delta, delta), "has a base itself");
    pair.refuses("text for a base", b"no snapshot", delta, "not a storecache snapshot");
    for (what, change) in [
        (
            "another system",
            (|it: &mut SnapshotParts| it.head.store.system = "m68k".into())
                as fn(&mut SnapshotParts),
        ),
        ("another store", |it| it.head.store.store_dir = "/gnu/store".into()),
        ("another kind", |it| it.head.store.kind = "guix".into()),
    ] {
        let base = forge(&change);
        pair.refuses(what, &base, &rebased(delta, &base), "from a different store");
    }
    let elsewhere = forge(&|it| it.items_under = "gnu/store".into());
    pair.refuses(
        "items in another directory",
        &elsewhere,
        &rebased(delta, &elsewhere),
        "another directory",
    );
    let twice = forge(&|it| {
        let at = it.items.iter().position(|item| item.frames.0 == item.frames.1).unwrap();
        it.items.insert(at, it.items[at].clone());
    });
    pair.refuses("listed twice there", &twice, delta, "twice");
    let changed = forge(&|it| it.items[2].nar_hash = Some("sha256:00".into()));
    pair.refuses("another hash there", &changed, &rebased(delta, &changed), "does not contain");
    let unknown = forge(&|it| it.items[2].nar_hash = None);
    pair.refuses("no hash there", &unknown, &rebased(delta, &unknown), "does not contain");
    let fewer = forge(&|it| {
        it.items.last_mut().unwrap().name = format!("{}-other", "9".repeat(32));
    });
    pair.refuses("an item less there", &fewer, &rebased(delta, &fewer), "does not contain");

    // The index of the delta is forged.
    let lies: [IndexForgery; 8] = [
        (
            "an item twice",
            &|it| {
                let items = &mut it.base.as_mut().unwrap().items;
                items.push(items[0].clone());
            },
            "twice",
        ),
        (
            "an item in both",
            &|it| it.base.as_mut().unwrap().items[0].name = it.items[0].name.clone(),
            "twice",
        ),
        (
            "a name",
            &|it| it.base.as_mut().unwrap().items[0].name = "../x".into(),
            "does not contain",
        ),
        ("a hash", &|it| it.base.as_mut().unwrap().items[0].nar_hash.push('0'), "does not contain"),
        ("another entry", &|it| it.base.as_mut().unwrap().entry = "x".into(), "disagree"),
        ("no base in the index", &|it| it.base = None, "must have a base"),
        (
            "no base, and the format of a full one",
            &|it| {
                it.base = None;
                it.format = 1;
            },
            "disagree",
        ),
        ("the format of a full one", &|it| it.format = 1, "must not have a base"),
    ];
    for (what, change, word) in lies {
        pair.refuses(what, base, &lie(change), word);
    }
    let head = |change: &dyn Fn(&mut SnapshotParts)| {
        let mut parts = SnapshotParts::new(delta);
        change(&mut parts);
        parts.build()
    };
    pair.refuses("a head without", base, &head(&|it| it.head.base = None), "disagree");
    pair.refuses("a head of format 1", base, &head(&|it| it.head.format = 1), "disagree");
    let nameless = head(&|it| {
        it.head.base = Some("../../etc/passwd".into());
        it.base.as_mut().unwrap().entry = "../../etc/passwd".into();
    });
    pair.refuses("no name of an entry", base, &nameless, "not a valid entry name");

    // If the base does not hold an item, that item is left out with the items that need it, and the others are
    // restored; but only if the index says that the item was left out on purpose.
    let less = |it: &mut Index| it.base.as_mut().unwrap().items.remove(0).name;
    pair.refuses("an item less", base, &lie(&|it| drop(less(it))), "nor lists it as left out");
    let less = lie(&|it| {
        let name = less(it);
        it.rows_only.as_mut().unwrap().push(name);
    });
    fs::write(&pair.base, base).unwrap();
    fs::write(&pair.delta, less).unwrap();
    let restored = restore(&pair.world);
    assert_ne!(restored["items"]["skipped"], 0);
    pair.world.verify_store();
}

#[test]
fn flipped_byte_in_the_head_or_index_of_a_delta_is_refused() {
    let pair = ForgedPair::new();
    let good = &pair.good[1];
    let index = open_bytes(good).unwrap().index;
    let end = index.frames.last().map(|frame| frame.at + frame.size).unwrap() as usize;
    for at in (0..index.head_bytes as usize).chain(end..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(open_bytes(&bytes).is_err(), "byte {at}");
    }
}

#[test]
fn delta_restore_survives_cache_service_faults() {
    let service = CacheService::start();
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let run = |verb: &str, more: &[&str]| {
        run_with_service(&world, &service, verb, &[more, &["--network-timeout", "2"]].concat())
    };
    let oldest = run("save", &["--full"]);
    add(&world, "one");
    let base = run("save", &["--full"]);
    add(&world, "two");
    let delta = run("save", &[]);
    assert_delta_on(&delta, &base, 1);
    let before = record_state(&world);
    assert_eq!(service.version_of(name(&delta)), service.version_of(name(&base)));

    let passing = [Fault::Reset, Fault::ResetInBody, Fault::Short, Fault::StallInBody];
    for fault in passing {
        world.wipe_store();
        // The first requests are for head and index of the delta, then for those of the base, then for frames.
        service.inject_faults(RequestKind::Range, [fault.clone(), fault.clone(), fault.clone()]);
        let restored = run("restore", &[]);
        service.clear_faults();
        assert_eq!(restored["entry"], delta["entry"], "{fault:?}: {restored}");
        assert_same(&before, &record_state(&world));
    }
    world.verify_store();

    // A lasting fault is a miss, and the store is unchanged.
    world.wipe_store();
    let gone = Fault::Status(500, "no");
    service.inject_faults(RequestKind::Range, vec![gone; 200]);
    let failed = run("restore", &[]);
    service.clear_faults();
    assert_eq!((&failed["hit"], &failed["failed"]), (&json!("miss"), &json!(true)));
    assert!(world.valid_paths().is_empty());

    service.evict(name(&base));
    let restored = run("restore", &STATE);
    assert_eq!(restored["entry"], oldest["entry"], "{restored}");
    assert_eq!(restored["passed_over"][0][0], delta["entry"], "{restored}");
    world.verify_store();
    service.evict(name(&oldest));
    world.wipe_store();
    let missed = run("restore", &[]);
    assert_eq!((&missed["hit"], &missed["failed"]), (&json!("miss"), &Value::Null), "{missed}");
}

/// The result of a restore of the missing part of a store.
struct PartialRestore {
    /// Names of the restored items.
    items: BTreeSet<String>,
    /// Bytes of the requested ranges, without both ends of the entry.
    fetched: u64,
    requests: usize,
}

/// Restores the missing items of an entry with this content.
fn restore_missing_items(
    world: &World,
    service: &CacheService,
    lacks: &[String],
    content: &[u8],
) -> PartialRestore {
    let Index { frames, .. } = open_bytes(content).unwrap().index;
    let frames_end = frames.last().map(|frame| frame.at + frame.size).unwrap();
    // Both ends are downloaded in pieces of a fixed size.
    let ends = (64 << 10) + (content.len() as u64 - frames_end).max(256 << 10);
    let before = service.seen(RequestKind::Range).len();
    let restored = run_with_service(world, service, "restore", &[]);
    assert_eq!(restored["items"]["restored"], lacks.len(), "{restored}");
    let asked = service.seen(RequestKind::Range).split_off(before);
    let fetched: u64 = asked.iter().map(|seen| length_of(&seen.headers["range"])).sum();
    PartialRestore {
        items: lacks.iter().map(|path| path[world.store().len() + 1..].to_owned()).collect(),
        fetched: fetched.saturating_sub(ends),
        requests: asked.len(),
    }
}

/// Returns the length of a range such as `bytes=0-9`.
fn length_of(range: &str) -> u64 {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
}

/// Returns the frames that hold nothing of other items.
fn own_frames(item: &ItemEntry) -> impl Iterator<Item = u32> {
    (item.frames.0..=item.frames.1).filter(|&frame| !item.shares(frame))
}

/// Returns the size of these items' own frames and of the database, which is always downloaded whole.
fn own_bytes(index: &Index, items: &BTreeSet<String>) -> u64 {
    let wanted = index.items.iter().filter(|item| items.contains(&item.name));
    let (first, last) = index.database.as_ref().unwrap().frames;
    let numbers: BTreeSet<u32> = wanted.flat_map(own_frames).chain(first..=last).collect();
    numbers.iter().map(|&number| index.frames[number as usize].size).sum()
}

#[test]
fn partial_restore_downloads_little_more_than_missing_items() {
    for role in ROLES {
        let service = CacheService::start();
        let world = World::build(role).network().start();
        world.start_daemon();
        store_content::add_random_items(&world, 5, 2000, 1);
        let saved = run_with_service(&world, &service, "save", &[]);
        assert_eq!(saved["items"]["saved"], 2000, "{saved}");
        let content = service.content(name(&saved));
        let index = open_bytes(&content).unwrap().index;
        for present in [90, 50, 10] {
            let gone = store_content::keep_percent_of_leaves(&world, present);
            assert_eq!(count(&world), 20 * present);
            let rest = restore_missing_items(&world, &service, &gone, &content);
            let wanted = own_bytes(&index, &rest.items);
            let ratio = rest.fetched as f64 / wanted as f64;
            println!(
                "{role:?}, {present} % present: {wanted} bytes wanted, {} fetched in {} requests: {ratio:.3}",
                rest.fetched, rest.requests
            );
            assert!(ratio <= 1.15, "{role:?}, {present} %: {ratio}");
        }
        world.verify_store();
    }
}

/// Returns the size of the contents that these items share with others, each compressed once and alone, and the
/// number of frames that hold them.
fn shared_bytes(content: &[u8], index: &Index, items: &BTreeSet<String>) -> (u64, u64) {
    let wanted = index.items.iter().filter(|item| items.contains(&item.name));
    let frames: BTreeSet<u32> = wanted.flat_map(|item| item.shared.clone()).collect();
    let mut contents: BTreeSet<Vec<u8>> = BTreeSet::new();
    for &number in &frames {
        let raw = zstd::decode_all(frame_bytes(content, index, number as usize)).unwrap();
        for member in tar::Archive::new(raw.as_slice()).entries().unwrap() {
            let mut member = member.unwrap();
            let path = member.path().unwrap().into_owned();
            let item = path.strip_prefix(&index.items_under).unwrap().iter().next().unwrap();
            if items.contains(item.to_str().unwrap()) {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).unwrap();
                contents.insert(bytes);
            }
        }
    }
    let packed = contents.iter().map(|it| zstd::bulk::compress(it, 3).unwrap().len() as u64);
    (packed.sum(), frames.len() as u64)
}

/// Returns a store with 400 items that each share a file of 10,000 bytes with one other item and have 20,000
/// bytes of their own.
fn pairs() -> World {
    let world = World::build(Role::Guix).network().start();
    world.start_daemon();
    world.sh("mkdir -p /tmp/pairs; cd /tmp/pairs
        for n in $(seq 200); do
            mkdir $n-one $n-two
            head -c 10000 /dev/urandom | tee $n-one/shared >$n-two/shared
            for item in $n-one $n-two; do head -c 20000 /dev/urandom >$item/own; done
        done");
    assert_eq!(world.add_files("/tmp/pairs/*").len(), 400);
    world
}

#[test]
fn partial_restore_downloads_shared_content_once() {
    let optimised = World::build(Role::Old).fixture(Fixture::Optimised).network().start();
    optimised.start_daemon();
    // In the store of pairs, a frame of shared files holds little that a restore of an item needs.
    for world in [optimised, pairs()] {
        let service = CacheService::start();
        let saved = run_with_service(&world, &service, "save", &[]);
        let content = service.content(name(&saved));
        let index = open_bytes(&content).unwrap().index;
        assert!(index.items.iter().filter(|item| !item.shared.is_empty()).count() > 10);
        for present in [90, 50, 10] {
            let gone = store_content::keep_percent_of_leaves(&world, present);
            let rest = restore_missing_items(&world, &service, &gone, &content);
            let own = own_bytes(&index, &rest.items);
            let (shared, frames) = shared_bytes(&content, &index, &rest.items);
            let ratio = rest.fetched as f64 / (own + shared) as f64;
            let what = format!(
                "{:?}, {present} % present: {own} own bytes, {shared} shared in {frames} frames, \
                 {} fetched in {} requests: {ratio:.3}",
                world.role(),
                rest.fetched,
                rest.requests
            );
            println!("{what}");
            assert!(ratio <= 1.15, "{what}");
        }
        world.verify_store();
    }
}
