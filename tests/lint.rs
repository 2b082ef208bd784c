//! `lint`: the mistakes that it names, with their lines, and those that it does not.

mod support;

use std::fs;

use serde_json::Value;
use support::Output;
use support::place::storecache_in;
use support::runs::report;
use tempfile::TempDir;

/// Keeps a store in the way that storecache is to replace, with the mistakes that this brings.
const RECIPE: &str = "\
name: interop
on:
  pull_request:
  workflow_dispatch:
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with:
          path: project
      - id: installer
        uses: actions/cache@v4
        with:
          path: guix-binary.tar.xz
          key: guix-binary-1.5.0
      - run: |
          sudo -- tar --extract --file guix-binary.tar.xz -C / --no-overwrite-dir
      - id: store
        uses: actions/cache@v4
        with:
          path: /tmp/guix-store.tar.zst
          key: guix-store-1.5.0-${{ hashFiles('.github/workflows/ci.yml') }}
          restore-keys: guix-store-1.5.0-
      - name: Restore the store
        if: steps.store.outputs.cache-matched-key != ''
        run: |
          sudo systemctl stop guix-daemon
          sudo tar --extract --zstd --file=/tmp/guix-store.tar.zst \\
            --no-overwrite-dir -C /
          sudo systemctl start guix-daemon
      - run: guix shell hello -- hello
      - name: Save the store
        if: steps.store.outputs.cache-hit != 'true'
        run: |
          # sudo tar would do
          sudo tar --create --zstd --file=/tmp/guix-store.tar.zst -C / gnu/store var/guix/db
";

/// The same with storecache.
const GOOD: &str = "\
name: interop
on:
  push:
    branches: [main]
  pull_request:
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
        with:
          store: guix
      - run: guix shell hello -- hello
";

fn tree(workflows: &[(&str, &str)]) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join(".github/workflows")).unwrap();
    fs::write(tree.path().join("flake.lock"), "{}").unwrap();
    for (name, text) in workflows {
        fs::write(tree.path().join(".github/workflows").join(name), text).unwrap();
    }
    tree
}

fn lint(tree: &TempDir, more: &[&str]) -> Output {
    storecache_in(tree.path(), ["lint"].iter().chain(more))
}

/// File, line, level and rule of each finding.
fn findings(workflows: &[(&str, &str)]) -> Vec<String> {
    let output = lint(&tree(workflows), &["--json"]);
    let report = report(&output);
    let field = |finding: &Value, name: &str| match &finding[name] {
        Value::String(text) => text.trim_start_matches(".github/workflows/").to_owned(),
        other => other.to_string(),
    };
    let found = report["findings"].as_array().unwrap().iter();
    let found: Vec<String> = found
        .map(|it| ["file", "line", "level", "rule"].map(|name| field(it, name)).join(" "))
        .collect();
    let failed = found.iter().any(|line| line.contains(" error "));
    assert_eq!((output.code(), &report["ok"]), (i32::from(failed), &Value::Bool(!failed)));
    found
}

/// The findings in one workflow that runs these steps on a push.
fn of_steps(steps: &str) -> Vec<String> {
    let top = "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n";
    findings(&[("ci.yml", &format!("{top}{steps}"))])
}

#[test]
fn each_mistake_of_the_usual_recipe_is_named_with_its_line() {
    assert_eq!(
        findings(&[("ci.yml", RECIPE)]),
        [
            "ci.yml 2 warning unseeded",
            "ci.yml 23 error empty-hash",
            "ci.yml 23 warning key",
            "ci.yml 26 error guard",
            "ci.yml 29 error tar",
            "ci.yml 37 error tar",
        ]
    );
    let told = lint(&tree(&[("ci.yml", RECIPE)]), &[]).fails();
    for words in [
        ".github/workflows/ci.yml:2: warning: nothing saves the store under guix-store-1.5.0-",
        "ci.yml:23: error: hashFiles('.github/workflows/ci.yml') matches no file and is empty, so the \
         key never changes: the checkout is in project",
        "to do: write hashFiles('project/.github/workflows/ci.yml')",
        "ci.yml:23: warning: the key has no architecture",
        "ci.yml:26: error: `steps.store.outputs.cache-matched-key` is always empty",
        "ci.yml:29: error: this unpacks over a live store",
        "ci.yml:37: error: this copies the database file while the daemon may write to it",
    ] {
        assert!(told.stdout.contains(words), "{words}\n{told}");
    }
    assert!(told.stderr.contains("looked at 1 workflow: 6 findings"), "{told}");
}

#[test]
fn a_workflow_without_mistakes_passes() {
    assert_eq!(findings(&[("ci.yml", GOOD)]), [""; 0]);
    let windows = GOOD.replace('\n', "\r\n");
    assert_eq!(findings(&[("ci.yaml", &windows), ("notes.txt", "no: workflow")]), [""; 0]);
    let outside = tempfile::tempdir().unwrap();
    let none = lint(&outside, &[]).fails();
    assert!(none.stderr.contains("list .github/workflows; name the workflows"), "{none}");
    let named = lint(&tree(&[("ci.yml", GOOD)]), &[".github/workflows/ci.yml"]).ok();
    assert_eq!(named.stdout, "");
}

