//! Tests of `key --explain` and `key diff`: the ingredients of a key, warnings about them, and which of them
//! changed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::support::Output;
use crate::support::plain_env::{self, PlainEnv, storecache_in};
use crate::support::world_runs::report;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const CI: &str = ".github/workflows/ci.yml";

const WORKFLOW: &str = "\
name: test
on: push
env:
  GUIX_VERSION: 1.5.0
jobs:
  test:
    name: Test it
    runs-on: ubuntu-24.04
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
        with:
          store: guix
          keep: 2
      # Fetches what the store is to have.
      - name: hello
        run: |
          # Greets.
          guix shell hello -- hello
";

/// A git work tree with a workflow that caches a store.
struct Project(TempDir);

impl Project {
    fn new() -> Project {
        let project = Project(tempfile::tempdir().unwrap());
        project.git(&["init", "--quiet", "--initial-branch=main"]);
        project.write(CI, WORKFLOW);
        project.write("flake.lock", "{\"version\": 7}\n");
        project.commit();
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Replaces a text in a file.
    #[track_caller]
    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path().join(name)).unwrap();
        assert!(text.contains(from), "{text}");
        self.write(name, text.replace(from, to));
    }

    fn git(&self, words: &[&str]) -> String {
        git(self.path(), words)
    }

    /// Commits everything, and returns the commit.
    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn key(&self, more: &[&str]) -> Output {
        let words = ["key", "--store", "guix", "--version", "1.5.0"];
        storecache_in(self.path(), words.iter().chain(more))
    }

    fn explained(&self, more: &[&str]) -> Value {
        report(&self.key(&[&["--explain", "--json"], more].concat()).ok())
    }

    /// Returns kind and text of the warnings about the only ingredient.
    fn warnings(&self, more: &[&str]) -> Vec<(String, String)> {
        let explained = self.explained(more);
        let warnings = explained["ingredients"][0]["warnings"].as_array().unwrap();
        let text = |warning: &Value, name: &str| warning[name].as_str().unwrap().to_owned();
        warnings.iter().map(|it| (text(it, "kind"), text(it, "why"))).collect()
    }

    fn diff(&self, more: &[&str]) -> Output {
        storecache_in(self.path(), ["key", "diff"].iter().chain(more))
    }

    /// Returns name and state of each ingredient, and whether the key stays the same.
    fn moved(&self, more: &[&str]) -> (Vec<String>, bool) {
        let report = report(&self.diff(&[&["--json"], more].concat()).ok());
        let moved = report["ingredients"].as_array().unwrap().iter();
        let name = |it: &Value, field: &str| it[field].as_str().unwrap().to_owned();
        let moved = moved.map(|it| format!("{} {}", name(it, "name"), name(it, "state")));
        let same = report["same_key"].as_bool().unwrap();
        assert_eq!(same, report["a"]["hash"] == report["b"]["hash"], "{report}");
        (moved.collect(), same)
    }
}

fn git(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(["-c", "user.name=x", "-c", "user.email=x@example.org"]);
    command.args(["-c", "protocol.file.allow=always", "-c", "core.excludesFile="]).args(words);
    plain_env::output(&mut command).ok().stdout.trim().to_owned()
}

#[test]
fn explain_lists_values_that_count_and_values_left_out() {
    let project = Project::new();
    let output = project.key(&["--workflow", CI, "--hash-files", "flake.lock", "--explain"]).ok();
    for words in [
        "version  1.5.0",
        "workflow:semantic",
        "from .github/workflows/ci.yml",
        "env.GUIX_VERSION = 1.5.0  (line 4)",
        "job.runs-on = ubuntu-24.04  (line 8)",
        "job.steps[0].uses = actions/checkout  (line 11)",
        "job.steps[2].run = guix shell hello -- hello  (line 19)",
        "left out: comments",
        "job.steps[1].with.keep (line 15): an input that does not affect the content of the store",
        "job.timeout-minutes (line 9): it does not affect the store",
        "job.steps[0].uses (line 11), job.steps[1].uses (line 12): the version of an action",
        "files:flake.lock",
        "flake.lock, 15 B",
    ] {
        assert!(output.stderr.contains(words), "{words}\n{output}");
    }
    assert!(!output.stderr.contains("warning"), "{output}");
    assert_eq!(output.stdout.lines().count(), 2, "{output}");
}

