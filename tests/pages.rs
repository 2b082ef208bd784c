//! Tests of the pages that commands write with `--html`, as a browser shows them.

mod support;

use std::fs;
use std::process::Command;
use std::sync::Arc;

use support::browser::{Seen, look_at_file};
use support::cache_service::CacheService;
use support::history::{DAY, History, WORKFLOW, workflow};
use support::place::{self, Place};
use support::rest_service::{RestService, Row};
use support::runs::report;
use tempfile::TempDir;

#[test]
fn a_simulation_is_a_page_with_hits_bytes_and_evictions_for_each_key() {
    let mut history = History::default();
    for day in 0..60 {
        let text = workflow(&format!("build {}", day / 20), &format!("edited {day}"));
        history.commit("main", day * DAY, &[], &[(WORKFLOW, &text)]);
    }
    let repository = history.write();
    let page = repository.path().join("simulation.html");
    let name = "<script>alert(1)</script>&'\"\u{202e}";
    let policy = format!("{name}=files:.github/**");
    let html = page.to_str().unwrap();
    let words = ["--html", html, "--entry-size", "3GB", "--policy", &policy];
    let report = repository.simulate(&words);
    let seen = look_at_file(&page).fine();
    let best = report["best"]["policy"].as_str().unwrap();
    let reason = report["best"]["reason"].as_str().unwrap();
    let of = |policy: &str, field: &str| {
        let policies = report["policies"].as_array().unwrap();
        policies.iter().find(|it| it["policy"] == policy).unwrap()[field].as_u64().unwrap()
    };
    assert!(of("bytes", "evictions") > 0);
    for words in [
        "Which key would have served best",
        "60 runs of .github/workflows",
        &format!("{best}: {reason}."),
        "Exact hits",
        "Hits of any kind",
        "Bytes kept",
        "entries were evicted",
        "limit",
        "<script>alert(1)</script>",
        "every commit is a run",
    ] {
        assert!(seen.text.contains(words), "{words}\n{}", seen.text);
    }
    for policy in ["bytes", "semantic", "lock", "version"] {
        let row = seen.text.lines().find(|line| line.starts_with(&format!("{policy}\t")));
        let cells: Vec<_> = row.unwrap_or_else(|| panic!("{}", seen.text)).split('\t').collect();
        assert_eq!(cells[5], of(policy, "entries_written").to_string(), "{cells:?}");
        assert_eq!(cells[8], of(policy, "evictions").to_string(), "{cells:?}");
    }
}

/// Returns the page of `usage --html` as a browser shows it.
fn usage(command: &mut Command) -> Seen {
    let directory = TempDir::new().unwrap();
    let page = directory.path().join("usage.html");
    let told = place::output(command.args(["--json", "--html"]).arg(&page)).ok();
    assert!(report(&told)["entries"].is_array());
    look_at_file(&page).fine()
}

#[track_caller]
fn shows(seen: &Seen, words: &[&str]) {
    for words in words {
        assert!(seen.text.contains(words), "{words}\n{}", seen.text);
    }
}

#[test]
fn the_usage_of_a_directory_is_a_page_with_what_fills_it_and_its_newest_snapshot() {
    let place = Place::filled();
    for key in ["tools-x86_64-1", "tools-x86_64-2", "other-<i>'&\"\u{202e}"] {
        place.write("/opt/tool/version", key);
        let key = ["--key", key];
        let more = ["/opt/tool", "/var/lib/data"];
        let mut command = Command::new(place::binary());
        command.args(["save", "--store", "plain", "--root"]).arg(place.root()).args(key);
        command.arg("--backend").arg(format!("dir:{}", place.entries().display()));
        place::output(command.args(more.iter().flat_map(|path| ["--path", path]))).ok();
    }
    fs::write(place.entries().join("broken.20260102T030405.000006Z.tar.zst"), "x").unwrap();
    let mut command = Command::new(place::binary());
    command.args(["usage", "--limit", "1G", "--and", "1G", "--backend"]);
    command.arg(format!("dir:{}", place.entries().display()));
    let seen = usage(&mut command);
    shows(
        &seen,
        &[
            "What is in the cache",
            "Entries by key prefix",
            "Bytes kept",
            "By ref",
            "By last use",
            "Unreadable",
            "What `storecache prune` would delete",
            "When 1.0 GiB more are saved",
            "A directory evicts nothing",
            "To keep everything costs nothing",
            "Size by item",
            "opt/tool",
            "other-<i>'&\"",
        ],
    );
    // An empty backend is reported as such.
    let nothing = TempDir::new().unwrap();
    let mut command = Command::new(place::binary());
    command.args(["usage", "--backend"]).arg(format!("dir:{}", nothing.path().display()));
    shows(&usage(&mut command), &["has no entries"]);
}

#[test]
fn the_usage_of_a_repository_is_a_page_with_duplicates_and_what_goes_next() {
    let rest = RestService::over(&Arc::new(CacheService::start()));
    rest.shows_all_refs();
    let row = |key: &str, reference: &str, day: u32, size| Row {
        key: key.into(),
        reference: reference.into(),
        size,
        created: format!("2026-11-{day:02}T00:00:00Z"),
        used: format!("2026-11-{day:02}T01:00:00Z"),
        ..Row::default()
    };
    let pull = "refs/pull/7/merge";
    for number in 1..=60u32 {
        let key = format!("node-linux-{number:064x}");
        let reference = if number % 3 == 0 { pull } else { "refs/heads/main" };
        rest.holds(row(&key, reference, number % 25 + 1, 100 << 20));
    }
    rest.holds(row("cargo-<script>alert(1)</script>", "refs/heads/ü\u{202e}b", 3, 7 << 30));
    rest.knows_pulls(&[7]);
    rest.closes(7);
    let home = TempDir::new().unwrap();
    let mut command = Command::new(place::binary());
    command.args(["usage", "--backend", "github", "--and", "2G"]).current_dir(home.path());
    command.env_remove("GITHUB_REF").env_remove("GH_TOKEN").env("HOME", home.path());
    command.envs(rest.variables());
    shows(
        &usage(&mut command),
        &[
            "refs/pull/7/merge",
            "Of closed pull requests",
            "Next entries to be evicted",
            "unused for more than 7 days",
            "To keep everything, with a higher limit, costs",
            "cargo-<script>alert(1)</script>",
            "No snapshot can be read from here",
        ],
    );
}
