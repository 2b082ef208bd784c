//! Tests of the step of a job while its cache service fails, while the step is canceled, and while several jobs
//! share the service: in each case the job continues, and its store is either unchanged or completely restored.

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::Signal;
use support::cache_service::{CacheService, Fault, Place as At, SIGNATURE, TOKEN};
use support::gate::Gate;
use support::job::{Job, Ran, Started};
use support::place::{Place, PlainTree, assert_same_tree};
use support::runs::{assert_same, picture, staging};
use support::{Fixture, Role, World, poll};

const TOOL: &str = "/opt/tool";
const KEY: &str = "test";
const SOON: Duration = Duration::from_secs(60);

/// More faults than any run makes attempts.
const ON_AND_ON: usize = 60;

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
fn place_of(bytes: usize) -> Place {
    let place = Place::new();
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

fn job(place: &Place, service: &CacheService, version: &str) -> Job {
    with_service(Job::on(place, &[TOOL]), service).input("cache-service", version)
}

/// Returns the tree of [`place_of`] three million bytes, the version under which a service stores its snapshot,
/// and the snapshot.
fn saved() -> &'static (PlainTree, String, Vec<u8>) {
    static SAVED: OnceLock<(PlainTree, String, Vec<u8>)> = OnceLock::new();
    SAVED.get_or_init(|| {
        let (place, service) = (place_of(3_000_000), CacheService::start());
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
fn assert_no_secret(ran: &Ran, what: &str) {
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
fn warning(ran: &Ran, what: &str) -> Option<String> {
    let mut annotations = ran.annotations();
    assert!(annotations.len() <= 1, "{what}: {}", ran.said);
    let (kind, text) = annotations.pop()?;
    assert_eq!(kind, "warning", "{what}: {text}");
    Some(text)
}

/// The expected result of a fault.
#[derive(Clone, Copy, Debug)]
enum Comes {
    /// The step succeeds without a message.
    Well,
    /// The step does not restore or save, and its only warning contains this text.
    Warns(&'static str),
    /// The step does not restore or save, which is not a failure: the log contains this text.
    Says(&'static str),
}
use Comes::{Says, Warns, Well};

/// A fault, the result if it occurs once, and the result if it lasts.
type Row = (Fault, Comes, Comes);

fn status(status: u16, said: &'static str) -> Fault {
    Fault::Status(status, said)
}

const DENIED_READ: &str = "cache read denied: token has no readable scopes";
const DENIED_WRITE: &str = "cache write denied: token has no writable scopes";
const MAY_NOT_READ: &str = "this run cannot read: token has no readable scopes";
const MAY_NOT_WRITE: &str = "this run cannot write: token has no writable scopes";

/// Faults of any call to the service.
fn of_calls() -> Vec<Row> {
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
fn of_answers() -> Vec<Row> {
    vec![
        (Fault::LostAnswer, Well, Warns("(5 tries)")),
        (Fault::ResetInBody, Well, Warns("(5 tries)")),
        (Fault::StallInBody, Well, Warns("no bytes received for 2 s (5 tries)")),
        (Fault::Short, Well, Warns("(5 tries)")),
        (status(400, "odd"), Warns("(HTTP 400): odd"), Warns("(HTTP 400): odd")),
    ]
}

fn of_lookups() -> Vec<Row> {
    let mut rows = of_calls();
    rows.extend(of_answers());
    rows.extend([
        (status(403, DENIED_READ), Says(MAY_NOT_READ), Says(MAY_NOT_READ)),
        (Fault::Evict, Says("no entry for the key"), Says("no entry for the key")),
    ]);
    rows
}

fn of_ranges() -> Vec<Row> {
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

fn of_reservations() -> Vec<Row> {
    let taken = Says("already exists or is being written by another run");
    let mut rows = of_calls();
    // If the response to a reservation is lost, another reservation is made.
    rows.extend(of_answers());
    rows.extend([
        (status(409, "taken"), taken, taken),
        (status(403, DENIED_WRITE), Says(MAY_NOT_WRITE), Says(MAY_NOT_WRITE)),
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

fn of_blocks() -> Vec<Row> {
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

fn of_endings() -> Vec<Row> {
    let mut rows = of_calls();
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
fn of_reservations_v2() -> Vec<Row> {
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

fn of_endings_v2() -> Vec<Row> {
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
    at: At,
    fault: Fault,
    times: usize,
    /// The number of such requests that succeed before.
    after: usize,
    comes: Comes,
    version: &'static str,
}

fn cases(at: At, after: usize, rows: &[Row], versions: &[&'static str]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &version in versions {
        for (fault, once, lasting) in rows {
            // A lasting fault has the same result in both versions.
            let lasting = (version == "v2").then_some((ON_AND_ON, *lasting));
            for (times, comes) in [Some((1, *once)), lasting].into_iter().flatten() {
                cases.push(Case { at, fault: fault.clone(), times, after, comes, version });
            }
        }
    }
    cases
}

const BOTH: [&str; 2] = ["v1", "v2"];

impl Case {
    fn name(&self) -> String {
        let Case { at, fault, times, after, version, .. } = self;
        format!("{version} {at:?} {fault:?}, {times} times after {after}")
    }

    fn begin(&self, service: &CacheService) {
        service.goes_wrong(self.at, std::iter::repeat_n(Fault::Slow, self.after));
        service.goes_wrong(self.at, std::iter::repeat_n(self.fault.clone(), self.times));
    }

    /// Asserts that the step reports exactly the expected message.
    #[track_caller]
    fn assert_told(&self, ran: &Ran) {
        let what = self.name();
        assert_eq!(ran.code, 0, "{what}: {}", ran.said);
        assert_no_secret(ran, &what);
        let told = warning(ran, &what);
        match (self.comes, told) {
            (Well, None) => {}
            (Warns(cause), Some(text)) => {
                assert!(text.contains(cause), "{what}: {text}");
                assert!(text.len() < 400, "{what}: {text}");
            }
            (Says(cause), None) => assert!(ran.said.contains(cause), "{what}: {}", ran.said),
            (comes, told) => panic!("{what}: {comes:?} {told:?}\n{}", ran.said),
        }
    }
}

#[test]
fn whatever_the_service_does_to_a_restore_the_job_goes_on() {
    let mut all_cases = cases(At::Lookup, 0, &of_lookups(), &BOTH);
    all_cases.extend(cases(At::Range, 0, &of_ranges(), &BOTH));
    // Also when the head is read and the restore is planned.
    all_cases.extend(cases(At::Range, 2, &of_ranges(), &["v2"]));
    all(&all_cases, |case| {
        let what = case.name();
        let (service, place) = (filled_service(), Place::new());
        case.begin(&service);
        let job = job(&place, &service, case.version);
        let ran = job.run("main");
        case.assert_told(&ran);
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
                assert!(!place.host(TOOL).exists(), "{what}: half a directory");
            }
        }
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        assert_only_state(&job, &what);
    });
}

#[test]
fn whatever_the_service_does_to_a_save_the_job_goes_on() {
    let mut all_cases = cases(At::Reserve, 0, &of_reservations(), &BOTH);
    all_cases.extend(cases(At::Reserve, 0, &of_reservations_v2(), &["v2"]));
    all_cases.extend(cases(At::Block, 0, &of_blocks(), &BOTH));
    all_cases.extend(cases(At::Finalize, 0, &of_endings(), &BOTH));
    all_cases.extend(cases(At::Finalize, 0, &of_endings_v2(), &["v2"]));
    // A save looks up existing entries before it does anything.
    all_cases.extend(cases(At::Lookup, 0, &of_calls(), &BOTH));
    all_cases.extend(cases(At::Lookup, 0, &of_answers(), &["v2"]));
    all(&all_cases, |case| check_save(case, 3_000_000));
    // Several blocks, which the service assembles.
    let lists = cases(At::BlockList, 0, &of_blocks(), &["v2"]);
    all(&lists, |case| check_save(case, 17_000_000));
}

fn check_save(case: &Case, bytes: usize) {
    let what = case.name();
    let (service, place) = (CacheService::start(), place_of(bytes));
    let before = place.tree(TOOL);
    let job = job(&place, &service, case.version);
    job.main().assert_no_annotations();
    case.begin(&service);
    let ran = job.run("post");
    service.goes_well();
    case.assert_told(&ran);
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
fn until_asked(service: &CacheService, at: At, times: usize, started: &Started) {
    poll::until(&format!("request {times} for {at:?}"), SOON, || match service.seen(at).len() {
        seen if seen >= times => Ok(()),
        seen => Err(format!("{seen}; {}", started.said())),
    });
}

/// Cancels a part of the step that waits for the service, and asserts that the program ends at once, not only
/// when the shim's timeout ends.
#[track_caller]
fn call_off(started: Started, what: &str) -> Ran {
    let program = started.program();
    started.signal(Signal::INT);
    ended(started, what, || assert!(!program.exists(), "{what}: {} runs on", program.display()))
}

/// Waits for the end of a canceled part of the step and returns its result. In a world, the message of the
/// cancellation appears after node has ended.
#[track_caller]
fn ended(started: Started, what: &str, look: impl FnOnce()) -> Ran {
    poll::until("the program to notice", SOON, || {
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
fn a_restore_that_is_called_off_while_the_service_is_silent_ends_at_once() {
    // The lookup; head, index and frames; and a delay that the service has requested.
    let silent = |at, after| (at, after, Fault::Stall);
    let cases = [
        silent(At::Lookup, 0),
        silent(At::Range, 0),
        silent(At::Range, 1),
        silent(At::Range, 2),
        (At::Range, 2, Fault::StallInBody),
        (At::Lookup, 0, Fault::Later(429, 29)),
        (At::Range, 2, Fault::Later(503, 29)),
    ];
    all(&cases, |(at, after, fault)| {
        let what = format!("{at:?} {after} {fault:?}");
        let (service, place) = (filled_service(), Place::new());
        service.goes_wrong(*at, std::iter::repeat_n(Fault::Slow, *after));
        service.goes_wrong(*at, std::iter::repeat_n(fault.clone(), ON_AND_ON));
        let job = job(&place, &service, "v2").input("network-timeout", "20");
        let restoring = job.start("main");
        until_asked(&service, *at, after + 1, &restoring);
        let ran = call_off(restoring, &what);
        assert_eq!(ran.output("hit-kind"), "miss", "{what}");
        assert!(!place.host(TOOL).exists(), "{what}");
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        service.goes_well();
        let post = job.post();
        assert!(post.said.contains("nothing is saved"), "{what}: {}", post.said);
        assert_eq!(service.keys().len(), 1, "{what}");
    });
}

#[test]
fn a_save_that_is_called_off_while_the_service_is_silent_ends_at_once_and_leaves_no_entry() {
    let cases = [
        (At::Lookup, 3_000_000),
        (At::Range, 3_000_000),
        (At::Reserve, 3_000_000),
        // In a single request, and in blocks.
        (At::Block, 3_000_000),
        (At::Block, 90_000_000),
        (At::BlockList, 17_000_000),
        (At::Finalize, 3_000_000),
    ];
    all(&cases, |&(at, bytes)| {
        let what = format!("{at:?} {bytes}");
        let place = place_of(bytes);
        // A save reads an existing entry only if there is one.
        let service = if at == At::Range { filled_service() } else { CacheService::start() };
        let before = place.tree(TOOL);
        let entries = service.keys();
        let job = job(&place, &service, "v2").input("network-timeout", "20");
        job.main().assert_no_annotations();
        let asked = service.seen(at).len();
        service.goes_wrong(at, std::iter::repeat_n(Fault::Stall, ON_AND_ON));
        let saving = job.start("post");
        until_asked(&service, at, asked + 1, &saving);
        call_off(saving, &what);
        service.goes_well();
        assert_eq!(service.keys(), entries, "{what}");
        assert_same_tree(&before, &place.tree(TOOL));
        assert_eq!(place.leftovers(), [""; 0], "{what}");
        assert_only_state(&job, &what);
    });
}

#[test]
fn of_two_jobs_that_save_one_key_at_once_the_second_leaves_it_to_the_first() {
    for version in BOTH {
        let (service, place) = (CacheService::start(), place_of(3_000_000));
        let (first, second) = (job(&place, &service, version), job(&place, &service, version));
        first.main();
        second.main();
        service.goes_wrong(At::Reserve, [Fault::Hold]);
        let held_up = second.start("post");
        until_asked(&service, At::Reserve, 1, &held_up);
        let saved = first.post();
        saved.assert_no_annotations();
        assert!(saved.said.contains("saved 1 item as test."), "{}", saved.said);
        service.let_go();
        let left = held_up.wait().ok();
        left.assert_no_annotations();
        let theirs = format!("nothing was saved: entry {} already exists", service.keys()[0]);
        assert!(left.said.to_lowercase().contains(&theirs.to_lowercase()), "{}", left.said);
        assert_eq!(service.keys().len(), 1);
        assert_no_secret(&left, version);
    }
}

#[test]
fn jobs_that_save_one_key_in_the_same_moment_all_go_well() {
    let (service, place) = (CacheService::start(), place_of(3_000_000));
    let before = place.tree(TOOL);
    let jobs: Vec<Job> = (0..4).map(|_| job(&place, &service, "v2")).collect();
    jobs.iter().for_each(|job| drop(job.main()));
    let saving: Vec<Started> = jobs.iter().map(|job| job.start("post")).collect();
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
fn a_save_that_has_more_than_what_somebody_else_has_saved_meanwhile_is_kept() {
    let (service, place) = (CacheService::start(), Place::filled());
    let small = job(&place, &service, "v2");
    let large = job(&place, &service, "v2").input("path", format!("{TOOL}\n/var/lib/data"));
    small.main();
    large.main();
    service.goes_wrong(At::Reserve, [Fault::Hold]);
    let held_up = large.start("post");
    until_asked(&service, At::Reserve, 1, &held_up);
    small.post();
    service.let_go();
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
    assert_at_rest(world, what);
    assert!(world.valid_paths().is_empty(), "{what}");
}

/// Asserts that the daemon answers, and that no process or file of a run is left.
#[track_caller]
fn assert_at_rest(world: &World, what: &str) {
    poll::until("all of it to have ended", SOON, || {
        match world.run(["pgrep", "-x", "storecache"]).stdout.trim() {
            "" => Ok(()),
            pids => Err(pids.to_owned()),
        }
    });
    assert!(world.daemon_answers(), "{what}: {}", world.daemon_log());
    assert_eq!(staging(world), [""; 0], "{what}");
    let foreign = world.sh("find /cache -path '/cache/*/temp/*' ! -user runner");
    assert_eq!(foreign.stdout, "", "{what}: root left files with the runner");
}

#[test]
fn whatever_the_service_does_a_real_store_is_as_it_was_and_its_daemon_answers() {
    for role in [Role::New, Role::Guix] {
        let world = World::build(role).fixture(Fixture::Small).network().start();
        world.start_daemon();
        let before = picture(&world);
        let service = CacheService::start();
        let saver = job_inside(&world, &service, "saver");
        saver.main().assert_no_annotations();
        saver.post().assert_no_annotations();
        let key = service.keys().remove(0);
        let (version, bytes) = (service.version_of(&key), service.content(&key));
        world.wipe_store();
        let asked_before = service.seen(At::Range).len();
        let good = job_inside(&world, &service, "good");
        assert_eq!(good.main().output("hit-kind"), "exact");
        assert_same(&before, &picture(&world));
        // The head, the tail, and the wanted frames.
        let ranges = service.seen(At::Range).len() - asked_before;
        world.wipe_store();

        for (number, (at, fault, cause)) in [
            (At::Lookup, status(500, "boom"), "the server failed (HTTP 500)"),
            (At::Range, Fault::ResetInBody, "(5 tries)"),
            (At::Range, Fault::StallInBody, "no bytes received for 2 s (5 tries)"),
            (At::Range, Fault::Evict, "deleted in the meantime"),
            (At::Range, Fault::OtherTag, "changed while it was read"),
            (At::Range, Fault::Die, "no connection"),
        ]
        .into_iter()
        .enumerate()
        {
            let what = format!("{role:?} {at:?} {fault:?}");
            let service = CacheService::start();
            service.put(&key, &version, &bytes);
            // The last range, when the store is staged.
            let good = if at == At::Range { ranges - 1 } else { 0 };
            service.goes_wrong(at, std::iter::repeat_n(Fault::Slow, good));
            service.goes_wrong(at, std::iter::repeat_n(fault, ON_AND_ON));
            let ran = job_inside(&world, &service, &format!("job{number}")).main();
            let told = warning(&ran, &what).unwrap_or_else(|| panic!("{what}: {}", ran.said));
            assert!(told.contains(cause), "{what}: {told}");
            assert!(told.contains("nothing was restored, the store is as it was"), "{told}");
            assert_eq!(ran.output("hit-kind"), "miss", "{what}");
            assert_no_secret(&ran, &what);
            assert_untouched(&world, &what);
        }
        // The store can still be restored after all these failures.
        let service = CacheService::start();
        service.put(&key, &version, &bytes);
        assert_eq!(job_inside(&world, &service, "last").main().output("hit-kind"), "exact");
        assert_same(&before, &picture(&world));
        world.verify_store();
    }
}

#[test]
fn a_step_that_is_called_off_in_any_phase_leaves_a_real_store_as_it_was() {
    for role in [Role::New, Role::Guix] {
        let world = World::build(role).fixture(Fixture::Small).network().start();
        world.start_daemon();
        let before = picture(&world);
        let service = CacheService::start();
        let saver = job_inside(&world, &service, "saver").input("network-timeout", "20");
        saver.main();

        // The save is canceled while it freezes, at the database, and while it packs, at a file of an item.
        let database = world.host(format!("{}/db/db.sqlite", world.state()));
        let item = before.trees.keys().find(|path| world.host(path).is_dir()).unwrap();
        for held in [database, world.host(item)] {
            let what = format!("{role:?} {}", held.display());
            let gate = Gate::hold("storecache", &[&held]);
            let saving = saver.start("post");
            gate.wait();
            saving.signal(Signal::INT);
            drop(gate);
            ended(saving, &what, || ());
            assert_eq!(service.keys(), [""; 0], "{what}");
            assert_same(&before, &picture(&world));
            assert_at_rest(&world, &what);
        }
        for at in [At::Reserve, At::Block, At::Finalize] {
            let what = format!("{role:?} {at:?}");
            let asked = service.seen(at).len();
            service.goes_wrong(at, [Fault::Stall]);
            let saving = saver.start("post");
            until_asked(&service, at, asked + 1, &saving);
            call_off(saving, &what);
            assert_eq!(service.keys(), [""; 0], "{what}");
            assert_same(&before, &picture(&world));
            assert_at_rest(&world, &what);
        }
        service.goes_well();
        saver.post().assert_no_annotations();
        world.wipe_store();

        // The last range stalls while everything before it is staged.
        let asked = service.seen(At::Range).len();
        let good = job_inside(&world, &service, "good");
        good.main();
        let ranges = service.seen(At::Range).len() - asked;
        world.wipe_store();
        for (at, good) in [(At::Lookup, 0), (At::Range, 0), (At::Range, ranges - 1)] {
            let what = format!("{role:?} {at:?} {good}");
            let asked = service.seen(at).len();
            service.goes_wrong(at, std::iter::repeat_n(Fault::Slow, good));
            service.goes_wrong(at, [Fault::Stall]);
            let name = format!("off-{at:?}-{good}");
            let job = job_inside(&world, &service, &name).input("network-timeout", "20");
            let restoring = job.start("main");
            until_asked(&service, at, asked + good + 1, &restoring);
            call_off(restoring, &what);
            service.goes_well();
            assert_untouched(&world, &what);
            assert!(job.post().said.contains("nothing is saved"), "{what}");
        }
        assert_eq!(job_inside(&world, &service, "last").main().output("hit-kind"), "exact");
        assert_same(&before, &picture(&world));
        world.verify_store();
    }
}

#[test]
fn a_restore_that_is_called_off_while_the_daemon_starts_is_whole() {
    for (role, daemon) in [(Role::New, "nix-daemon"), (Role::Guix, "guix-daemon")] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = picture(&world);
        let saver = Job::inside(&world, "saver").input("baseline", "include");
        saver.main();
        saver.post();
        world.wipe_store();
        let gate = Gate::hold(daemon, &[&world.host(format!("{}/db/db.sqlite", world.state()))]);
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
        assert_at_rest(&world, daemon);
        assert_same(&before, &picture(&world));
        world.verify_store();
    }
}
