//! Tests of directories that other users can write to: `dir:` backends, and the program's own directories below
//! a home. Links are not followed, files of other users are not changed, and files that are not regular files
//! are skipped at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::plain_env::{PlainEnv, binary, output, set_mtime};
use crate::support::world_runs::{attempt, report, run};
use crate::support::{Fixture, Output, Role, World};
use serde_json::{Value, json};

const SRV: &str = "/srv/a";

/// An account without special rights.
const OTHER: u32 = 1001;

/// The name of an entry that is newer than any real save.
const NEWER: &str = "test.20991231T235959.000000Z";

/// Plain directories with a home directory of their own, and one good entry.
struct Shared {
    place: PlainEnv,
    home: tempfile::TempDir,
    good: String,
}

impl Shared {
    fn new() -> Shared {
        let place = PlainEnv::new();
        place.write("/srv/a/file", "content\n");
        let mut shared = Shared { place, home: tempfile::tempdir().unwrap(), good: String::new() };
        let saved = report(&shared.in_store("save", &[]).ok());
        shared.good = saved["entry"].as_str().unwrap().to_owned();
        shared
    }

    /// Returns a command that is killed as hung after a minute.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal", "KILL", "60"]).arg(binary()).args(words);
        command.env("HOME", self.home.path()).env_remove("XDG_STATE_HOME");
        command.env_remove("XDG_CACHE_HOME").env_remove("GITHUB_EVENT_PATH");
        command
    }

    fn backend(&self) -> String {
        format!("dir:{}", self.place.entries().display())
    }

    /// Runs `list`, `usage` or `prune`.
    fn inventory(&self, words: &[&str]) -> Output {
        output(self.command(words).args(["--backend", &self.backend()]))
    }

    /// Runs a verb on the entries of the key `test`.
    fn in_store(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = self.command(&[verb, "--store", "plain", "--key", "test", "--json"]);
        command.arg("--root").arg(self.place.root()).args(["--path", SRV]);
        output(command.args(["--backend", &self.backend()]).args(more))
    }

    /// Runs `inspect` or `verify` on the newest entry of the key `test`.
    fn newest(&self, verb: &str) -> Output {
        let words = [verb, "--store", "plain", "--path", SRV, "--key", "test", "--json"];
        output(self.command(&words).args(["--backend", &self.backend()]))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.entries().join(format!("{name}.tar.zst"))
    }

    fn quarantine(&self) -> PathBuf {
        self.place.entries().join(".quarantine")
    }

    /// Returns the directory with the records of runs and of damaged entries.
    fn state(&self) -> PathBuf {
        self.home.path().join(".local/state/storecache")
    }

    fn victim(&self) -> PathBuf {
        let victim = self.home.path().join("victim");
        fs::write(&victim, "secret\n").unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
        victim
    }
}

fn fifo(path: &Path) {
    output(Command::new("mkfifo").arg(path)).ok();
}

/// The name in messages of a kind of file that is not a regular file, and how to create it.
type Kind = (&'static str, Box<dyn Fn(&Path)>);

fn kinds(shared: &Shared) -> Vec<Kind> {
    let (good, victim) = (shared.file(&shared.good), shared.victim());
    let device = |path: &Path| {
        output(Command::new("mknod").arg(path).args(["c", "1", "5"])).ok();
    };
    vec![
        ("a FIFO", Box::new(fifo)),
        ("a socket", Box::new(|path| drop(UnixListener::bind(path).unwrap()))),
        ("a symbolic link", Box::new(move |path| symlink(&good, path).unwrap())),
        ("a symbolic link", Box::new(move |path| symlink(&victim, path).unwrap())),
        ("a symbolic link", Box::new(|path| symlink("/dev/zero", path).unwrap())),
        ("a symbolic link", Box::new(|path| symlink("nowhere", path).unwrap())),
        ("a device", Box::new(device)),
        ("a directory", Box::new(|path| fs::create_dir(path).unwrap())),
    ]
}

fn remove(path: &Path) {
    match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

/// Returns the warnings of a report that name a file.
fn warnings_about<'v>(report: &'v Value, name: &str) -> Vec<&'v str> {
    let warnings = report["warnings"].as_array().into_iter().flatten();
    warnings.filter_map(Value::as_str).filter(|line| line.contains(name)).collect()
}

