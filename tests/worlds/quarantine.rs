//! Tests of snapshots that fail their checks: the next older snapshot is restored, and the bad one is
//! quarantined.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::bad_snapshot_env::with_database;
use crate::support::cache_service::{CacheService, Fault, RequestKind, TOKEN};
use crate::support::plain_env::{PlainEnv, binary, output, set_mtime};
use crate::support::snapshot_builder::{
    SnapshotParts, directory, file, frame, hard_link, long_named_file, open_bytes, symlink,
};
use crate::support::world_runs::{
    assert_same, attempt, flags, record_state, report, restore, run, save, staging,
};
use crate::support::{Fixture, Invocation, Output, PackageManager, Role, World};
use serde_json::{Value, json};

const STATE: [&str; 2] = ["--state", "/tmp/job.json"];

/// The file in which a user of a world records bad entries.
const DENYLIST: &str = "/home/runner/.local/state/storecache/quarantine.json";

/// A world with a running daemon, whose backend has one entry: a good snapshot of the full store.
struct QuarantineWorld {
    world: World,
    good: Vec<u8>,
    /// The entry's name.
    good_name: String,
    /// User and group of the user who saves there.
    owner: (u32, u32),
}

impl QuarantineWorld {
    fn new(role: Role) -> QuarantineWorld {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let good_name = save(&world)["entry"].as_str().unwrap().to_owned();
        let path = world.backend().host_path().join(format!("{good_name}.tar.zst"));
        let metadata = path.metadata().unwrap();
        let owner = (metadata.uid(), metadata.gid());
        QuarantineWorld { good: fs::read(path).unwrap(), world, good_name, owner }
    }

    fn parts(&self) -> SnapshotParts {
        SnapshotParts::new(&self.good)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.backend().host_path().join(format!("{name}.tar.zst"))
    }

    /// Writes an entry, owned by that user.
    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
        path
    }

    fn quarantined_file(&self, name: &str) -> PathBuf {
        quarantine(&self.world).join(format!("{name}.tar.zst"))
    }

    fn remembered(&self) -> Value {
        let memory = fs::read(self.world.host(DENYLIST)).unwrap_or_else(|_| b"{}".to_vec());
        let memory: Value = serde_json::from_slice(&memory).unwrap();
        memory["entries"].clone()
    }
}

fn quarantine(world: &World) -> PathBuf {
    world.backend().host_path().join(".quarantine")
}

/// Returns the name of an entry that is newer than any real save.
fn newer(number: usize) -> String {
    format!("test.20991231T235{number:03}.000000Z")
}

/// Duplicates all references.
const DUPLICATE_REFS_SQL: &str = "CREATE TABLE R AS SELECT * FROM Refs; DROP TABLE Refs; \
     CREATE TABLE Refs (referrer INTEGER, reference INTEGER); \
     INSERT INTO Refs SELECT referrer, reference FROM R; \
     INSERT INTO Refs SELECT referrer, reference FROM R; DROP TABLE R";

const INVALID_PATH_SQL: &str =
    "UPDATE ValidPaths SET path = '/x' WHERE id = (SELECT min(id) FROM ValidPaths)";

fn flip_bit_at(good: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[at] ^= 4;
    bytes
}

/// Returns the middle of a frame in the middle of the items.
fn middle_of_a_frame(good: &[u8]) -> usize {
    let index = open_bytes(good).unwrap().index;
    let frame = &index.frames[index.items[index.items.len() / 2].frames.0 as usize];
    (frame.at + frame.size / 2) as usize
}

/// Returns the snapshot with other members for one item.
fn with_members(ward: &QuarantineWorld, members: &dyn Fn(&str) -> Vec<Vec<u8>>) -> Vec<u8> {
    let mut parts = ward.parts();
    let at = parts.item_in_its_own_frame();
    let item = &mut parts.items[at];
    let members = members(&format!("{}/{}", &ward.world.store()[1..], item.name));
    item.files = members.len() as u64;
    let number = item.frames.0 as usize;
    parts.frames[number] = frame(&members.concat());
    parts.build()
}

/// The damage, the phase in which a restore detects it, and the snapshot.
type DamageCase = (&'static str, &'static str, Vec<u8>);

fn damage_of_every_phase(ward: &QuarantineWorld) -> Vec<DamageCase> {
    let good = &ward.good;
    let index = open_bytes(good).unwrap().index;
    let database = index.frames[0].at + index.frames[0].size / 2;
    let end = index.frames.last().map(|frame| frame.at + frame.size).unwrap() as usize;
    let mut fewer = ward.parts();
    fewer.items[3].files += 1;
    let mut none = ward.parts();
    none.replace_database(&b"no database at all\n".repeat(300));
    let through = |top: &str| {
        let link = symlink(format!("{top}/link").as_bytes(), b"/tmp");
        vec![directory(top.as_bytes()), link, file(format!("{top}/link/x").as_bytes(), b"x")]
    };
    let linked = |top: &str| {
        vec![
            directory(top.as_bytes()),
            hard_link(format!("{top}/x").as_bytes(), format!("{top}/missing").as_bytes()),
        ]
    };
    let nowhere = |top: &str| {
        let link = symlink(format!("{top}/link").as_bytes(), b"");
        vec![directory(top.as_bytes()), link]
    };
    let unnamed = |top: &str| {
        let name = format!("{top}/{}", "n".repeat(256));
        vec![directory(top.as_bytes()), long_named_file(name.as_bytes())]
    };
    let clash = |top: &str| {
        let one = || file(format!("{top}/x").as_bytes(), b"x");
        vec![directory(top.as_bytes()), one(), one()]
    };
    vec![
        ("a text", "lookup", b"not a snapshot\n".repeat(50)),
        ("the head", "lookup", flip_bit_at(good, 100)),
        ("the index", "lookup", flip_bit_at(good, (end + good.len()) / 2)),
        ("cut short", "lookup", good[..end / 2].to_vec()),
        ("the frame of the database", "plan", flip_bit_at(good, database as usize)),
        ("no database", "plan", none.build()),
        ("a row that is not an item", "plan", with_database(good, INVALID_PATH_SQL)),
        ("a frame of items", "unpack", flip_bit_at(good, middle_of_a_frame(good))),
        ("members against the index", "unpack", fewer.build()),
        ("a file through a link", "unpack", with_members(ward, &through)),
        ("a hard link to nothing", "unpack", with_members(ward, &linked)),
        ("one name twice", "unpack", with_members(ward, &clash)),
        ("a link to an empty target", "unpack", with_members(ward, &nowhere)),
        ("a name that no file system has", "unpack", with_members(ward, &unnamed)),
        ("rows twice", "plan", with_database(good, DUPLICATE_REFS_SQL)),
    ]
}

