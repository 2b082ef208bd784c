//! Tests of the step of a job while its cache service fails, while the step is canceled, and while several jobs
//! share the service: in each case the job continues, and its store is either unchanged or completely restored.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::support::cache_service::{CacheService, Fault, RequestKind, SIGNATURE, TOKEN};
use crate::support::job::{Job, RunningStep, StepResult};
use crate::support::pause_at_open::PauseAtOpen;
use crate::support::plain_env::{PlainEnv, PlainTree, assert_same_tree};
use crate::support::world_runs::{assert_same, record_state, staging};
use crate::support::{Fixture, Role, World, poll};
use rustix::process::Signal;

const TOOL: &str = "/opt/tool";
const KEY: &str = "test";
const TIMEOUT: Duration = Duration::from_secs(60);

/// More faults than any run makes attempts.
const LASTING: usize = 60;

/// Returns bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Returns a plain-directory fixture with a directory that is larger than a single read.
fn plain_store_of_size(bytes: usize) -> PlainEnv {
    let place = PlainEnv::new();
    place.write("/opt/tool/small", "small\n");
    fs::write(place.host("/opt/tool/large"), noise(bytes)).unwrap();
    place
}

/// Sets the variables of the service that a runner sets for a step with `uses:`.
fn with_service(mut job: Job, service: &CacheService) -> Job {
    for (name, value) in [
        ("ACTIONS_RESULTS_URL", service.url()),
        ("ACTIONS_CACHE_URL", service.url()),
        ("ACTIONS_RUNTIME_TOKEN", TOKEN.into()),
        ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
        ("GITHUB_SERVER_URL", "https://github.com".into()),
    ] {
        job = job.env(name, value);
    }
    let job = job.input("network-timeout", "2").input("answer-timeout", "4");
    job.input("backend", "github").input("key", KEY)
}

fn job(place: &PlainEnv, service: &CacheService, version: &str) -> Job {
    with_service(Job::on(place, &[TOOL]), service).input("cache-service", version)
}

/// Returns the tree of [`plain_store_of_size`] three million bytes, the version under which a service stores its
/// snapshot, and the snapshot.
fn saved() -> &'static (PlainTree, String, Vec<u8>) {
    static SAVED: OnceLock<(PlainTree, String, Vec<u8>)> = OnceLock::new();
    SAVED.get_or_init(|| {
        let (place, service) = (plain_store_of_size(3_000_000), CacheService::start());
        let job = job(&place, &service, "v2");
        job.main();
        job.post();
        let key = service.keys().remove(0);
        (place.tree(TOOL), service.version_of(&key), service.content(&key))
    })
}

/// Returns a service that has the snapshot already.
fn filled_service() -> CacheService {
    let service = CacheService::start();
    let (_, version, bytes) = saved();
    service.put(&format!("{KEY}.20261122T095523.123456Z"), version, bytes);
    service
}

/// Asserts that the log has no secret, except where the runner is asked to mask it.
#[track_caller]
fn assert_no_secret(ran: &StepResult, what: &str) {
    // The mask comes first, so that the runner masks the token in all further output.
    let first = ran.said.lines().next().unwrap_or_default();
    assert_eq!(first, format!("::add-mask::{TOKEN}"), "{what}");
    let lines = ran.said.lines().filter(|line| !line.starts_with("::add-mask::"));
    let log: String = lines.collect::<Vec<_>>().join("\n");
    for secret in [TOKEN, SIGNATURE, "sig=", "/blob/"] {
        assert!(!log.contains(secret), "{what}: {secret} in {log}");
        assert!(!format!("{:?}", ran.outputs).contains(secret), "{what}: {:?}", ran.outputs);
    }
}

/// Returns the warning, if there is one, and asserts that there is no other annotation.
#[track_caller]
fn warning(ran: &StepResult, what: &str) -> Option<String> {
    let mut annotations = ran.annotations();
    assert!(annotations.len() <= 1, "{what}: {}", ran.said);
    let (kind, text) = annotations.pop()?;
    assert_eq!(kind, "warning", "{what}: {text}");
    Some(text)
}

