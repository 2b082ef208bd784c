//! Tests of `lint`: the mistakes that it reports, with their lines, and the correct workflows that it accepts.

use std::fs;
use std::path::Path;

use crate::support::workflows::{GOOD, findings, findings_of_steps, json_findings, lint, tree};

/// A workflow that caches a store in the way that storecache replaces, with the usual mistakes.
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

#[test]
fn lint_reports_each_mistake_of_the_usual_recipe_with_its_line() {
    assert_eq!(
        findings(&[("ci.yml", RECIPE)]),
        [
            "ci.yml 2 warning unseeded",
            "ci.yml 20 warning success-only",
            "ci.yml 23 warning key-system",
            "ci.yml 23 error empty-hash",
            "ci.yml 26 error guard",
            "ci.yml 28 error daemon-stopped",
            "ci.yml 29 error tar",
            "ci.yml 37 error tar",
        ]
    );
    let output = lint(&tree(&[("ci.yml", RECIPE)]), &[]).fails();
    for words in [
        ".github/workflows/ci.yml:2:1: warning: nothing saves the store under guix-store-1.5.0-",
        "ci.yml:23:37: error: hashFiles('.github/workflows/ci.yml') matches no file and is empty, so the \
         key never changes: the checkout is in project",
        "to do: write hashFiles('project/.github/workflows/ci.yml')",
        "      -           key: guix-store-1.5.0-${{ hashFiles('.github/workflows/ci.yml') }}\n\
         \x20     +           key: guix-store-1.5.0-${{ hashFiles('project/.github/workflows/ci.yml') }}\n",
        "      +           trap 'sudo systemctl start guix-daemon' EXIT\n",
        "      | - uses: OWNER/storecache@v1\n",
        "ci.yml:23:16: warning: the key does not name the architecture",
        "ci.yml:26:13: error: `steps.store.outputs.cache-matched-key` is always empty",
        "ci.yml:29:16: error: this unpacks over a live store",
        "ci.yml:37:16: error: this copies the database file while the daemon may write to it",
    ] {
        assert!(output.stdout.contains(words), "{words}\n{output}");
    }
    assert!(output.stderr.contains("checked 1 workflow: 8 findings"), "{output}");
}

#[test]
fn a_workflow_without_mistakes_passes() {
    assert_eq!(findings(&[("ci.yml", GOOD)]), [""; 0]);
    let windows = GOOD.replace('\n', "\r\n");
    assert_eq!(findings(&[("ci.yaml", &windows), ("notes.txt", "no: workflow")]), [""; 0]);
    let outside = tempfile::tempdir().unwrap();
    let none = lint(&outside, &[]).fails();
    assert!(none.stderr.contains("hint: name the workflows"), "{none}");
    let named = lint(&tree(&[("ci.yml", GOOD)]), &[".github/workflows/ci.yml"]).ok();
    assert_eq!(named.stdout, "");
}

#[test]
fn hash_files_without_match_or_checkout_is_reported() {
    let cache = |key: &str| {
        format!("      - uses: actions/cache@v4\n        with:\n          key: nix-1.2-x64-{key}\n")
    };
    for whole in ["'flake.lock'", "'**/*.lock'", "'none', '*.lock'", "env.FILES", "'.github'"] {
        assert_eq!(
            findings_of_steps(&cache(&format!("${{{{ hashFiles({whole}) }}}}"))),
            [""; 0],
            "{whole}"
        );
    }
    for empty in ["'Flake.lock'", "'sub/*.lock'", "'*.lock', '!*.lock'"] {
        let found = findings_of_steps(&cache(&format!("${{{{ hashFiles({empty}) }}}}")));
        assert_eq!(found, ["ci.yml 8 error empty-hash"], "{empty}");
    }
    // An earlier step may have created the file.
    let made = format!("      - run: make lock\n{}", cache("${{ hashFiles('made.lock') }}"));
    assert_eq!(findings_of_steps(&made), ["ci.yml 9 warning empty-hash"]);
    let early =
        format!("on: push\njobs:\n  a:\n    steps:\n{}", cache("${{ hashFiles('*.lock') }}"));
    assert_eq!(findings(&[("ci.yml", &early)]), ["ci.yml 7 error empty-hash"]);
    // A condition tests for the empty hash on purpose.
    assert_eq!(findings_of_steps("      - run: x\n        if: hashFiles('none') != ''\n"), [""; 0]);
}