/// Asserts that restores skip all of these, a few at a time, restore the older snapshot, and quarantine the bad
/// ones with the reason.
fn assert_restores_older_entry(ward: &QuarantineWorld, all: &[DamageCase]) {
    let world = &ward.world;
    let before = record_state(world);
    let numbered: Vec<_> = all.iter().enumerate().collect();
    for some in numbered.chunks(4) {
        let paths: Vec<_> =
            some.iter().map(|(number, (.., bytes))| ward.put(&newer(*number), bytes)).collect();
        world.wipe_store();
        let restored = restore(world);
        assert_eq!(
            (&restored["entry"], &restored["hit"]),
            (&json!(ward.good_name), &json!("exact"))
        );
        assert_eq!(restored["items"]["restored"], before.references.len(), "{restored}");
        assert_eq!(restored["passed_over"].as_array().unwrap().len(), some.len(), "{restored}");
        // The newest was tried first.
        for (at, (number, (what, phase, bytes))) in some.iter().rev().enumerate() {
            let name = newer(*number);
            assert_eq!(restored["passed_over"][at][0], name, "{what}: {restored}");
            let bad = &restored["quarantined"][at];
            assert_eq!((&bad["entry"], &bad["phase"]), (&json!(name), &json!(phase)), "{what}");
            assert_eq!(bad["reason"], restored["passed_over"][at][1], "{what}");
            assert_eq!(fs::read(ward.quarantined_file(&name)).unwrap(), *bytes, "{what}");
            let note = fs::read(note(&ward.quarantined_file(&name))).unwrap();
            let note: Value = serde_json::from_slice(&note).unwrap();
            assert_eq!((&note["entry"], &note["key"]), (&json!(name), &json!("test")), "{note}");
            assert_eq!((&note["size"], &note["phase"]), (&json!(bytes.len()), &json!(phase)));
            assert_eq!(note["reason"], bad["reason"], "{what}");
            assert!(note["tool"].as_str().unwrap().starts_with("storecache "), "{note}");
            assert!(note["when"].as_str().unwrap().starts_with("20"), "{note}");
        }
        // There is one warning: the first cause, what was done with the entry, and the entry that was restored
        // instead.
        let warnings = restored["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{restored}");
        let (number, (_, phase, _)) = some.last().unwrap();
        for part in [&*newer(*number), phase, &ward.good_name, ".quarantine", "storecache verify"] {
            assert!(warnings[0].as_str().unwrap().contains(part), "{part}: {restored}");
        }
        assert!(paths.iter().all(|path| !path.exists()));
        assert_eq!(staging(world), [""; 0]);
        assert!(world.daemon_answers());
    }
    assert_same(&before, &record_state(world));
    world.verify_store();
    assert_eq!(ward.remembered(), Value::Null, "a moved entry need not be listed");
    let again = restore(world);
    assert_eq!((&again["passed_over"], &again["warnings"]), (&Value::Null, &Value::Null));
}

#[test]
fn restore_falls_back_from_any_damaged_entry() {
    let ward = QuarantineWorld::new(Role::Mid);
    assert_restores_older_entry(&ward, &damage_of_every_phase(&ward));
}

#[test]
fn guix_restore_falls_back_from_a_damaged_entry() {
    let ward = QuarantineWorld::new(Role::Guix);
    let all = damage_of_every_phase(&ward).into_iter();
    let some = ["the index", "no database", "a frame of items", "rows twice"];
    let some: Vec<_> = all.filter(|(what, ..)| some.contains(what)).collect();
    assert_restores_older_entry(&ward, &some);
}

/// Adds a file to the store, as a job does.
fn add(world: &World, name: &str) {
    match world.package_manager() {
        PackageManager::Guix => drop(world.add_texts(name, 1)),
        PackageManager::Nix => {
            fs::write(world.host(format!("/tmp/{name}")), name).unwrap();
            world.nix(["nix-store", "--add", &format!("/tmp/{name}")]).ok();
        }
    }
}

fn entry(report: &Value) -> &str {
    report["entry"].as_str().unwrap_or_else(|| panic!("no entry: {report}"))
}