#[test]
fn restore_skips_entries_that_are_not_files() {
    let shared = Shared::new();
    let path = shared.file(NEWER);
    for (kind, make) in kinds(&shared) {
        make(&path);
        shared.place.remove(SRV);
        let restored = report(&shared.in_store("restore", &[]).ok());
        assert_eq!((&restored["entry"], &restored["hit"]), (&json!(shared.good), &json!("exact")));
        assert_eq!(restored["passed_over"][0][0], NEWER, "{kind}: {restored}");
        assert!(restored["passed_over"][0][1].as_str().unwrap().contains(kind), "{restored}");
        let warnings = warnings_about(&restored, NEWER);
        assert_eq!(warnings.len(), 1, "{kind}: {restored}");
        assert!(warnings[0].contains(kind), "{kind}: {restored}");
        assert_eq!(restored["quarantined"], Value::Null, "{restored}");
        assert!(path.symlink_metadata().is_ok(), "{kind}: it stays where it is");
        for more in ["--dry-run", "--lookup-only"] {
            let looked = report(&shared.in_store("restore", &[more]).ok());
            assert_eq!(looked["entry"], shared.good, "{kind}: {looked}");
        }
        remove(&path);
    }
    assert_eq!(shared.place.read("/srv/a/file"), "content\n");

    // If there is no other entry, the restore is a miss and not an error.
    fs::remove_file(shared.file(&shared.good)).unwrap();
    fifo(&path);
    let missed = report(&shared.in_store("restore", &[]).ok());
    assert_eq!((&missed["hit"], &missed["failed"]), (&json!("miss"), &Value::Null), "{missed}");
    assert_eq!(warnings_about(&missed, NEWER).len(), 1, "{missed}");
}

#[test]
fn inspect_verify_and_save_skip_entries_that_are_not_files() {
    let shared = Shared::new();
    let path = shared.file(NEWER);
    for (kind, make) in kinds(&shared) {
        make(&path);
        for verb in ["inspect", "verify"] {
            let looked = shared.newest(verb).ok();
            assert_eq!(report(&looked)["snapshot"], shared.good, "{kind}: {looked}");
            assert!(looked.stderr.contains(NEWER) && looked.stderr.contains(kind), "{looked}");
        }
        let unchanged = report(&shared.in_store("save", &["--policy", "auto"]).ok());
        assert_eq!(unchanged["saved"], false, "{kind}: {unchanged}");
        assert!(unchanged["reason"].as_str().unwrap().contains(&shared.good), "{unchanged}");
        assert_eq!(warnings_about(&unchanged, NEWER).len(), 1, "{kind}: {unchanged}");
        // Retention reads every entry.
        let saved = report(&shared.in_store("save", &["--keep", "9"]).ok());
        assert_eq!(warnings_about(&saved, NEWER).len(), 1, "{kind}: {saved}");
        assert_eq!(saved["warnings"].as_array().unwrap().len(), 1, "{kind}: {saved}");
        fs::remove_file(shared.file(saved["entry"].as_str().unwrap())).unwrap();
        remove(&path);
    }
    assert_eq!(fs::read_to_string(shared.victim()).unwrap(), "secret\n");
}

#[test]
fn inventory_names_entries_that_are_not_files() {
    let shared = Shared::new();
    let path = shared.file(NEWER);
    for (kind, make) in kinds(&shared) {
        make(&path);
        let listed = report(&shared.inventory(&["list", "--json"]).ok());
        let rows = listed["entries"].as_array().unwrap();
        let id = format!("{NEWER}.tar.zst");
        let row = rows.iter().find(|row| row["id"] == id);
        let row = row.unwrap_or_else(|| panic!("{kind}: {listed}"));
        assert!(row["unreadable"].as_str().unwrap().contains(kind), "{kind}: {row}");
        assert_eq!(rows.len(), 2, "{kind}: {listed}");
        for verb in ["list", "usage", "prune"] {
            let json = report(&shared.inventory(&[verb, "--json"]).ok());
            let warnings = warnings_about(&json, NEWER);
            assert_eq!(warnings.len(), 1, "{kind}: {json}");
            assert!(warnings[0].contains(kind), "{kind}: {json}");
        }
        // `prune` deletes a link and not its target, and leaves directories to their owner.
        shared.inventory(&["prune", "--apply", "--only", "unreadable"]).ok();
        assert!(kind != "a directory" || path.exists());
        assert!(shared.file(&shared.good).exists());
        let _ = path.symlink_metadata().map(|_| remove(&path));
    }
    assert_eq!(fs::read_to_string(shared.victim()).unwrap(), "secret\n");
}