#[test]
fn a_hash_is_empty_where_no_file_is_or_nothing_is_checked_out() {
    let cache = |key: &str| {
        format!("      - uses: actions/cache@v4\n        with:\n          key: nix-1.2-x64-{key}\n")
    };
    for whole in ["'flake.lock'", "'**/*.lock'", "'none', '*.lock'", "env.FILES", "'.github'"] {
        assert_eq!(of_steps(&cache(&format!("${{{{ hashFiles({whole}) }}}}"))), [""; 0], "{whole}");
    }
    for empty in ["'Flake.lock'", "'sub/*.lock'", "'*.lock', '!flake.*'"] {
        let found = of_steps(&cache(&format!("${{{{ hashFiles({empty}) }}}}")));
        assert_eq!(found, ["ci.yml 8 error empty-hash"], "{empty}");
    }
    // A step before may have made it.
    let made = format!("      - run: make lock\n{}", cache("${{ hashFiles('made.lock') }}"));
    assert_eq!(of_steps(&made), ["ci.yml 9 warning empty-hash"]);
    let early =
        format!("on: push\njobs:\n  a:\n    steps:\n{}", cache("${{ hashFiles('*.lock') }}"));
    assert_eq!(findings(&[("ci.yml", &early)]), ["ci.yml 7 error empty-hash"]);
    // A condition asks on purpose.
    assert_eq!(of_steps("      - run: x\n        if: hashFiles('none') != ''\n"), [""; 0]);
}

#[test]
fn the_default_branch_is_seeded_by_this_workflow_or_by_another_with_the_same_key() {
    let with = |on: &str| GOOD.replace("on:\n  push:\n    branches: [main]\n  pull_request:\n", on);
    for seeded in ["on: push\n", "on: [schedule, pull_request]\n", "on: workflow_call\n"] {
        assert_eq!(findings(&[("ci.yml", &with(seeded))]), [""; 0], "{seeded}");
    }
    let tags = "on:\n  pull_request:\n  push:\n    tags: ['v*']\n";
    for unseeded in ["on: pull_request\n", "on: [pull_request_target, issue_comment]\n", tags] {
        let found = findings(&[("ci.yml", &with(unseeded))]);
        assert_eq!(found, ["ci.yml 2 warning unseeded"], "{unseeded}");
    }
    let here = with("on: pull_request\n");
    assert_eq!(findings(&[("ci.yml", &here), ("seed.yml", GOOD)]), [""; 0]);
    let other = GOOD.replace("store: guix", "store: guix\n          key: other-1.5.0-x64");
    assert_eq!(findings(&[("ci.yml", &here), ("seed.yml", &other)]), ["ci.yml 2 warning unseeded"]);
    // What only restores, or keeps no store, is none of our business.
    for step in ["actions/cache/restore@v4", "actions/setup-node@v4"] {
        let read = here.replace("example/storecache@v1", step);
        assert_eq!(findings(&[("ci.yml", &read)]), [""; 0], "{step}");
    }
    for never in ["save: never", "operation: restore"] {
        let read = here.replace("store: guix", &format!("store: guix\n          {never}"));
        assert_eq!(findings(&[("ci.yml", &read)]), [""; 0], "{never}");
    }
}

#[test]
fn a_key_of_ones_own_names_version_and_architecture() {
    let ours = |key: &str| {
        let step = "      - uses: example/storecache@v1\n        env:\n          V: 2.30.1\n";
        of_steps(&format!("{step}        with:\n          key: {key}\n"))
    };
    for good in [
        "nix-2.30.1-x86_64-linux",
        "nix-${{ env.V }}-${{ runner.arch }}",
        "nix-${{ inputs.name }}",
        "${{ matrix.key }}",
    ] {
        assert_eq!(ours(good), [""; 0], "{good}");
    }
    assert_eq!(ours("nix-2.30.1"), ["ci.yml 10 warning key"]);
    assert_eq!(ours("nix-${{ runner.os }}"), ["ci.yml 10 warning key", "ci.yml 10 warning key"]);
}

#[test]
fn only_outputs_that_are_never_set_are_no_guards() {
    let steps = |action: &str, output: &str| {
        of_steps(&format!(
            "      - uses: {action}\n        id: c\n      - run: echo ${{{{ steps.c.outputs.{output} }}}}\n"
        ))
    };
    assert_eq!(steps("actions/cache@v4", "cache-primary-key"), ["ci.yml 8 error guard"]);
    assert_eq!(steps("actions/cache@v4", "cache-hit"), [""; 0]);
    assert_eq!(steps("actions/cache/restore@v4", "cache-matched-key"), [""; 0]);
    assert_eq!(steps("example/storecache@v1", "cache-matched-key"), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_line() {
    assert_eq!(
        findings(&[("a.yml", "on: push\njobs: [\n"), ("b.yml", "a: 1\n"), ("c.yml", GOOD)]),
        ["a.yml 3 error unreadable", "b.yml 1 error unreadable"]
    );
    let missing = lint(&tree(&[]), &["none.yml", "--json"]).fails();
    assert_eq!(report(&missing)["ok"], false);
    assert!(missing.stderr.contains("read the workflow none.yml"), "{missing}");
}

#[test]
fn a_long_workflow_with_every_script_of_the_world_is_read() {
    let mut long = GOOD.to_owned();
    for n in 0..10_000 {
        long += &format!("      - run: echo 'größe {n} 漢字 🦀'\n");
    }
    long += "      - run: sudo tar -xf x.tar -C / nix/store\n";
    let line = long.lines().count();
    assert_eq!(findings(&[("ci.yml", &long)]), [format!("ci.yml {line} error tar")]);
}