#[test]
fn damaged_base_is_quarantined_and_its_deltas_are_skipped() {
    for role in [Role::Mid, Role::Guix] {
        let ward = QuarantineWorld::new(role);
        let world = &ward.world;
        let before = record_state(world);
        add(world, "one");
        let base = run(world, "runner", "save", &["--full"]);
        add(world, "two");
        let delta = save(world);
        assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
        let path = ward.path(entry(&base));
        let good = fs::read(&path).unwrap();

        // A restore detects damage when it unpacks a frame or when it opens the base.
        for (what, phase, bytes) in [
            ("a frame", "unpack", flip_bit_at(&good, middle_of_a_frame(&good))),
            ("the head", "lookup", flip_bit_at(&good, 100)),
        ] {
            ward.put(entry(&base), &bytes);
            world.wipe_store();
            let restored = restore(world);
            assert_eq!(restored["entry"], ward.good_name, "{what}: {restored}");
            assert_same(&before, &record_state(world));
            assert_eq!(restored["passed_over"][0][0], delta["entry"], "{what}: {restored}");
            let bad = &restored["quarantined"][0];
            assert_eq!((&bad["entry"], &bad["phase"]), (&base["entry"], &json!(phase)), "{what}");
            assert_eq!(restored["quarantined"].as_array().unwrap().len(), 1, "{what}: {restored}");
            assert!(ward.quarantined_file(entry(&base)).exists() && !path.exists(), "{what}");
            // The delta itself is good.
            assert!(ward.path(entry(&delta)).exists(), "{what}");
            let again = restore(world);
            assert!(again["passed_over"][0][1].as_str().unwrap().contains("is gone"), "{again}");
            assert_eq!(again["quarantined"], Value::Null, "{again}");
            fs::remove_dir_all(quarantine(world)).unwrap();
        }

        // If the base is another good snapshot than the delta names, the delta is at fault.
        ward.put(entry(&base), &ward.good);
        world.wipe_store();
        let restored = restore(world);
        assert_eq!(restored["entry"], base["entry"], "{restored}");
        assert_eq!(restored["quarantined"][0]["entry"], delta["entry"], "{restored}");
        assert_same(&before, &record_state(world));
        world.verify_store();

        // A save builds on neither the delta nor the other base.
        add(world, "three");
        let saved = save(world);
        assert_eq!(saved["base"]["entry"], base["entry"], "{saved}");
    }
}

#[test]
fn failure_without_damage_does_not_quarantine() {
    let ward = QuarantineWorld::new(Role::Mid);
    let world = &ward.world;
    world.wipe_store();
    let changed = |change: &dyn Fn(&mut SnapshotParts)| {
        let mut parts = ward.parts();
        change(&mut parts);
        parts.build()
    };
    for (number, (what, bytes)) in [
        ("newer format", changed(&|it| it.head.format = 3)),
        ("other system", changed(&|it| it.head.store.system = "m68k-linux".into())),
        ("other kind", changed(&|it| it.head.store.kind = "guix".into())),
        ("newer schema", changed(&|it| it.head.store.schema = Some(11))),
        ("more than the disk has", changed(&|it| it.items[0].disk = 1 << 50)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = ward.put(&newer(number), &bytes);
        let failed = attempt(world, "runner", "restore", &[]).fails();
        assert_eq!(report(&failed)["quarantined"], Value::Null, "{what}: {failed}");
        assert!(path.exists() && !quarantine(world).exists(), "{what}: {failed}");
        fs::remove_file(path).unwrap();
    }
    // A damaged entry, but another process holds the database before the restore detects the damage.
    let path = ward.put(&newer(7), &flip_bit_at(&ward.good, middle_of_a_frame(&ward.good)));
    let held = world.hold_big_lock();
    ward.put(&newer(8), &ward.good);
    let failed = attempt(world, "runner", "restore", &["--lock-timeout", "1"]).fails();
    assert!(failed.stderr.contains("is still held after 1 s"), "{failed}");
    drop(held);
    assert!(ward.path(&newer(8)).exists() && path.exists() && !quarantine(world).exists());
    fs::remove_file(ward.path(&newer(8))).unwrap();

    // Runs that only look up entries do not move them either, and report the damage.
    for more in [&["--dry-run"][..], &["--lookup-only"]] {
        let looked = run(world, "runner", "restore", more);
        assert_eq!(looked["quarantined"], Value::Null, "{looked}");
    }
    let verify = ["verify"].into_iter().chain(flags(world));
    let said = world.storecache_as("runner", verify).run().fails();
    assert!(said.stderr.contains("damaged"), "{said}");
    ward.put(&newer(9), b"a text");
    let dry = run(world, "runner", "restore", &["--lookup-only"]);
    assert_eq!((&dry["entry"], &dry["passed_over"][0][0]), (&json!(newer(7)), &json!(newer(9))));
    assert!(ward.path(&newer(9)).exists() && path.exists() && !quarantine(world).exists());
    assert_eq!(ward.remembered(), Value::Null);
}

#[test]
fn unmovable_entry_is_recorded_until_its_file_changes() {
    let ward = QuarantineWorld::new(Role::New);
    let world = &ward.world;
    let (name, directory) = (newer(0), world.backend().host_path());
    let path = ward.put(&name, &flip_bit_at(&ward.good, middle_of_a_frame(&ward.good)));
    fs::set_permissions(&directory, Permissions::from_mode(0o555)).unwrap();
    world.wipe_store();
    let restored = restore(world);
    assert_eq!(restored["entry"], ward.good_name, "{restored}");
    let bad = &restored["quarantined"][0];
    assert_eq!((&bad["entry"], &bad["file"]), (&json!(name), &Value::Null), "{restored}");
    let warnings = restored["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{restored}");
    let words = warnings[0].as_str().unwrap();
    assert!(words.contains("Permission denied") && words.contains("has a record of it"), "{words}");
    assert_eq!(ward.remembered()[0]["entry"], name);

    // The bad entry's data is not read again.
    world.wipe_store();
    let again = restore(world);
    assert_eq!(again["entry"], ward.good_name);
    assert!(again["passed_over"][0][1].as_str().unwrap().contains("found bad"), "{again}");
    assert!(again["bytes"]["downloaded"].as_u64() < restored["bytes"]["downloaded"].as_u64());
    assert_eq!((&again["quarantined"], &again["warnings"]), (&Value::Null, &Value::Null));
    let listed = world.storecache_as("runner", ["list", "--backend", "dir:/cache", "--json"]).ok();
    assert_eq!(report(&listed)["quarantined"][0]["entry"], name, "{listed}");

    // The file was replaced by a good one.
    fs::write(&path, &ward.good).unwrap();
    world.wipe_store();
    assert_eq!(restore(world)["entry"], name);
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    world.verify_store();
}

/// Returns a command in a world, with the cache service of this version.
fn command_in_job<'w>(
    world: &'w World,
    (service, v2): (&CacheService, bool),
    verb: &str,
    more: &[&str],
) -> Invocation<'w> {
    let words = [verb, "--store", world.package_manager().name(), "--key", "test", "--json"];
    let mut run = world
        .storecache_as("runner", words.into_iter().chain(more.iter().copied()))
        .env("ACTIONS_RESULTS_URL", service.url())
        .env("ACTIONS_CACHE_URL", service.url())
        .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
        .env("GITHUB_REPOSITORY", "owner/name");
    if v2 {
        run = run.env("ACTIONS_CACHE_SERVICE_V2", "1");
    }
    run
}

