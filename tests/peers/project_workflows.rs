//! Tests of this project's workflows and of action.yml: three checkers accept them, actions are pinned,
//! permissions are minimal, and the work is done by scripts that also run locally.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::azurite::script;
use crate::support::plain_env::output;
use crate::support::workflows::{json_findings, tree};
use serde_json::{Map, Value};

const ACTION: &str = "action.yml";

/// The content of a file, and what the checkers report about it.
struct ValidatedFile {
    wrong: Vec<String>,
    document: Value,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names of all workflows, and their text.
fn workflows() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join(".github/workflows")).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, fs::read_to_string(file.path()).unwrap())
        })
        .collect()
}

#[track_caller]
fn validate(files: &[PathBuf]) -> Vec<ValidatedFile> {
    let output = output(script("project_workflows.mjs").args(files)).ok();
    let mut all: Map<String, Value> = serde_json::from_str(&output.stdout).unwrap();
    let of = |file: &PathBuf| {
        let mut judged = all.remove(file.to_str().unwrap()).unwrap();
        let wrong = serde_json::from_value(judged["wrong"].take()).unwrap();
        ValidatedFile { wrong, document: judged["document"].take() }
    };
    files.iter().map(of).collect()
}

/// Returns all workflows and action.yml by name. The checkers run only once.
fn all() -> &'static BTreeMap<String, ValidatedFile> {
    static ALL: OnceLock<BTreeMap<String, ValidatedFile>> = OnceLock::new();
    ALL.get_or_init(|| {
        let names: Vec<String> = workflows().into_keys().chain([ACTION.to_owned()]).collect();
        let path = |name: &String| match name.as_str() {
            ACTION => root().join(ACTION),
            workflow => root().join(".github/workflows").join(workflow),
        };
        let judged = validate(&names.iter().map(path).collect::<Vec<_>>());
        names.into_iter().zip(judged).collect()
    })
}

/// Returns the content of a file.
fn document(name: &str) -> &'static Value {
    &all()[name].document
}

fn documents() -> impl Iterator<Item = (&'static str, &'static Value)> {
    let workflows = all().iter().filter(|(name, _)| *name != ACTION);
    workflows.map(|(name, judged)| (name.as_str(), &judged.document))
}

/// Returns each job of all workflows, as `ci.yml test`.
fn jobs() -> Vec<(String, &'static Value)> {
    let of = |(file, document): (&'static str, &'static Value)| {
        let jobs = document["jobs"].as_object().unwrap();
        jobs.iter().map(move |(name, job)| (format!("{file} {name}"), job))
    };
    documents().flat_map(of).collect()
}

fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn validators_accept_the_workflows_and_the_action() {
    assert!(all().len() >= 4);
    for (name, judged) in all() {
        assert_eq!(judged.wrong, [""; 0], "{name}");
    }
}

#[test]
fn validators_reject_broken_workflows() {
    let workflows = workflows();
    let action = fs::read_to_string(root().join(ACTION)).unwrap();
    let kept = tempfile::tempdir().unwrap();
    // The checker, the file, the text that is replaced, and its replacement.
    let wrong = [
        ("schema", ACTION, "  post-if:", "  post-iff:"),
        ("GitHub", ACTION, "  post-if:", "  post-iff:"),
        ("GitHub", ACTION, "using: node24", "using: node23"),
        ("schema", ACTION, "    required: false", "    required: perhaps"),
        ("actionlint", "ci.yml", "ubuntu-24.04", "ubuntu-24.4"),
        ("actionlint", "ci.yml", "needs: build", "needs: built"),
        ("actionlint", "step.yml", "steps.store.outputs", "steps.stored.outputs"),
        ("schema", "ci.yml", "timeout-minutes", "timeout-minute"),
        ("GitHub", "ci.yml", "timeout-minutes", "timeout-minute"),
        ("GitHub", "release.yml", "attestations: write", "attestation: write"),
        ("actionlint", "release.yml", "attestations: write", "attestation: write"),
    ];
    let mut files = Vec::new();
    for (number, (_, name, from, to)) in wrong.iter().enumerate() {
        let text = if *name == ACTION { &action } else { &workflows[*name] };
        assert!(text.contains(from), "{name}: {from}");
        let directory = kept.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(name), text.replacen(from, to, 1)).unwrap();
        files.push(directory.join(name));
    }
    for ((who, name, _, to), judged) in wrong.iter().zip(validate(&files)) {
        let seen = judged.wrong.iter().any(|line| line.starts_with(who));
        assert!(seen, "{who} does not see {to} in {name}: {:?}", judged.wrong);
    }
}

