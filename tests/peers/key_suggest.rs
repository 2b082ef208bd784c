//! Tests of `key suggest`: with real snapshots of real commits, it finds the file that changes together with
//! the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::Output;
use crate::support::cache_service::{self, CacheService};
use crate::support::plain_env::{PlainEnv, binary, output, set_mtime, storecache_in, truncate};
use crate::support::rest_service::RestService;
use crate::support::snapshot_builder::{SnapshotParts, item};
use crate::support::world_runs::report;
use serde_json::{Value, json};
use storecache_entry::Digest;
use storecache_snapshot::{Base, BaseItem, DELTA};

/// The saved directory, below the root of a fixture.
const STORE: &str = "/opt/store";

/// A repository, and snapshots of a store that were made from its commits.
struct History {
    place: PlainEnv,
    repository: tempfile::TempDir,
}

impl History {
    fn new() -> History {
        let history = History { place: PlainEnv::new(), repository: tempfile::tempdir().unwrap() };
        history.git(&["init", "--quiet", "--initial-branch", "main"]);
        history
    }

    fn git(&self, words: &[&str]) -> String {
        git(self.repository.path(), words)
    }

    /// Writes files, commits them, and returns the commit.
    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.repository.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Fills the store as a build of `content` would: equal content gives equal files and attributes.
    fn build(&self, content: &str) {
        let directory = self.place.host(STORE);
        let _ = fs::remove_dir_all(&directory);
        for word in content.split_whitespace() {
            let file = format!("{STORE}/{word}");
            self.place.write(&file, word);
            set_mtime(&self.place.host(&file), 1, 0);
        }
        set_mtime(&directory, 1, 0);
    }

    /// Saves the store as a job on a commit does.
    fn save(&self, commit: &str, more: &[&str]) -> PathBuf {
        let mut command = Command::new(binary());
        command.current_dir(self.repository.path()).env("GITHUB_SHA", commit);
        command.args(["save", "--store", "plain", "--key", "test", "--path", STORE, "--root"]);
        command.arg(self.place.root()).arg("--backend").arg(self.backend()).args(more);
        output(&mut command).ok();
        self.place.snapshot()
    }

    /// Commits files, builds the store, and saves it.
    fn run(&self, files: &[(&str, &str)], store: &str) -> PathBuf {
        let commit = self.commit(files);
        self.build(store);
        self.save(&commit, &[])
    }

    fn backend(&self) -> String {
        format!("dir:{}", self.place.entries().display())
    }

    fn suggest_in(&self, directory: &Path, more: &[&str]) -> Output {
        let backend = self.backend();
        let words =
            ["key", "suggest", "--backend", &backend].into_iter().chain(more.iter().copied());
        storecache_in(directory, words).ok()
    }

    fn text(&self) -> Output {
        self.suggest_in(self.repository.path(), &[])
    }

    fn told(&self) -> Value {
        report(&self.suggest_in(self.repository.path(), &["--json"]))
    }
}

fn git(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(words);
    // Ignore the configuration of the user who runs the tests.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "A")
            .env(format!("GIT_{who}_EMAIL"), "a@example.org");
    }
    output(&mut command).ok().stdout.trim().to_owned()
}

fn ingredients(report: &Value) -> Vec<&str> {
    let members = report["suggestion"]["ingredients"].as_array().unwrap();
    members.iter().map(|member| member["ingredient"].as_str().unwrap()).collect()
}

fn candidate<'t>(report: &'t Value, name: &str) -> &'t Value {
    let candidates = report["candidates"].as_array().unwrap();
    candidates.iter().find(|one| one["ingredient"] == name).unwrap_or(&Value::Null)
}

