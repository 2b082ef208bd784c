//! Several backends in an order: which of them is asked, which answers, and which is written.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::Output;
use crate::support::cache_service::{CacheService, TOKEN};
use crate::support::object_server::{Fault, ObjectServer, SECRETS};
use crate::support::plain_env::{self, PlainEnv};
use crate::support::world_runs::report;
use serde_json::Value;
use storecache_backend::options::Service;
use storecache_backend::{Backend, EntryList, FallbackBackend};
use storecache_entry::Rung;
use storecache_runtime::RunContext;

const TOOL: &str = "/opt/tool";

/// Two object stores of different services, and the plain directories that are saved there.
struct TwoBackends {
    first: ObjectServer,
    second: ObjectServer,
    place: PlainEnv,
}

impl TwoBackends {
    fn new() -> TwoBackends {
        let (first, second) =
            (ObjectServer::start(Service::Google), ObjectServer::start(Service::S3));
        TwoBackends { first, second, place: PlainEnv::filled() }
    }

    /// Saves or restores with these flags, whatever the outcome.
    fn attempt(&self, verb: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
        let root = self.place.root().display().to_string();
        let flags = ["--path", TOOL, "--root", &root];
        self.attempt_verb(verb, &[&flags, more].concat(), environment)
    }

    /// Runs any verb, and asserts that no secret is printed.
    fn attempt_verb(&self, verb: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(plain_env::binary());
        command.args([verb, "--store", "plain"]);
        command.args(["--network-timeout", "2"]).args(more);
        command.envs(self.first.variables()).envs(self.second.variables());
        command.env("HOME", self.place.entries()).env_remove("XDG_STATE_HOME");
        command.env_remove("GITHUB_EVENT_PATH").envs(environment.iter().copied());
        let output = plain_env::output(&mut command);
        for secret in SECRETS.iter().chain([&TOKEN]) {
            assert!(!format!("{output}").contains(secret), "{output}");
        }
        output
    }

    #[track_caller]
    fn run(&self, verb: &str, key: &str, backends: &[&str]) -> Value {
        self.run_with(verb, key, backends, &[])
    }

    #[track_caller]
    fn run_with(
        &self,
        verb: &str,
        key: &str,
        backends: &[&str],
        environment: &[(&str, &str)],
    ) -> Value {
        let named = backends.iter().flat_map(|backend| ["--backend", backend]);
        let flags: Vec<_> = named.chain(["--key", key, "--restore-key", "k-", "--json"]).collect();
        report(&self.attempt(verb, &flags, environment).ok())
    }

    /// Both backends in their order.
    fn both(&self) -> [&'static str; 2] {
        [self.first.backend(), self.second.backend()]
    }
}