/// The expected result of a fault.
#[derive(Clone, Copy, Debug)]
enum ExpectedResult {
    /// The step succeeds without a message.
    Well,
    /// The step does not restore or save, and its only warning contains this text.
    Warns(&'static str),
    /// The step does not restore or save, which is not a failure: the log contains this text.
    Says(&'static str),
}
use ExpectedResult::{Says, Warns, Well};

/// A fault, the result if it occurs once, and the result if it lasts.
type FaultRow = (Fault, ExpectedResult, ExpectedResult);

fn status(status: u16, said: &'static str) -> Fault {
    Fault::Status(status, said)
}

const DENIED_READ: &str = "cache read denied: token has no readable scopes";
const DENIED_WRITE: &str = "cache write denied: token has no writable scopes";
const CANNOT_READ: &str = "this run cannot read: token has no readable scopes";
const CANNOT_WRITE: &str = "this run cannot write: token has no writable scopes";

/// Faults of any call to the service.
fn call_faults() -> Vec<FaultRow> {
    vec![
        (Fault::Reset, Well, Warns("(5 tries)")),
        (Fault::Stall, Well, Warns("no answer in time: no bytes received for 4 s (5 tries)")),
        (Fault::Page, Well, Warns("the response is not JSON (HTTP 200)")),
        (status(500, "boom"), Well, Warns("the server failed (HTTP 500)")),
        (status(502, "gateway"), Well, Warns("the server failed (HTTP 502)")),
        (status(503, "busy"), Well, Warns("the server failed (HTTP 503)")),
        (status(504, "late"), Well, Warns("the server failed (HTTP 504)")),
        (Fault::Later(429, 0), Well, Warns("too many requests (HTTP 429)")),
        (
            Fault::Later(429, 900),
            Warns("it asks to retry in 900 s"),
            Warns("it asks to retry in 900 s"),
        ),
        (
            status(401, "expired"),
            Warns("the token of the job is not valid or has expired"),
            Warns("the token of the job is not valid or has expired"),
        ),
        (Fault::Slow, Well, Well),
    ]
}

/// Faults of responses: the service has carried out the call, but the client does not know it.
fn response_faults() -> Vec<FaultRow> {
    vec![
        (Fault::LostAnswer, Well, Warns("(5 tries)")),
        (Fault::ResetInBody, Well, Warns("(5 tries)")),
        (Fault::StallInBody, Well, Warns("no bytes received for 2 s (5 tries)")),
        (Fault::Short, Well, Warns("(5 tries)")),
        (status(400, "odd"), Warns("(HTTP 400): odd"), Warns("(HTTP 400): odd")),
    ]
}

fn lookup_faults() -> Vec<FaultRow> {
    let mut rows = call_faults();
    rows.extend(response_faults());
    rows.extend([
        (status(403, DENIED_READ), Says(CANNOT_READ), Says(CANNOT_READ)),
        (Fault::Evict, Says("no entry for the key"), Says("no entry for the key")),
    ]);
    rows
}

fn range_faults() -> Vec<FaultRow> {
    vec![
        (Fault::Reset, Well, Warns("(5 tries)")),
        (Fault::LostAnswer, Well, Warns("(5 tries)")),
        (Fault::ResetInBody, Well, Warns("(5 tries)")),
        (Fault::Stall, Well, Warns("no answer in time: no bytes received for 4 s (5 tries)")),
        (Fault::StallInBody, Well, Warns("no bytes received for 2 s (5 tries)")),
        (Fault::Short, Well, Warns("(5 tries)")),
        (status(500, "boom"), Well, Warns("the blob server answered HTTP 500 (5 tries)")),
        (status(503, "busy"), Well, Warns("the blob server answered HTTP 503 (5 tries)")),
        (Fault::Later(503, 60), Warns("asks to retry in 60 s"), Warns("asks to retry in 60 s")),
        // The URL is renewed.
        (status(401, "no"), Well, Warns("the server also refuses new URLs")),
        (status(403, "no"), Well, Warns("the server also refuses new URLs")),
        (Fault::Expire, Well, Warns("the server also refuses new URLs")),
        (Fault::Evict, Warns("deleted in the meantime"), Warns("deleted in the meantime")),
        (status(404, "gone"), Warns("deleted in the meantime"), Warns("deleted in the meantime")),
        (status(412, "no"), Warns("changed while it was read"), Warns("changed while it was read")),
        (status(416, "no"), Warns("changed while it was read"), Warns("changed while it was read")),
        (Fault::Page, Well, Warns("the server sent an HTML page instead of the entry (5 tries)")),
        (Fault::WholeBody, Well, Well),
        (Fault::WholeInChunks, Well, Well),
        (Fault::OtherRange, Well, Warns("a different range than requested")),
        (Fault::OtherTag, Warns("changed while it was read"), Warns("changed while it was read")),
        (Fault::Slow, Well, Well),
    ]
}

fn reservation_faults() -> Vec<FaultRow> {
    let taken = Says("already exists or is being written by another run");
    let mut rows = call_faults();
    // If the response to a reservation is lost, another reservation is made.
    rows.extend(response_faults());
    rows.extend([
        (status(409, "taken"), taken, taken),
        (status(403, DENIED_WRITE), Says(CANNOT_WRITE), Says(CANNOT_WRITE)),
        (
            status(403, "insufficient usage to reserve"),
            Warns("the storage of the repository is used up"),
            Warns("the storage of the repository is used up"),
        ),
        (
            status(429, "insufficient usage to reserve"),
            Warns("the storage of the repository is used up"),
            Warns("the storage of the repository is used up"),
        ),
    ]);
    rows
}

fn block_faults() -> Vec<FaultRow> {
    vec![
        (Fault::Reset, Well, Warns("(5 tries)")),
        (Fault::LostAnswer, Well, Warns("(5 tries)")),
        (Fault::Stall, Well, Warns("no bytes transferred for 4 s (5 tries)")),
        (status(500, "boom"), Well, Warns("the blob server answered HTTP 500 (5 tries)")),
        (status(503, "busy"), Well, Warns("the blob server answered HTTP 503 (5 tries)")),
        (Fault::Later(503, 60), Warns("asks to retry in 60 s"), Warns("asks to retry in 60 s")),
        (status(400, "odd"), Warns("answered HTTP 400"), Warns("answered HTTP 400")),
        (
            status(403, "no"),
            Warns("the URL for it is not valid"),
            Warns("is not valid or has expired"),
        ),
        (status(409, "no"), Warns("answered HTTP 409"), Warns("answered HTTP 409")),
        (status(413, "no"), Warns("answered HTTP 413"), Warns("answered HTTP 413")),
        (Fault::Slow, Well, Well),
    ]
}

fn finalize_faults() -> Vec<FaultRow> {
    let mut rows = call_faults();
    rows.extend([
        // The service has completed the entry, as a lookup shows.
        (Fault::LostAnswer, Well, Well),
        (Fault::ResetInBody, Well, Well),
        (Fault::StallInBody, Well, Well),
        (Fault::Short, Well, Well),
        (status(404, "not found"), Well, Warns("did not accept it (HTTP 404): not found")),
        (status(409, "busy"), Well, Warns("did not accept it (HTTP 409): busy")),
    ]);
    rows
}

/// Faults that only version 2 of the service has.
fn reservation_faults_v2() -> Vec<FaultRow> {
    vec![
        (
            status(200, "ok: cache write denied: read-only"),
            Says("this run cannot write: read-only"),
            Says("this run cannot write: read-only"),
        ),
        // The response of servers other than GitHub's.
        (
            status(200, "ok: "),
            Says("already exists or is being written"),
            Says("already exists or is being written"),
        ),
        (status(200, "ok: no luck"), Warns("no luck"), Warns("no luck")),
    ]
}

fn finalize_faults_v2() -> Vec<FaultRow> {
    vec![
        (status(200, "ok: no luck"), Well, Warns("did not accept it (HTTP 200): no luck")),
        // A denial at the end, after all the work, is a warning.
        (
            status(200, "ok: cache write denied: too late"),
            Warns("this run cannot write: too late"),
            Warns("this run cannot write: too late"),
        ),
    ]
}

/// Runs each case on a thread of its own, several at a time, because they mostly wait. Reports all failures.
fn all<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| check(case));
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| panic.downcast_ref().map(|it: &&str| (*it).into()));
                        failed.lock().unwrap().push(text.unwrap_or_default());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n---\n"));
}