/// Turns the snapshot at `file` into one of a Nix store with these items, or, if `inherited` is not empty, into
/// a delta whose base holds those.
fn rewrite_as_nix_snapshot(file: &Path, version: &str, own: &[&str], inherited: &[&str]) {
    let mut parts = SnapshotParts::new(&fs::read(file).unwrap());
    let store = &mut parts.head.store;
    store.kind = "nix".into();
    store.store_dir = "/nix/store".into();
    store.version = version.into();
    let frames = parts.items[0].frames;
    parts.items = own.iter().map(|name| item(name, frames, 1)).collect();
    parts.items_under = "nix/store".into();
    if !inherited.is_empty() {
        let entry = "base.20261126T120000.000000Z".to_owned();
        let theirs = |name: &&str| BaseItem {
            name: (*name).into(),
            nar_hash: "sha256:00".into(),
            used: None,
        };
        let items = inherited.iter().map(theirs).collect();
        parts.head.format = DELTA;
        parts.head.base = Some(entry.as_str().into());
        parts.base = Some(Base { entry, index: Digest::hash(b""), items });
    }
    fs::write(file, parts.build()).unwrap();
}

/// Returns a history of five commits in which `flake.lock` determines the store, and other files change
/// occasionally.
fn history_with_lock_changes() -> History {
    let history = History::new();
    history.run(&[("flake.lock", "1"), ("flake.nix", "1"), ("src/main.c", "1")], "one");
    history.run(&[("src/main.c", "2")], "one");
    history.run(&[("flake.lock", "2"), ("src/main.c", "3")], "one two");
    history.run(&[("flake.nix", "2")], "one two");
    history.run(&[("flake.lock", "3")], "three");
    history
}