/// An address where no server listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[track_caller]
fn assert_warns_once(report: &Value, words: &[&str]) {
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{report}");
    let line = warnings[0].as_str().unwrap();
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

#[track_caller]
fn assert_restored_from(report: &Value, saved: &Value, hit: &str) {
    let origin = |report: &Value| (report["entry"].clone(), report["backend"].clone());
    assert_eq!(origin(report), origin(saved), "{report}");
    assert_eq!(report["hit"], hit, "{report}");
}

#[test]
fn fallback_skips_a_backend_that_refuses_connections() {
    let scene = TwoBackends::new();
    let saved = scene.run("save", "k-1", &[scene.second.backend()]);
    let url = nobody();
    let down = [("GOOGLE_BASE_URL", url.as_str())];
    let restored = scene.run_with("restore", "k-1", &scene.both(), &down);
    assert_restored_from(&restored, &saved, "exact");
    assert_warns_once(&restored, &["gs://entries", "does not answer", "Connection refused"]);

    let named = scene.both().map(|backend| ["--backend", backend]).concat();
    let looked =
        scene.attempt_verb("verify", &[&named[..], &["--key", "k-1"]].concat(), &down).ok();
    assert_eq!(looked.stderr.matches("warning: gs://entries").count(), 1, "{looked}");

    // A save skips the backend that is down, too.
    let saved = scene.run_with("save", "k-1", &scene.both(), &down);
    assert!(saved["backend"].as_str().unwrap().starts_with("s3://"), "{saved}");
    assert_warns_once(&saved, &["gs://entries", "Connection refused"]);
    let missed = scene.run_with("restore", "other", &scene.both()[..], &down);
    assert_eq!(missed["hit"], "prefix");
}

#[test]
fn fallback_skips_a_backend_after_one_stall_timeout() {
    let scene = TwoBackends::new();
    let saved = scene.run("save", "k-1", &[scene.second.backend()]);
    scene.first.log();
    scene.first.inject_faults("", Fault::Hang, 0, 1000);
    let restored = scene.run("restore", "k-1", &scene.both());
    assert_restored_from(&restored, &saved, "exact");
    assert_warns_once(&restored, &["gs://entries", "does not answer", "2 s"]);
    assert_eq!(scene.first.log().len(), 1, "it is asked only once");
    let saved = scene.run("save", "k-1", &scene.both());
    assert!(saved["backend"].as_str().unwrap().starts_with("s3://"), "{saved}");
    assert_warns_once(&saved, &["gs://entries", "does not answer"]);
    assert_eq!(scene.first.log().len(), 1);

    // A backend that rejects every request is skipped like a silent one.
    scene.first.inject_faults("", Fault::Status(403, "AccountProblem"), 0, 1000);
    let restored = scene.run("restore", "k-1", &scene.both());
    assert_restored_from(&restored, &saved, "exact");
    assert_warns_once(&restored, &["gs://entries", "HTTP 403 AccountProblem"]);
}

#[test]
fn fallback_does_not_ask_a_stalled_backend_again() {
    let scene = TwoBackends::new();
    scene.first.inject_faults("", Fault::Hang, 0, 1000);
    let members = [&scene.first, &scene.second].map(|it| Arc::new(it.open()) as Arc<dyn Backend>);
    let several =
        FallbackBackend::new(&RunContext::default(), members.into(), Duration::from_secs(2));
    for times in [1, 0, 0] {
        let (_, notes) = several.entries(&Rung::Prefix("k-".into())).unwrap();
        // Each stall timeout that was waited for is reported.
        assert_eq!(notes.warnings.len(), times);
    }
}

#[test]
fn fallback_tries_backends_in_order_until_an_exact_hit() {
    let scene = TwoBackends::new();
    let second = scene.run("save", "k-1", &[scene.second.backend()]);
    let restored = scene.run("restore", "k-1", &scene.both());
    assert_restored_from(&restored, &second, "exact");
    assert_eq!(restored["warnings"], Value::Null, "{restored}");

    // An exact hit in the later backend comes before a prefix hit in the earlier one. For the same rung, the
    // earlier backend comes first.
    let first = scene.run("save", "k-2", &[scene.first.backend()]);
    assert_restored_from(&scene.run("restore", "k-1", &scene.both()), &second, "exact");
    assert_restored_from(&scene.run("restore", "k-3", &scene.both()), &first, "prefix");
    scene.run("save", "k-2", &[scene.second.backend()]);
    scene.second.log();
    assert_restored_from(&scene.run("restore", "k-2", &scene.both()), &first, "exact");
    assert_eq!(scene.second.log().len(), 0, "no other backend is asked");

    let missed = scene.run("restore", "else", &scene.both()[..]);
    assert_eq!(missed["hit"], "prefix");
    let none = ["--restore-key", "none-", "--json", "--key", "none"];
    let named = scene.both().map(|backend| ["--backend", backend]).concat();
    let missed = report(&scene.attempt("restore", &[&named[..], &none].concat(), &[]).ok());
    assert_eq!(missed["hit"], "miss");
    let reason = missed["reason"].as_str().unwrap();
    assert!(reason.contains("gs://entries") && reason.contains("s3://entries"), "{reason}");
}

#[test]
fn fallback_reports_only_the_first_cause_if_none_answers() {
    let scene = TwoBackends::new();
    let (url, other) = (nobody(), nobody());
    let down = [("GOOGLE_BASE_URL", url.as_str()), ("AWS_ENDPOINT_URL", other.as_str())];
    let named = scene.both().map(|backend| ["--backend", backend]).concat();
    for verb in ["restore", "save"] {
        let flags = [&named[..], &["--key", "k", "--json"]].concat();
        let output = scene.attempt(verb, &flags, &down);
        let json = report(&output);
        assert_eq!((output.code(), &json["warnings"]), (1, &Value::Null), "{json}");
        let reason = json["reason"].as_str().unwrap();
        assert!(reason.contains("none of 2 backends answers; gs://entries"), "{reason}");
        assert_eq!(reason.matches("Connection refused").count(), 1, "{reason}");
        assert!(!reason.contains("s3://"), "{reason}");
        assert_eq!(json["hit"], "miss");
    }
    // A backend that could not even be opened is reported with its own cause.
    let down = [("GOOGLE_OAUTH_ACCESS_TOKEN", ""), ("AWS_ENDPOINT_URL", other.as_str())];
    let flags = [&named[..], &["--key", "k", "--json"]].concat();
    let json = report(&scene.attempt("restore", &flags, &down));
    assert_warns_once(&json, &["gs://entries", "no credentials in the environment"]);
    assert!(json["reason"].as_str().unwrap().contains("Connection refused"), "{json}");
}

#[test]
fn save_goes_to_the_first_writable_backend() {
    let scene = TwoBackends::new();
    let saved = scene.run("save", "k-1", &scene.both());
    assert!(saved["backend"].as_str().unwrap().starts_with("gs://"), "{saved}");
    assert_eq!(scene.second.keys_and_uploads().0.len(), 0);

    // A backend that permits only reads is skipped by a save, without a warning.
    scene.first.inject_faults("^PUT", Fault::Status(403, "AccessDenied"), 0, 1000);
    let saved = scene.run("save", "k-1", &scene.both());
    assert!(saved["backend"].as_str().unwrap().starts_with("s3://"), "{saved}");
    assert_eq!(saved["warnings"], Value::Null, "{saved}");
    let refused = scene.attempt("save", &["--backend", scene.first.backend(), "--key", "k"], &[]);
    assert!(refused.fails().stderr.contains("cannot write"));

    // A backend whose requests are not signed is skipped too, and is not even asked.
    scene.first.inject_faults("", Fault::Hang, 0, 0);
    scene.first.log();
    let unsigned = [("GOOGLE_SKIP_SIGNATURE", "true")];
    let saved = scene.run_with("save", "k-1", &scene.both(), &unsigned);
    assert!(saved["backend"].as_str().unwrap().starts_with("s3://"), "{saved}");
    let flags = ["--backend", scene.first.backend(), "--key", "k"];
    let refused = scene.attempt("save", &flags, &unsigned).fails();
    assert!(refused.stderr.contains("its requests are not signed"), "{refused}");
    assert!(!scene.first.log().iter().any(|asked| asked[0].starts_with("PUT")));

    // Without credentials for the first backend, as in a job of a fork, the others are used.
    let none = [("GOOGLE_OAUTH_ACCESS_TOKEN", "")];
    let restored = scene.run_with("restore", "k-1", &scene.both(), &none);
    assert_restored_from(&restored, &saved, "exact");
    assert_warns_once(&restored, &["gs://entries", "no credentials in the environment"]);
}

#[test]
fn fallback_accepts_the_cache_service_and_a_directory() {
    let scene = TwoBackends::new();
    let service = CacheService::start();
    let url = service.url();
    let job = [
        ("ACTIONS_RESULTS_URL", url.as_str()),
        ("ACTIONS_RUNTIME_TOKEN", TOKEN),
        ("ACTIONS_CACHE_SERVICE_V2", "True"),
        ("GITHUB_SERVER_URL", "https://github.com"),
    ];
    let directory = format!("dir:{}", scene.place.entries().join("below").display());
    let all = ["github", scene.second.backend(), &directory];
    let saved = scene.run_with("save", "k-1", &all, &job);
    assert!(saved["backend"].as_str().unwrap().starts_with("github"), "{saved}");
    assert_restored_from(&scene.run_with("restore", "k-1", &all, &job), &saved, "exact");
    let kept = scene.run_with("save", "k-9", &[&directory], &job);
    assert_restored_from(&scene.run_with("restore", "k-9", &all, &job), &kept, "exact");
    drop(service);
    let restored = scene.run_with("restore", "k-9", &all, &job);
    assert_restored_from(&restored, &kept, "exact");
    assert_warns_once(&restored, &["github", "Connection refused"]);

    let twice = ["--backend", &directory, "--backend", &directory, "--key", "k"];
    let wrong = scene.attempt("restore", &twice, &[]);
    assert!(wrong.code() == 2 && wrong.stderr.contains("named twice"), "{wrong}");
}