#[test]
fn third_party_actions_are_pinned_by_commit_and_tag() {
    let mut commits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in workflows() {
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("- ");
            let Some(used) = line.strip_prefix("uses:") else { continue };
            let used = used.trim();
            if used.starts_with("./") {
                continue;
            }
            let (name, rest) = used.split_once('@').unwrap_or_else(|| panic!("{file}: {used}"));
            let (commit, tag) = rest.split_once(" # ").unwrap_or_else(|| panic!("{file}: {used}"));
            let is_commit = commit.len() == 40
                && commit.bytes().all(|it| it.is_ascii_digit() || matches!(it, b'a'..=b'f'));
            assert!(is_commit, "{file}: {used}");
            let numbers = tag.strip_prefix('v').unwrap_or_default().split('.');
            let numbers: Vec<_> = numbers.map(|part| part.parse::<u32>()).collect();
            let is_exact = numbers.len() == 3 && numbers.iter().all(Result::is_ok);
            assert!(is_exact, "{file}: {used}");
            commits.entry(name.to_owned()).or_default().insert(rest.to_owned());
        }
    }
    assert!(commits.len() >= 4, "{commits:?}");
    for (name, pins) in commits {
        assert_eq!(pins.len(), 1, "{name}: {pins:?}");
    }
}

#[test]
fn jobs_have_minimal_permissions() {
    for (file, document) in documents() {
        assert_eq!(document["permissions"], Value::Object(Map::new()), "{file}: for all jobs");
    }
    for (place, job) in jobs() {
        let rights = job["permissions"].as_object();
        let rights = rights.unwrap_or_else(|| panic!("{place}: does not set permissions"));
        let may: BTreeSet<_> = rights.iter().map(|(it, how)| (it.as_str(), how.as_str())).collect();
        let publishes = place == "release.yml publish";
        let expected: &[_] = match publishes {
            true => &[("attestations", "write"), ("contents", "write"), ("id-token", "write")],
            false => &[("contents", "read")],
        };
        let expected = expected.iter().map(|&(it, how)| (it, Some(how))).collect();
        assert_eq!(may, expected, "{place}");
        let checkouts = steps(job).iter().filter(|step| {
            step["uses"].as_str().is_some_and(|used| used.starts_with("actions/checkout@"))
        });
        for step in checkouts {
            let persists = step["with"]["persist-credentials"].as_bool();
            assert_eq!(persists, Some(publishes), "{place}: persists its token for later steps");
        }
        let secret = job.to_string().contains("secrets");
        assert!(!secret, "{place}: a secret");
    }
}

#[test]
fn jobs_have_timeouts_and_concurrency_groups() {
    for (file, document) in documents() {
        let called = document["on"].get("workflow_call").is_some();
        assert!(called || document["concurrency"]["group"].is_string(), "{file}");
    }
    let early = &document("release.yml")["concurrency"]["cancel-in-progress"];
    assert_eq!(early, false, "a release must not be canceled");
    for (place, job) in jobs() {
        if job["uses"].is_null() {
            let minutes = job["timeout-minutes"].as_u64();
            assert!(minutes.is_some_and(|it| it <= 120), "{place}: {minutes:?}");
        }
    }
}

