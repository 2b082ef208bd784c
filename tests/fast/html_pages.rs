//! Tests of the pages that commands write with `--html`.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::support::cache_service::CacheService;
use crate::support::git_history::{DAY, History, WORKFLOW, workflow};
use crate::support::html_text::html_text;
use crate::support::plain_env::{self, PlainEnv};
use crate::support::rest_service::{RestService, Row};
use crate::support::world_runs::report;
use storecache::report::html::{Page, Section, Table};
use tempfile::TempDir;

#[test]
fn simulate_page_shows_hits_bytes_and_evictions_per_policy() {
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
    let seen = html_text(&fs::read_to_string(&page).unwrap());
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
        "Evicted or expired entries",
        "<script>alert(1)</script>",
        "every commit is a run",
    ] {
        assert!(seen.contains(words), "{words}\n{seen}");
    }
    for policy in ["bytes", "semantic", "lock", "version"] {
        let row = seen.lines().find(|line| line.starts_with(&format!("{policy}\t")));
        let cells: Vec<_> = row.unwrap_or_else(|| panic!("{seen}")).split('\t').collect();
        assert_eq!(cells[5], of(policy, "entries_written").to_string(), "{cells:?}");
        assert_eq!(cells[8], of(policy, "evictions").to_string(), "{cells:?}");
    }
}

/// Returns the text of the page of `usage --html`.
fn usage(command: &mut Command) -> String {
    let directory = TempDir::new().unwrap();
    let page = directory.path().join("usage.html");
    let printed = plain_env::output(command.args(["--json", "--html"]).arg(&page)).ok();
    assert!(report(&printed)["entries"].is_array());
    html_text(&fs::read_to_string(&page).unwrap())
}

#[track_caller]
fn shows(seen: &str, words: &[&str]) {
    for words in words {
        assert!(seen.contains(words), "{words}\n{seen}");
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
            "By key prefix",
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

#[test]
fn hostile_names_show_as_text() {
    let names = [
        "<script>document.title='owned';alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style><iframe src=https://example.org/>",
        "&lt;b&gt;&#60;",
        "javascript:alert(1)",
    ];
    let mut table = Table::new(names[1]).text(names[2]).number(names[3]);
    names.iter().for_each(|name| table.row([*name, *name]));
    let section = Section::new(names[0]).paragraph(names[1]).table(table);
    let section = section.figures(names.map(|name| (name, name)));
    let page = Page { title: names[1].into(), subtitle: names[2].into(), sections: vec![section] };
    shows(&html_text(&page.render()), &names);
}

#[test]
fn long_table_is_truncated() {
    let mut table = Table::new("Rows").text("Row");
    (0..10_000).for_each(|row| table.row([format!("row {row}")]));
    let section = Section::new("Long").table(table);
    let page = Page { title: "Long".into(), sections: vec![section], ..Page::default() };
    shows(&html_text(&page.render()), &["row 199\t", "and 9800 more rows"]);
}