#[test]
fn inspect_and_verify_name_a_path_that_is_not_a_file() {
    let shared = Shared::new();
    let path = shared.home.path().join("thing.tar.zst");
    for (kind, make) in kinds(&shared) {
        if kind == "a symbolic link" {
            continue;
        }
        make(&path);
        for verb in ["inspect", "verify"] {
            let failed = output(shared.command(&[verb]).arg(&path));
            assert_eq!(failed.code(), 1, "{kind}: {failed}");
            let said = format!("{} is {kind}, not a snapshot", path.display());
            assert!(failed.stderr.contains(&said), "{kind}: {failed}");
        }
        remove(&path);
    }
    // A user may name a link; its target is read.
    symlink(shared.file(&shared.good), &path).unwrap();
    for verb in ["inspect", "verify"] {
        output(shared.command(&[verb]).arg(&path)).ok();
    }
    remove(&path);
    symlink("/dev/zero", &path).unwrap();
    let failed = output(shared.command(&["inspect"]).arg(&path));
    assert!(failed.stderr.contains("is a device, not a snapshot"), "{failed}");
}

#[test]
fn notes_in_quarantine_that_are_not_files_are_skipped() {
    let shared = Shared::new();
    fs::write(shared.file(NEWER), "damaged").unwrap();
    // The first run quarantines the entry, and the second one sweeps.
    for _ in 0..2 {
        report(&shared.in_store("restore", &[]).ok());
    }
    let note = shared.quarantine().join(format!("{NEWER}.tar.zst.json"));
    for (kind, make) in kinds(&shared) {
        remove(&note);
        make(&note);
        // A day ahead, so that a sweep sets its time.
        let tomorrow = jiff::Timestamp::now().as_second() + 24 * 3600;
        set_mtime(&note, tomorrow, 0);
        set_mtime(&shared.quarantine().join(".swept"), 0, 0);
        let listed = report(&shared.inventory(&["list", "--json"]).ok());
        assert_eq!(listed["quarantined"][0]["entry"], NEWER, "{kind}: {listed}");
        let reason = listed["quarantined"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("note is missing"), "{kind}: {listed}");
        let restored = report(&shared.in_store("restore", &[]).ok());
        assert_eq!(restored["entry"], shared.good, "{kind}: {restored}");
    }
    let victim = shared.home.path().join("victim");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "secret\n");
    let age = jiff::Timestamp::now().as_second() - victim.metadata().unwrap().mtime();
    assert!(age >= 0, "the time of a file behind a link is not touched");
}

#[test]
fn sweep_changes_no_file_that_has_another_name() {
    let shared = Shared::new();
    fs::write(shared.file(NEWER), "damaged").unwrap();
    report(&shared.in_store("restore", &[]).ok());
    let note = shared.quarantine().join(format!("{NEWER}.tar.zst.json"));
    let stamp = shared.quarantine().join(".swept");
    let (noted, stamped) = (shared.place.host("/noted"), shared.place.host("/stamped"));
    let tomorrow = jiff::Timestamp::now().as_second() + 24 * 3600;
    fs::remove_file(&note).unwrap();
    for (name, victim, time) in [(&note, &noted, tomorrow), (&stamp, &stamped, 0)] {
        fs::write(victim, "{}").unwrap();
        fs::hard_link(victim, name).unwrap();
        set_mtime(victim, time, 0);
    }
    report(&shared.in_store("restore", &[]).ok());
    for (victim, time) in [(&noted, tomorrow), (&stamped, 0)] {
        assert_eq!(fs::read_to_string(victim).unwrap(), "{}");
        assert_eq!(victim.metadata().unwrap().mtime(), time, "{}", victim.display());
    }
    // The sweep continued nevertheless.
    for name in [&note, &stamp] {
        let age = jiff::Timestamp::now().as_second() - name.metadata().unwrap().mtime();
        assert!((0..3600).contains(&age), "{}", name.display());
    }
}