/// A row in one version of the service, once or lasting.
struct Case {
    at: RequestKind,
    fault: Fault,
    times: usize,
    /// The number of such requests that succeed before.
    after: usize,
    comes: ExpectedResult,
    version: &'static str,
}

fn cases(at: RequestKind, after: usize, rows: &[FaultRow], versions: &[&'static str]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &version in versions {
        for (fault, once, lasting) in rows {
            // A lasting fault has the same result in both versions.
            let lasting = (version == "v2").then_some((LASTING, *lasting));
            for (times, comes) in [Some((1, *once)), lasting].into_iter().flatten() {
                cases.push(Case { at, fault: fault.clone(), times, after, comes, version });
            }
        }
    }
    cases
}

const SERVICE_VERSIONS: [&str; 2] = ["v1", "v2"];

impl Case {
    fn name(&self) -> String {
        let Case { at, fault, times, after, version, .. } = self;
        format!("{version} {at:?} {fault:?}, {times} times after {after}")
    }

    fn begin(&self, service: &CacheService) {
        service.inject_faults(self.at, std::iter::repeat_n(Fault::Slow, self.after));
        service.inject_faults(self.at, std::iter::repeat_n(self.fault.clone(), self.times));
    }

    /// Asserts that the step reports exactly the expected message.
    #[track_caller]
    fn assert_reported(&self, ran: &StepResult) {
        let what = self.name();
        assert_eq!(ran.code, 0, "{what}: {}", ran.said);
        assert_no_secret(ran, &what);
        let reported = warning(ran, &what);
        match (self.comes, reported) {
            (Well, None) => {}
            (Warns(cause), Some(text)) => {
                assert!(text.contains(cause), "{what}: {text}");
                assert!(text.len() < 400, "{what}: {text}");
            }
            (Says(cause), None) => assert!(ran.said.contains(cause), "{what}: {}", ran.said),
            (comes, reported) => panic!("{what}: {comes:?} {reported:?}\n{}", ran.said),
        }
    }
}

