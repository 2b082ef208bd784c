//! Work trees with workflows, and the findings of `lint` in them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::invocation::Output;
use super::plain_env::storecache_in;
use super::world_runs::report;

/// A workflow without mistakes.
pub const GOOD: &str = "\
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

/// A work tree with these workflows and some lock files.
pub fn tree(workflows: &[(&str, &str)]) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join(".github/workflows")).unwrap();
    for lock in ["flake.lock", "devbox.lock", "channels.scm"] {
        fs::write(tree.path().join(lock), "{}").unwrap();
    }
    for (name, text) in workflows {
        write(tree.path(), name, text);
    }
    tree
}

pub fn write(tree: &Path, name: &str, text: &str) {
    fs::write(tree.join(".github/workflows").join(name), text).unwrap();
}

pub fn lint(tree: &TempDir, more: &[&str]) -> Output {
    storecache_in(tree.path(), ["lint"].iter().chain(more))
}

/// The findings in a tree, from the JSON report.
pub fn json_findings(tree: &TempDir) -> Vec<Value> {
    let output = lint(tree, &["--json"]);
    let report = report(&output);
    let found = report["findings"].as_array().unwrap().clone();
    assert_eq!(
        (output.code(), &report["ok"]),
        (i32::from(!found.is_empty()), &Value::Bool(found.is_empty()))
    );
    found
}

/// File, line, level and rule of a finding.
pub fn line(finding: &Value) -> String {
    let field = |name: &str| match &finding[name] {
        Value::String(text) => text.trim_start_matches(".github/workflows/").to_owned(),
        other => other.to_string(),
    };
    ["file", "line", "level", "rule"].map(field).join(" ")
}

/// Applies the correction of a finding to a source, independently of the program.
pub fn apply_correction(source: &str, finding: &Value) -> Option<String> {
    let lines = finding["lines"].as_object()?;
    let number = |name: &str| lines[name].as_u64().unwrap() as usize;
    let mut all: Vec<&str> = source.split('\n').collect();
    let last = all[number("to") - 1];
    let end = if last.ends_with('\r') { "\r" } else { "" };
    let text = lines["text"].as_str().unwrap().to_owned() + end;
    all.splice(number("from") - 1..number("to"), [text.as_str()]);
    Some(all.join("\n"))
}

/// File, line, level and rule of each finding.
pub fn findings(workflows: &[(&str, &str)]) -> Vec<String> {
    json_findings(&tree(workflows)).iter().map(line).collect()
}

/// The findings in one workflow that runs these steps on a push.
pub fn findings_of_steps(steps: &str) -> Vec<String> {
    let top = "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n";
    findings(&[("ci.yml", &format!("{top}{steps}"))])
}