#[test]
fn quarantine_that_is_a_link_is_not_used() {
    let shared = Shared::new();
    let elsewhere = shared.home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, shared.quarantine()).unwrap();
    fs::write(shared.file(NEWER), "damaged").unwrap();
    let restored = report(&shared.in_store("restore", &[]).ok());
    assert_eq!(restored["entry"], shared.good, "{restored}");
    let bad = &restored["quarantined"][0];
    assert_eq!((&bad["entry"], &bad["file"]), (&json!(NEWER), &Value::Null), "{restored}");
    assert!(bad["problem"].as_str().unwrap().contains("symbolic link"), "{restored}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(shared.file(NEWER).exists());
}

#[test]
fn root_empties_no_file_through_a_link_in_quarantine() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let victim = world.host("/etc/victim");
    fs::write(&victim, "secret\n").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
    let plant = |target: &str| {
        let script = format!(
            "mkdir -p /cache/.quarantine && cd /cache/.quarantine && ln -sfn {target} .swept && \
             touch -h -d 2020-01-01 .swept"
        );
        world.command(["sh", "-c", &script]).user("nosudo").ok();
    };
    for (verb, key) in [("save", "test"), ("restore", "test"), ("restore", "none")] {
        let words = [verb, "--store", "nix", "--backend", "dir:/cache", "--key", key];
        let run = || drop(world.storecache(words).ok());
        plant("/etc/victim");
        run();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "secret\n");
        let found = victim.metadata().unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
        // A link to a missing file does not create the file.
        plant("/etc/made");
        run();
        assert!(!world.host("/etc/made").exists());
    }
    world.verify_store();
}

#[test]
fn delta_on_a_base_that_is_not_a_file_is_skipped() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let older = run(&world, "runner", "save", &[]);
    let add = |name: &str| {
        fs::write(world.host(format!("/tmp/{name}")), name).unwrap();
        world.nix(["nix-store", "--add", &format!("/tmp/{name}")]).ok();
    };
    add("one");
    let base = run(&world, "runner", "save", &["--full"]);
    add("two");
    let delta = run(&world, "runner", "save", &[]);
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let entries = world.backend().host_path();
    let file = |entry: &Value| entries.join(format!("{}.tar.zst", entry.as_str().unwrap()));
    fs::remove_file(file(&base["entry"])).unwrap();
    fifo(&file(&base["entry"]));

    let restored = report(&attempt(&world, "runner", "restore", &[]).ok());
    assert_eq!(restored["entry"], older["entry"], "{restored}");
    let over = restored["passed_over"].as_array().unwrap();
    let of = |name: &Value| over.iter().find(|it| it[0] == *name).unwrap()[1].as_str().unwrap();
    assert!(of(&delta["entry"]).contains("a FIFO"), "{restored}");
    assert!(of(&base["entry"]).contains("a FIFO"), "{restored}");
    // Also for a file that is named directly.
    let inside = format!("/cache/{}.tar.zst", delta["entry"].as_str().unwrap());
    let seen = world.storecache(["inspect", &inside]).ok();
    assert!(seen.stdout.contains("which is missing"), "{seen}");
    assert!(seen.stderr.contains("a FIFO"), "{seen}");
    // A save builds on an entry that can be read.
    let saved = run(&world, "runner", "save", &[]);
    assert_eq!(saved["base"]["entry"], older["entry"], "{saved}");
}

#[test]
fn root_writes_nothing_through_a_link_in_a_foreign_home() {
    // The home belongs to another user, who may put links anywhere on the way.
    for link in [".local", ".local/state", ".local/state/storecache"] {
        let shared = Shared::new();
        let target = tempfile::tempdir().unwrap();
        fs::remove_dir_all(shared.home.path().join(".local")).unwrap();
        let at = shared.home.path().join(link);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(target.path(), &at).unwrap();
        for path in at.ancestors().take_while(|path| *path != Path::new("/tmp")) {
            lchown(path, Some(OTHER), Some(OTHER)).unwrap();
        }
        fs::write(shared.file(NEWER), "damaged").unwrap();
        fs::write(shared.quarantine(), "a file in place of the directory").unwrap();
        let restored = report(&shared.in_store("restore", &[]).ok());
        assert_eq!(restored["entry"], shared.good, "{link}: {restored}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{link}");
        let warnings = warnings_about(&restored, "symbolic link");
        assert!(warnings.iter().any(|line| line.contains(link)), "{link}: {restored}");
    }
}