#[test]
fn restore_step_succeeds_despite_any_service_fault() {
    let mut all_cases = cases(RequestKind::Lookup, 0, &lookup_faults(), &SERVICE_VERSIONS);
    all_cases.extend(cases(RequestKind::Range, 0, &range_faults(), &SERVICE_VERSIONS));
    // Also when the head is read and the restore is planned.
    all_cases.extend(cases(RequestKind::Range, 2, &range_faults(), &["v2"]));
    all(&all_cases, |case| {
        let what = case.name();
        let (service, place) = (filled_service(), PlainEnv::new());
        case.begin(&service);
        let job = job(&place, &service, case.version);
        let ran = job.run("main");
        case.assert_reported(&ran);
        match case.comes {
            Well => {
                assert_eq!(ran.output("hit-kind"), "exact", "{what}");
                assert_eq!(ran.output("cache-hit"), "true", "{what}");
                assert_eq!(ran.output("reason"), "", "{what}");
                assert_same_tree(&saved().0, &place.tree(TOOL));
            }
            Warns(cause) | Says(cause) => {
                assert_eq!(ran.output("hit-kind"), "miss", "{what}");
                assert_eq!(ran.output("cache-hit"), "", "{what}");
                assert_eq!(ran.output("restored-items"), "0", "{what}");
                assert!(ran.output("reason").contains(cause), "{what}: {}", ran.output("reason"));
                assert!(!place.host(TOOL).exists(), "{what}: an incomplete directory");
            }
        }
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        assert_only_state(&job, &what);
    });
}