#[test]
fn damaged_service_entry_is_recorded_and_superseded() {
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let before = record_state(&world);
    for v2 in [true, false] {
        let service = CacheService::start();
        if !v2 {
            service.support_v1_only();
        }
        let run = |verb: &str, more: &[&str]| {
            report(&command_in_job(&world, (&service, v2), verb, more).run())
        };
        let _ = fs::remove_file(world.host(DENYLIST));
        let older = run("save", &["--full"]);
        let good = service.content(entry(&older));
        let name = newer(usize::from(v2));
        let bad = flip_bit_at(&good, middle_of_a_frame(&good));
        service.put(&name, &service.version_of(entry(&older)), &bad);

        world.wipe_store();
        let restored = run("restore", &STATE);
        assert_eq!((&restored["entry"], &restored["hit"]), (&older["entry"], &json!("exact")));
        assert_eq!(restored["quarantined"][0]["entry"], name, "{restored}");
        assert_eq!(restored["warnings"].as_array().unwrap().len(), 1, "{restored}");
        assert_same(&before, &record_state(&world));
        let memory: Value =
            serde_json::from_slice(&fs::read(world.host(DENYLIST)).unwrap()).unwrap();
        let first = &memory["entries"][0];
        assert_eq!((&first["entry"], &first["size"]), (&json!(name), &json!(bad.len())));
        let place = format!("github:owner/name:{}", service.version_of(&name));
        assert_eq!(first["place"], place, "{memory}");

        // The save of the job does not count the bad entry as saved, even if this machine has no record of it
        // any more: restores on other machines would meet it again.
        fs::remove_file(world.host(DENYLIST)).unwrap();
        let auto = [&STATE[..], &["--policy", "auto"]].concat();
        let saved = run("save", &auto);
        assert_eq!(saved["saved"], true, "{saved}");
        assert_eq!(saved["base"]["entry"], older["entry"], "{saved}");
        // Clocks never give a generation as far in the future as that of the bad entry.
        service.evict(&name);
        let next = newer(2);
        service.put(&next, &service.version_of(entry(&older)), &bad);
        world.wipe_store();
        let restored = run("restore", &[]);
        assert_eq!(restored["entry"], saved["entry"], "{restored}");
        assert_eq!(restored["quarantined"][0]["entry"], next);
        world.wipe_store();
        let ranges = service.seen(RequestKind::Range).len();
        let again = run("restore", &STATE);
        assert_eq!(again["entry"], saved["entry"]);
        assert_eq!(again["quarantined"], Value::Null, "{again}");
        assert!(again["passed_over"][0][1].as_str().unwrap().contains("found bad"), "{again}");
        assert!(service.seen(RequestKind::Range).len() > ranges);
        assert!(again["bytes"]["downloaded"].as_u64() < restored["bytes"]["downloaded"].as_u64());
        // A save without a state file uses the record of bad entries too.
        let saved = run("save", &["--policy", "auto"]);
        assert_eq!(saved["saved"], true, "{saved}");
    }
    world.verify_store();
}