#[test]
fn suggestion_names_the_file_with_flags_and_inputs() {
    let history = history_with_lock_changes();
    let report = history.told();
    assert_eq!(ingredients(&report), ["flake.lock"]);
    let suggestion = &report["suggestion"];
    assert_eq!(suggestion["exact"], true);
    assert_eq!(suggestion["flags"], json!(["--hash-files", "flake.lock"]));
    let inputs = json!({ "hash-files": "flake.lock", "workflow-mode": "none" });
    assert_eq!(suggestion["with"], inputs);
    assert_eq!((&report["changes"], &report["unchanged"]), (&2.into(), &2.into()));
    let source = candidate(&report, "src/main.c");
    assert_eq!(
        (&source["with"], &source["without"], &source["missed"]),
        (&1.into(), &1.into(), &1.into())
    );
    // A candidate that never explains a change, but could by its name.
    assert_eq!(candidate(&report, "flake.nix")["missed"], 2);

    let text = history.text().stdout;
    for part in [
        "5 snapshots of plain",
        "the store changed 2 of 4 times",
        "it would have changed exactly when the store did\n  flake.lock\n",
        "\n  --hash-files flake.lock\n",
        "  with:\n    hash-files: |\n      flake.lock\n    workflow-mode: none",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn suggested_flags_give_a_key_that_changes_with_the_store() {
    let history = history_with_lock_changes();
    let report = history.told();
    let flags = report["suggestion"]["flags"].as_array().unwrap();
    let key = |commit: &str| {
        history.git(&["checkout", "--quiet", commit]);
        let words = ["key", "--store", "plain", "--version", "1"].into_iter();
        let words = words.chain(flags.iter().map(|flag| flag.as_str().unwrap()));
        storecache_in(history.repository.path(), words).ok().lines().swap_remove(0)
    };
    let snapshots = report["snapshots"].as_array().unwrap();
    let keys: Vec<_> =
        snapshots.iter().map(|one| (&one["store"], key(one["commit"].as_str().unwrap()))).collect();
    for pair in keys.windows(2) {
        assert_eq!(pair[0].0 == pair[1].0, pair[0].1 == pair[1].1, "{keys:?}");
    }
}

#[test]
fn suggestion_names_both_files_that_change_the_store() {
    let history = History::new();
    history.run(&[("guix/channels.scm", "1"), ("pins.nix", "1"), ("log", "1")], "a");
    history.run(&[("guix/channels.scm", "2"), ("log", "2")], "a b");
    history.run(&[("log", "3")], "a b");
    history.run(&[("pins.nix", "2"), ("log", "4")], "a b c");
    let report = history.told();
    assert_eq!(ingredients(&report), ["pins.nix", "guix/channels.scm"]);
    assert_eq!(report["suggestion"]["exact"], true);
    assert_eq!(candidate(&report, "log")["without"], 1);
}

#[test]
fn file_that_explains_one_change_is_marked_as_chance() {
    let history = History::new();
    history.run(&[("flake.lock", "1"), ("README.md", "1")], "a");
    history.run(&[("flake.lock", "2")], "b");
    history.run(&[("README.md", "2")], "c");
    history.run(&[("flake.lock", "3")], "d");
    let report = history.told();
    assert_eq!(ingredients(&report), ["flake.lock", "README.md"]);
    let members = &report["suggestion"]["ingredients"];
    assert_eq!((&members[0]["may_be_chance"], &members[0]["alone"]), (&false.into(), &2.into()));
    assert_eq!(members[1]["may_be_chance"], true);
    let text = history.text().stdout;
    assert!(text.contains("README.md: it explains only one change, which may be chance"), "{text}");
}

#[test]
fn no_file_is_suggested_when_none_changed_with_the_store() {
    let history = History::new();
    history.run(&[("flake.lock", "1")], "a");
    history.run(&[], "b");
    history.run(&[("flake.lock", "2")], "b");
    let report = history.told();
    assert_eq!(ingredients(&report), [""; 0]);
    assert_eq!(report["suggestion"]["exact"], false);
    assert_eq!(report["suggestion"]["with"], json!({}));
    assert_eq!(report["suggestion"]["missed"].as_array().unwrap().len(), 1);
    assert!(
        report["reason"].as_str().unwrap().contains("something outside the repository"),
        "{report}"
    );
    assert!(history.text().stdout.contains("no suggestion: the store changed, and no candidate"));
}

#[test]
fn suggestion_reports_false_alarms_and_missed_changes() {
    let history = History::new();
    history.run(&[("flake.lock", "1"), ("build-id", "1")], "a");
    history.run(&[("flake.lock", "2"), ("build-id", "2")], "b");
    history.run(&[("build-id", "3")], "b");
    history.run(&[("build-id", "4")], "c");
    let report = history.told();
    assert_eq!(ingredients(&report), ["build-id"]);
    assert_eq!(report["suggestion"]["exact"], false);
    assert_eq!(report["suggestion"]["false_alarms"].as_array().unwrap().len(), 1);
    let quiet = &report["without_false_alarms"];
    assert_eq!(quiet["ingredients"][0]["ingredient"], "flake.lock");
    assert_eq!(quiet["missed"][0]["came"], 1);
    let text = history.text().stdout;
    assert!(text.contains("without any false alarm: it misses 1 of 2 changes"), "{text}");
}

#[test]
fn workflow_is_compared_by_its_semantic_hash() {
    let workflow = |comment: &str, package: &str| {
        format!(
            "# {comment}\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: get {package}\n"
        )
    };
    let path = ".github/workflows/ci.yml";
    let history = History::new();
    history.run(&[(path, &workflow("one", "hello"))], "hello");
    history.run(&[(path, &workflow("two", "hello"))], "hello");
    history.run(&[(path, &workflow("two", "sed"))], "sed");
    history.run(&[("README.md", "no matter")], "sed");
    let report = history.told();
    let meaning = candidate(&report, &format!("{path} (semantic)"));
    assert_eq!(meaning["without"], 0, "{report}");
    assert_eq!(candidate(&report, path)["without"], 1);
    assert_eq!(report["suggestion"]["exact"], true);
    let with = json!({ "workflow": path, "workflow-mode": "semantic" });
    assert_eq!(report["suggestion"]["with"], with);
}

#[test]
fn snapshot_heads_suffice_outside_of_a_repository() {
    let history = History::new();
    let lock = ["--hash-files", "flake.lock", "--hash-files", "*.c"];
    for (lock_content, source, store) in
        [("1", "1", "a"), ("1", "2", "a"), ("2", "3", "b"), ("2", "3", "b")]
    {
        let commit = history.commit(&[("flake.lock", lock_content), ("a.c", source)]);
        history.build(store);
        history.save(&commit, &lock);
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let output = history.suggest_in(elsewhere.path(), &["--json"]);
    assert!(output.stderr.contains("is not in a git repository"), "{output}");
    let json = report(&output);
    assert_eq!(ingredients(&json), ["files:flake.lock"]);
    assert_eq!(json["suggestion"]["exact"], true);
    assert_eq!(json["suggestion"]["flags"], json!(["--hash-files", "flake.lock"]));
    let sources = candidate(&json, "files:*.c");
    assert_eq!((&sources["with"], &sources["without"]), (&1.into(), &1.into()));

    // If the commits are known, the file is only one candidate.
    let json = history.told();
    assert_eq!(ingredients(&json), ["flake.lock"]);
    assert_eq!(candidate(&json, "files:flake.lock"), &Value::Null);
}

#[test]
fn commits_missing_from_a_shallow_clone_are_left_out() {
    let history = history_with_lock_changes();
    let clone = tempfile::tempdir().unwrap();
    let source = format!("file://{}", history.repository.path().display());
    git(clone.path(), &["clone", "--quiet", "--depth", "3", &source, "deep"]);
    git(clone.path(), &["clone", "--quiet", "--depth", "1", &source, "flat"]);

    // Three known commits with a change among them tell more than the heads of five snapshots.
    let output = history.suggest_in(&clone.path().join("deep"), &["--json"]);
    assert!(output.stderr.contains("left out 2 snapshots"), "{output}");
    assert!(output.stderr.contains("git fetch --unshallow"), "{output}");
    let json = report(&output);
    assert_eq!((&json["without_commit"], &json["changes"]), (&2.into(), &1.into()));
    assert_eq!(ingredients(&json), ["flake.lock"]);

    let output = history.suggest_in(&clone.path().join("flat"), &["--json"]);
    assert!(output.stderr.contains("does not have the commits of 4 snapshots"), "{output}");
    let json = report(&output);
    assert_eq!(json["changes"], 2);
    assert_eq!(ingredients(&json), [""; 0]);
}

#[test]
fn damaged_and_newer_snapshots_are_left_out_with_a_reason() {
    let history = History::new();
    let mut files = Vec::new();
    for (lock, store) in [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d"), ("4", "d")] {
        files.push(history.run(&[("flake.lock", lock)], store));
    }
    truncate(&files[1], fs::metadata(&files[1]).unwrap().len() - 1);
    let bytes = fs::read(&files[2]).unwrap();
    let format = b"\"format\":1,";
    let at = bytes.windows(format.len()).position(|window| window == format).unwrap();
    let mut newer = bytes.clone();
    newer[at + format.len() - 2] = b'9';
    fs::write(&files[2], newer).unwrap();

    let output = history.suggest_in(history.repository.path(), &["--json"]);
    let report = report(&output);
    let left_out = report["left_out"].as_array().unwrap();
    let reasons: Vec<_> = left_out.iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().any(|reason| reason.contains("format 9")), "{reasons:?}");
    for file in &files[1..3] {
        let name = file.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.zst");
        assert!(output.stderr.contains(&format!("left out {name}")), "{output}");
    }
    // There is one change between the first and the fourth.
    assert_eq!((&report["changes"], &report["unchanged"]), (&1.into(), &1.into()));
    assert_eq!(ingredients(&report), ["flake.lock"]);
}

#[test]
fn snapshot_files_are_sorted_by_time_and_deduplicated() {
    let history = History::new();
    let mut files = Vec::new();
    for (lock, store) in [("1", "a"), ("2", "b"), ("2", "b"), ("3", "c")] {
        files.push(history.run(&[("flake.lock", lock)], store));
    }
    let copy = history.place.host("/copy");
    fs::copy(&files[0], &copy).unwrap();
    files.push(copy);
    let words = ["key", "suggest", "--json"].map(PathBuf::from).into_iter();
    let words = words.chain(files.into_iter().rev());
    let report = report(&storecache_in(history.repository.path(), words).ok());
    assert_eq!(report["snapshots"].as_array().unwrap().len(), 4);
    assert_eq!((&report["changes"], &report["unchanged"]), (&2.into(), &1.into()));
    assert_eq!(ingredients(&report), ["flake.lock"]);
}

#[test]
fn too_few_snapshots_or_no_change_is_reported() {
    let history = History::new();
    assert!(history.told()["reason"].as_str().unwrap().contains("there are 0 snapshots"));
    history.run(&[("flake.lock", "1")], "a");
    history.run(&[("flake.lock", "2")], "b");
    let report = history.told();
    assert!(report["reason"].as_str().unwrap().contains("but 3 are needed"), "{report}");
    assert_eq!(ingredients(&report), [""; 0]);

    let history = History::new();
    for lock in ["1", "2", "3"] {
        history.run(&[("flake.lock", lock)], "a");
    }
    let report = history.told();
    assert!(report["reason"].as_str().unwrap().contains("the store never changed"), "{report}");
    assert_eq!(report["unchanged"], 2);
}

#[test]
fn snapshots_of_another_key_prefix_are_left_out() {
    let history = History::new();
    let run = |prefix: &str, lock: &str, store: &str| {
        let commit = history.commit(&[("flake.lock", lock)]);
        history.build(store);
        let mut command = Command::new(binary());
        command.current_dir(history.repository.path()).env("GITHUB_SHA", commit);
        command.args([
            "save",
            "--store",
            "plain",
            "--key-prefix",
            prefix,
            "--path",
            STORE,
            "--root",
        ]);
        command.arg(history.place.root()).arg("--backend").arg(history.backend());
        output(&mut command).ok();
    };
    for (lock, store) in [("1", "a"), ("1", "a"), ("2", "b"), ("2", "b")] {
        run("linux", lock, store);
        if lock == "2" {
            run("docs", lock, "something else");
        }
    }
    let output = history.suggest_in(history.repository.path(), &["--json"]);
    assert!(output.stderr.contains("left out 2 snapshots of plain"), "{output}");
    let json = report(&output);
    assert_eq!(json["store"]["prefix"], "linux");
    assert_eq!(ingredients(&json), ["flake.lock"]);
    assert_eq!(json["suggestion"]["exact"], true);
    let json =
        report(&history.suggest_in(history.repository.path(), &["--key-prefix", "docs", "--json"]));
    assert_eq!(json["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
fn missing_file_or_file_with_backend_is_an_error() {
    let missing = storecache_in(Path::new("/"), ["key", "suggest", "/nowhere/at/all"]);
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr.contains("open /nowhere/at/all"), "{missing}");
    let both = storecache_in(Path::new("/"), ["key", "suggest", "x", "--backend", "dir:/x"]);
    assert_eq!(both.code(), 2);
}

#[test]
fn delta_and_full_snapshot_of_a_store_compare_equal() {
    let history = History::new();
    let runs: [(&str, &[&str], &[&str]); 4] = [
        ("1", &["a-hello", "b-libc"], &[]),
        ("1", &["a-hello"], &["b-libc"]),
        ("2", &["c-sed"], &["b-libc"]),
        ("2", &["b-libc", "c-sed"], &[]),
    ];
    for (number, (lock, own, inherited)) in runs.into_iter().enumerate() {
        // The files in the plain store do not matter here.
        let file = history.run(&[("flake.lock", lock)], &format!("file-{number}"));
        rewrite_as_nix_snapshot(&file, "2.8.0", own, inherited);
    }
    let report = history.told();
    assert_eq!(report["store"]["kind"], "nix");
    assert_eq!((&report["changes"], &report["unchanged"]), (&1.into(), &2.into()));
    assert_eq!(ingredients(&report), ["flake.lock"]);
    assert_eq!(report["suggestion"]["exact"], true);
}

#[test]
fn items_of_a_new_package_manager_need_no_file() {
    let history = History::new();
    for (lock, version, items) in [
        ("1", "2.8.0", ["a-hello", "n-nix-2.8.0"]),
        ("1", "2.9.0", ["a-hello", "o-nix-2.9.0"]),
        ("2", "2.9.0", ["b-hello", "o-nix-2.9.0"]),
        ("2", "2.9.0", ["b-hello", "o-nix-2.9.0"]),
    ] {
        let file = history.run(&[("flake.lock", lock)], "same");
        rewrite_as_nix_snapshot(&file, version, &items, &[]);
    }
    let report = history.told();
    assert_eq!((&report["version_changes"], &report["changes"]), (&1.into(), &1.into()));
    assert_eq!(report["suggestion"]["exact"], true, "{report}");
    let text = history.text().stdout;
    assert!(text.contains("the version of the package manager changed 1 time;"), "{text}");
}

#[test]
fn store_flag_selects_the_kind_of_store() {
    let history = history_with_lock_changes();
    let files = fs::read_dir(history.place.entries()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    rewrite_as_nix_snapshot(&files[0], "2.8.0", &["a-hello"], &[]);
    assert_eq!(history.told()["store"]["kind"], "plain");
    let more = ["--store", "nix", "--json"];
    let report = report(&history.suggest_in(history.repository.path(), &more));
    assert_eq!(report["store"]["kind"], "nix");
    assert!(
        report["reason"].as_str().unwrap().starts_with("there is 1 snapshot to compare"),
        "{report}"
    );
}

#[test]
fn suggest_reads_entries_of_the_cache_service() {
    let history = History::new();
    let service = Arc::new(CacheService::start());
    let rest = RestService::over(&service);
    let run = |words: &[&str], commit: &str| {
        let mut command = Command::new(binary());
        command.current_dir(history.repository.path()).args(words).env("GITHUB_SHA", commit);
        command.args(["--backend", "github", "--store", "plain", "--json"]);
        command.envs(rest.variables()).envs([
            ("ACTIONS_RESULTS_URL", service.url()),
            ("ACTIONS_RUNTIME_TOKEN", cache_service::TOKEN.into()),
            ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
            ("GITHUB_SERVER_URL", "https://github.com".into()),
        ]);
        report(&output(&mut command).ok())
    };
    let root = history.place.root();
    for (lock, store) in [("1", "a"), ("1", "a"), ("2", "b")] {
        let commit = history.commit(&[("flake.lock", lock)]);
        history.build(store);
        run(&["save", "--key", "test", "--path", STORE, "--root", root.to_str().unwrap()], &commit);
    }
    let printed = run(&["key", "suggest"], "");
    assert_eq!(printed["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(ingredients(&printed), ["flake.lock"]);
    assert_eq!(printed["suggestion"]["exact"], true);
}

#[test]
fn deleted_file_is_reported_but_not_suggested() {
    let history = History::new();
    history.run(&[("old.nix", "1"), ("flake.lock", "1")], "a");
    history.run(&[("old.nix", "2")], "b");
    fs::remove_file(history.repository.path().join("old.nix")).unwrap();
    history.run(&[], "b");
    history.run(&[("flake.lock", "2")], "c");
    let report = history.told();
    assert_eq!(ingredients(&report), ["flake.lock"]);
    assert_eq!(report["suggestion"]["missed"][0]["gone_files"], json!(["old.nix"]));
    let text = history.text().stdout;
    assert!(text.contains("with old.nix, which the last commit no longer has"), "{text}");
}