#[test]
fn save_step_succeeds_despite_any_service_fault() {
    let mut all_cases = cases(RequestKind::Reserve, 0, &reservation_faults(), &SERVICE_VERSIONS);
    all_cases.extend(cases(RequestKind::Reserve, 0, &reservation_faults_v2(), &["v2"]));
    all_cases.extend(cases(RequestKind::Block, 0, &block_faults(), &SERVICE_VERSIONS));
    all_cases.extend(cases(RequestKind::Finalize, 0, &finalize_faults(), &SERVICE_VERSIONS));
    all_cases.extend(cases(RequestKind::Finalize, 0, &finalize_faults_v2(), &["v2"]));
    // A save looks up existing entries before it does anything.
    all_cases.extend(cases(RequestKind::Lookup, 0, &call_faults(), &SERVICE_VERSIONS));
    all_cases.extend(cases(RequestKind::Lookup, 0, &response_faults(), &["v2"]));
    all(&all_cases, |case| check_save(case, 3_000_000));
    // Several blocks, which the service assembles.
    let lists = cases(RequestKind::BlockList, 0, &block_faults(), &["v2"]);
    all(&lists, |case| check_save(case, 17_000_000));
}

fn check_save(case: &Case, bytes: usize) {
    let what = case.name();
    let (service, place) = (CacheService::start(), plain_store_of_size(bytes));
    let before = place.tree(TOOL);
    let job = job(&place, &service, case.version);
    job.main().assert_no_annotations();
    case.begin(&service);
    let ran = job.run("post");
    service.clear_faults();
    case.assert_reported(&ran);
    assert_same_tree(&before, &place.tree(TOOL));
    assert_eq!(place.leftovers(), [""; 0], "{what}");
    assert_only_state(&job, &what);
    let keys = service.keys();
    if matches!(case.comes, Well) {
        assert_eq!(keys.len(), 1, "{what}");
        place.remove(TOOL);
        let next = self::job(&place, &service, case.version).main();
        assert_eq!(next.output("hit-kind"), "exact", "{what}");
        assert_same_tree(&before, &place.tree(TOOL));
    } else {
        assert_eq!(keys, [""; 0], "{what}");
        assert!(ran.said.contains("nothing was saved") || warning(&ran, &what).is_some(), "{what}");
    }
}

/// Asserts that the runner's directory only contains the state shared by the parts of the step.
#[track_caller]
fn assert_only_state(job: &Job, what: &str) {
    let names: Vec<String> = job.temporary();
    let others =
        names.iter().filter(|name| !(name.starts_with("storecache-") && name.ends_with(".json")));
    assert_eq!(others.count(), 0, "{what}: {names:?}");
}

/// Waits until the service has received this many requests of a kind.
#[track_caller]
fn wait_for_requests(service: &CacheService, at: RequestKind, times: usize, started: &RunningStep) {
    poll::until(&format!("request {times} for {at:?}"), TIMEOUT, || match service.seen(at).len() {
        seen if seen >= times => Ok(()),
        seen => Err(format!("{seen}; {}", started.said())),
    });
}

/// Cancels a part of the step that waits for the service, and asserts that the program ends at once, not only
/// when the shim's timeout ends.
#[track_caller]
fn cancel(started: RunningStep, what: &str) -> StepResult {
    let program = started.program();
    started.signal(Signal::INT);
    ended(started, what, || assert!(!program.exists(), "{what}: {} still runs", program.display()))
}

/// Waits for the end of a canceled part of the step and returns its result. In a world, the message of the
/// cancellation appears after node has ended.
#[track_caller]
fn ended(started: RunningStep, what: &str, look: impl FnOnce()) -> StepResult {
    poll::until("the program to notice", TIMEOUT, || {
        let said = started.said();
        if said.contains("canceled by a signal") { Ok(()) } else { Err(said) }
    });
    let ran = started.wait();
    assert_eq!(ran.code, 1, "{what}: {}", ran.said);
    ran.assert_no_annotations();
    assert_no_secret(&ran, what);
    look();
    ran
}