#[test]
fn json_contributions_hash_to_the_key() {
    let project = Project::new();
    let explained = project.explained(&["--workflow", CI, "--hash-files", "flake.lock"]);
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for ingredient in explained["ingredients"].as_array().unwrap() {
        let contribution = ingredient["contribution"].as_str().unwrap();
        let (name, digest) = contribution.split_once('\0').unwrap();
        assert_eq!(ingredient["digest"], digest);
        let digest =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&digest[at..at + 2], 16).unwrap());
        parts.push(name.bytes().chain([0]).chain(digest).collect());
    }
    parts.sort();
    let hash = Sha256::digest(parts.concat());
    let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(explained["hash"], hash.as_str());
    assert_eq!(
        explained["key"],
        format!("storecache-guix-{}-1.5.0-{hash}", explained["system"].as_str().unwrap())
    );
    let content = Sha256::digest("{\"version\": 7}\n");
    let content: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = json!([{ "path": "flake.lock", "bytes": 15, "digest": content }]);
    assert_eq!(explained["ingredients"][1]["contents"], expected);
}

#[test]
fn explain_warns_of_empty_volatile_and_broad_ingredients() {
    let project = Project::new();
    assert_eq!(project.warnings(&["--hash-files", "flake.lock"]), []);
    project.write("empty.lock", "");
    let warnings = project.warnings(&["--hash-files", "empty.lock"]);
    assert_eq!(warnings[0].0, "empty");
    // The file contains the hash of the commit.
    let head = project.git(&["rev-parse", "HEAD"]);
    project.write("version.txt", format!("built from {head}\n"));
    let warnings = project.warnings(&["--hash-files", "version.txt"]);
    assert_eq!(warnings, [("volatile".into(), "version.txt contains the commit hash".into())]);
    for broad in ["**", "**/*"] {
        assert!(
            project.warnings(&["--hash-files", broad]).iter().any(|it| it.0 == "over-broad"),
            "{broad}"
        );
    }
    for number in 0..30 {
        project.write(&format!("src/{number}.c"), "x");
        project.write("changelog", format!("{number}"));
        project.commit();
    }
    let warnings = project.warnings(&["--hash-files", "src/*.c"]);
    assert_eq!(warnings[0].0, "volatile", "{warnings:?}");
    assert!(warnings[1].1.starts_with("it matches 30 of 35 files"), "{warnings:?}");
    let warnings = project.warnings(&["--hash-files", "changelog"]);
    assert_eq!(
        warnings,
        [("volatile".into(), "its files changed in 30 of the last 31 commits".into())]
    );
    assert_eq!(project.warnings(&["--hash-files", "flake.lock"]), []);
    // In a subdirectory too.
    let words = ["key", "--store", "guix", "--version", "1", "--explain", "--hash-files", "*.c"];
    let below = storecache_in(&project.path().join("src"), words).ok();
    assert!(below.stderr.contains("warning: volatile: its files changed in 30"), "{below}");
}

#[test]
fn explain_warns_of_a_custom_key_with_the_commit_hash() {
    let project = Project::new();
    let head = project.git(&["rev-parse", "--short", "HEAD"]);
    let output = project.key(&["--key", &format!("guix-{head}"), "--explain"]).ok();
    assert!(output.stderr.contains("warning: volatile: it contains the commit hash"), "{output}");
    let report = report(&project.key(&["--key", "guix-1.5.0", "--json"]).ok());
    assert_eq!(report["warnings"], json!([]));
}

#[test]
fn diff_names_changed_ingredients_files_and_lines() {
    let project = Project::new();
    let first = project.git(&["rev-parse", "HEAD"]);
    assert_eq!(project.moved(&[]), (vec!["workflow:semantic same".into()], true));
    project.change(CI, "timeout-minutes: 30", "timeout-minutes: 90 # slow");
    project.change(CI, "checkout@v4", "checkout@v5");
    assert_eq!(project.moved(&[]), (vec!["workflow:semantic cosmetic".into()], true));
    let second = project.commit();
    project.change(CI, "hello -- hello", "emacs -- emacs");
    project.write("flake.lock", "{}\n");
    let both = ["--workflow", CI, "--hash-files", "flake.lock"];
    let expected = vec!["files:flake.lock real".into(), "workflow:semantic real".into()];
    assert_eq!(project.moved(&both), (expected, false));
    let output = project.diff(&both).ok();
    assert_eq!(
        output.lines(),
        [
            "real      files:flake.lock",
            "  ~ flake.lock",
            "real      workflow:semantic",
            "  ~ .github/workflows/ci.yml",
            "    - .github/workflows/ci.yml:19: job.steps[2].run = guix shell hello -- hello",
            "    + .github/workflows/ci.yml:19: job.steps[2].run = guix shell emacs -- emacs",
        ]
    );
    assert!(output.stderr.contains("the key changes: HEAD has "), "{output}");
    // Between commits the work tree does not matter.
    assert_eq!(
        project.moved(&[&first, &second]),
        (vec!["workflow:semantic cosmetic".into()], true)
    );
    // In bytes mode a cosmetic change changes the key, and the output reports that.
    let output = project.diff(&[&first, &second, "--workflow-mode", "bytes"]).ok();
    let said = "with --workflow-mode semantic the key would not change";
    assert!(output.stdout.contains(said), "{output}");
    assert!(output.stderr.contains("the key changes"), "{output}");
}

