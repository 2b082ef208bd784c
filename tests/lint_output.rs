//! What `lint` writes: corrected lines that mend, annotations, SARIF, and what it says of files that are
//! no workflows.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::azurite::{peers, script};
use support::place::output;
use support::runs::report;
use support::workflows::{corrected, line, lint, reported, tree, write};

/// A mistake of each rule that has corrected lines: the triggers, what stands before the steps, and the
/// steps, to which a test adds nothing.
const MISTAKES: [(&str, &str, &str, &str); 21] = [
    ("unseeded", "on: pull_request", "", OURS),
    ("unseeded", "on: [pull_request, merge_group]", "", OURS),
    ("unseeded", "on:\n  pull_request:\n  workflow_dispatch:", "", OURS),
    ("unseeded", "on:\n  push:\n    tags: ['v*']", "", OURS),
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
];

/// More than one correction each, beside those above.
const MORE: [(&str, &str, &str, &str); 6] = [
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

const OURS: &str = "\
      - uses: actions/checkout@v4
      - uses: example/storecache@v1
";

/// Every mistake as a workflow, with its rule.
fn mistakes() -> impl Iterator<Item = (&'static str, String)> {
    let all = MISTAKES.into_iter().chain(MORE);
    all.map(|(rule, on, head, steps)| {
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

fn of_rule<'f>(found: &'f [Value], rule: &'f str) -> Vec<&'f Value> {
    found.iter().filter(|it| it["rule"] == rule).collect()
}

#[test]
fn corrected_lines_mend_what_they_are_for_and_are_valid_workflows() {
    // The judge is some years old: it knows neither `cache-mode` nor aliases below `with`.
    let mut judged: Vec<PathBuf> = Vec::new();
    let kept = tempfile::tempdir().unwrap();
    for (rule, source) in mistakes() {
        for end in ["\n", "\r\n"] {
            let source = source.replace('\n', end);
            let place = tree(&[("ci.yml", &source)]);
            let found = reported(&place);
            let before = of_rule(&found, rule).len();
            let finding = of_rule(&found, rule).into_iter().find(|it| it["lines"].is_object());
            let finding =
                finding.unwrap_or_else(|| panic!("{rule} is not corrected: {found:#?}\n{source}"));
            assert!(finding["example"].is_null(), "either the lines or an example");
            let mended = corrected(&source, finding).unwrap();
            assert_ne!(mended, source);
            // Line ends stay as they are.
            assert_eq!(
                mended.matches('\n').count() == mended.matches("\r\n").count(),
                end == "\r\n"
            );
            write(place.path(), "ci.yml", &mended);
            let after = reported(&place);
            assert!(of_rule(&after, "unreadable").is_empty(), "{mended}");
            assert_eq!(of_rule(&after, rule).len(), before - 1, "{rule}: {after:#?}\n{mended}");
            if end == "\n" && !source.contains("cache-mode") {
                for (name, text) in [("before", &source), ("after", &mended)] {
                    let file = kept.path().join(format!("{}-{name}.yml", judged.len()));
                    fs::write(&file, text).unwrap();
                    judged.push(file);
                }
            }
        }
    }
    let told = output(script("workflow_judge.mjs").args(&judged)).ok();
    assert_eq!(told.stdout, format!("judged {}\n", judged.len()));
}

#[test]
fn a_correction_that_would_break_the_file_is_not_offered() {
    // In braces, an expression has to be in quotes.
    let text = "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n      - uses: actions/cache@v4\n\
                \x20       with: {path: guix-store.nar, key: guix-store-x64}\n";
    let found = reported(&tree(&[("ci.yml", text)]));
    assert_eq!(found.iter().map(line).collect::<Vec<_>>(), ["ci.yml 7 warning fixed-key"]);
    assert!(found[0]["lines"].is_null() && found[0]["example"].is_string(), "{found:#?}");
}

#[test]
fn every_finding_has_corrected_lines_or_an_example() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint_workflows");
    for name in ["recipe.yml", "container.yml", "nightly.yml", "merged.yml", "wrapped.yml"] {
        let text = fs::read_to_string(shapes.join(name)).unwrap();
        for finding in reported(&tree(&[(name, &text)])) {
            assert!(finding["lines"].is_object() != finding["example"].is_string(), "{finding:#}");
            let at = |name: &str| finding[name].as_u64().unwrap();
            let place = text.lines().nth(at("line") as usize - 1).unwrap();
            assert!((1..=place.len() as u64).contains(&at("column")), "{finding:#}");
        }
    }
}

/// A workflow with a mistake whose name and key are anything but plain.
const ODD: &str = "\
on: push
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/cache/restore@v4
        with:
          path: store.nar
          key: nix-store-2.30.1,50%-größe-漢字-🦀
";

#[test]
fn annotations_stay_on_one_line_each_and_mean_what_they_say() {
    let name = "größe 漢字, 50%: a.yml";
    let place = tree(&[(name, ODD)]);
    let told = lint(&place, &["--format", "github"]).fails();
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    let at = "::warning file=.github/workflows/größe 漢字%2C 50%25%3A a.yml,line=10,col=16,title=storecache key-system::";
    assert!(lines[0].starts_with(at), "{told}");
    let text = lines[0].strip_prefix(at).unwrap();
    assert!(text.contains("%0Ato do: put ${{ runner.arch }} into the key"), "{text}");
    assert!(text.contains("%0A-           key: nix-store-2.30.1,50%25-größe"), "{text}");
    assert!(lines[1].starts_with("::error file="), "{told}");
    let good = lint(&tree(&[]), &["--format", "github"]).fails();
    assert!(good.stdout.is_empty() && good.stderr.contains("has no workflow"), "{good}");
}

fn sarif(output: &support::Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

#[test]
fn sarif_is_what_its_maintainers_and_code_scanning_take() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint_workflows");
    let mut workflows: Vec<(String, String)> = vec![
        ("größe 漢字, 50%: a.yml".into(), ODD.into()),
        ("broken.yml".into(), "on: push\njobs: [\n".into()),
    ];
    for entry in shapes.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        workflows.push((name, fs::read_to_string(path).unwrap()));
    }
    workflows.extend(mistakes().enumerate().map(|(at, (_, text))| (format!("m{at}.yml"), text)));
    let named: Vec<_> =
        workflows.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let place = tree(&named);
    let told = lint(&place, &["--format", "sarif"]).fails();
    let log = sarif(&told);
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), reported(&place).len());
    assert!(results.iter().any(|it| it["fixes"].is_array()));
    let uri = |it: &Value| {
        it["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let odd = ".github/workflows/gr%C3%B6%C3%9Fe%20%E6%BC%A2%E5%AD%97%2C%2050%25%3A%20a.yml";
    assert!(results.iter().any(|it| uri(it) == odd), "{results:#?}");
    let broken = results.iter().find(|it| it["ruleId"] == "unreadable").unwrap();
    let region = &broken["locations"][0]["physicalLocation"]["region"];
    assert_eq!(region["startLine"], 3, "{broken:#}");

    let file = place.path().join("log.sarif");
    fs::write(&file, &told.stdout).unwrap();
    let tool = peers().join("lint/node_modules/@microsoft/sarif-multitool-linux/Sarif.Multitool");
    let mut command = Command::new(tool);
    command
        .args(["validate", "--rule-kind", "Sarif;Ghas"])
        .arg(&file)
        .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
        .env("DOTNET_BUNDLE_EXTRACT_BASE_DIR", place.path());
    let judged = output(&mut command).ok();
    let wrong: Vec<&str> = judged
        .stdout
        .lines()
        .filter(|line| line.contains(": error ") || line.contains(": warning "))
        // The address of the project, which it does not know.
        .filter(|line| !line.contains("does not provide 'informationUri'"))
        .collect();
    assert_eq!(wrong, [""; 0]);
    assert!(judged.stdout.contains("Analysis completed successfully"), "{judged}");
}

#[test]
fn a_finding_that_has_moved_is_the_same_one_to_code_scanning() {
    let prints = |text: &str| {
        let log = sarif(&lint(&tree(&[("ci.yml", text)]), &["--format", "sarif"]));
        let results = log["runs"][0]["results"].as_array().unwrap().clone();
        let print = |it: &Value| it["partialFingerprints"]["primaryLocationLineHash"].to_string();
        results.iter().map(print).collect::<Vec<_>>()
    };
    let twice = format!("{ODD}{}", ODD.split_once("checkout@v4\n").unwrap().1);
    let first = prints(&twice);
    assert_eq!(first.len(), 4);
    let moved =
        twice.replace("    steps:\n", "    # One more line.\n    env: {A: 1}\n    steps:\n");
    assert_eq!(prints(&moved), first);
    assert_ne!(prints(&twice.replace("2.30.1", "2.30.2")), first);
    let mut each = first.clone();
    each.sort();
    each.dedup();
    assert_eq!(each.len(), 4, "no two are one");
}

#[test]
fn json_is_the_same_by_both_of_its_flags() {
    let place = tree(&[("ci.yml", ODD)]);
    let one = lint(&place, &["--json"]).fails();
    assert_eq!(one.stdout, lint(&place, &["--format", "json"]).fails().stdout);
    assert_eq!(lint(&place, &["--json", "--format", "sarif"]).code(), 2);
    assert_eq!(report(&one)["ok"], false);
    let empty = lint(&tree(&[("a.yml", OK)]), &["--format", "sarif"]).ok();
    assert_eq!(sarif(&empty)["runs"][0]["results"], Value::Array(vec![]));
}

const OK: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{run: 'true'}]\n";

#[test]
fn what_is_no_workflow_is_named_with_line_and_column_in_every_format() {
    let mut bomb = "on: push\njobs:\n  a: &a0 {x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n".to_owned();
    for level in 1..20 {
        let all = format!("*a{}, ", level - 1).repeat(9);
        bomb += &format!("  b{level}: &a{level} {{x: [{}]}}\n", all.trim_end_matches(", "));
    }
    let deep = format!("on: push\njobs: {}\n", "[".repeat(5_000));
    for (text, at, what) in [
        ("on: push\njobs: [\n", "3:1", "it is no YAML"),
        ("on: push\njobs:\n  a: 1\n\tb: 2\n", "3:6", "it is no YAML"),
        (
            "on: push\r\njobs:\r\n  a: {}\r\n  a: {}\r\n",
            "4:3",
            "the key \"a\" is there already, in line 3",
        ),
        ("\u{feff}a: 1\n", "1:1", "it has no `on`"),
        ("", "1:1", "it is empty"),
        ("# nothing\n", "1:1", "it is empty"),
        (bomb.as_str(), "", "it is an alias bomb: with the alias *a"),
        (deep.as_str(), "2:", ""),
    ] {
        let place = tree(&[("ci.yml", text)]);
        let told = lint(&place, &[]).fails();
        assert!(told.stdout.starts_with(&format!(".github/workflows/ci.yml:{at}")), "{told}");
        assert!(told.stdout.contains(what) && told.stdout.contains("[unreadable]"), "{told}");
        let found = reported(&place);
        assert_eq!(found.len(), 1);
        let place_of = format!("line={},col={}", found[0]["line"], found[0]["column"]);
        let github = lint(&place, &["--format", "github"]).fails();
        assert!(github.stdout.contains(&place_of), "{github}");
        let log = sarif(&lint(&place, &["--format", "sarif"]).fails());
        let region = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!(
            (&region["startLine"], &region["startColumn"]),
            (&found[0]["line"], &found[0]["column"])
        );
    }
    let place = tree(&[("good.yml", OK)]);
    fs::write(place.path().join("binary.yml"), [0u8, 159, 146, 150, 255, 10, 1]).unwrap();
    let binary = lint(&place, &["binary.yml"]).fails();
    assert!(binary.stdout.starts_with("binary.yml:1:"), "{binary}");
    assert!(binary.stdout.contains("[unreadable]"), "{binary}");
    fs::create_dir(place.path().join(".github/workflows/sub.yml")).unwrap();
    lint(&place, &[]).ok();
    for (name, said) in [
        (".github", ".github is a directory; name the workflows in it"),
        ("none.yml", "read the workflow none.yml"),
    ] {
        let told = lint(&place, &[name, "--json"]).fails();
        assert_eq!(report(&told)["ok"], false);
        assert!(told.stderr.contains(said), "{told}");
    }
}

#[test]
fn what_a_terminal_would_obey_is_shown() {
    let text = ODD
        .replace("nix-store-2.30.1,50%", "\"nix-store-\\e[31m2.30.1\"   # ")
        .replace("    key", "    key");
    let told = lint(&tree(&[("ci.yml", &text)]), &[]).fails();
    assert!(!told.stdout.contains('\u{1b}'), "{told}");
}

#[test]
fn a_workflow_of_a_megabyte_with_a_thousand_mistakes_is_read() {
    let mut long = ODD.replace('\n', "\r\n");
    long.insert(0, '\u{feff}');
    for n in 0..11_000 {
        long += &format!(
            "      - run: |\r\n          echo 'größe {n} 漢字 🦀' # a line of its own, of a hundred bytes or so\r\n"
        );
    }
    for n in 0..500 {
        let step = ODD.split_once("checkout@v4\n").unwrap().1.replace('\n', "\r\n");
        long += &step.replace("2.30.1", &format!("2.30.{n}"));
    }
    assert!(long.len() > 1 << 20);
    let place = tree(&[("ci.yml", &long)]);
    let found = reported(&place);
    assert_eq!(found.len(), 2 + 1_000);
    assert_eq!(
        line(found.last().unwrap()),
        format!("ci.yml {} error key-limits", long.lines().count())
    );
    let first = corrected(&long, &found[0]).unwrap();
    assert!(
        first.starts_with('\u{feff}')
            && first.contains("key: ${{ runner.arch }}-nix-store-2.30.1,50%")
    );
}
