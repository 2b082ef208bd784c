//! Tests of `list`, `usage` and `prune`: over GitHub's REST API, as at a terminal without a cache service, and
//! over a directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::support::cache_service::CacheService;
use crate::support::plain_env::{self, PlainEnv};
use crate::support::rest_service::{Call, Fault, REPOSITORY, RestService, Row, TOKEN};
use crate::support::world_runs::{report, run, save};
use crate::support::{Fixture, Output, Role, World, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use storecache_snapshot::{cache_version, cache_version_of};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the layout of a Nix store, as its entries have it.
fn layout() -> String {
    cache_version("nix", "/nix/store", "x86_64-linux").to_string()
}

/// Returns the time this many hours ago.
fn ago(hours: i64) -> jiff::Timestamp {
    let second = jiff::Timestamp::now().as_second() - hours * 3600;
    jiff::Timestamp::from_second(second).unwrap()
}

/// Returns a generation of a key, this many hours old, on the default branch.
fn generation(key: &str, hours: i64, size: u64) -> Row {
    let created = ago(hours);
    Row {
        key: format!("{key}.{}", created.strftime("%Y%m%dT%H%M%S.000000Z")),
        version: layout(),
        size,
        created: created.to_string(),
        used: created.to_string(),
        ..Row::default()
    }
}

fn on(reference: &str, row: Row) -> Row {
    Row { reference: reference.into(), ..row }
}

/// A repository as a maintainer accesses it, and a working directory.
struct TestRepository {
    rest: RestService,
    home: TempDir,
}

impl TestRepository {
    fn new() -> TestRepository {
        let rest = RestService::over(&Arc::new(CacheService::start()));
        rest.allow_all_refs();
        TestRepository { rest, home: tempfile::tempdir().unwrap() }
    }

    /// Returns a repository with entries of every kind, the keys that are pruned, and the keys that stay.
    fn filled() -> (TestRepository, Vec<String>, Vec<String>) {
        let terminal = TestRepository::new();
        let hash = |digit: &str| format!("storecache-nix-x86_64-linux-2.8.0-{}", digit.repeat(32));
        let old_layout = cache_version_of(1, "nix", "/nix/store", "x86_64-linux").to_string();
        let (a, b) = (hash("a"), hash("b"));
        let goes = [
            generation(&a, 30, 300),
            generation(&a, 40, 200),
            on("refs/pull/7/merge", generation(&a, 5, 900)),
            on("refs/pull/7/merge", generation(&b, 6, 30)),
            Row { version: old_layout, ..generation("old", 50, 5) },
        ];
        let stays = [
            generation(&a, 20, 400),
            generation(&b, 25, 50),
            // The newest entry of its key may be a delta on it.
            generation(&b, 35, 500),
            generation("old", 45, 5),
            on("refs/pull/8/merge", generation(&a, 4, 401)),
            on("refs/heads/side", generation(&b, 26, 60)),
            Row { key: "node-Linux-0123456789abcdef".into(), ..Row::default() },
            Row { key: "node-Linux-0123456789abcde0".into(), ..Row::default() },
            on("refs/pull/7/merge", Row { key: "node-Linux-1".into(), ..Row::default() }),
        ];
        let put = |rows: &[Row]| -> Vec<String> {
            let put = rows.iter().map(|row| {
                terminal.rest.add_entry(row.clone());
                row.key.clone()
            });
            put.collect()
        };
        let (goes, stays) = (put(&goes), put(&stays));
        terminal.rest.close_pull_request(7);
        (terminal, goes, stays)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(plain_env::binary());
        command.args(words).current_dir(self.home.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        command.env("GITHUB_API_URL", self.rest.url()).env("GH_TOKEN", TOKEN);
        command
    }

    /// Runs a verb on the repository. The run may fail.
    fn run(&self, words: &[&str]) -> Output {
        let words = [words, &["--repository", REPOSITORY]].concat();
        self.output(&mut self.command(&words))
    }

    fn output(&self, command: &mut Command) -> Output {
        let output = plain_env::output(command);
        assert!(!format!("{output}").contains(TOKEN), "{output}");
        output
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        report(&self.run(&[words, &["--json"]].concat()).ok())
    }

    /// Returns the keys of all entries.
    fn keys(&self) -> BTreeSet<String> {
        self.rest.others().into_iter().map(|(_, key)| key).collect()
    }
}

fn keys(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().unwrap_or_else(|| panic!("{rows}"));
    rows.iter().map(|row| row["key"].as_str().unwrap()).collect()
}

#[test]
fn list_prints_one_line_per_entry_newest_first() {
    let terminal = TestRepository::new();
    let version = layout();
    for row in [
        generation("k", 50, 3 << 20),
        on("refs/pull/7/merge", generation("k", 3, 5 << 30)),
        on("refs/heads/side", Row { used: ago(1).to_string(), ..generation("l", 100, 17) }),
        Row { key: "node-Linux-x64-1".into(), created: ago(2).to_string(), ..Row::default() },
    ] {
        terminal.rest.add_entry(row);
    }
    let listed = terminal.run(&["list"]).ok();
    let lines = listed.lines();
    assert_eq!(lines.len(), 4, "{listed}");
    let cells: Vec<Vec<_>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0][9], "node-Linux-x64-1", "{listed}");
    assert_eq!(cells[1][..9], ["3", "h", "3", "h", "5.0", "GiB", "50.0", "%", "refs/pull/7/merge"]);
    assert!(cells[2][9].starts_with("k.2"), "{listed}");
    assert_eq!(cells[3][..9], ["4", "d", "1", "h", "17", "B", "0.0", "%", "refs/heads/side"]);
    assert!(listed.stderr.contains("4 entries with 5.0 GiB of 10.0 GiB in github, some-owner/"));
    assert!(listed.stderr.contains("AGE"), "{listed}");
    assert_eq!(terminal.run(&["list", "--quiet"]).ok().stderr, "");

    let report = terminal.json(&["list", "--limit", "20G"]);
    assert_eq!(report["total"]["entries"], 4);
    assert_eq!(report["entries"][1]["share"], 0.25, "{report}");
    assert_eq!(report["entries"][1]["ref"], "refs/pull/7/merge");
    assert_eq!(report["entries"][1]["version"], version);
    assert_eq!(report["entries"][1]["store"], "nix");
    assert_eq!(
        (&report["entries"][0]["ours"], &report["entries"][1]["ours"]),
        (&json!(false), &json!(true))
    );

    for (words, expected) in [
        (&["--ours"][..], &["k", "k", "l"][..]),
        (&["--prefix", "k."], &["k", "k"]),
        (&["--prefix", "none"], &[]),
        (&["--ref", "side"], &["l"]),
        (&["--ref", "refs/pull/7/merge"], &["k"]),
        (&["--ref", "refs/pull/7"], &[]),
        (&["--ref", "main", "--ours"], &["k"]),
        (&["--sort", "size"], &["k", "k", "l", "node"]),
        (&["--sort", "used"], &["l", "node", "k", "k"]),
        (&["--sort", "key"], &["k", "k", "l", "node"]),
        (&["--sort", "age"], &["node", "k", "k", "l"]),
    ] {
        let report = terminal.json(&[&["list"], words].concat());
        let begins: Vec<_> = keys(&report["entries"])
            .iter()
            .map(|key| &key[..key.find(['.', '-']).unwrap()])
            .collect();
        assert_eq!(begins, expected, "{words:?}");
    }
    assert!(terminal.rest.seen(Call::Repository).is_empty());
    for seen in terminal.rest.seen(Call::List) {
        assert_eq!(seen.headers["accept"], "application/vnd.github+json");
        assert_eq!(seen.query["per_page"], "100");
    }
}