#[test]
fn diff_lists_files_added_and_removed_under_a_pattern() {
    let project = Project::new();
    project.write("nix/a.nix", "a");
    project.write("nix/b.nix", "b");
    project.commit();
    fs::remove_file(project.path().join("nix/a.nix")).unwrap();
    project.write("nix/c.nix", "c");
    let diff = report(&project.diff(&["--hash-files", "nix/*.nix", "--json"]).ok());
    let expected = json!([
        { "path": "nix/a.nix", "change": "removed" },
        { "path": "nix/c.nix", "change": "added" },
    ]);
    assert_eq!(diff["ingredients"][0]["files"], expected, "{diff}");
    // An ingredient that exists on one side only.
    project.write("guix.scm", "x");
    let output = project.diff(&["HEAD", ".", "--hash-files", "guix.scm"]).ok();
    assert!(output.stdout.starts_with("added     files:guix.scm"), "{output}");
    // An ingredient that exists on neither side is an error.
    let none = project.diff(&["--hash-files", "none", "--json"]).fails();
    assert!(none.stderr.contains("matches no file in HEAD or in the work tree"), "{none}");
    assert_eq!(report(&none)["ok"], false);
}

#[test]
fn commit_and_work_tree_give_the_same_key_in_any_directory() {
    let project = Project::new();
    project.write("sub/own.lock", "1");
    project.write("sub/deeper/own.lock", "2");
    std::os::unix::fs::symlink("../flake.lock", project.path().join("sub/linked.lock")).unwrap();
    std::os::unix::fs::symlink("nowhere", project.path().join("sub/dangling.lock")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"sub/caf\xe9 \n\"x\".lock");
    fs::write(project.path().join(odd), "3").unwrap();
    project.commit();
    let absolute = format!("{}/flake.lock", project.path().display());
    for (below, pattern) in [
        ("", "**/*.lock"),
        ("", "./flake.lock"),
        ("sub", "*.lock"),
        ("sub", "**/own.lock"),
        ("sub/deeper", "../../flake.lock"),
        ("sub", &absolute),
    ] {
        let words = ["key", "diff", "HEAD", ".", "--json", "--hash-files", pattern];
        let report = report(&storecache_in(&project.path().join(below), words).ok());
        assert_eq!(report["ingredients"][0]["state"], "same", "{below} {pattern}: {report}");
    }
    let many = project.explained(&["--hash-files", "sub/*.lock"]);
    assert_eq!(many["ingredients"][0]["files"].as_array().unwrap().len(), 3, "{many}");
}

/// Saves a directory under ingredients of a project, as a job for a commit does, and returns the file.
fn save_for_commit(project: &Project, place: &PlainEnv, commit: &str, patterns: &[&str]) -> String {
    let mut command = Command::new(plain_env::binary());
    command.args(["save", "--store", "plain", "--path", "/opt/tool", "--root"]).arg(place.root());
    command.arg("--backend").arg(format!("dir:{}", place.entries().display()));
    command.args(patterns.iter().flat_map(|pattern| ["--hash-files", pattern]));
    command.arg("--json").current_dir(project.path()).env("GITHUB_SHA", commit);
    let entry = report(&plain_env::output(&mut command).ok())["entry"].clone();
    let file = format!("{}.tar.zst", entry.as_str().unwrap());
    place.entries().join(file).display().to_string()
}