#[test]
fn transfer_damage_does_not_quarantine() {
    let service = CacheService::start();
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let before = record_state(&world);
    let through =
        |verb: &str, more: &[&str]| command_in_job(&world, (&service, true), verb, more).run();
    let older = report(&through("save", &["--full"]));
    let newest = report(&through("save", &["--full"]));
    assert_ne!(older["entry"], newest["entry"]);
    // The ranges of a restore: the head, the end with the index, then frames.
    for ranges in [
        vec![Fault::Flip],
        vec![Fault::Slow, Fault::Flip],
        vec![Fault::Slow, Fault::Slow, Fault::Flip],
        vec![Fault::Slow, Fault::Slow, Fault::Slow, Fault::Flip],
    ] {
        service.inject_faults(RequestKind::Range, ranges.clone());
        world.wipe_store();
        let restored = report(&through("restore", &[]));
        assert_eq!(service.unused_faults(), 0, "{ranges:?}: {restored}");
        assert_eq!(restored["entry"], newest["entry"], "{ranges:?}: {restored}");
        assert_eq!(restored["quarantined"], Value::Null, "{ranges:?}: {restored}");
    }
    assert_same(&before, &record_state(&world));
    // Other faults of the service do not condemn an entry either.
    for fault in [
        Fault::Status(500, "no"),
        Fault::Short,
        Fault::OtherTag,
        Fault::Page,
        Fault::HalfWithoutLength,
    ] {
        service.inject_faults(RequestKind::Range, vec![fault.clone(); 100]);
        world.wipe_store();
        let failed = report(&through("restore", &["--network-timeout", "1"]));
        service.clear_faults();
        assert_eq!((&failed["hit"], &failed["quarantined"]), (&json!("miss"), &Value::Null));
        assert_eq!(failed["entry"], newest["entry"], "{fault:?}: {failed}");
    }
    assert!(!world.host(DENYLIST).exists());
    world.verify_store();
}

/// Plain directories with a home directory of their own.
struct PlainQuarantine {
    place: PlainEnv,
    home: tempfile::TempDir,
}

const SRV: &str = "/srv/a";

impl PlainQuarantine {
    /// Returns a fixture with one good entry, whose directory was deleted.
    fn new() -> PlainQuarantine {
        let place = PlainEnv::new();
        place.write("/srv/a/file", "content\n");
        let yard = PlainQuarantine { place, home: tempfile::tempdir().unwrap() };
        yard.run("save", &[]);
        yard.place.remove(SRV);
        yard
    }

    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).arg("--root").arg(self.place.root());
        command.args(["--store", "plain", "--key", "test", "--json", "--path", SRV, "--backend"]);
        command.arg(format!("dir:{}", self.place.entries().display())).args(more);
        command.env("XDG_STATE_HOME", self.home.path()).env_remove("GITHUB_EVENT_PATH");
        command
    }

    fn attempt(&self, verb: &str, more: &[&str]) -> Output {
        output(&mut self.command(verb, more))
    }

    #[track_caller]
    fn run(&self, verb: &str, more: &[&str]) -> Value {
        report(&self.attempt(verb, more).ok())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.place.entries().join(format!("{name}.tar.zst"));
        fs::write(&path, bytes).unwrap();
        path
    }

    fn quarantine(&self) -> PathBuf {
        self.place.entries().join(".quarantine")
    }

    /// Quarantines a bad entry, as if this many hours ago.
    fn quarantine_entry(&self, name: &str, hours: i64) -> PathBuf {
        self.put(name, b"bad");
        let _ = self.attempt("restore", &[]);
        let file = self.quarantine().join(format!("{name}.tar.zst"));
        assert!(file.exists(), "{name}");
        set_age(&note(&file), hours);
        file
    }

    fn stamp(&self) -> PathBuf {
        self.quarantine().join(".swept")
    }
}

fn note(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.json", file.display()))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn set_age(path: &Path, hours: i64) {
    set_mtime(path, now() - hours * 3600, 0);
}

fn age_in_hours(path: &Path) -> i64 {
    (now() - path.metadata().unwrap().mtime()) / 3600
}

/// Returns a name that sorts before any real save.
fn ancient(number: usize) -> String {
    format!("test.20010101T000{number:03}.000000Z")
}

#[test]
fn sweep_deletes_expired_entries_at_most_once_an_hour() {
    let yard = PlainQuarantine::new();
    fs::remove_file(yard.place.snapshot()).unwrap();
    let days = |days: i64| days * 24;
    let over = yard.quarantine_entry(&ancient(0), 0);
    let fresh = yard.quarantine_entry(&ancient(1), 0);
    let lost = yard.quarantine_entry(&ancient(2), 0);
    fs::remove_file(note(&lost)).unwrap();
    let ahead = yard.quarantine_entry(&ancient(3), -days(400));
    set_age(&note(&over), days(30) + 1);
    set_age(&note(&fresh), days(30) - 1);
    let foreign = yard.quarantine().join("mine.txt");
    fs::write(&foreign, "mine").unwrap();
    set_age(&foreign, days(999));
    // The sweep has just run, so the next one is due in an hour.
    set_age(&yard.stamp(), 0);
    yard.run("restore", &[]);
    assert!(over.exists(), "the last sweep was a moment ago");
    yard.run("restore", &["--quarantine-keep-days", "0"]);
    set_age(&yard.stamp(), 1);
    yard.run("restore", &["--quarantine-keep-days", "0"]);
    assert!(over.exists(), "0 keeps them");
    yard.run("restore", &["--dry-run"]);
    yard.run("restore", &["--quarantine-keep-days", "31"]);
    assert!(over.exists(), "31 days are not over");
    assert_eq!(age_in_hours(&yard.stamp()), 0);

    // An hour after the last sweep, or after a sweep by a clock that was years ahead.
    for hours in [1, -days(2000)] {
        set_age(&yard.stamp(), hours);
        set_age(&note(&over), days(30) + 1);
        yard.run("restore", &[]);
        assert!(!over.exists() && !note(&over).exists(), "{hours}");
        assert_eq!(age_in_hours(&yard.stamp()), 0, "{hours}");
        yard.quarantine_entry(&ancient(0), days(30) + 1);
    }
    // A save sweeps too.
    set_age(&yard.stamp(), 1);
    yard.place.write("/srv/a/file", "content\n");
    yard.run("save", &[]);
    assert!(!over.exists());
    assert!(fresh.exists() && foreign.exists());
    // If a note is missing or has a time in the future, the retention period starts again.
    for file in [&lost, &ahead] {
        assert!(file.exists() && age_in_hours(&note(file)) == 0);
        set_age(&note(file), days(31));
    }
    // The entry is younger than its note: the clock was behind when the note was written.
    let young = yard.quarantine_entry(&format!("test.{}", generation_now()), days(20_000));
    set_age(&yard.stamp(), 2);
    yard.run("restore", &[]);
    assert!(!lost.exists() && !ahead.exists() && young.exists() && fresh.exists());
    // If a user deletes a quarantined file, the next sweep deletes its note.
    fs::remove_file(&young).unwrap();
    set_age(&yard.stamp(), 2);
    yard.run("restore", &[]);
    assert!(!note(&young).exists());
}