#[test]
fn unseeded_default_branch_is_reported() {
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
    // Steps that only restore, or do not cache a store, are not checked.
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
fn custom_key_without_version_or_architecture_is_reported() {
    let ours = |key: &str| {
        let step = "      - uses: example/storecache@v1\n        env:\n          V: 2.30.1\n";
        findings_of_steps(&format!("{step}        with:\n          key: {key}\n"))
    };
    for good in [
        "nix-2.30.1-x86_64-linux",
        "nix-${{ env.V }}-${{ runner.arch }}",
        "nix-${{ inputs.name }}",
        "${{ matrix.key }}",
    ] {
        assert_eq!(ours(good), [""; 0], "{good}");
    }
    let (system, version) = ("ci.yml 10 warning key-system", "ci.yml 10 warning key-version");
    assert_eq!(ours("nix-2.30.1"), [system]);
    assert_eq!(ours("nix-${{ runner.arch }}"), [version]);
    assert_eq!(ours("nix-${{ runner.os }}"), [system, version]);
}

#[test]
fn condition_on_an_output_that_is_never_set_is_reported() {
    let steps = |action: &str, output: &str| {
        findings_of_steps(&format!(
            "      - uses: {action}\n        id: c\n      - run: echo ${{{{ steps.c.outputs.{output} }}}}\n"
        ))
    };
    assert_eq!(steps("actions/cache@v4", "cache-primary-key"), ["ci.yml 8 error guard"]);
    assert_eq!(steps("actions/cache@v4", "cache-hit"), [""; 0]);
    assert_eq!(steps("actions/cache/restore@v4", "cache-matched-key"), [""; 0]);
    assert_eq!(steps("example/storecache@v1", "cache-matched-key"), [""; 0]);
}

#[test]
fn lint_reads_a_long_workflow_with_unicode() {
    let mut long = GOOD.to_owned();
    for n in 0..10_000 {
        long += &format!("      - run: echo 'größe {n} 漢字 🦀'\n");
    }
    long += "      - run: sudo tar -xf x.tar -C / nix/store\n";
    let line = long.lines().count();
    assert_eq!(findings(&[("ci.yml", &long)]), [format!("ci.yml {line} error tar")]);
}

/// Workflows modeled on those of real projects, and their findings.
const SAMPLES: [(&str, &[&str]); 9] = [
    (
        "recipe.yml",
        &[
            "3 warning unseeded",
            "17 warning success-only",
            "20 warning key-system",
            "20 error empty-hash",
            "24 error guard",
            "26 error daemon-stopped",
            "27 error tar",
            "36 error tar",
            "37 warning staging",
        ],
    ),
    ("container.yml", &["17 error store-path", "19 warning volatile-key", "23 error container"]),
    (
        "nightly.yml",
        &[
            "12 warning unpinned",
            "15 error store-path",
            "16 warning key-system",
            "16 warning fixed-key",
            "17 warning unpinned",
        ],
    ),
    ("merged.yml", &["16 warning unpinned", "18 error key-system"]),
    ("wrapped.yml", &["16 warning success-only"]),
    ("gated.yml", &[]),
    ("ours.yml", &[]),
    ("plain_nix.yml", &[]),
    ("unrelated.yml", &[]),
];

#[test]
fn lint_findings_of_sample_workflows_match_the_table() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint_workflows");
    assert_eq!(shapes.read_dir().unwrap().count(), SAMPLES.len(), "each file is in the table");
    for (name, expected) in SAMPLES {
        let text = fs::read_to_string(shapes.join(name)).unwrap();
        let expected: Vec<_> = expected.iter().map(|it| format!("{name} {it}")).collect();
        assert_eq!(findings(&[(name, &text)]), expected);
    }
}

/// The findings for the ten ways in which the recipe of two `sudo tar` steps fails: the guard that is never
/// true, the hash of no files, the daemon left stopped and the mount that cannot be written, entries that no
/// other branch reads, the copy of a live database, the database that replaces another one, the log left beside
/// it, the archive without roots, the save after success only, and the staging directory.
#[test]
fn lint_reports_the_ten_defects_of_the_tar_recipe() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint_workflows");
    let text = fs::read_to_string(shapes.join("recipe.yml")).unwrap();
    let save = "          mkdir -p /tmp/stage\n";
    let stopped = text.replace(save, "          sudo systemctl stop guix-daemon\n");
    let found = [
        json_findings(&tree(&[("recipe.yml", &text)])),
        json_findings(&tree(&[("recipe.yml", &stopped)])),
    ]
    .concat();
    for (rule, words) in [
        ("guard", "is always empty"),
        ("empty-hash", "matches no file and is empty"),
        ("daemon-stopped", "it stays stopped"),
        ("tar", "tar fails if the store is mounted read-only, as for Guix"),
        ("unseeded", "on the default branch"),
        ("tar", "copies the database file while the daemon may write to it"),
        ("tar", "loses rows that only the old one has"),
        ("tar", "a log left beside the new database silently undoes it"),
        ("no-roots", "profiles and roots are not in the archive"),
        ("success-only", "only when the job succeeds"),
        ("staging", "a second copy of the store"),
    ] {
        let says = |it: &&serde_json::Value| {
            it["rule"] == rule && it["message"].as_str().unwrap().contains(words)
        };
        assert!(found.iter().any(|it| says(&it)), "{rule}: {words}\n{found:#?}");
    }
}