#[test]
fn diff_compares_the_ingredients_of_two_snapshots() {
    let project = Project::new();
    let place = PlainEnv::filled();
    project.write("a.lock", "1");
    project.write("b.lock", "1");
    let first = project.commit();
    let one = save_for_commit(&project, &place, &first, &["a.lock", "b.lock"]);
    project.write("a.lock", "2");
    let second = project.commit();
    let two = save_for_commit(&project, &place, &second, &["a.lock", "b.lock"]);
    let expected = vec!["files:a.lock real".to_owned(), "files:b.lock same".into()];
    assert_eq!(project.moved(&[&one, &two]), (expected.clone(), false));
    let output = project.diff(&[&one, &two]).ok();
    assert!(output.stdout.contains("  ~ a.lock"), "{output}");
    // By the names of the entries.
    let backend = format!("dir:{}", place.entries().display());
    let name = |file: &str| {
        let file = Path::new(file).file_name().unwrap().to_str().unwrap().to_owned();
        file.strip_suffix(".tar.zst").unwrap().to_owned()
    };
    let named = project.moved(&[&name(&one), &name(&two), "--backend", &backend]);
    assert_eq!(named, (expected.clone(), false));
    // Against the work tree, with the ingredients of the snapshot.
    project.write("b.lock", "3");
    let expected_now = vec!["files:a.lock same".to_owned(), "files:b.lock real".into()];
    assert_eq!(project.moved(&[&two, "."]), (expected_now, false));
    // Where the commits are not available, the digests in the snapshots are compared.
    let elsewhere = tempfile::tempdir().unwrap();
    let output = storecache_in(elsewhere.path(), ["key", "diff", &one, &two]).ok();
    assert!(output.stdout.contains("the snapshot records only the digest"), "{output}");
    assert!(output.stdout.contains("same      files:b.lock"), "{output}");
}

#[test]
fn prefix_restore_reports_the_changed_ingredients() {
    let project = Project::new();
    let place = PlainEnv::filled();
    project.write("a.lock", "1");
    project.write("b.lock", "1");
    let commit = project.commit();
    save_for_commit(&project, &place, &commit, &["a.lock", "b.lock"]);
    let restored = |patterns: &[&str]| {
        let mut command = Command::new(plain_env::binary());
        command.args(["restore", "--store", "plain", "--path", "/opt/tool", "--json", "--root"]);
        command.arg(place.root()).arg("--backend");
        command.arg(format!("dir:{}", place.entries().display()));
        command.args(patterns.iter().flat_map(|pattern| ["--hash-files", pattern]));
        command.current_dir(project.path());
        let report = report(&plain_env::output(&mut command).ok());
        (report["hit"].as_str().unwrap().to_owned(), report["moved"].clone())
    };
    let both = ["a.lock", "b.lock"];
    assert_eq!(restored(&both), ("exact".into(), Value::Null));
    project.write("a.lock", "2");
    assert_eq!(restored(&both), ("prefix".into(), json!(["files:a.lock"])));
    assert_eq!(restored(&["b.lock"]), ("prefix".into(), json!(["files:a.lock"])));
}

#[test]
fn invalid_diff_operand_or_workflow_is_named_in_the_error() {
    let project = Project::new();
    for (words, said) in [
        (vec!["nope"], "\"nope\" is not a commit, a snapshot file, an entry or `.`"),
        (vec!["--upload-pack=x"], "unexpected argument"),
        (vec!["--", "--output=x"], "\"--output=x\" is not a commit"),
        (vec![CI, "."], "cannot be used"),
        (vec!["k.20261122T095523.123456Z"], "there is no entry"),
    ] {
        let output = project.diff(&words).fails();
        assert!(output.stderr.contains(said), "{words:?}: {output}");
    }
    assert!(!project.path().join("x").exists());
    project.change(CI, "    steps:", "    steps: [\n");
    let output = project.key(&["--workflow", CI]).fails();
    let said = "cannot determine which parts of the workflow count (fix it, or use --workflow-mode \
                bytes): .github/workflows/ci.yml:12:";
    assert!(output.stderr.contains(said), "{output}");
    let mut bomb = "on: push\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..20 {
        let before = format!("*x{}, ", level - 1).repeat(10);
        bomb += &format!("x{level}: &x{level} [{}]\n", before.trim_end_matches(", "));
    }
    project.write(CI, bomb + "jobs: {}\n");
    let output = project.key(&["--workflow", CI]).fails();
    assert!(output.stderr.contains("alias bomb: with the alias *x4"), "{output}");
    let output = project.key(&["--workflow", "none.yml"]).fails();
    assert!(output.stderr.contains("read the workflow none.yml"), "{output}");

    let outside = tempfile::tempdir().unwrap();
    let output = storecache_in(outside.path(), ["key", "diff", "HEAD", "."]).fails();
    assert!(output.stderr.contains("is not in a git repository"), "{output}");
    assert_eq!(output.code(), 1);
    fs::write(outside.path().join("x"), "").unwrap();
    let output = storecache_in(outside.path(), ["key", "diff", ".", ".", "--hash-files", "x"]).ok();
    assert!(output.stderr.contains("the key stays the same"), "{output}");
}