/// Returns the generation of an entry that is saved now.
fn generation_now() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
}

#[test]
fn quarantined_entry_is_only_shown_by_list() {
    let yard = PlainQuarantine::new();
    let file = yard.quarantine_entry(&newer(0), 1);
    let good = fs::read(yard.place.snapshot()).unwrap();
    // Use a good snapshot, so that a restore that read it would accept it.
    fs::write(&file, &good).unwrap();
    yard.place.write("/srv/a/file", "other\n");
    let saved = yard.run("save", &["--keep", "1"]);
    assert_eq!(saved["deleted"].as_array().unwrap().len(), 1, "{saved}");
    let backend = format!("dir:{}", yard.place.entries().display());
    let inventory = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(words).args(["--backend", &backend]);
        output(command.env("XDG_STATE_HOME", yard.home.path())).ok()
    };
    let listed = report(&inventory(&["list", "--json"]));
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1, "{listed}");
    let quarantined = listed["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 1, "{listed}");
    assert_eq!(quarantined[0]["entry"], newer(0));
    assert_eq!(quarantined[0]["file"], file.to_str().unwrap());
    assert_eq!(
        (&quarantined[0]["size"], &quarantined[0]["phase"]),
        (&json!(good.len()), &json!("lookup"))
    );
    let printed = inventory(&["list"]);
    assert!(printed.stderr.contains(&format!("quarantined: {}", newer(0))), "{printed}");
    inventory(&["prune", "--apply", "--prefix", "test"]);
    inventory(&["usage"]);
    assert!(file.exists() && note(&file).exists());
    yard.place.remove(SRV);
    assert_eq!(yard.run("restore", &[])["entry"], saved["entry"]);
    // A damaged note does not matter.
    fs::write(note(&file), b"\xff\xfe{").unwrap();
    let listed = report(&inventory(&["list", "--json"]));
    assert!(listed["quarantined"][0]["reason"].as_str().unwrap().contains("missing"), "{listed}");
}

