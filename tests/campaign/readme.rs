//! The record of the last long campaign, and the table in the README that is made from it.
//!
//! `scripts/campaign --write` sets STORECACHE_CAMPAIGN_WRITE to the directory where the parts left their
//! figures. In this case both files are written here; otherwise they are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Map, Value, json};

use crate::support::dice::seed;

const BEGIN: &str = "<!-- scripts/campaign --write: begin -->\n";
const END: &str = "<!-- scripts/campaign --write: end -->";

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/record.json")
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// Adds the figures of a directory to the record, and replaces earlier figures of the same parts.
fn collect(directory: &Path, record: &mut Map<String, Value>) {
    for file in fs::read_dir(directory).unwrap().flatten() {
        let mut part: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        let name = part["part"].as_str().unwrap().to_owned();
        let about = part.as_object_mut().unwrap();
        about.insert("date".into(), said("date", &["--utc", "+%Y-%m-%d"]).into());
        about.insert("commit".into(), env::var("STORECACHE_CAMPAIGN_COMMIT").unwrap().into());
        about.insert("seed".into(), seed().into());
        about.insert("machine".into(), machine().into());
        record.insert(name, part);
    }
}

fn machine() -> String {
    let processors = std::thread::available_parallelism().unwrap();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!("{processors} processors ({model}), Linux {}", kernel.trim())
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The table, with a line for each kind of fault.
fn table(record: &Map<String, Value>) -> String {
    let number = |part: &Value, field: &str| part[field].as_u64().unwrap_or(0);
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in record.values().filter_map(|part| part["faults"].as_object()).flatten() {
        *faults.entry(kind).or_default() += count.as_u64().unwrap();
    }
    let parts = || record.values();
    let rows = faults.iter().map(|(kind, count)| (format!("faults: {kind}"), grouped(*count)));
    let mut rows: Vec<(String, String)> = rows.collect();
    let lost = parts().map(|part| number(part, "states_lost")).sum();
    rows.push(("faults of all kinds".into(), grouped(faults.values().sum())));
    rows.push(("**states lost**".into(), format!("**{}**", grouped(lost))));
    let back = parts().map(|part| number(part, "longest_to_daemon_ms")).max().unwrap_or(0);
    rows.push(("longest time to a running daemon".into(), format!("{:.2} s", back as f64 / 1e3)));
    if let Some(archives) = record.get("archives") {
        let refused = grouped(number(archives, "refused"));
        rows.push(("hostile archives, all of them refused".into(), refused));
    }
    let executions: u64 = parts().map(|part| number(part, "executions")).sum();
    if executions > 0 {
        let fuzzers = parts().filter(|part| part.get("executions").is_some());
        let seconds: f64 = fuzzers.filter_map(|part| part["seconds"].as_f64()).sum();
        rows.push(("executions of fuzzers".into(), grouped(executions)));
        rows.push(("hours of fuzzers".into(), format!("{:.1}", seconds / 3600.0)));
    }
    let rows: String = rows.iter().map(|(what, count)| format!("| {what} | {count} |\n")).collect();
    let of = |field: &str| {
        let mut values: Vec<&str> = parts().filter_map(|part| part[field].as_str()).collect();
        values.sort_unstable();
        values.dedup();
        values.join(", ")
    };
    let (date, commit, machine) = (of("date"), of("commit"), of("machine"));
    format!("| what | count |\n|---|---|\n{rows}\nOf {date}, commit {commit}, on {machine}.\n\n")
}

/// Formats a number with a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let lead = digits.len() % 3;
    let (first, rest) = digits.split_at(lead);
    let groups = rest.as_bytes().chunks(3).map(|group| std::str::from_utf8(group).unwrap());
    let groups: Vec<&str> =
        Some(first).filter(|it| !it.is_empty()).into_iter().chain(groups).collect();
    groups.join(",")
}

#[test]
fn the_table_of_faults_in_the_readme_is_that_of_the_record() {
    let mut kept: Value = serde_json::from_slice(&fs::read(record()).unwrap()).unwrap();
    let parts = kept.as_object_mut().unwrap();
    let text = fs::read_to_string(readme()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the README has a place for the table");
    let (shown, after) = rest.split_once(END).unwrap();
    if let Some(directory) = env::var_os("STORECACHE_CAMPAIGN_WRITE") {
        collect(Path::new(&directory), parts);
        fs::write(readme(), format!("{before}{BEGIN}{}{END}{after}", table(parts))).unwrap();
        fs::write(record(), format!("{kept:#}\n")).unwrap();
        return;
    }
    assert_eq!(shown, table(parts), "scripts/campaign --write makes the table");
}

#[test]
fn a_record_becomes_a_table() {
    let record = json!({
        "a": {"faults": {"SIGKILL": 1200, "power cut": 4}, "states_lost": 0,
              "longest_to_daemon_ms": 930, "seconds": 7200.5, "date": "2026-11-26", "commit": "abc", "machine": "m"},
        "b": {"faults": {"SIGKILL": 34}, "states_lost": 1, "date": "2026-11-27", "commit": "abc",
              "machine": "m"},
        "archives": {"refused": 1234567},
        "fuzz-head": {"executions": 999, "seconds": 1800},
        "fuzz-index": {"executions": 1, "seconds": 1800},
    });
    let table = table(record.as_object().unwrap());
    assert_eq!(
        table,
        "| what | count |\n|---|---|\n| faults: SIGKILL | 1,234 |\n| faults: power cut | 4 |\n\
         | faults of all kinds | 1,238 |\n| **states lost** | **1** |\n\
         | longest time to a running daemon | 0.93 s |\n\
         | hostile archives, all of them refused | 1,234,567 |\n| executions of fuzzers | 1,000 |\n\
         | hours of fuzzers | 1.0 |\n\nOf 2026-11-26, 2026-11-27, commit abc, on m.\n\n"
    );
}
