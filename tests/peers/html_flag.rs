//! Tests of the pages that commands write with `--html`, as a browser shows them.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::support::browser::{RenderedPage, render_file};
use crate::support::cache_service::CacheService;
use crate::support::git_history::{DAY, History, WORKFLOW, workflow};
use crate::support::plain_env::{self, PlainEnv};
use crate::support::rest_service::{RestService, Row};
use crate::support::world_runs::report;
use tempfile::TempDir;

#[test]
fn simulate_html_shows_hits_bytes_and_evictions_per_policy() {
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
    let seen = render_file(&page).fine();
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
fn usage(command: &mut Command) -> RenderedPage {
    let directory = TempDir::new().unwrap();
    let page = directory.path().join("usage.html");
    let printed = plain_env::output(command.args(["--json", "--html"]).arg(&page)).ok();
    assert!(report(&printed)["entries"].is_array());
    render_file(&page).fine()
}

#[track_caller]
fn shows(seen: &RenderedPage, words: &[&str]) {
    for words in words {
        assert!(seen.text.contains(words), "{words}\n{}", seen.text);
    }
}

#[test]
fn usage_html_of_a_directory_shows_entries_and_items() {
    let place = PlainEnv::filled();
    for key in ["tools-x86_64-1", "tools-x86_64-2", "other-<i>'&\"\u{202e}"] {
        place.write("/opt/tool/version", key);
        let key = ["--key", key];
        let more = ["/opt/tool", "/var/lib/data"];
        let mut command = Command::new(plain_env::binary());
        command.args(["save", "--store", "plain", "--root"]).arg(place.root()).args(key);
        command.arg("--backend").arg(format!("dir:{}", place.entries().display()));
        plain_env::output(command.args(more.iter().flat_map(|path| ["--path", path]))).ok();
    }
    fs::write(place.entries().join("broken.20260102T030405.000006Z.tar.zst"), "x").unwrap();
    let mut command = Command::new(plain_env::binary());
    command.args(["usage", "--limit", "1G", "--and", "1G", "--backend"]);
    command.arg(format!("dir:{}", place.entries().display()));
    let seen = usage(&mut command);
    shows(
        &seen,
        &[
            "Contents of the cache",
            "Entries by key prefix",
            "Bytes kept",
            "By ref",
            "By last use",
            "Unreadable",
            "Would be deleted by `storecache prune`",
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
    let mut command = Command::new(plain_env::binary());
    command.args(["usage", "--backend"]).arg(format!("dir:{}", nothing.path().display()));
    shows(&usage(&mut command), &["has no entries"]);
}

#[test]
fn usage_html_of_a_repository_shows_the_next_evictions() {
    let rest = RestService::over(&Arc::new(CacheService::start()));
    rest.allow_all_refs();
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
        rest.add_entry(row(&key, reference, number % 25 + 1, 100 << 20));
    }
    rest.add_entry(row("cargo-<script>alert(1)</script>", "refs/heads/ü\u{202e}b", 3, 7 << 30));
    rest.hide_other_pull_requests(&[7]);
    rest.close_pull_request(7);
    let home = TempDir::new().unwrap();
    let mut command = Command::new(plain_env::binary());
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