#[test]
fn concurrent_restores_skip_the_same_damaged_entry() {
    let yard = PlainQuarantine::new();
    let good = fs::read(yard.place.snapshot()).unwrap();
    for round in 0..8 {
        yard.put(&newer(round), &flip_bit_at(&good, middle_of_a_frame(&good)));
        let _ = fs::remove_dir_all(yard.place.host(SRV));
        let start = || {
            let mut command = yard.command("restore", &[]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        for run in [start(), start()] {
            let ended = run.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
            assert_eq!(report["hit"], "exact", "{report}");
        }
        assert_eq!(yard.place.read("/srv/a/file"), "content\n");
    }
    let names = fs::read_dir(yard.quarantine()).unwrap();
    let names: BTreeSet<_> = names.map(|file| file.unwrap().file_name()).collect();
    let files = names.iter().filter(|name| name.to_str().unwrap().ends_with(".tar.zst"));
    assert_eq!(files.count(), 8, "{names:?}");
    assert!(
        !yard.home.path().join("storecache/quarantine.json").exists(),
        "a moved entry is not listed"
    );
}

/// Returns text that does not compress, so that most of a snapshot is data.
fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b' ' + (state >> 57) as u8 % 94)
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn restore_skips_any_number_of_damaged_entries() {
    const MANY: usize = 200;
    let yard = PlainQuarantine::new();
    fs::remove_file(yard.place.snapshot()).unwrap();
    yard.place.write("/srv/a/file", &noise(200_000));
    let older = yard.run("save", &[]);
    yard.place.remove(SRV);
    let good = fs::read(yard.place.snapshot()).unwrap();
    let end = open_bytes(&good).unwrap().index.frames.last().map(|frame| frame.at + frame.size);
    let damaged = [
        b"a text".to_vec(),
        flip_bit_at(&good, 100),
        flip_bit_at(&good, (end.unwrap() as usize + good.len()) / 2),
        good[..good.len() / 2].to_vec(),
    ];
    for number in 0..MANY {
        yard.put(&newer(number), &damaged[number % damaged.len()]);
    }
    let skipped = |json: &Value| json["passed_over"].as_array().map_or(0, Vec::len);
    for more in ["--dry-run", "--lookup-only"] {
        let looked = yard.run("restore", &[more]);
        assert_eq!((&looked["entry"], skipped(&looked)), (&older["entry"], MANY), "{more}");
        assert!(!yard.quarantine().exists(), "{more}");
    }
    let done = yard.attempt("restore", &[]).ok();
    let restored = report(&done);
    assert_eq!((&restored["entry"], &restored["hit"]), (&older["entry"], &json!("exact")));
    assert_eq!(yard.place.read("/srv/a/file"), noise(200_000));
    assert_eq!(skipped(&restored), MANY);
    let quarantined = restored["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), MANY);
    for bad in quarantined {
        assert!(bad["file"].as_str().is_some_and(|file| Path::new(file).exists()), "{bad}");
        // The damage was found without a download of data.
        assert_eq!(bad["phase"], "lookup", "{bad}");
    }
    let read = restored["bytes"]["downloaded"].as_u64().unwrap();
    assert!(read < 2 * good.len() as u64, "{read} bytes for snapshots of {}", good.len());
    // There is one readable warning.
    let warnings = restored["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{restored}");
    let words = warnings[0].as_str().unwrap();
    assert!(words.contains(&newer(MANY - 1)) && words.contains("199 more"), "{words}");
    assert_eq!(done.stderr.lines().count(), 1, "{done}");
    let again = yard.run("restore", &[]);
    assert_eq!((&again["entry"], skipped(&again)), (&older["entry"], 0));

    // Damage that only shows in the frames costs a download for each entry; these entries are skipped as well.
    for number in 0..12 {
        yard.put(&newer(number), &flip_bit_at(&good, middle_of_a_frame(&good)));
    }
    yard.place.remove(SRV);
    let restored = yard.run("restore", &[]);
    assert_eq!((&restored["entry"], skipped(&restored)), (&older["entry"], 12), "{restored}");
}

#[test]
fn restore_skips_deltas_on_a_damaged_base() {
    let ward = QuarantineWorld::new(Role::Mid);
    let world = &ward.world;
    let before = record_state(world);
    add(world, "one");
    let base = run(world, "runner", "save", &["--full"]);
    add(world, "two");
    let delta = save(world);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let bytes = fs::read(ward.path(entry(&delta))).unwrap();
    for number in 0..40 {
        ward.put(&newer(number), &bytes);
    }
    let path = ward.path(entry(&base));
    let good = fs::read(&path).unwrap();
    fs::write(&path, flip_bit_at(&good, middle_of_a_frame(&good))).unwrap();
    world.wipe_store();
    let restored = restore(world);
    assert_eq!(restored["entry"], ward.good_name, "{restored}");
    assert_same(&before, &record_state(world));
    // All deltas and the base are skipped, and only the base is quarantined.
    assert_eq!(restored["passed_over"].as_array().unwrap().len(), 41, "{restored}");
    let quarantined = restored["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 1, "{restored}");
    assert_eq!(quarantined[0]["entry"], base["entry"], "{restored}");
    world.verify_store();
}

impl PlainQuarantine {
    /// As `attempt`, through the cache service.
    fn through(&self, service: &CacheService, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg(verb).arg("--root").arg(self.place.root());
        command.args(["--store", "plain", "--key", "test", "--json", "--path", SRV]).args(more);
        command.env("XDG_STATE_HOME", self.home.path()).env_remove("GITHUB_EVENT_PATH");
        command.env("ACTIONS_RESULTS_URL", service.url()).env("ACTIONS_RUNTIME_TOKEN", TOKEN);
        command.env("ACTIONS_CACHE_SERVICE_V2", "1").env("GITHUB_REPOSITORY", "owner/name");
        output(command.env_remove("ACTIONS_CACHE_URL"))
    }
}

#[test]
fn restore_skips_damaged_entries_of_the_cache_service() {
    const MANY: usize = 40;
    let (yard, service) = (PlainQuarantine::new(), CacheService::start());
    yard.place.write("/srv/a/file", "content\n");
    let older = report(&yard.through(&service, "save", &[]).ok());
    let version = service.version_of(entry(&older));
    for number in 0..MANY {
        service.put(&newer(number), &version, b"damaged");
    }
    yard.place.remove(SRV);
    let lookups = || service.seen(RequestKind::Lookup).len();
    let before = lookups();
    let restored = report(&yard.through(&service, "restore", &[]).ok());
    assert_eq!((&restored["entry"], &restored["hit"]), (&older["entry"], &json!("exact")));
    assert_eq!(restored["quarantined"].as_array().unwrap().len(), MANY, "{restored}");
    // The number of lookups does not grow with the number of entries that were skipped before.
    let first = lookups() - before;
    assert!(first <= MANY * 10, "{first} lookups");
    // Entries of the service cannot be moved: they are recorded, and not opened again.
    yard.place.remove(SRV);
    let ranges = service.seen(RequestKind::Range).len();
    let again = report(&yard.through(&service, "restore", &[]).ok());
    assert_eq!((&again["entry"], &again["quarantined"]), (&older["entry"], &Value::Null));
    assert_eq!(again["passed_over"].as_array().unwrap().len(), MANY);
    assert!(service.seen(RequestKind::Range).len() - ranges < 5);
}

#[test]
fn restore_says_how_many_damaged_entries_a_deadline_left() {
    let (yard, service) = (PlainQuarantine::new(), CacheService::start());
    yard.place.write("/srv/a/file", "content\n");
    let older = report(&yard.through(&service, "save", &[]).ok());
    let version = service.version_of(entry(&older));
    for number in 0..3 {
        service.put(&newer(number), &version, b"damaged");
    }
    // Each bad entry is opened twice, and the request for the good entry is never answered.
    let answers = [vec![Fault::Nothing; 6], vec![Fault::Stall; 100]].concat();
    service.inject_faults(RequestKind::Range, answers);
    let failed = yard.through(&service, "restore", &["--deadline", "8"]);
    service.clear_faults();
    assert_eq!(failed.code(), 1, "{failed}");
    let json = report(&failed);
    assert_eq!(json["cut"]["clock"], "deadline", "{json}");
    for part in ["the deadline of 8 s has passed", "3 entries had been skipped", "2 more"] {
        assert!(failed.stderr.contains(part), "{part}: {failed}");
    }
}

#[test]
fn restore_reports_the_first_cause_when_every_entry_is_damaged() {
    let yard = PlainQuarantine::new();
    let older = yard.place.snapshot();
    let kept = fs::read(&older).unwrap();
    fs::write(&older, "damaged").unwrap();
    for number in 0..7 {
        yard.put(&newer(number), format!("bad {number}\n").as_bytes());
    }
    let failed = yard.attempt("restore", &[]);
    assert_eq!(failed.code(), 1, "{failed}");
    let report = report(&failed);
    assert_eq!(report["quarantined"].as_array().unwrap().len(), 8, "{report}");
    // The newest entry is reported, once.
    assert_eq!(report["entry"], newer(6), "{report}");
    assert_eq!(failed.errors().len(), 1, "{failed}");
    for part in ["lookup", &newer(6), "nothing was restored", ".quarantine", "7 more"] {
        assert!(failed.stderr.contains(part), "{part}: {failed}");
    }
    fs::write(&older, kept).unwrap();

    // Without an older entry the first restore fails, and later ones are misses.
    fs::remove_file(older).unwrap();
    yard.put(&newer(8), b"bad");
    assert_eq!(yard.attempt("restore", &[]).code(), 1);
    let missed = yard.run("restore", &[]);
    assert_eq!((&missed["hit"], &missed["failed"]), (&json!("miss"), &Value::Null), "{missed}");
    assert_eq!(yard.attempt("restore", &["--fail-on-miss"]).code(), 3);
    // The next rung is restored, if there is one.
    yard.place.write("/srv/a/file", "of another key\n");
    yard.run("save", &[]);
    let moved = yard.place.entries().join("test-2.20260101T000000.000000Z.tar.zst");
    fs::rename(yard.place.snapshot(), moved).unwrap();
    yard.place.remove(SRV);
    yard.put(&newer(9), b"bad");
    let restored = yard.run("restore", &["--restore-key", "test-"]);
    assert_eq!((&restored["hit"], &restored["matched_key"]), (&json!("prefix"), &json!("test-2")));
}

#[test]
fn missing_or_damaged_denylist_does_not_fail_a_restore() {
    let yard = PlainQuarantine::new();
    let good = fs::read(yard.place.snapshot()).unwrap();
    let memory = yard.home.path().join("storecache/quarantine.json");
    // A file in the place of the quarantine directory prevents moves, even by root.
    fs::write(yard.quarantine(), "in the way").unwrap();
    let bad = yard.put(&newer(0), &flip_bit_at(&good, middle_of_a_frame(&good)));
    let read = || -> Value { serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap() };
    yard.run("restore", &[]);
    assert_eq!(read()["entries"].as_array().unwrap().len(), 1);
    assert!(bad.exists());

    // If the record is damaged, empty or of another format, a new one is begun.
    for content in [&b"\xff\xfe"[..], b"", b"[1]", b"{\"entries\": 7}"] {
        fs::write(&memory, content).unwrap();
        yard.place.remove(SRV);
        yard.run("restore", &[]);
        assert_eq!(read()["entries"][0]["entry"], newer(0));
    }
    // Two runs at the same time do not lose each other's records, and the file stays small.
    let mut many = read();
    let one = many["entries"][0].clone();
    let others = (0..500).map(|number| {
        let mut other = one.clone();
        other["entry"] = json!(ancient(number));
        other
    });
    many["entries"] = others.collect();
    fs::write(&memory, many.to_string()).unwrap();
    yard.put(&newer(1), &flip_bit_at(&good, middle_of_a_frame(&good)));
    yard.place.remove(SRV);
    let started = [(); 2].map(|()| {
        let mut command = yard.command("restore", &[]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    });
    started.into_iter().for_each(|mut run| assert!(run.wait().unwrap().success()));
    let entries = read()["entries"].as_array().unwrap().clone();
    assert!(entries.len() <= 200, "{}", entries.len());
    for name in [newer(0), newer(1)] {
        assert!(entries.iter().any(|it| it["entry"] == name), "{name}");
    }
    // Old records are deleted, unless the flag keeps them.
    let mut aged = read();
    aged["swept"] = json!("2001-01-01T00:00:00Z");
    aged["entries"] = json!([one]);
    aged["entries"][0]["entry"] = json!(ancient(0));
    aged["entries"][0]["when"] = json!("2002-01-01T00:00:00Z");
    fs::write(&memory, aged.to_string()).unwrap();
    yard.run("restore", &["--quarantine-keep-days", "0"]);
    assert!(read()["entries"].as_array().unwrap().iter().any(|it| it["entry"] == ancient(0)));
    fs::write(&memory, aged.to_string()).unwrap();
    yard.run("restore", &[]);
    assert!(!read()["entries"].as_array().unwrap().iter().any(|it| it["entry"] == ancient(0)));
    // If the record cannot be written, each run detects the damage again, and reports that.
    fs::remove_dir_all(yard.home.path().join("storecache")).unwrap();
    fs::write(yard.home.path().join("storecache"), "in the way").unwrap();
    yard.place.remove(SRV);
    let restored = yard.run("restore", &[]);
    assert!(
        restored["warnings"][0].as_str().unwrap().contains("could not be recorded"),
        "{restored}"
    );
}
