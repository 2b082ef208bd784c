//! The record of the last long campaign, the table in `docs/faults.md`, and the figures in the README.
//!
//! `scripts/campaign --write` sets STORECACHE_CAMPAIGN_WRITE to the directory where the parts left their
//! figures. In this case the record and both pages are written here; otherwise they are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Map, Value, json};

use crate::support::rng::seed;

const BEGIN: &str = "<!-- scripts/campaign --write: begin -->\n";
const END: &str = "<!-- scripts/campaign --write: end -->";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn record() -> PathBuf {
    path("tests/campaign/record.json")
}

/// Adds the figures of a directory to the record, and replaces earlier figures of the same parts.
fn collect(directory: &Path, record: &mut Map<String, Value>) {
    for file in fs::read_dir(directory).unwrap().flatten() {
        let mut part: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        let name = part["part"].as_str().unwrap().to_owned();
        let about = part.as_object_mut().unwrap();
        about.insert("date".into(), command_output("date", &["--utc", "+%Y-%m-%d"]).into());
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

fn command_output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns a field of a part, or 0 if the part does not have it.
fn number(part: &Value, field: &str) -> u64 {
    part[field].as_u64().unwrap_or(0)
}

fn states_lost(record: &Map<String, Value>) -> u64 {
    record.values().map(|part| number(part, "states_lost")).sum()
}

/// Returns the longest time until a daemon ran again, in seconds with two digits.
fn longest_to_daemon(record: &Map<String, Value>) -> String {
    let times = record.values().map(|part| number(part, "longest_to_daemon_ms"));
    format!("{:.2} s", times.max().unwrap_or(0) as f64 / 1e3)
}

/// Returns the sentence for the README.
fn summary(record: &Map<String, Value>) -> String {
    let faults = record.values().filter_map(|part| part["faults"].as_object()).flatten();
    let faults: u64 = faults.map(|(_, count)| count.as_u64().unwrap()).sum();
    format!(
        "{} injected faults, **{} states lost**; longest time to a running daemon: {}.\n",
        grouped(faults),
        grouped(states_lost(record)),
        longest_to_daemon(record)
    )
}

/// The table, with a line for each kind of fault.
fn table(record: &Map<String, Value>) -> String {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in record.values().filter_map(|part| part["faults"].as_object()).flatten() {
        *faults.entry(kind).or_default() += count.as_u64().unwrap();
    }
    let parts = || record.values();
    let rows = faults.iter().map(|(kind, count)| (format!("faults: {kind}"), grouped(*count)));
    let mut rows: Vec<(String, String)> = rows.collect();
    rows.push(("faults of all kinds".into(), grouped(faults.values().sum())));
    rows.push(("**states lost**".into(), format!("**{}**", grouped(states_lost(record)))));
    rows.push(("longest time to a running daemon".into(), longest_to_daemon(record)));
    if let Some(archives) = record.get("archives") {
        let refused = grouped(number(archives, "refused"));
        rows.push(("malicious archives, all of them refused".into(), refused));
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
fn figures_of_the_pages_match_the_record() {
    let mut kept: Value = serde_json::from_slice(&fs::read(record()).unwrap()).unwrap();
    let parts = kept.as_object_mut().unwrap();
    let directory = env::var_os("STORECACHE_CAMPAIGN_WRITE");
    if let Some(directory) = &directory {
        collect(Path::new(directory), parts);
    }
    for (name, figures) in [("docs/faults.md", table(parts)), ("README.md", summary(parts))] {
        let text = fs::read_to_string(path(name)).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect(name);
        let (shown, after) = rest.split_once(END).expect(name);
        if directory.is_some() {
            fs::write(path(name), format!("{before}{BEGIN}{figures}{END}{after}")).unwrap();
        } else {
            assert_eq!(shown, figures, "{name}: scripts/campaign --write makes this part");
        }
    }
    if directory.is_some() {
        fs::write(record(), format!("{kept:#}\n")).unwrap();
    }
}

#[test]
fn a_record_becomes_a_table_and_a_sentence() {
    let record = json!({
        "a": {"faults": {"SIGKILL": 1200, "power cut": 4}, "states_lost": 0,
              "longest_to_daemon_ms": 930, "seconds": 7200.5, "date": "2026-11-26", "commit": "abc", "machine": "m"},
        "b": {"faults": {"SIGKILL": 34}, "states_lost": 1, "date": "2026-11-27", "commit": "abc",
              "machine": "m"},
        "archives": {"refused": 1234567},
        "fuzz-head": {"executions": 999, "seconds": 1800},
        "fuzz-index": {"executions": 1, "seconds": 1800},
    });
    let record = record.as_object().unwrap();
    assert_eq!(
        summary(record),
        "1,238 injected faults, **1 states lost**; longest time to a running daemon: 0.93 s.\n"
    );
    assert_eq!(
        table(record),
        "| what | count |\n|---|---|\n| faults: SIGKILL | 1,234 |\n| faults: power cut | 4 |\n\
         | faults of all kinds | 1,238 |\n| **states lost** | **1** |\n\
         | longest time to a running daemon | 0.93 s |\n\
         | malicious archives, all of them refused | 1,234,567 |\n| executions of fuzzers | 1,000 |\n\
         | hours of fuzzers | 1.0 |\n\nOf 2026-11-26, 2026-11-27, commit abc, on m.\n\n"
    );
}
