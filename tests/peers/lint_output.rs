//! Tests of the output of `lint`: annotations, SARIF, JSON, and messages about files that are not workflows.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::azurite::peers;
use crate::support::plain_env::output;
use crate::support::workflows::{apply_correction, json_findings, line, lint, tree};
use crate::support::world_runs::report;
use serde_json::Value;

/// A workflow with a mistake, whose name and key have special characters.
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
fn annotations_are_single_lines_with_escaped_text() {
    let name = "größe 漢字, 50%: a.yml";
    let place = tree(&[(name, ODD)]);
    let output = lint(&place, &["--format", "github"]).fails();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{output}");
    let at = "::warning file=.github/workflows/größe 漢字%2C 50%25%3A a.yml,line=10,col=16,title=storecache key-system::";
    assert!(lines[0].starts_with(at), "{output}");
    let text = lines[0].strip_prefix(at).unwrap();
    assert!(text.contains("%0Ato do: put ${{ runner.arch }} into the key"), "{text}");
    assert!(text.contains("%0A-           key: nix-store-2.30.1,50%25-größe"), "{text}");
    assert!(lines[1].starts_with("::error file="), "{output}");
    let good = lint(&tree(&[]), &["--format", "github"]).fails();
    assert!(good.stdout.is_empty() && good.stderr.contains("has no workflow"), "{good}");
}

fn sarif(output: &crate::support::Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

#[test]
fn sarif_output_passes_the_sarif_multitool() {
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
    let named: Vec<_> =
        workflows.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let place = tree(&named);
    let printed = lint(&place, &["--format", "sarif"]).fails();
    let log = sarif(&printed);
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), json_findings(&place).len());
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
    fs::write(&file, &printed.stdout).unwrap();
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
        // Except for the project's address, which `lint` does not have.
        .filter(|line| !line.contains("does not provide 'informationUri'"))
        .collect();
    assert_eq!(wrong, [""; 0]);
    assert!(judged.stdout.contains("Analysis completed successfully"), "{judged}");
}

#[test]
fn sarif_fingerprint_is_stable_when_lines_move() {
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
    assert_eq!(each.len(), 4, "all fingerprints differ");
}

#[test]
fn json_flag_equals_format_json() {
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
fn invalid_workflow_is_reported_with_line_and_column() {
    let mut bomb = "on: push\njobs:\n  a: &a0 {x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n".to_owned();
    for level in 1..20 {
        let all = format!("*a{}, ", level - 1).repeat(9);
        bomb += &format!("  b{level}: &a{level} {{x: [{}]}}\n", all.trim_end_matches(", "));
    }
    let deep = format!("on: push\njobs: {}\n", "[".repeat(5_000));
    for (text, at, what) in [
        ("on: push\njobs: [\n", "3:1", "not valid YAML"),
        ("on: push\njobs:\n  a: 1\n\tb: 2\n", "3:6", "not valid YAML"),
        (
            "on: push\r\njobs:\r\n  a: {}\r\n  a: {}\r\n",
            "4:3",
            "duplicate key \"a\", first used in line 3",
        ),
        ("\u{feff}a: 1\n", "1:1", "it has no `on`"),
        ("", "1:1", "the file is empty"),
        ("# nothing\n", "1:1", "the file is empty"),
        (bomb.as_str(), "", "alias bomb: with the alias *a"),
        (deep.as_str(), "2:", ""),
    ] {
        let place = tree(&[("ci.yml", text)]);
        let output = lint(&place, &[]).fails();
        assert!(output.stdout.starts_with(&format!(".github/workflows/ci.yml:{at}")), "{output}");
        assert!(output.stdout.contains(what) && output.stdout.contains("[unreadable]"), "{output}");
        let found = json_findings(&place);
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
        (".github", ".github is a directory\nhint: name the workflows in it"),
        ("none.yml", "read the workflow none.yml"),
    ] {
        let output = lint(&place, &[name, "--json"]).fails();
        assert_eq!(report(&output)["ok"], false);
        assert!(output.stderr.contains(said), "{output}");
    }
}

#[test]
fn lint_output_escapes_terminal_sequences() {
    let text = "on: pull_request\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n\
                \x20     - uses: me/storecache@v1\n        with:\n          key: \"nix-2.30.1-x64-\\e[31m\"\n";
    let output = lint(&tree(&[("ci.yml", text)]), &[]).fails();
    assert!(
        output.stdout.contains("under nix-2.30.1-x64-\\x1b[31m on the default branch"),
        "{output}"
    );
}

#[test]
fn lint_reports_a_thousand_findings_in_a_large_workflow() {
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
    let found = json_findings(&place);
    assert_eq!(found.len(), 2 + 1_000);
    assert_eq!(
        line(found.last().unwrap()),
        format!("ci.yml {} error key-limits", long.lines().count())
    );
    let first = apply_correction(&long, &found[0]).unwrap();
    assert!(
        first.starts_with('\u{feff}')
            && first.contains("key: ${{ runner.arch }}-nix-store-2.30.1,50%")
    );
}

#[test]
fn level_error_ignores_warnings() {
    let keeps = |on: &str, more: &str| {
        format!(
            "on: {on}\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - uses: actions/checkout@v4\n\
             \x20     - uses: example/storecache@v1\n{more}"
        )
    };
    let warned = tree(&[("ci.yml", &keeps("pull_request", ""))]);
    lint(&warned, &[]).fails();
    let report = report(&lint(&warned, &["--level", "error", "--json"]).ok());
    assert_eq!((&report["ok"], report["findings"].as_array().unwrap().len()), (&true.into(), 1));
    let wrong =
        tree(&[("ci.yml", &keeps("push", "      - run: sudo tar -xf x.tar -C / nix/store\n"))]);
    lint(&wrong, &["--level", "error"]).fails();
    assert_eq!(lint(&warned, &["--level", "none"]).code(), 2);
}