#[test]
fn jobs_run_only_existing_scripts() {
    let mut ran = BTreeSet::new();
    for (place, job) in jobs() {
        for step in steps(job) {
            let Some(run) = step["run"].as_str() else { continue };
            assert_eq!(run.trim().lines().count(), 1, "{place}: {run}");
            assert!(!run.contains("${{"), "{place}: a value becomes code in {run}");
            let words: Vec<_> = run.split_whitespace().collect();
            let directory = step["working-directory"].as_str().unwrap_or_default();
            let Some(script) = words[0].strip_prefix("./") else {
                assert!(["sudo", "install"].contains(&words[0]), "{place}: {run}");
                continue;
            };
            let path = root().join(directory).join(script);
            let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{place}: {run}: {e}"));
            assert!(mode.permissions().mode() & 0o111 != 0, "{place}: {run}");
            let argument = if script == "scripts/release" { words[1] } else { "" };
            ran.insert(format!("{place}: {script} {argument}").trim_end().to_owned());
        }
    }
    let has = |line: &str| assert!(ran.contains(line), "{line} is not in {ran:#?}");
    has("ci.yml test: scripts/test");
    has("ci.yml build: scripts/build-release");
    has("ci.yml crates: scripts/crates");
    has("ci.yml oldest-rust: scripts/oldest-rust");
    has("release.yml build: scripts/build-release");
    has("release.yml reproduce: scripts/reproduce");
    has("release.yml try: scripts/check-release");
    // The workflow runs each subcommand of `scripts/release`.
    let usage = fs::read_to_string(root().join("scripts/release")).unwrap();
    let parts = usage.lines().filter_map(|line| line.strip_prefix("#   scripts/release "));
    let parts: Vec<_> = parts.map(|rest| rest.split(' ').next().unwrap()).collect();
    assert_eq!(parts, ["check", "checksums", "record", "publish", "major"]);
    for part in parts {
        let job = if part == "check" { "build" } else { "publish" };
        has(&format!("release.yml {job}: scripts/release {part}"));
    }
}

#[test]
fn release_workflow_has_the_expected_order() {
    let release = document("release.yml");
    let on = release["on"].as_object().unwrap();
    assert_eq!(on.keys().collect::<Vec<_>>(), ["push"]);
    assert_eq!(on["push"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tags"]);
    let needs = |job: &str| match &release["jobs"][job]["needs"] {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        Value::Array(some) => some.iter().map(|it| it.as_str().unwrap()).collect(),
        _ => BTreeSet::new(),
    };
    assert_eq!(needs("try"), BTreeSet::from(["build"]));
    assert_eq!(needs("reproduce"), BTreeSet::from(["build"]));
    assert_eq!(needs("publish"), BTreeSet::from(["reproduce", "try"]));
    let word = |step: &Value| match (step["uses"].as_str(), step["run"].as_str()) {
        (Some(used), _) => used.split('@').next().unwrap().to_owned(),
        (_, Some(run)) => run.split(' ').nth(1).unwrap().to_owned(),
        _ => panic!("{step}"),
    };
    let order: Vec<_> = steps(&release["jobs"]["publish"]).iter().map(word).collect();
    let expected = [
        "actions/checkout",
        "actions/download-artifact",
        "checksums",
        "actions/attest-build-provenance",
        "record",
        "publish",
        "major",
    ];
    assert_eq!(order, expected);
    // The programs that are published are tried, each on a machine of its architecture.
    let matrix = release["jobs"]["try"]["strategy"]["matrix"]["include"].as_array().unwrap();
    let pairs: BTreeSet<_> =
        matrix.iter().map(|it| (it["runner"].as_str(), it["target"].as_str())).collect();
    let expected = BTreeSet::from([
        (Some("ubuntu-24.04"), Some("x86_64-unknown-linux-gnu")),
        (Some("ubuntu-24.04-arm"), Some("aarch64-unknown-linux-gnu")),
    ]);
    assert_eq!(pairs, expected);
}

#[test]
fn ci_runs_the_action_on_every_runner_with_nix_and_guix() {
    let action = document(ACTION);
    let own = steps(&document("step.yml")["jobs"]["step"]).iter();
    let own: Vec<_> = own.filter(|step| step["uses"] == "./").collect();
    assert_eq!(own.len(), 1);
    for input in own[0]["with"].as_object().unwrap().keys() {
        assert!(action["inputs"].get(input).is_some(), "there is no input {input}");
    }
    for job in ["save", "restore"] {
        let job = &document("ci.yml")["jobs"][job];
        assert_eq!(job["uses"], "./.github/workflows/step.yml");
        let matrix = &job["strategy"]["matrix"];
        let runners = serde_json::json!(["ubuntu-22.04", "ubuntu-24.04", "ubuntu-24.04-arm"]);
        assert_eq!(matrix["runner"], runners);
        assert_eq!(matrix["store"], serde_json::json!(["nix", "guix"]));
    }
    assert_eq!(document("ci.yml")["jobs"]["restore"]["with"]["restores"], true);
}

#[test]
fn lint_has_no_findings_in_the_workflows() {
    let workflows = workflows();
    let pairs: Vec<_> =
        workflows.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(json_findings(&tree(&pairs)), [Value::Null; 0]);
}