#[test]
fn diff_handles_a_workflow_of_one_megabyte() {
    let project = Project::new();
    let mut long = WORKFLOW.to_owned();
    while long.len() < 1 << 20 {
        long += "      - run: |\n          # größe 漢字\n          echo 'größe 漢字 🦀'\n";
    }
    project.write(CI, &long);
    project.commit();
    project.write(CI, long + "      - run: last\n");
    let output = project.diff(&[]).ok();
    let changed =
        output.lines().into_iter().filter(|line| line.starts_with("    ")).collect::<Vec<_>>();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].ends_with(".run = last"), "{changed:?}");
}

#[test]
fn diff_reports_a_commit_missing_from_a_shallow_clone() {
    let project = Project::new();
    let first = project.git(&["rev-parse", "HEAD"]);
    project.write("flake.lock", "2");
    project.commit();
    let clone = tempfile::tempdir().unwrap();
    let source = format!("file://{}", project.path().display());
    git(clone.path(), &["clone", "--quiet", "--depth=1", &source, "here"]);
    let here = clone.path().join("here");
    let output = storecache_in(&here, ["key", "diff", &first]).fails();
    assert!(output.stderr.contains("this clone is shallow"), "{output}");
    assert!(output.stderr.contains("fetch-depth: 0"), "{output}");
}

#[test]
fn from_step_gives_the_key_of_the_job() {
    let project = Project::new();
    project.change(
        CI,
        "          keep: 2\n",
        "          path: /opt/tool\n          root: ROOT\n          key-prefix: mine\n          hash-files: |\n\
         \x20           flake.lock\n            nix/*.nix\n          ignore-pins: me/*\n          version: ${{ env.GUIX_VERSION }}\n",
    );
    project.change(CI, "store: guix", "store: plain");
    project.write("nix/a.nix", "1");
    let place = PlainEnv::filled();
    let step = crate::support::job::Job::on(&place, &["/opt/tool"]).input("key-prefix", "mine");
    let step = step.input("hash-files", "flake.lock\nnix/*.nix").input("ignore-pins", "me/*");
    let step = step.input("version", "1.5.0").env("GITHUB_REPOSITORY", "me/it");
    let step = step.env("GITHUB_JOB", "test");
    let step = step.env("GITHUB_WORKFLOW_REF", format!("me/it/{CI}@refs/heads/main"));
    for file in [CI, "flake.lock", "nix/a.nix"] {
        let path = step.workspace().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(project.path().join(file), path).unwrap();
    }
    let in_job = step.main().output("cache-primary-key").to_owned();
    let output = storecache_in(project.path(), ["key", "--from-step"]).ok();
    assert_eq!(output.lines()[0], in_job, "{output}");
    assert!(
        output
            .stderr
            .contains("with the inputs of the step at .github/workflows/ci.yml:12, job test"),
        "{output}"
    );
    // Flags take precedence.
    let other = storecache_in(project.path(), ["key", "--from-step", "--version", "2"]).ok();
    assert!(
        other.lines()[0].starts_with("mine-plain-") && other.lines()[0].contains("-2-"),
        "{other}"
    );
    project.commit();
    project.write("nix/b.nix", "2");
    let (moved, same) = project.moved(&["--from-step"]);
    assert_eq!((moved.len(), same), (3, false), "{moved:?}");
    // A value that only a job knows must be given.
    project.change(CI, "${{ env.GUIX_VERSION }}", "${{ inputs.version }}");
    let output = storecache_in(project.path(), ["key", "--from-step"]).fails();
    assert!(
        output.stderr.contains(
            "version is known only in a job: \"${{ inputs.version }}\"\nhint: give its value with \
             --version"
        ),
        "{output}"
    );
    storecache_in(project.path(), ["key", "--from-step", "--version", "1.5.0"]).ok();
    project.change(CI, "uses: example/storecache@v1", "run: make");
    let output = storecache_in(project.path(), ["key", "--from-step", "--workflow", CI]).fails();
    assert!(
        output.stderr.contains("no step of .github/workflows/ci.yml uses storecache"),
        "{output}"
    );
}
