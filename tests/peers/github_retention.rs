//! Tests of `--keep` with GitHub's cache service: what it deletes through the REST API, and what it reports if
//! that fails.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::cache_service::{self, CacheService};
use crate::support::job::Job;
use crate::support::plain_env::{self, PlainEnv};
use crate::support::rest_service::{Call, Fault, MAIN, RestService, TOKEN};
use crate::support::world_runs::report;
use crate::support::{Output, poll};
use rustix::process::Signal;
use serde_json::{Value, json};

const TOOL: &str = "/opt/tool";
const TIMEOUT: Duration = Duration::from_secs(60);

/// The key of all saves here.
const KEY: &str = "test";

/// Returns the variables of the cache service that a runner sets for a step.
fn variables(service: &CacheService) -> [(&'static str, String); 5] {
    [
        ("ACTIONS_RESULTS_URL", service.url()),
        ("ACTIONS_CACHE_URL", service.url()),
        ("ACTIONS_RUNTIME_TOKEN", cache_service::TOKEN.into()),
        ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
        ("GITHUB_SERVER_URL", "https://github.com".into()),
    ]
}

/// A repository with its entries and its API, and a directory to save.
struct Repository {
    service: Arc<CacheService>,
    rest: RestService,
    place: PlainEnv,
    /// Seconds without an answer after which a connection counts as dead.
    timeout: &'static str,
}

impl Repository {
    fn new() -> Repository {
        let service = Arc::new(CacheService::start());
        let rest = RestService::over(&service);
        let place = PlainEnv::new();
        place.write("/opt/tool/file", "text\n");
        Repository { service, rest, place, timeout: "10" }
    }

    /// Returns a repository with this many generations of the key by other runs, and their names, oldest first.
    fn with(count: usize) -> (Repository, Vec<String>) {
        let repository = Repository::new();
        let version = repository.version();
        let names: Vec<_> = (0..count).map(|number| generation(KEY, number)).collect();
        names.iter().for_each(|name| repository.service.put(name, &version, b"entry"));
        (repository, names)
    }

    /// Returns the layout of its saves.
    fn version(&self) -> String {
        let name = report(&self.save(&[], &[]).ok())["entry"].as_str().unwrap().to_owned();
        let version = self.service.version_of(&name);
        self.service.evict(&name);
        version
    }

    fn save(&self, more: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(plain_env::binary());
        command
            .args(["save", "--store", "plain", "--key", KEY, "--path", TOOL, "--json", "--root"]);
        command.arg(self.place.root()).args(["--network-timeout", self.timeout]).args(more);
        command.env_remove("GH_TOKEN").env("HOME", self.place.entries());
        command.envs(variables(&self.service)).envs(self.rest.variables());
        for (name, value) in environment {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        let output = plain_env::output(&mut command);
        for secret in [cache_service::TOKEN, TOKEN] {
            assert!(!format!("{output}").contains(secret), "{output}");
        }
        output
    }

    /// Saves with `--keep 1`, asserts that this succeeds, and returns the report.
    #[track_caller]
    fn keep_one(&self, environment: &[(&str, &str)]) -> Value {
        let output = self.save(&["--keep", "1"], environment).ok();
        let report = report(&output);
        assert_eq!(report["saved"], true, "{output}");
        assert!(self.service.keys().iter().any(|key| report["entry"] == *key), "{output}");
        report
    }

    /// As [`Repository::keep_one`]; also returns the only warning.
    #[track_caller]
    fn warning(&self, environment: &[(&str, &str)]) -> (Value, String) {
        let report = self.keep_one(environment);
        let warnings = report["warnings"].as_array().unwrap_or_else(|| panic!("none: {report}"));
        assert_eq!(warnings.len(), 1, "{report}");
        let warning = warnings[0].as_str().unwrap().to_owned();
        assert!(warning.starts_with("superseded entries stay"), "{warning}");
        assert!(warning.len() < 450 && !warning.contains('\n'), "{warning}");
        (report, warning)
    }
}

/// Returns a short timeout for faults in which nothing arrives.
fn timeout(fault: &Fault) -> &'static str {
    if matches!(fault, Fault::Stall | Fault::StallInBody) { "1" } else { "10" }
}

fn generation(key: &str, number: usize) -> String {
    format!("{key}.20260102T030405.{number:06}Z")
}

#[test]
fn keep_deletes_only_superseded_generations_of_the_key() {
    let (repository, old) = Repository::with(4);
    let Repository { service, rest, .. } = &repository;
    let version = service.version_of(&old[0]);
    let elsewhere = "0".repeat(64);
    let stay = [
        generation("tes", 1),
        generation("test-2", 1),
        // These keys begin like generations of the key.
        generation("test.20", 1),
        generation("test.20260102T030405.000001Z", 1),
        generation("TEST", 1),
        "test.2026".to_owned(),
        "test.20260102T030405".to_owned(),
        KEY.to_owned(),
    ];
    stay.iter().for_each(|key| service.put(key, &version, b"other"));
    // Newer and older entries in other layouts.
    service.put(&generation(KEY, 77), &elsewhere, b"other");
    service.put("test.20300101T000000.000000Z", &elsewhere, b"other");
    for reference in ["refs/heads/main2", "refs/heads/mai", "refs/pull/7/merge", "refs/tags/main"] {
        rest.put(reference, &old[0], &version);
        rest.put(reference, "test.20300101T000000.000000Z", &version);
    }
    let others = rest.others();

    let saved = report(&repository.save(&["--keep", "2"], &[]).ok());
    assert_eq!(saved["deleted"], json!([old[2], old[1], old[0]]));
    assert_eq!(saved["warnings"], Value::Null, "{saved}");
    let mut expected: Vec<_> = stay.iter().chain([&old[3]]).cloned().collect();
    expected.extend([generation(KEY, 77), "test.20300101T000000.000000Z".into()]);
    expected.push(saved["entry"].as_str().unwrap().to_owned());
    expected.sort();
    let mut left = service.keys();
    left.sort();
    assert_eq!(left, expected);
    assert_eq!(rest.others(), others);

    // GitHub asks clients to wait a second between changes.
    let deletions = rest.seen(Call::Delete);
    assert_eq!(deletions.len(), 3);
    let pairs = deletions.windows(2);
    assert!(pairs.clone().all(|two| two[1].at - two[0].at >= Duration::from_secs(1)));
    for seen in rest.seen(Call::List).iter().chain(&deletions) {
        assert_eq!(seen.headers["accept"], "application/vnd.github+json");
        assert_eq!(seen.headers["x-github-api-version"], "2022-11-28");
        assert!(seen.headers["user-agent"].starts_with("storecache/"), "{seen:?}");
    }
    // The save does not send the token to any other service.
    for at in [cache_service::RequestKind::Lookup, cache_service::RequestKind::Reserve] {
        assert!(!format!("{:?}", service.seen(at)).contains(TOKEN));
    }
}

#[test]
fn save_without_keep_makes_no_api_request() {
    let (repository, old) = Repository::with(3);
    repository.save(&[], &[]).ok();
    assert!(repository.rest.seen(Call::List).is_empty());
    let report = report(&repository.save(&["--keep", "9"], &[]).ok());
    assert_eq!((&report["deleted"], &report["warnings"]), (&Value::Null, &Value::Null));
    assert!(repository.rest.seen(Call::Delete).is_empty());
    assert!(old.iter().all(|name| repository.service.keys().contains(name)));
}

#[test]
fn keep_reads_all_pages_of_the_list() {
    let (repository, old) = Repository::with(230);
    // The list contains these entries in between; only their keys look like ours.
    for number in 0..40 {
        repository.rest.put("refs/heads/other", &generation(KEY, 1000 + number), &"1".repeat(64));
    }
    let saved = report(&repository.save(&["--keep", "229"], &[]).ok());
    assert_eq!(saved["deleted"], json!([old[1], old[0]]));
    assert_eq!(repository.service.keys().len(), 229);
    let lists = repository.rest.seen(Call::List);
    let pages: Vec<_> = lists.iter().map(|seen| seen.query["page"].as_str()).collect();
    assert_eq!(pages, ["1", "2", "3"]);
}

#[test]
fn pull_request_run_deletes_only_entries_of_its_ref() {
    let (repository, old) = Repository::with(2);
    let merge = "refs/pull/12/merge";
    repository.rest.set_ref(merge);
    repository.rest.put(MAIN, &generation(KEY, 0), &repository.service.version_of(&old[0]));
    let saved = repository.keep_one(&[("GITHUB_REF", merge)]);
    assert_eq!(saved["deleted"], json!([old[1], old[0]]));
    assert_eq!(repository.rest.others().len(), 1);
    assert!(repository.rest.seen(Call::List).iter().all(|seen| seen.query["ref"] == merge));
}

#[test]
fn new_entry_counts_before_the_list_shows_it() {
    let (repository, old) = Repository::with(3);
    repository.rest.hide_new_entries();
    let saved = report(&repository.save(&["--keep", "2"], &[]).ok());
    assert_eq!(saved["deleted"], json!([old[1], old[0]]));
    assert_eq!(saved["warnings"], Value::Null, "{saved}");
    assert_eq!(repository.service.keys(), [&old[2], saved["entry"].as_str().unwrap()]);
}

#[test]
fn keep_leaves_entries_of_another_service_alone() {
    // A runner with a cache service of its own, and the URL of GitHub's API.
    let (github, theirs) = Repository::with(2);
    let own = CacheService::start();
    let own_url = own.url();
    let elsewhere = [("ACTIONS_RESULTS_URL", own_url.as_str()), ("ACTIONS_CACHE_URL", &own_url)];
    let output = github.save(&["--keep", "1"], &elsewhere).ok();
    let saved = report(&output);
    assert_eq!((&saved["saved"], &saved["deleted"]), (&json!(true), &Value::Null), "{output}");
    assert!(saved["warnings"].to_string().contains("different services"), "{output}");
    assert_eq!(saved["warnings"].as_array().unwrap().len(), 1, "{output}");
    assert!(github.rest.seen(Call::Delete).is_empty());
    assert_eq!(github.service.keys(), theirs);
    assert_eq!(own.keys().len(), 1);
}

#[test]
fn entry_deleted_meanwhile_is_not_an_error() {
    let (repository, old) = Repository::with(3);
    repository.rest.inject_faults(Call::Delete, [Fault::Gone]);
    let saved = repository.keep_one(&[]);
    assert_eq!(saved["deleted"], json!([old[2], old[1], old[0]]));
    assert_eq!(saved["warnings"], Value::Null, "{saved}");
    assert_eq!(repository.service.keys().len(), 1);
}

#[test]
fn temporary_api_faults_are_retried_without_a_warning() {
    for call in [Call::List, Call::Delete] {
        for fault in [
            Fault::Reset,
            Fault::Stall,
            Fault::Page,
            Fault::Endless,
            Fault::Status(500, "boom"),
            Fault::Status(502, "bad gateway"),
            Fault::Status(408, "too slow"),
        ] {
            let (mut repository, old) = Repository::with(1);
            repository.timeout = timeout(&fault);
            repository.rest.inject_faults(call, [fault.clone(), fault.clone()]);
            let saved = repository.keep_one(&[]);
            assert_eq!(saved["deleted"], json!(old), "{call:?} {fault:?}");
            assert_eq!(saved["warnings"], Value::Null, "{fault:?} {saved}");
        }
    }
}

#[test]
fn permanent_api_fault_is_one_warning_and_deletes_nothing() {
    let permission = "give the job `permissions:` with `actions: write`";
    let integration = "Resource not accessible by integration";
    let busy = "too many requests to ";
    let secondary = "You have exceeded a secondary rate limit. Please wait.";
    let no_api = "list the cache entries: the response is not from GitHub's REST API";
    let everywhere = [
        (Fault::Status(403, integration), 1, permission),
        (
            Fault::Status(401, "Bad credentials"),
            1,
            "set the input token to one with `actions: write`",
        ),
        (Fault::With(429, "slow down", "Retry-After", "60"), 1, "asks to retry in 60 s"),
        (Fault::With(429, "slow down", "Retry-After", "0"), 1, busy),
        (Fault::Status(429, "slow down"), 1, busy),
        (Fault::With(403, secondary, "retry-after", "5"), 1, "asks to retry in 5 s"),
        (Fault::Status(403, secondary), 1, busy),
        (Fault::With(403, "no more", "X-RateLimit-Remaining", "0"), 1, busy),
        (Fault::Status(301, "Moved Permanently"), 1, "refused (HTTP 301"),
        (Fault::Status(418, "teapot"), 1, "refused (HTTP 418: teapot ((secret)))"),
        (Fault::Status(500, "boom"), 3, "the server failed (HTTP 500"),
        (Fault::Status(503, "busy"), 3, "the server failed (HTTP 503"),
        (Fault::Reset, 3, "(3 tries)"),
        (Fault::Stall, 3, "no answer in time: no bytes received for 1 s (3 tries)"),
        (Fault::StallInBody, 3, "(3 tries)"),
        (Fault::Endless, 3, "(3 tries)"),
        (Fault::Page, 3, "the response is not from GitHub's REST API (3 tries)"),
    ];
    let list_alone = [
        (Fault::Status(404, "Not Found"), 1, "only GitHub's servers have such a list"),
        (Fault::Text(""), 3, no_api),
        (Fault::Text("[]"), 1, no_api),
        (Fault::Text("null"), 1, no_api),
        (Fault::Text("\u{0}\u{1}"), 3, no_api),
        (Fault::Text(r#"{"total_count":1}"#), 1, no_api),
        (Fault::Text(r#"{"total_count":"one","actions_caches":[]}"#), 1, no_api),
        (
            Fault::Text(r#"{"total_count":1,"actions_caches":[{"id":"::stop-commands::x"}]}"#),
            1,
            no_api,
        ),
        (Fault::Text(DEEPLY_NESTED_JSON), 3, no_api),
    ];
    let lists = everywhere.iter().chain(&list_alone).map(|case| (Call::List, case));
    let deletes = everywhere.iter().map(|case| (Call::Delete, case));
    let (mut repository, _) = Repository::with(2);
    for (call, (fault, requests, text)) in lists.chain(deletes) {
        let what = format!("{call:?} {fault:?}");
        let (before, kept) = (repository.rest.seen(call).len(), repository.service.keys());
        repository.timeout = timeout(fault);
        repository.rest.inject_faults(call, std::iter::repeat_n(fault.clone(), *requests));
        let (saved, warning) = repository.warning(&[]);
        assert!(warning.contains(text), "{what}: {warning}");
        assert_eq!(warning.contains("actions: write"), text.contains("actions: write"), "{what}");
        assert_eq!(saved["deleted"], Value::Null, "{what} {saved}");
        assert!(kept.iter().all(|key| repository.service.keys().contains(key)), "{what}");
        assert_eq!(repository.rest.seen(call).len() - before, *requests, "{what}");
        if call == Call::Delete {
            let all = kept.len();
            assert!(warning.contains(&format!("{all} of {all}: delete")), "{what}: {warning}");
        }
        // Delete the new entry, so that the next cases have little to do.
        repository.service.evict(saved["entry"].as_str().unwrap());
    }
}

/// JSON nested deeper than any parser should follow.
const DEEPLY_NESTED_JSON: &str = match std::str::from_utf8(&[b'['; 100_000]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn list_with_hostile_values_does_no_harm() {
    let (repository, old) = Repository::with(1);
    let item = |id: &str, size: &str, rest: &str| {
        format!(
            r#"{{"id":{id},"ref":"{MAIN}","key":"{}","version":"{}","last_accessed_at":"2026-11-22T09:55:23Z","created_at":"2026-11-22T09:55:23Z","size_in_bytes":{size}{rest}}}"#,
            old[0],
            repository.service.version_of(&old[0]),
        )
    };
    let items = [item("-9223372036854775808", "-1", ""), item("77", "1", r#","news":[1]"#)];
    let text = format!(r#"{{"total_count":-5,"actions_caches":[{}]}}"#, items.join(","));
    repository.rest.inject_faults(Call::List, [Fault::Text(text.leak())]);
    // The service responds to a deletion of the invalid ids with "not found", which counts as deleted.
    let saved = repository.keep_one(&[]);
    assert_eq!(saved["warnings"], Value::Null, "{saved}");
    assert!(repository.service.keys().contains(&old[0]));
}

#[test]
fn refused_deletion_reports_the_number_of_remaining_entries() {
    let (repository, old) = Repository::with(3);
    let busy = Fault::With(429, "slow down", "Retry-After", "60");
    repository.rest.inject_faults(Call::Delete, [Fault::Gone, busy]);
    let (saved, warning) = repository.warning(&[]);
    assert_eq!(saved["deleted"], json!([old[2]]));
    assert!(warning.starts_with("superseded entries stay, 2 of 3: delete"), "{warning}");
    assert_eq!(repository.rest.seen(Call::Delete).len(), 2);
    // The next save deletes the others.
    let saved = repository.keep_one(&[]);
    assert_eq!(saved["deleted"].as_array().unwrap().len(), 3);
    assert_eq!(repository.service.keys().len(), 1);
}

#[test]
fn missing_or_invalid_variable_is_one_warning() {
    let (repository, old) = Repository::with(2);
    for (name, value, text) in [
        ("GITHUB_TOKEN", "", "there is no token for GitHub's REST API; set the input token"),
        ("GITHUB_TOKEN", " \n", "there is no token"),
        ("GITHUB_TOKEN", "two\nlines", "has invalid characters"),
        ("GITHUB_TOKEN", "ghs_wrong", "does not accept the token (HTTP 401"),
        ("GITHUB_API_URL", "", "GITHUB_API_URL is not set"),
        ("GITHUB_REPOSITORY", "", "GITHUB_REPOSITORY is not set"),
        ("GITHUB_REPOSITORY", "alone", "not a valid repository name"),
        ("GITHUB_REPOSITORY", "some-owner/some.repo/actions", "not a valid repository name"),
        ("GITHUB_REPOSITORY", "some-owner/..", "not a valid repository name"),
        ("GITHUB_REPOSITORY", "some-owner/some.repo?x", "not a valid repository name"),
        ("GITHUB_REF", "", "GITHUB_REF is not set"),
        ("GITHUB_API_URL", "not a url", "(3 tries)"),
        // Forgejo and Gitea have another API at such an address.
        ("GITHUB_API_URL", &repository.rest.url().replace("v3", "v1"), "only GitHub's servers"),
    ] {
        let (_, warning) = repository.warning(&[(name, value)]);
        assert!(warning.contains(text), "{name}={value:?}: {warning}");
        assert!(!warning.contains("ghs_wrong"), "{warning}");
        assert!(old.iter().all(|name| repository.service.keys().contains(name)));
    }
    assert!(repository.rest.seen(Call::Delete).is_empty());
    // At a terminal, the variable that other programs use is read too.
    let saved = repository.keep_one(&[("GITHUB_TOKEN", ""), ("GH_TOKEN", TOKEN)]);
    assert!(saved["deleted"].as_array().unwrap().contains(&json!(old[0])), "{saved}");
}

/// Returns a job whose step keeps one generation of the key.
fn job(repository: &Repository) -> Job {
    let job = Job::on(&repository.place, &[TOOL]).input("backend", "github").input("keep", "1");
    let variables = variables(&repository.service).into_iter().chain(repository.rest.variables());
    let variables = variables.filter(|(name, _)| *name != "GITHUB_TOKEN");
    let job = variables.fold(job, |job, (name, value)| job.env(name, value));
    // As the input is by default.
    let job = job.input("token", TOKEN);
    job.input("key", KEY).input("save", "always").input("network-timeout", "1")
}

#[track_caller]
fn assert_masked(said: &str) {
    let others = said.lines().filter(|line| *line != format!("::add-mask::{TOKEN}"));
    assert!(others.clone().count() < said.lines().count(), "it is masked: {said}");
    assert!(!others.collect::<String>().contains(TOKEN), "{said}");
}

#[test]
fn step_deletes_with_its_default_token() {
    let (repository, old) = Repository::with(2);
    let job = job(&repository);
    let main = job.main();
    assert_masked(&main.said);
    assert!(repository.rest.seen(Call::List).is_empty(), "a restore has no use for it");
    let saved = job.post();
    saved.assert_no_annotations();
    assert_masked(&saved.said);
    for name in &old {
        assert!(
            saved.said.contains(&format!("deleted {name}, which is superseded")),
            "{}",
            saved.said
        );
    }
    assert_eq!(repository.service.keys().len(), 1);
}

#[test]
fn step_without_permission_warns_once_and_succeeds() {
    let (repository, old) = Repository::with(2);
    let refused = Fault::Status(403, "Resource not accessible by integration");
    repository.rest.inject_faults(Call::Delete, [refused]);
    let job = job(&repository);
    job.main();
    let saved = job.post();
    let annotations = saved.annotations();
    assert_eq!(annotations.len(), 1, "{}", saved.said);
    assert_eq!(annotations[0].0, "warning");
    assert!(annotations[0].1.contains("`permissions:` with `actions: write`"), "{annotations:?}");
    assert_masked(&saved.said);
    assert_eq!(repository.service.keys().len(), old.len() + 1);
    // A step without a token reports that too.
    let none = job.input("token", "").post();
    assert_eq!(none.annotations().len(), 1, "{}", none.said);
    assert!(none.annotations()[0].1.contains("there is no token"), "{}", none.said);
}

#[test]
fn canceled_step_keeps_the_remaining_entries() {
    let (repository, _) = Repository::with(40);
    let job = job(&repository);
    job.main();
    let saving = job.start("post");
    poll::until("a deletion", TIMEOUT, || match repository.rest.seen(Call::Delete).len() {
        0 => Err(saving.said()),
        _ => Ok(()),
    });
    saving.signal(Signal::INT);
    saving.wait();
    assert!(repository.service.keys().len() > 20, "{:?}", repository.service.keys());
}