#[test]
fn canceled_restore_ends_at_once_during_a_request() {
    // The lookup; head, index and frames; and a delay that the service has requested.
    let silent = |at, after| (at, after, Fault::Stall);
    let cases = [
        silent(RequestKind::Lookup, 0),
        silent(RequestKind::Range, 0),
        silent(RequestKind::Range, 1),
        silent(RequestKind::Range, 2),
        (RequestKind::Range, 2, Fault::StallInBody),
        (RequestKind::Lookup, 0, Fault::Later(429, 29)),
        (RequestKind::Range, 2, Fault::Later(503, 29)),
    ];
    all(&cases, |(at, after, fault)| {
        let what = format!("{at:?} {after} {fault:?}");
        let (service, place) = (filled_service(), PlainEnv::new());
        service.inject_faults(*at, std::iter::repeat_n(Fault::Slow, *after));
        service.inject_faults(*at, std::iter::repeat_n(fault.clone(), LASTING));
        let job = job(&place, &service, "v2").input("network-timeout", "20");
        let restoring = job.start("main");
        wait_for_requests(&service, *at, after + 1, &restoring);
        let ran = cancel(restoring, &what);
        assert_eq!(ran.output("hit-kind"), "miss", "{what}");
        assert!(!place.host(TOOL).exists(), "{what}");
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        service.clear_faults();
        let post = job.post();
        assert!(post.said.contains("nothing is saved"), "{what}: {}", post.said);
        assert_eq!(service.keys().len(), 1, "{what}");
    });
}

#[test]
fn canceled_save_ends_at_once_and_leaves_no_entry() {
    let cases = [
        (RequestKind::Lookup, 3_000_000),
        (RequestKind::Range, 3_000_000),
        (RequestKind::Reserve, 3_000_000),
        // In a single request, and in blocks.
        (RequestKind::Block, 3_000_000),
        (RequestKind::Block, 90_000_000),
        (RequestKind::BlockList, 17_000_000),
        (RequestKind::Finalize, 3_000_000),
    ];
    all(&cases, |&(at, bytes)| {
        let what = format!("{at:?} {bytes}");
        let place = plain_store_of_size(bytes);
        // A save reads an existing entry only if there is one.
        let service =
            if at == RequestKind::Range { filled_service() } else { CacheService::start() };
        let before = place.tree(TOOL);
        let entries = service.keys();
        let job = job(&place, &service, "v2").input("network-timeout", "20");
        job.main().assert_no_annotations();
        let asked = service.seen(at).len();
        service.inject_faults(at, std::iter::repeat_n(Fault::Stall, LASTING));
        let saving = job.start("post");
        wait_for_requests(&service, at, asked + 1, &saving);
        cancel(saving, &what);
        service.clear_faults();
        assert_eq!(service.keys(), entries, "{what}");
        assert_same_tree(&before, &place.tree(TOOL));
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        assert_only_state(&job, &what);
    });
}

#[test]
fn second_concurrent_save_of_a_key_is_skipped() {
    for version in SERVICE_VERSIONS {
        let (service, place) = (CacheService::start(), plain_store_of_size(3_000_000));
        let (first, second) = (job(&place, &service, version), job(&place, &service, version));
        first.main();
        second.main();
        service.inject_faults(RequestKind::Reserve, [Fault::Hold]);
        let held_up = second.start("post");
        wait_for_requests(&service, RequestKind::Reserve, 1, &held_up);
        let saved = first.post();
        saved.assert_no_annotations();
        assert!(saved.said.contains("saved 1 item as test."), "{}", saved.said);
        service.release_held_requests();
        let left = held_up.wait().ok();
        left.assert_no_annotations();
        let theirs = format!("nothing was saved: entry {} already exists", service.keys()[0]);
        assert!(left.said.to_lowercase().contains(&theirs.to_lowercase()), "{}", left.said);
        assert_eq!(service.keys().len(), 1);
        assert_no_secret(&left, version);
    }
}

