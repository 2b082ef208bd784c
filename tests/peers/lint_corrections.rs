//! Tests of the corrections that `lint` proposes: they resolve their finding, and other programs accept the
//! result.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::azurite::script;
use crate::support::plain_env::output;
use crate::support::workflows::{apply_correction, json_findings, line, tree, write};
use serde_json::Value;

/// A rule, the triggers, the lines before the steps, and the steps.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

/// Mistakes of every rule that proposes corrections.
const MISTAKES: [Mistake; 27] = [
    ("unseeded", "on: pull_request", "", STORECACHE_STEPS),
    ("unseeded", "on: [pull_request, merge_group]", "", STORECACHE_STEPS),
    ("unseeded", "on:\n  pull_request:\n  workflow_dispatch:", "", STORECACHE_STEPS),
    ("unseeded", "on:\n  push:\n    tags: ['v*']", "", STORECACHE_STEPS),
    ("guard", "on: push", "", "\
      - id: store
        uses: actions/cache/restore@v4
        with:
          path: store.nar
          key: nix-store-2.30.1-${{ runner.arch }}-${{ hashFiles('flake.lock') }}
      - id: again
        uses: actions/cache@v4
        with:
          path: store.nar
          key: nix-store-2.30.1-${{ runner.arch }}-${{ hashFiles('flake.lock') }}
      - if: steps.again.outputs.cache-matched-key != ''   # found
        run: make
"),
    ("empty-hash", "on: push", "", "\
      - uses: actions/checkout@v4
        with:
          path: sources
      - uses: actions/cache/restore@v4
        with:
          path: store.nar
          key: \"nix-store-2.30.1-${{ runner.arch }}-${{ hashFiles('flake.lock', './devbox.lock') }}\"
"),
    ("key-system", "on: push", "", "\
      - uses: actions/cache/restore@v4
        with:
          path: store.nar
          key: 'nix-store-2.30.1-a'
          restore-keys: |
            nix-store-2.30.1-
            nix-store-
"),
    ("key-system", "on: push", "    strategy:\n      matrix:\n        os: [ubuntu-latest, macos-latest]\n", "\
      - uses: example/storecache@v1
        with:
          key: nix-2.30.1
"),
    ("key-version", "on: push", "    env:\n      NIX_VERSION: 2.30.1\n", "\
      - uses: example/storecache@v1
        with:
          key: nix-${{ runner.arch }}-a
          restore-keys: nix-${{ runner.arch }}-
"),
    ("fixed-key", "on: push", "", "\
      - uses: actions/checkout@v4
      - uses: actions/cache@v4
        with:
          path: guix-store.nar
          key: guix-store-x64
"),
    ("volatile-key", "on: push", "", "\
      - uses: actions/checkout@v4
      - uses: actions/cache@v4
        with:
          path: nix-store.nar
          key: nix-store-2.30.1-x64-${{ github.sha }}
"),
    ("key-limits", "on: push", "", "\
      - uses: actions/cache@v4
        with:
          path: nix-store.nar
          key: nix,store-2.30.1-x64-${{ format('{0}', 'a,b') }}
"),
    ("key-limits", "on: push", "", "\
      - uses: actions/cache@v4
        with:
          path: nix-store.nar
          key: nix-store-2.30.1-x64-${{ github.ref }}
          restore-keys: |
            nix-store-1-
            nix-store-2-
            nix-store-3-
            nix-store-4-
            nix-store-5-
            nix-store-6-
            nix-store-7-
            nix-store-8-
            nix-store-9-
            nix-store-10-
            nix-store-11-
"),
    ("path-version", "on: push", "", "\
      - uses: actions/cache/restore@v4
        with:
          path: |
            store.nar
            nix-store.sig
          key: nix-store-2.30.1-x64-a
      - if: always()
        uses: actions/cache/save@v4
        with:
          path: |
            nix-store.sig
            store.nar
          key: nix-store-2.30.1-x64-a
"),
    ("success-only", "on: push", "", "\
      - run: make
      - name: Keep the store
        if: github.ref_name == 'main'
        uses: actions/cache/save@v4
        with:
          path: nix-store.nar
          key: nix-store-2.30.1-x64-a
"),
    ("no-roots", "on: push", "", "\
      - run: |
          sudo systemctl stop guix-daemon
          sudo tar -cf /tmp/store.tar -C / gnu/store \\
            var/guix/db
"),
    ("daemon-stopped", "on: push", "", "\
      - uses: example/storecache@v1
      - run: |
          # All of it.
          sudo systemctl stop nix-daemon
          ./change
          sudo systemctl start nix-daemon
      - run: nix build
"),
    ("container", "on: push", "", "\
      - uses: example/storecache@v1
        with: {store: guix}
      - run: docker run --rm example/guix make
"),
    ("unpinned", "on: push", "", "\
      - uses: example/storecache@v1
        with: {store: guix, key: 'guix-1.5.0-x64'}
      - run: guix pull
"),
    ("unknown-input", "on: push", "", "\
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
        with:
          restore_keys: a
          hashfiles: flake.lock
"),
    ("permissions", "on: push", "    permissions:\n      contents: read\n", "\
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
        with:
          keep: 3
"),
    (
        "before-checkout",
        "on: push",
        "",
        "\
      - uses: example/storecache@v1
        with:
          hash-files: flake.lock
      # Everything.
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0
      - run: make
",
    ),
    (
        "before-checkout",
        "on: push",
        "",
        "\
      - uses: example/storecache@v1
",
    ),
    (
        "matrix-key",
        "on: push",
        "    strategy:\n      matrix:\n        package: [a, b]\n",
        "\
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
",
    ),
    (
        "matrix-key",
        "on: push",
        "    strategy:\n      matrix:\n        package: [a, b]\n",
        "\
      - uses: example/storecache@v1
        with:
          key: nix-2.30.1-x64
",
    ),
    (
        "read-only-token",
        "on: push\ncache-mode: read",
        "",
        "\
      - uses: actions/cache@v4
        with:
          path: nix-store.nar
          key: nix-store-2.30.1-x64-a
",
    ),
    (
        "daemon-stopped",
        "on: push",
        "",
        "\
      - uses: example/storecache@v1
      - run: |
          sudo systemctl stop nix-daemon
          ./change
      - run: sudo systemctl start nix-daemon
      - run: nix build
",
    ),
];

const STORECACHE_STEPS: &str = "\
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
";

/// Returns every mistake as a workflow, with its rule.
fn mistakes() -> impl Iterator<Item = (&'static str, String)> {
    MISTAKES.into_iter().map(|(rule, on, head, steps)| {
        let runner = if head.contains("os:") { "${{ matrix.os }}" } else { "ubuntu-latest" };
        // The texts above begin at their first dash.
        let steps = format!("      {steps}");
        let steps = if steps.contains("checkout") || rule == "before-checkout" {
            steps
        } else {
            format!("      - uses: actions/checkout@v4\n{steps}")
        };
        let text = format!(
            "name: it\n{on}\njobs:\n  job:\n    runs-on: {runner}\n{head}    steps:\n{steps}"
        );
        (rule, text)
    })
}

fn findings_of_rule<'f>(found: &'f [Value], rule: &'f str) -> Vec<&'f Value> {
    found.iter().filter(|it| it["rule"] == rule).collect()
}

#[test]
fn corrections_resolve_their_finding_and_are_valid_workflows() {
    // The independent checker is some years old: it supports neither `cache-mode` nor aliases below `with`.
    let mut judged: Vec<PathBuf> = Vec::new();
    let kept = tempfile::tempdir().unwrap();
    for (rule, source) in mistakes() {
        for end in ["\n", "\r\n"] {
            let source = source.replace('\n', end);
            let place = tree(&[("ci.yml", &source)]);
            let found = json_findings(&place);
            let before = findings_of_rule(&found, rule).len();
            let finding =
                findings_of_rule(&found, rule).into_iter().find(|it| it["lines"].is_object());
            let finding =
                finding.unwrap_or_else(|| panic!("{rule} is not corrected: {found:#?}\n{source}"));
            assert!(finding["example"].is_null(), "either the lines or an example");
            let mended = apply_correction(&source, finding).unwrap();
            assert_ne!(mended, source);
            // Line ends stay as they are.
            assert_eq!(
                mended.matches('\n').count() == mended.matches("\r\n").count(),
                end == "\r\n"
            );
            write(place.path(), "ci.yml", &mended);
            let after = json_findings(&place);
            assert!(findings_of_rule(&after, "unreadable").is_empty(), "{mended}");
            assert_eq!(
                findings_of_rule(&after, rule).len(),
                before - 1,
                "{rule}: {after:#?}\n{mended}"
            );
            if end == "\n" && !source.contains("cache-mode") {
                for (name, text) in [("before", &source), ("after", &mended)] {
                    let file = kept.path().join(format!("{}-{name}.yml", judged.len()));
                    fs::write(&file, text).unwrap();
                    judged.push(file);
                }
            }
        }
    }
    let output = output(script("workflow_validator.mjs").args(&judged)).ok();
    assert_eq!(output.stdout, format!("checked {}\n", judged.len()));
}

#[test]
fn a_correction_that_would_break_the_file_is_not_offered() {
    // Inside braces, an expression has to be quoted.
    let text = "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n      - uses: actions/cache@v4\n\
                \x20       with: {path: guix-store.nar, key: guix-store-x64}\n";
    let found = json_findings(&tree(&[("ci.yml", text)]));
    assert_eq!(found.iter().map(line).collect::<Vec<_>>(), ["ci.yml 7 warning fixed-key"]);
    assert!(found[0]["lines"].is_null() && found[0]["example"].is_string(), "{found:#?}");
}

#[test]
fn every_finding_has_corrected_lines_or_an_example() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint_workflows");
    for name in ["recipe.yml", "container.yml", "nightly.yml", "merged.yml", "wrapped.yml"] {
        let text = fs::read_to_string(shapes.join(name)).unwrap();
        for finding in json_findings(&tree(&[(name, &text)])) {
            assert!(finding["lines"].is_object() != finding["example"].is_string(), "{finding:#}");
            let at = |name: &str| finding[name].as_u64().unwrap();
            let place = text.lines().nth(at("line") as usize - 1).unwrap();
            assert!((1..=place.len() as u64).contains(&at("column")), "{finding:#}");
        }
    }
}