#[test]
fn list_reads_ten_thousand_entries_while_others_write() {
    let terminal = TestRepository::new();
    let first: Vec<_> = (0..10_000).map(|n| generation(&format!("k{n}"), 1000, 1)).collect();
    let ids: BTreeSet<_> = first.into_iter().map(|row| terminal.rest.add_entry(row)).collect();
    let new: Vec<_> = (0..30).map(|n| generation(&format!("new{n}"), 1, 1)).collect();
    terminal.rest.add_entries_before_pages(new);
    let report = terminal.json(&["list"]);
    let listed: Vec<i64> = report["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap().parse().unwrap())
        .collect();
    let distinct: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(distinct.len(), listed.len(), "each once");
    assert!(distinct.is_superset(&ids));
    assert_eq!(distinct.len(), 10_030, "including those from the meantime");
    // The server returns smaller pages than requested.
    let before = terminal.rest.seen(Call::List).len();
    terminal.rest.set_page_size(60);
    assert_eq!(terminal.json(&["list"])["entries"].as_array().unwrap().len(), 10_030);
    assert!(terminal.rest.seen(Call::List).len() - before >= 168);
}

#[test]
fn prune_without_apply_only_prints_the_plan() {
    let (terminal, goes, stays) = TestRepository::filled();
    let before = terminal.keys();
    let planned = terminal.run(&["prune"]).ok();
    let lines = planned.lines();
    assert_eq!(lines.len(), goes.len() + 1, "{planned}");
    for key in &goes {
        assert_eq!(
            lines.iter().filter(|line| line.contains(key.as_str())).count(),
            1,
            "{key}: {planned}"
        );
    }
    assert!(lines.iter().any(|line| line.contains("pull request 7 is closed")), "{planned}");
    assert!(lines.iter().any(|line| line.contains("readers of format 1")), "{planned}");
    let total = lines.last().unwrap();
    assert!(total.starts_with("would delete 5 entries with 1.4 KiB; 1.4 KiB stay"), "{planned}");
    assert!(total.ends_with("to delete, use --apply"), "{planned}");
    assert!(planned.stderr.contains("may be a delta on it"), "{planned}");
    assert!(planned.stderr.contains("cannot be read from here"), "{planned}");

    let report = terminal.json(&["prune"]);
    assert_eq!(report["applied"], false);
    let expected: BTreeSet<_> = goes.iter().map(String::as_str).collect();
    assert_eq!(keys(&report["plan"]).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(report["total"], json!({ "entries": 5, "bytes": 1435 }));
    assert_eq!(report["deleted"], json!([]));
    assert_eq!(keys(&report["stays"]), [&stays[2]]);
    assert!(terminal.rest.seen(Call::Delete).is_empty());
    assert_eq!(terminal.keys(), before);
    // Each pull request is requested once in a run.
    let mut pulls: Vec<_> =
        terminal.rest.seen(Call::Pull).into_iter().map(|seen| seen.path).collect();
    pulls.sort();
    assert_eq!(pulls.len(), 4, "{pulls:?}");
    assert!(pulls[1].ends_with("/pulls/7") && pulls[2].ends_with("/pulls/8"), "{pulls:?}");
}

#[test]
fn prune_apply_deletes_exactly_the_planned_entries() {
    let (terminal, goes, stays) = TestRepository::filled();
    let done = terminal.run(&["prune", "--apply"]).ok();
    for number in 1..=5 {
        let line = format!("deleted {number} of 5: ");
        assert_eq!(done.lines().iter().filter(|l| l.starts_with(&line)).count(), 1, "{done}");
    }
    let total = done.lines().pop().unwrap();
    assert!(total.starts_with("deleted 5 of 5 entries with 1.4 KiB; 1.4 KiB stay"), "{done}");
    assert_eq!(terminal.keys(), stays.iter().cloned().collect());
    let deletions = terminal.rest.seen(Call::Delete);
    assert_eq!(deletions.len(), goes.len());
    // GitHub asks clients to wait a second between changes.
    let mut pairs = deletions.windows(2);
    assert!(pairs.all(|two| two[1].at - two[0].at >= Duration::from_secs(1)));
    // Nothing is left to prune.
    let report = terminal.json(&["prune", "--apply"]);
    assert_eq!((&report["plan"], &report["deleted"]), (&json!([]), &json!([])));
    assert_eq!(terminal.rest.seen(Call::Delete).len(), goes.len());
}

#[test]
fn prune_flags_select_the_entries_to_delete() {
    let (terminal, goes, stays) = TestRepository::filled();
    let planned = |words: &[&str]| -> Vec<String> {
        let report = terminal.json(&[&["prune"], words].concat());
        keys(&report["plan"]).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(planned(&["--only", "unreadable"]), [goes[4].clone()]);
    assert_eq!(planned(&["--only", "superseded", "--keep", "2"]), [goes[1].clone()]);
    assert_eq!(planned(&["--only", "closed", "--only", "unreadable"]).len(), 3);
    assert_eq!(planned(&["--prefix", "old"]), [goes[4].clone()]);
    // Entries of other tools are pruned if their prefix is given: all but the newest of each key on the default
    // branch.
    assert_eq!(planned(&["--prefix", "node-", "--unused-for", "0"]), ["node-Linux-1"]);
    let unused = planned(&["--unused-for", "1", "--only", "unused"]);
    assert_eq!(unused, [&stays[5], &goes[0], &goes[1], &goes[4]].map(String::clone));
    // With another default branch, another entry is the newest on it.
    terminal.rest.set_default_branch("side");
    let planned = planned(&["--only", "unused", "--unused-for", "0", "--prefix", "storecache-"]);
    assert!(planned.iter().all(|key| key.starts_with("storecache-")));
    assert!(!planned.contains(&stays[5]) && planned.contains(&stays[0]), "{planned:?}");
    assert_eq!(planned.len(), 8, "{planned:?}");
}

#[test]
fn prune_warns_if_the_token_cannot_read_pull_requests() {
    let (terminal, goes, _) = TestRepository::filled();
    let refused = Fault::Status(403, "Resource not accessible by personal access token");
    terminal.rest.inject_faults(Call::Pull, [refused]);
    let report = terminal.json(&["prune"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("cannot determine which pull requests are closed"), "{warnings}");
    assert!(warnings.contains("`pull-requests: read`"), "{warnings}");
    assert_eq!(terminal.rest.seen(Call::Pull).len(), 1, "later requests would fail too");
    let planned = keys(&report["plan"]);
    assert_eq!(planned.len(), 3, "{report}");
    assert!(!planned.contains(&goes[2].as_str()));
    // A pull request that does not exist is not known to be closed.
    terminal.rest.hide_other_pull_requests(&[8]);
    let report = terminal.json(&["usage"]);
    assert_eq!(report["closed"]["entries"], 0, "{report}");
}

#[test]
fn api_error_is_one_line_and_nothing_is_deleted() {
    let (terminal, ..) = TestRepository::filled();
    let before = terminal.keys();
    let integration = "Resource not accessible by integration";
    let cases = [
        (Fault::Status(401, "Bad credentials"), 1, "set another token"),
        (Fault::Status(403, integration), 1, "is not permitted to (HTTP 403"),
        (
            Fault::Status(404, "Not Found"),
            1,
            "has no repository some-owner/some.repo for this token",
        ),
        (Fault::Status(301, "Moved Permanently"), 1, "was renamed"),
        (Fault::With(429, "slow down", "Retry-After", "60"), 1, "asks to retry in 60 s"),
        (Fault::With(403, "no more", "X-RateLimit-Remaining", "0"), 1, "too many requests to "),
        (Fault::Status(500, "boom"), 3, "the server failed (HTTP 500"),
        (Fault::Status(503, "busy"), 3, "try again later"),
        (Fault::Reset, 3, "(3 tries)"),
        (Fault::Stall, 3, "no answer in time: no bytes received for 1 s (3 tries)"),
        (Fault::StallInBody, 3, "(3 tries)"),
        (Fault::Page, 3, "the response is not from GitHub's REST API"),
        (Fault::Text("[]"), 1, "the response is not from GitHub's REST API"),
        (Fault::Text("{}"), 1, "the response is not from GitHub's REST API"),
    ];
    for (fault, requests, text) in cases {
        for (verb, call) in [
            (&["list"][..], Call::List),
            (&["usage"], Call::List),
            (&["prune", "--apply"], Call::List),
            (&["prune", "--apply"], Call::Repository),
        ] {
            let what = format!("{verb:?} {call:?} {fault:?}");
            terminal.rest.inject_faults(call, std::iter::repeat_n(fault.clone(), requests));
            let stalls = matches!(fault, Fault::Stall | Fault::StallInBody);
            let timeout = if stalls { "1" } else { "10" };
            let seen = terminal.rest.seen(call).len();
            let failed = terminal.run(&[verb, &["--json", "--network-timeout", timeout]].concat());
            assert_eq!(failed.code(), 1, "{what}: {failed}");
            assert_eq!(terminal.rest.seen(call).len() - seen, requests, "{what}");
            let report = report(&failed);
            assert_eq!(report["ok"], false, "{what}");
            let told = ["reason", "notes", "hint"].map(|field| report[field].to_string()).concat();
            assert!(told.contains(text), "{what}: {report}");
            assert_eq!(failed.errors().len(), 1, "{what}: {failed}");
            assert!(failed.stderr.contains(text), "{what}: {failed}");
        }
    }
    let failed = terminal.run(&["list"]);
    assert_eq!(failed.code(), 0, "{failed}");
    assert_eq!(terminal.keys(), before);
    assert!(terminal.rest.seen(Call::Delete).is_empty());
}

#[test]
fn api_error_names_the_missing_permission() {
    let (terminal, ..) = TestRepository::filled();
    let refused = || Fault::Status(403, "Resource not accessible by integration");
    terminal.rest.inject_faults(Call::List, [refused()]);
    assert!(terminal.run(&["list"]).fails().stderr.contains("it needs `actions: read`"));
    terminal.rest.inject_faults(Call::Delete, [refused()]);
    let failed = terminal.run(&["prune", "--apply"]).fails();
    assert!(failed.stderr.contains("it needs `actions: write`"), "{failed}");
    assert_eq!(terminal.rest.seen(Call::Delete).len(), 1);
}

#[test]
fn prune_stops_and_reports_when_a_deletion_is_refused() {
    for (fault, text) in [
        (Fault::Status(401, "Bad credentials"), "set another token"),
        (Fault::Status(403, "no"), "is not permitted to"),
        (Fault::With(429, "slow down", "Retry-After", "3600"), "asks to retry in 3600 s"),
        (Fault::Status(429, "slow down"), "too many requests to "),
    ] {
        let (terminal, ..) = TestRepository::filled();
        let before = terminal.keys();
        terminal.rest.inject_faults(Call::Delete, [Fault::Gone, fault.clone()]);
        let failed = terminal.run(&["prune", "--apply", "--json"]);
        assert_eq!(failed.code(), 1, "{failed}");
        let report = report(&failed);
        assert!(report["reason"].as_str().unwrap().contains(text), "{fault:?}: {report}");
        assert_eq!(terminal.rest.seen(Call::Delete).len(), 2, "{fault:?}");
        assert_eq!(report["gone"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!((&report["deleted"], &report["bytes"]), (&json!([]), &json!(0)), "{report}");
        assert_eq!(report["failed"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(terminal.keys().len(), before.len() - 1);
        assert!(failed.stderr.contains("gone already, 1 of 5: "), "{failed}");
        assert!(failed.stderr.contains("deleted 0 of 5 entries"), "{failed}");
    }
}

#[test]
fn prune_retries_a_deletion_after_retry_after() {
    let (terminal, goes, stays) = TestRepository::filled();
    let later = Fault::With(429, "slow down", "Retry-After", "1");
    terminal.rest.inject_faults(Call::Delete, [later.clone(), later]);
    let done = terminal.run(&["prune", "--apply"]).ok();
    assert!(done.stderr.contains("waiting 1 s, as the server requested"), "{done}");
    assert_eq!(terminal.rest.seen(Call::Delete).len(), goes.len() + 2);
    assert_eq!(terminal.keys(), stays.into_iter().collect());
}

#[test]
fn prune_continues_after_an_entry_that_cannot_be_deleted() {
    let (terminal, ..) = TestRepository::filled();
    let before = terminal.keys().len();
    let refused = Fault::Status(409, "Conflict");
    terminal.rest.inject_faults(Call::Delete, [refused.clone()]);
    let failed = terminal.run(&["prune", "--apply", "--json"]);
    assert_eq!(failed.code(), 1);
    let report = report(&failed);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 4, "{report}");
    assert!(report["failed"][0][1].as_str().unwrap().contains("HTTP 409"), "{report}");
    assert_eq!(terminal.keys().len(), before - 4);
    // Three failures in a row end the run.
    let (terminal, ..) = TestRepository::filled();
    terminal.rest.inject_faults(Call::Delete, std::iter::repeat_n(refused, 4));
    terminal.run(&["prune", "--apply"]).fails();
    assert_eq!(terminal.rest.seen(Call::Delete).len(), 3);
}

/// A run that is killed when the test ends early.
struct ChildGuard {
    child: Child,
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn prune_stops_between_deletions_when_interrupted() {
    let terminal = TestRepository::new();
    for number in 0..40 {
        terminal.rest.add_entry(generation("k", number, 10_000));
    }
    assert_eq!(terminal.json(&["prune"])["total"]["entries"], 39);
    let words = ["prune", "--apply", "--json", "--repository", REPOSITORY];
    let mut command = terminal.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut started = ChildGuard { child: command.spawn().unwrap() };
    poll::until("two deletions", TIMEOUT, || match terminal.rest.seen(Call::Delete).len() {
        count @ ..2 => Err(count),
        _ => Ok(()),
    });
    kill_process(Pid::from_child(&started.child), Signal::INT).unwrap();
    let ended = poll::until("the run to end", TIMEOUT, || {
        started.child.try_wait().unwrap().ok_or("it runs")
    });
    assert_eq!(ended.code(), Some(1));
    let mut stdout = String::new();
    std::io::Read::read_to_string(started.child.stdout.as_mut().unwrap(), &mut stdout).unwrap();
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
    assert_eq!((&report["cancelled"], &report["ok"]), (&json!(true), &json!(false)), "{report}");
    let deleted = report["deleted"].as_array().unwrap().len();
    let (seen, left) = (terminal.rest.seen(Call::Delete).len(), terminal.keys().len());
    assert!(deleted >= 1 && deleted <= seen && seen < 10, "{deleted} {seen}");
    assert_eq!(left, 40 - seen, "and no others");
}

#[test]
fn usage_groups_entries_by_prefix_ref_age_and_last_use() {
    let (terminal, ..) = TestRepository::filled();
    let report = terminal.json(&["usage", "--limit", "10K", "--and", "8K"]);
    assert_eq!(report["total"]["entries"], 14);
    assert_eq!(report["total"]["bytes"], 2872, "{report}");
    assert_eq!(report["ours"]["entries"], 11);
    let named = |field: &str| -> Vec<(String, u64)> {
        let parts = report[field].as_array().unwrap().iter();
        parts
            .map(|part| (part["name"].as_str().unwrap().into(), part["entries"].as_u64().unwrap()))
            .collect()
    };
    let of = |name: &str, count| (name.to_owned(), count);
    assert_eq!(
        named("by_prefix"),
        [of("storecache-nix-x86_64-linux-2.8.0", 9), of("node-Linux", 3), of("old", 2)]
    );
    assert!(named("by_ref").contains(&of("refs/pull/7/merge", 3)), "{report}");
    assert!(named("by_age").contains(&of("up to a day", 4)), "{report}");
    assert_eq!(report["superseded"]["entries"], 3, "{report}");
    assert_eq!(report["closed"], json!({ "entries": 3, "bytes": 937, "share": 937.0 / 10240.0 }));
    assert_eq!(report["unreadable"]["entries"], 1);
    assert_eq!(report["prunable"]["entries"], 5);
    // The two entries of another tool have equal sizes, and are reported as a guess.
    let copies = report["duplicates"].as_array().unwrap();
    assert!(copies.iter().all(|copies| copies["guess"] == true), "{report}");
    assert!(
        copies.iter().any(|copies| copies["keys"].to_string().contains("node-Linux")),
        "{report}"
    );
    assert_eq!(report["entries"].as_array().unwrap().len(), 14);

    // 2872 and 8192 exceed the limit by 824: the least recently used entries are evicted.
    let eviction = &report["eviction"];
    assert_eq!(eviction["more"], 8192);
    assert!(eviction["pushed_out_bytes"].as_u64().unwrap() >= 824, "{eviction}");
    assert_eq!(eviction["above"], 0);
    assert_eq!(report["cost"]["usd_per_month"], 0.0);

    let text = terminal.run(&["usage", "--and", "12G"]).ok();
    for part in [
        "14 entries with 2.8 KiB (0.0 %) of 10.0 GiB",
        "by prefix",
        "by ref",
        "by age",
        "by last use",
        "storecache-nix-x86_64-linux-2.8.0",
        "judging by their size",
        "superseded generations: 3 entries",
        "next eviction when 12.0 GiB more are saved",
        "2.0 GiB are still above the limit",
        "costs 0.14 USD a month: 2.0 GiB above 10.0 GiB, at 0.07 USD per GiB and month",
    ] {
        assert!(text.stdout.contains(part), "{part}: {text}");
    }
}

#[test]
fn usage_predicts_eviction_of_idle_and_least_recent_entries() {
    let terminal = TestRepository::new();
    let gib = 1 << 30;
    let used = |key: &str, hours, size| {
        let row = generation(key, 1000, size);
        let used = ago(hours).to_string();
        let key = row.key.clone();
        terminal.rest.add_entry(Row { used, ..row });
        key
    };
    let (a, b, c) = (used("a", 30, 3 * gib), used("b", 10, 3 * gib), used("c", 20, 3 * gib));
    let idle = used("idle", 24 * 7 + 1, gib / 2);
    let _week = used("week", 24 * 7 - 1, 1);
    let eviction = |more: &[&str]| {
        let report = terminal.json(&[&["usage"], more].concat());
        assert_eq!(report["eviction"]["idle"], json!([idle]), "{report}");
        assert_eq!(report["eviction"]["happens"], true);
        report["eviction"]["pushed_out"].as_array().unwrap().len()
    };
    assert_eq!(eviction(&[]), 0);
    assert_eq!(eviction(&["--and", "1023M"]), 0);
    assert_eq!(eviction(&["--and", "2G"]), 2, "the small one does not make enough room");
    assert_eq!(eviction(&["--and", "5G"]), 3);
    assert_eq!(eviction(&["--and", "5G", "--limit", "20G"]), 0);
    let report = terminal.json(&["usage", "--and", "7G"]);
    assert_eq!(
        report["eviction"]["pushed_out"].as_array().unwrap()[1..],
        [json!(a), json!(c)],
        "{b} stays"
    );
}

#[test]
fn empty_repository_is_not_an_error() {
    let terminal = TestRepository::new();
    let listed = terminal.run(&["list"]).ok();
    assert_eq!(listed.stdout, "");
    assert!(listed.stderr.contains("0 entries"), "{listed}");
    let used = terminal.run(&["usage"]).ok();
    assert_eq!(used.lines().len(), 1, "{used}");
    assert!(used.stdout.contains("no entries"), "{used}");
    for more in [&[][..], &["--apply"]] {
        let pruned = terminal.run(&[&["prune"], more].concat()).ok();
        assert!(pruned.stdout.starts_with("nothing to delete"), "{pruned}");
        assert_eq!(pruned.lines().len(), 1, "{pruned}");
    }
    assert_eq!(terminal.json(&["list"])["entries"], json!([]));
    assert_eq!(terminal.json(&["usage"])["total"]["entries"], 0);
}

#[test]
fn usage_error_is_reported_before_any_request() {
    let terminal = TestRepository::new();
    for (words, text) in [
        (
            &["list", "--repository", "alone"][..],
            "not a valid repository name: \"alone\"; expected OWNER/NAME",
        ),
        (&["list", "--repository", "a/b/c"], "not a valid repository name"),
        (&["usage", "--repository", "a/.."], "not a valid repository name"),
        (&["prune", "--repository", "a/b?c"], "not a valid repository name"),
        (&["prune", "--repository", "a/b", "--only", "unused"], "needs --unused-for DAYS"),
        (&["list", "--repository", "a/b", "--backend", "dir:/tmp"], "is for --backend github"),
        (&["list", "--backend", "tape:/0"], "unknown backend"),
        (&["list", "--backend", "github"], "--repository OWNER/NAME is not set"),
    ] {
        let failed = terminal.output(&mut terminal.command(words));
        assert_eq!(failed.code(), 2, "{words:?}: {failed}");
        assert!(failed.stderr.contains(text), "{words:?}: {failed}");
    }
    for more in [&["--keep", "0"][..], &["--only", "old"], &["--unused-for", "-1"]] {
        assert_eq!(terminal.run(&[&["prune"], more].concat()).code(), 2, "{more:?}");
    }
    for (name, value) in [("GH_TOKEN", ""), ("GH_TOKEN", " \n")] {
        let mut command = terminal.command(&["list", "--repository", REPOSITORY]);
        let failed = terminal.output(command.env(name, value));
        assert_eq!(failed.code(), 2, "{failed}");
        assert!(failed.stderr.contains("set GITHUB_TOKEN or GH_TOKEN"), "{failed}");
    }
    assert!(terminal.rest.seen(Call::List).is_empty());
    let mut command = terminal.command(&["list", "--repository", REPOSITORY]);
    let failed = terminal.output(command.env("GITHUB_TOKEN", "two\nlines"));
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stderr.contains("has invalid characters"), "{failed}");
}

#[test]
fn repository_comes_from_the_job_or_the_remote_origin() {
    let terminal = TestRepository::new();
    terminal.rest.add_entry(generation("k", 1, 1));
    // In a job.
    let mut command = terminal.command(&["list", "--json"]);
    let listed = terminal.output(command.env("GITHUB_REPOSITORY", REPOSITORY)).ok();
    assert_eq!(report(&listed)["entries"].as_array().unwrap().len(), 1, "{listed}");

    // Without a repository the default is the user's directory.
    let listed = terminal.output(&mut terminal.command(&["list", "--json"])).ok();
    assert!(report(&listed)["backend"].as_str().unwrap().starts_with("dir:"), "{listed}");

    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.args(words).current_dir(terminal.home.path()).env("HOME", terminal.home.path());
        plain_env::output(&mut command).ok();
    };
    let list =
        || terminal.output(&mut terminal.command(&["list", "--backend", "github", "--json"]));
    assert!(list().fails().stderr.contains("not in a git work tree"), "no work tree");
    git(&["init", "-q"]);
    assert!(list().fails().stderr.contains("with a remote `origin`"), "no remote");
    let host = terminal.rest.url().replace("http://", "");
    let host = host.split(['/', ':']).next().unwrap().to_owned();
    git(&["remote", "add", "origin", "https://example.org/x/y"]);
    for url in [
        format!("https://someone:hidden-word@{host}/{REPOSITORY}.git"),
        format!("git@{host}:{REPOSITORY}.git"),
        format!("ssh://git@{host}:2222/{REPOSITORY}"),
    ] {
        git(&["remote", "set-url", "origin", &url]);
        let listed = list().ok();
        assert_eq!(report(&listed)["entries"].as_array().unwrap().len(), 1, "{url}: {listed}");
    }
    for (url, text) in [
        (
            format!("https://someone:hidden-word@gitlab.com/{REPOSITORY}"),
            "is on gitlab.com, but the API is on",
        ),
        ("https://someone:hidden-word@gitlab.com/a/b/c".into(), "is not on a server with an API"),
        ("/srv/git/some.repo".into(), "is not on a server with an API"),
    ] {
        git(&["remote", "set-url", "origin", &url]);
        let failed = list();
        assert_eq!(failed.code(), 2, "{failed}");
        assert!(failed.stderr.contains(text), "{url}: {failed}");
        assert!(!format!("{failed}").contains("hidden-word"), "{failed}");
    }
}

#[test]
fn output_escapes_control_characters_in_keys_and_refs() {
    let terminal = TestRepository::new();
    terminal.rest.add_entry(Row {
        key: "evil\n::add-path::/x\u{1b}[2J".into(),
        ..on("refs/heads/\u{7}x", Row::default())
    });
    for verb in ["list", "usage", "prune"] {
        let output = terminal.run(&[verb, "--quiet"]).ok();
        let lines = output.lines();
        assert!(lines.iter().all(|line| !line.trim_start().starts_with("::")), "{output}");
        assert!(!output.stdout.contains(['\u{1b}', '\u{7}']), "{output}");
    }
}

// A directory.

/// Saves of plain directories, and other files beside them.
struct TestDirectory {
    place: PlainEnv,
}

const TOOL: &str = "/opt/tool";

impl TestDirectory {
    fn new() -> TestDirectory {
        let place = PlainEnv::new();
        place.write("/opt/tool/file", "text\n");
        TestDirectory { place }
    }

    /// Saves under a key, and returns the name of the entry.
    fn save(&self, key: &str) -> String {
        let backend = self.backend();
        let mut command = Command::new(plain_env::binary());
        command.args(["save", "--store", "plain", "--path", TOOL, "--json", "--backend", &backend]);
        command.args(["--key", key, "--root"]).arg(self.place.root());
        let saved = report(&plain_env::output(&mut command).ok());
        saved["entry"].as_str().unwrap().to_owned()
    }

    fn backend(&self) -> String {
        format!("dir:{}", self.place.entries().display())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.entries().join(format!("{name}.tar.zst"))
    }

    fn run(&self, words: &[&str]) -> Output {
        plain_env::storecache([words, &["--backend", &self.backend()]].concat())
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        report(&self.run(&[words, &["--json"]].concat()).ok())
    }

    fn names(&self) -> BTreeSet<String> {
        names(&self.place.entries())
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn list_usage_and_prune_work_on_a_directory() {
    let shelf = TestDirectory::new();
    let first = shelf.save("k");
    shelf.place.write("/opt/tool/file", "another text\n");
    let second = shelf.save("k");
    let other = shelf.save("l");

    let report = shelf.json(&["list"]);
    assert_eq!(keys(&report["entries"]), [&other, &second, &first]);
    let row = &report["entries"][2];
    assert_eq!(
        (&row["ours"], &row["store"], &row["unreadable"]),
        (&json!(true), &json!("plain"), &Value::Null)
    );
    assert_eq!(row["size"], fs::metadata(shelf.file(&first)).unwrap().len());
    assert_eq!(shelf.run(&["list"]).ok().lines().len(), 3);

    let report = shelf.json(&["usage", "--and", "1K"]);
    assert_eq!(report["superseded"]["entries"], 1, "{report}");
    assert_eq!(report["prunable"]["entries"], 1, "{report}");
    // Equal directories under two keys.
    let copies = report["duplicates"].as_array().unwrap();
    assert_eq!(copies.len(), 1, "{report}");
    assert_eq!((&copies[0]["keys"], &copies[0]["guess"]), (&json!([other, second]), &json!(false)));
    assert_eq!(report["eviction"]["happens"], false);
    let text = shelf.run(&["usage", "--and", "1K"]).ok();
    assert!(text.stdout.contains("a directory evicts nothing"), "{text}");

    let before = shelf.names();
    let planned = shelf.run(&["prune"]).ok();
    assert_eq!(planned.lines().len(), 2, "{planned}");
    assert!(planned.stdout.contains(&format!("{first}  ({} is newer)", &second[2..])), "{planned}");
    assert_eq!(shelf.names(), before);
    let done = shelf.json(&["prune", "--apply"]);
    assert_eq!(done["deleted"], json!([first]));
    assert_eq!(shelf.names().len(), 2);
    assert!(!shelf.file(&first).exists());
}

#[test]
fn directory_files_that_are_not_entries_are_never_pruned() {
    let shelf = TestDirectory::new();
    let (old, torn, newest) = (shelf.save("k"), shelf.save("k"), shelf.save("k"));
    let lost = shelf.save("lost");
    plain_env::truncate(&shelf.file(&torn), 900);
    plain_env::truncate(&shelf.file(&lost), 10);
    let entries = shelf.place.entries();
    for (name, content) in [
        ("notes.txt", "mine\n"),
        ("foreign.tar.zst", "not ours\n"),
        (".storecache-abc", "half of"),
        ("empty.20260102T030405.000001Z.tar.zst", ""),
        ("odd.20269999T990000.000001Z.tar.zst", "text"),
    ] {
        fs::write(entries.join(name), content).unwrap();
    }
    fs::create_dir(entries.join("below")).unwrap();
    fs::create_dir(entries.join("d.20260102T030405.000001Z.tar.zst")).unwrap();
    let fifo = entries.join("fifo.20260102T030405.000001Z.tar.zst");
    plain_env::output(Command::new("mkfifo").arg(&fifo)).ok();
    std::os::unix::fs::symlink("/nowhere", entries.join("link.20260102T030405.000001Z.tar.zst"))
        .unwrap();

    let report = shelf.json(&["list"]);
    let rows = report["entries"].as_array().unwrap();
    assert_eq!(rows.len(), 12, "{report:#}");
    let unreadable: BTreeSet<_> = rows
        .iter()
        .filter(|row| row["unreadable"].is_string())
        .map(|row| row["id"].as_str().unwrap().split('.').next().unwrap())
        .collect();
    let expected = ["", "d", "empty", "fifo", "foreign", "k", "link", "lost", "notes", "odd"];
    assert_eq!(unreadable, expected.into());
    let text = shelf.run(&["list"]).ok();
    assert!(text.stdout.contains("(unreadable: truncated: got 10 of 336 bytes)"), "{text}");
    assert_eq!(shelf.json(&["usage"])["unreadable"]["entries"], 10);

    // Each of these is the newest of its key.
    let report = shelf.json(&["prune"]);
    assert_eq!(keys(&report["plan"]), [&torn, &old], "{report:#}");
    assert_eq!(
        (&report["plan"][0]["reason"], &report["plan"][1]["reason"]),
        (&json!("unreadable"), &json!("superseded"))
    );
    let mut left = shelf.names();
    for prefix in ["", "notes", "foreign"] {
        let done = shelf.run(&["prune", "--apply", "--prefix", prefix, "--unused-for", "0"]).ok();
        assert!(done.stderr.contains("stays") || !prefix.is_empty(), "{done}");
    }
    left.retain(|name| !name.starts_with(&torn) && !name.starts_with(&old));
    assert_eq!(shelf.names(), left, "{newest} and files that are not entries");
}

#[test]
fn inventory_does_not_update_access_times() {
    let shelf = TestDirectory::new();
    let name = shelf.save("k");
    // A time long ago, so that any read would change it.
    plain_env::set_mtime(&shelf.file(&name), 1_700_000_000, 0);
    let used = |report: &Value| report["entries"][0]["last_used"].as_str().unwrap().to_owned();
    let before = fs::metadata(shelf.file(&name)).unwrap().accessed().unwrap();
    for verb in ["list", "usage", "prune"] {
        shelf.json(&[verb]);
    }
    assert_eq!(fs::metadata(shelf.file(&name)).unwrap().accessed().unwrap(), before);
    // The entry's name gives a later time than the file's times.
    assert_eq!(used(&shelf.json(&["list"])), shelf.json(&["list"])["entries"][0]["created"]);
}

#[test]
fn missing_directory_counts_as_empty() {
    let empty = tempfile::tempdir().unwrap();
    let backend = format!("dir:{}", empty.path().join("none").display());
    for (verb, text) in [("usage", "no entries"), ("prune", "nothing to delete")] {
        let output = plain_env::storecache([verb, "--backend", &backend]).ok();
        assert!(output.stdout.contains(text), "{output}");
    }
    assert_eq!(plain_env::storecache(["list", "--backend", &backend]).ok().stdout, "");
    let file = empty.path().join("file");
    fs::write(&file, "").unwrap();
    let failed = plain_env::storecache(["list", "--backend", &format!("dir:{}", file.display())]);
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stderr.contains("list "), "{failed}");
}

#[test]
fn prune_keeps_the_base_of_a_delta() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let base = save(&world);
    let add = |name: &str| {
        fs::write(world.host(format!("/tmp/{name}")), name).unwrap();
        world.nix(["nix-store", "--add", &format!("/tmp/{name}")]).ok();
    };
    add("one");
    let first = save(&world);
    add("two");
    let second = save(&world);
    assert_eq!(second["base"]["entry"], base["entry"], "{second}");
    let backend = format!("dir:{}", world.backend().host_path().display());
    let prune = |more: &[&str]| {
        report(
            &plain_env::storecache([&["prune", "--backend", &backend, "--json"], more].concat())
                .ok(),
        )
    };
    let json = prune(&["--unused-for", "0"]);
    assert_eq!(keys(&json["plan"]), [first["entry"].as_str().unwrap()], "{json:#}");
    let stays = json["stays"].to_string();
    assert!(stays.contains("is a delta on it"), "{stays}");
    prune(&["--apply"]);
    let left = names(&world.backend().host_path());
    assert_eq!(left.len(), 2, "{left:?}");
    world.wipe_store();
    let restored = run(&world, "runner", "restore", &[]);
    assert_eq!(restored["entry"], second["entry"], "{restored}");
    assert_eq!(restored["items"]["skipped"], 0, "{restored}");

    // If the base is gone, deltas on it cannot be restored.
    let file = format!("{}.tar.zst", base["entry"].as_str().unwrap());
    fs::remove_file(world.backend().host_path().join(file)).unwrap();
    let listed = plain_env::storecache(["list", "--backend", &backend]).ok();
    assert!(listed.stdout.contains("is gone)"), "{listed}");
}