#[test]
fn simultaneous_saves_of_one_key_all_succeed() {
    let (service, place) = (CacheService::start(), plain_store_of_size(3_000_000));
    let before = place.tree(TOOL);
    let jobs: Vec<Job> = (0..4).map(|_| job(&place, &service, "v2")).collect();
    jobs.iter().for_each(|job| drop(job.main()));
    let saving: Vec<RunningStep> = jobs.iter().map(|job| job.start("post")).collect();
    for ran in saving.into_iter().map(|started| started.wait().ok()) {
        ran.assert_no_annotations();
        let saved = ran.said.contains("saved 1 item as test.");
        // A late job finds that everything is saved already.
        let left = ["already exists or is being written by another run", "unchanged: test.20"];
        assert!(saved || left.iter().any(|why| ran.said.contains(why)), "{}", ran.said);
    }
    assert!((1..=4).contains(&service.keys().len()), "{:?}", service.keys());
    place.remove(TOOL);
    assert_eq!(job(&place, &service, "v2").main().output("hit-kind"), "exact");
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn larger_save_is_kept_beside_a_concurrent_smaller_one() {
    let (service, place) = (CacheService::start(), PlainEnv::filled());
    let small = job(&place, &service, "v2");
    let large = job(&place, &service, "v2").input("path", format!("{TOOL}\n/var/lib/data"));
    small.main();
    large.main();
    service.inject_faults(RequestKind::Reserve, [Fault::Hold]);
    let held_up = large.start("post");
    wait_for_requests(&service, RequestKind::Reserve, 1, &held_up);
    small.post();
    service.release_held_requests();
    let saved = held_up.wait().ok();
    assert!(saved.said.contains("saved 2 items as test."), "{}", saved.said);
    assert_eq!(service.keys().len(), 2);
}

/// Returns a job in a world that uses the service.
fn job_inside(world: &World, service: &CacheService, name: &str) -> Job {
    with_service(Job::inside(world, name), service).input("baseline", "include")
}

/// Asserts that the store is empty, the daemon answers, and no process is left.
#[track_caller]
fn assert_untouched(world: &World, what: &str) {
    assert_no_run_is_active(world, what);
    assert!(world.valid_paths().is_empty(), "{what}");
}

/// Asserts that the daemon answers, and that no process or file of a run is left.
#[track_caller]
fn assert_no_run_is_active(world: &World, what: &str) {
    poll::until("all processes to have ended", TIMEOUT, || {
        match world.run(["pgrep", "-x", "storecache"]).stdout.trim() {
            "" => Ok(()),
            pids => Err(pids.to_owned()),
        }
    });
    assert!(world.daemon_answers(), "{what}: {}", world.daemon_log());
    assert_eq!(staging(world), [""; 0], "{what}");
    let foreign = world.sh("find /cache -path '/cache/*/temp/*' ! -user runner");
    assert_eq!(foreign.stdout, "", "{what}: root left files in the runner's directories");
}

#[test]
fn service_fault_leaves_store_and_daemon_unchanged() {
    for role in [Role::New, Role::Guix] {
        let world = World::build(role).fixture(Fixture::Small).network().start();
        world.start_daemon();
        let before = record_state(&world);
        let service = CacheService::start();
        let saver = job_inside(&world, &service, "saver");
        saver.main().assert_no_annotations();
        saver.post().assert_no_annotations();
        let key = service.keys().remove(0);
        let (version, bytes) = (service.version_of(&key), service.content(&key));
        world.wipe_store();
        let asked_before = service.seen(RequestKind::Range).len();
        let good = job_inside(&world, &service, "good");
        assert_eq!(good.main().output("hit-kind"), "exact");
        assert_same(&before, &record_state(&world));
        // The head, the tail, and the wanted frames.
        let ranges = service.seen(RequestKind::Range).len() - asked_before;
        world.wipe_store();

        for (number, (at, fault, cause)) in [
            (RequestKind::Lookup, status(500, "boom"), "the server failed (HTTP 500)"),
            (RequestKind::Range, Fault::ResetInBody, "(5 tries)"),
            (RequestKind::Range, Fault::StallInBody, "no bytes received for 2 s (5 tries)"),
            (RequestKind::Range, Fault::Evict, "deleted in the meantime"),
            (RequestKind::Range, Fault::OtherTag, "changed while it was read"),
            (RequestKind::Range, Fault::Die, "no connection"),
        ]
        .into_iter()
        .enumerate()
        {
            let what = format!("{role:?} {at:?} {fault:?}");
            let service = CacheService::start();
            service.put(&key, &version, &bytes);
            // The last range, when the store is staged.
            let good = if at == RequestKind::Range { ranges - 1 } else { 0 };
            service.inject_faults(at, std::iter::repeat_n(Fault::Slow, good));
            service.inject_faults(at, std::iter::repeat_n(fault, LASTING));
            let ran = job_inside(&world, &service, &format!("job{number}")).main();
            let text = warning(&ran, &what).unwrap_or_else(|| panic!("{what}: {}", ran.said));
            assert!(text.contains(cause), "{what}: {text}");
            assert!(text.contains("nothing was restored, the store is as it was"), "{text}");
            assert_eq!(ran.output("hit-kind"), "miss", "{what}");
            assert_no_secret(&ran, &what);
            assert_untouched(&world, &what);
        }
        // The store can still be restored after all these failures.
        let service = CacheService::start();
        service.put(&key, &version, &bytes);
        assert_eq!(job_inside(&world, &service, "last").main().output("hit-kind"), "exact");
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}

#[test]
fn canceled_step_leaves_the_store_unchanged_in_any_phase() {
    for role in [Role::New, Role::Guix] {
        let world = World::build(role).fixture(Fixture::Small).network().start();
        world.start_daemon();
        let before = record_state(&world);
        let service = CacheService::start();
        let saver = job_inside(&world, &service, "saver").input("network-timeout", "20");
        saver.main();

        // The save is canceled while it freezes, at the database, and while it packs, at a file of an item.
        let database = world.host(format!("{}/db/db.sqlite", world.state()));
        let item = before.trees.keys().find(|path| world.host(path).is_dir()).unwrap();
        for held in [database, world.host(item)] {
            let what = format!("{role:?} {}", held.display());
            let gate = PauseAtOpen::hold("storecache", &[&held]);
            let saving = saver.start("post");
            gate.wait();
            saving.signal(Signal::INT);
            drop(gate);
            ended(saving, &what, || ());
            assert_eq!(service.keys(), [""; 0], "{what}");
            assert_same(&before, &record_state(&world));
            assert_no_run_is_active(&world, &what);
        }
        for at in [RequestKind::Reserve, RequestKind::Block, RequestKind::Finalize] {
            let what = format!("{role:?} {at:?}");
            let asked = service.seen(at).len();
            service.inject_faults(at, [Fault::Stall]);
            let saving = saver.start("post");
            wait_for_requests(&service, at, asked + 1, &saving);
            cancel(saving, &what);
            assert_eq!(service.keys(), [""; 0], "{what}");
            assert_same(&before, &record_state(&world));
            assert_no_run_is_active(&world, &what);
        }
        service.clear_faults();
        saver.post().assert_no_annotations();
        world.wipe_store();

        // The last range stalls while everything before it is staged.
        let asked = service.seen(RequestKind::Range).len();
        let good = job_inside(&world, &service, "good");
        good.main();
        let ranges = service.seen(RequestKind::Range).len() - asked;
        world.wipe_store();
        for (at, good) in
            [(RequestKind::Lookup, 0), (RequestKind::Range, 0), (RequestKind::Range, ranges - 1)]
        {
            let what = format!("{role:?} {at:?} {good}");
            let asked = service.seen(at).len();
            service.inject_faults(at, std::iter::repeat_n(Fault::Slow, good));
            service.inject_faults(at, [Fault::Stall]);
            let name = format!("off-{at:?}-{good}");
            let job = job_inside(&world, &service, &name).input("network-timeout", "20");
            let restoring = job.start("main");
            wait_for_requests(&service, at, asked + good + 1, &restoring);
            cancel(restoring, &what);
            service.clear_faults();
            assert_untouched(&world, &what);
            assert!(job.post().said.contains("nothing is saved"), "{what}");
        }
        assert_eq!(job_inside(&world, &service, "last").main().output("hit-kind"), "exact");
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}

#[test]
fn restore_canceled_during_daemon_start_is_complete() {
    for (role, daemon) in [(Role::New, "nix-daemon"), (Role::Guix, "guix-daemon")] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = record_state(&world);
        let saver = Job::inside(&world, "saver").input("baseline", "include");
        saver.main();
        saver.post();
        world.wipe_store();
        let gate =
            PauseAtOpen::hold(daemon, &[&world.host(format!("{}/db/db.sqlite", world.state()))]);
        let restoring = Job::inside(&world, "job");
        let restoring = restoring.start("main");
        // Before the commit, the daemon opens the database for other reasons.
        loop {
            gate.wait();
            if !world.valid_paths().is_empty() {
                break;
            }
            gate.pass();
        }
        restoring.signal(Signal::INT);
        drop(gate);
        restoring.wait();
        assert_no_run_is_active(&world, daemon);
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}