#[test]
fn root_does_without_a_record_in_a_directory_of_another_user() {
    let shared = Shared::new();
    fs::remove_dir_all(shared.state()).unwrap();
    fs::create_dir_all(shared.state()).unwrap();
    chown(shared.state(), Some(OTHER), Some(OTHER)).unwrap();
    let victim = shared.victim();
    symlink(&victim, shared.state().join("runs.jsonl")).unwrap();
    let restored = report(&shared.in_store("restore", &[]).ok());
    assert_eq!(restored["entry"], shared.good, "{restored}");
    assert_eq!(warnings_about(&restored, "belongs to another user").len(), 1, "{restored}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "secret\n");
    assert!(shared.state().join("runs.jsonl").is_symlink());

    // A link in a home of the same user is followed.
    fs::remove_dir_all(shared.state()).unwrap();
    let own = tempfile::tempdir().unwrap();
    symlink(own.path(), shared.state()).unwrap();
    let restored = report(&shared.in_store("restore", &[]).ok());
    assert_eq!(restored["warnings"], Value::Null, "{restored}");
    assert!(own.path().join("runs.jsonl").is_file());
}

#[test]
fn records_below_a_home_that_are_not_files_are_replaced() {
    let shared = Shared::new();
    for name in ["runs.jsonl", "quarantine.json"] {
        for (kind, make) in kinds(&shared) {
            if kind == "a directory" {
                continue;
            }
            let path = shared.state().join(name);
            let _ = fs::remove_file(&path);
            make(&path);
            fs::write(shared.file(NEWER), format!("damaged, {kind}")).unwrap();
            let _ = fs::remove_dir_all(shared.quarantine());
            let _ = fs::remove_file(shared.quarantine());
            fs::write(shared.quarantine(), "a file in place of the directory").unwrap();
            let restored = report(&shared.in_store("restore", &[]).ok());
            assert_eq!(restored["entry"], shared.good, "{name}, {kind}: {restored}");
            assert!(path.symlink_metadata().unwrap().is_file(), "{name}, {kind}");
            report(&shared.inventory(&["list", "--json"]).ok());
        }
    }
    assert_eq!(fs::read_to_string(shared.home.path().join("victim")).unwrap(), "secret\n");
}

#[test]
fn job_state_that_is_not_a_file_is_not_read() {
    let shared = Shared::new();
    let state = shared.home.path().join("state.json");
    let path = state.to_str().unwrap();
    for (kind, make) in kinds(&shared) {
        make(&state);
        let saved = report(&shared.in_store("save", &["--state", path]).ok());
        let warnings = warnings_about(&saved, path);
        assert_eq!(warnings.len(), 1, "{kind}: {saved}");
        assert!(warnings[0].contains(kind), "{kind}: {saved}");
        if kind != "a directory" {
            report(&shared.in_store("restore", &["--state", path]).ok());
            assert!(state.symlink_metadata().unwrap().is_file(), "{kind}");
        }
        remove(&state);
    }
    assert_eq!(fs::read_to_string(shared.victim()).unwrap(), "secret\n");
}

#[test]
fn default_backend_is_no_link_in_a_foreign_home() {
    let shared = Shared::new();
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(shared.home.path().join(".cache")).unwrap();
    let link = shared.home.path().join(".cache/storecache");
    symlink(target.path(), &link).unwrap();
    let save = || {
        let mut command = shared.command(&["save", "--store", "plain", "--key", "test", "--json"]);
        for name in ["ACTIONS_RESULTS_URL", "ACTIONS_CACHE_URL"] {
            command.env_remove(name);
        }
        output(command.arg("--root").arg(shared.place.root()).args(["--path", SRV]))
    };
    chown(shared.home.path().join(".cache"), Some(OTHER), Some(OTHER)).unwrap();
    let failed = save();
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stderr.contains("symbolic link") && failed.stderr.contains("--backend"));
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    chown(shared.home.path().join(".cache"), Some(0), Some(0)).unwrap();
    save().ok();
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1, "the user's own link is followed");
}
