//! The fault campaign for system calls: any call of a save or a restore fails once, with any error that it may
//! return, and nothing is lost. By default a sample with a fixed seed, of every kind of call in every process;
//! with STORECACHE_CAMPAIGN=long every call.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::cache_service::{CacheService, TOKEN};
use crate::support::campaign_record::CampaignRecord;
use crate::support::invariants::{Found, check_no_leftovers, daemon_answers};
use crate::support::partial_store::PartialStore;
use crate::support::rng::{Rng, is_long};
use crate::support::syscall_injector::{Call, CallSelector, Injector, ProcessRole};
use crate::support::syscalls::Kind;
use crate::support::world_runs::{flags, restore, run};
use crate::support::{Output, Role, World};
use nix::errno::Errno;
use nix::libc;
use serde_json::Value;

static RECORD: CampaignRecord = CampaignRecord::new("injected");

/// The time after which a run counts as hung.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);
/// After this many faults a complete restore is made, and the store's own program verifies the store.
const INTERVAL: usize = 12;

/// Where the entries are kept.
enum EntryLocation {
    Directory,
    Service(CacheService),
}

impl EntryLocation {
    fn start(&self, world: &World, task: &Task, injector: &Injector) -> Output {
        let mut words = vec![task.verb];
        match self {
            EntryLocation::Directory => words.extend(flags(world)),
            EntryLocation::Service(_) => {
                words.extend(["--store", world.package_manager().name(), "--key", "test"]);
            }
        }
        words.extend(task.more);
        words.push("--json");
        let mut command = world.storecache_as("runner", words).under(injector).timeout(RUN_TIMEOUT);
        if let EntryLocation::Service(service) = self {
            command = command
                .env("ACTIONS_RESULTS_URL", service.url())
                .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
                .env("ACTIONS_CACHE_SERVICE_V2", "1");
        }
        command.run()
    }

    /// Returns the names of all entries.
    fn entries(&self, world: &World) -> Vec<String> {
        if let EntryLocation::Service(service) = self {
            return service.keys();
        }
        let entries = world.backend().host_path().read_dir().unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Verifies an entry and removes it.
    ///
    /// # Errors
    ///
    /// If the entry is incomplete.
    fn verify_and_remove(&self, world: &World, entry: &str) -> Result<(), String> {
        let path = world.backend().host_path().join(entry);
        if let EntryLocation::Service(service) = self {
            fs::write(&path, service.content(entry)).unwrap();
            service.evict(entry);
        }
        let whole = world.storecache(["verify", &format!("/cache/{entry}")]).run();
        fs::remove_file(path).unwrap();
        if whole.status.success() { Ok(()) } else { Err(format!("an incomplete entry: {whole}")) }
    }
}

/// The run in which calls fail.
struct Task {
    verb: &'static str,
    more: &'static [&'static str],
}

const RESTORE: Task = Task { verb: "restore", more: &[] };
const SAVE: Task = Task { verb: "save", more: &["--full"] };

/// Returns the texts that report an error.
fn texts(errno: i32) -> &'static [&'static str] {
    match errno {
        libc::EIO => &["Input/output error", "I/O error"],
        libc::ENOSPC => &["No space left", "database or disk is full"],
        libc::EROFS => &["Read-only file system", "readonly database"],
        libc::EMFILE => &["Too many open files", "unable to open database file"],
        libc::ENOMEM => &["Cannot allocate memory", "out of memory", "memory allocation of"],
        libc::EAGAIN => &["Resource temporarily unavailable"],
        libc::ENOLCK => &["No locks available"],
        _ => unreachable!("no such error is used"),
    }
}

/// Returns the name of an error, such as `ENOSPC`.
fn errno_name(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}

/// The reports of SQLite for errors of its files, whatever the error is. The last is its report of an error
/// while it checks pages, which it takes for damage.
const SQLITE_ERROR_TEXTS: [&str; 5] = [
    "disk I/O error",
    "unable to open database file",
    "locking protocol",
    "attempt to write a readonly database",
    "database disk image is malformed",
];

/// Texts that name a mere consequence of a fault and do not help users.
const CONSEQUENCE_TEXTS: [&str; 7] = [
    "panicked",
    "the guardian died",
    "closed the connection",
    "Broken pipe",
    "unpacking was stopped",
    "packing was stopped",
    "no reason given",
];

/// Checks that the output reports the right things when `call` has failed with `errno`.
fn check_report(
    task: &Task,
    output: &Output,
    call: &Call,
    errno: i32,
    found: Found,
) -> Result<(), String> {
    let said = format!("{}{}", output.stdout, output.stderr);
    if let Some(text) = CONSEQUENCE_TEXTS.iter().find(|text| said.contains(**text)) {
        return Err(format!("it prints {text:?}"));
    }
    let named = |text: &str| {
        // SQLite calls `stat` for every directory of the path.
        let sqlite_asked = call.what.contains("db.sqlite") || call.kind == Kind::Stat;
        let of_sqlite = sqlite_asked && SQLITE_ERROR_TEXTS.iter().any(|it| text.contains(it));
        // If a thread cannot be started, the C library turns `ENOMEM` into `EAGAIN`.
        let of_thread = [Kind::Clone, Kind::Mmap].contains(&call.kind)
            && texts(libc::EAGAIN).iter().any(|it| text.contains(it));
        of_sqlite || of_thread || texts(errno).iter().any(|it| text.contains(it))
    };
    // If the report itself cannot be written, or memory for it cannot be allocated.
    let reportless = (call.half == ProcessRole::User && call.what.contains("(deleted)"))
        || (call.kind == Kind::Mmap && output.stderr.contains("memory allocation of"));
    if reportless && output.code() != 0 {
        return if named(&said) { Ok(()) } else { Err("the cause is not reported".into()) };
    }
    let report: Value = serde_json::from_str(&output.stdout).map_err(|e| format!("{e}"))?;
    let reason = report["reason"].as_str().unwrap_or_default();
    match output.code() {
        0 if report["failed"] == true => Err("it failed, and the exit code is 0".into()),
        0 if task.verb == "restore" && report["hit"] == "exact" => match found {
            Found::Whole => Ok(()),
            Found::AsBefore => Err("it reports a complete restore".into()),
        },
        0 if task.verb == "save" && report["saved"] == true => Ok(()),
        0 if named(reason) => Ok(()),
        1 => {
            if report["failed"] != true {
                return Err("the report does not report the failure".into());
            }
            let phase = report["phase"].as_str().unwrap_or_default();
            if !reason.starts_with(&format!("{}: {phase}: ", task.verb)) {
                return Err("the reason does not begin with the phase".into());
            }
            if !named(reason) {
                return Err("the cause is not reported".into());
            }
            let committed = ["daemon", "verify"].contains(&phase);
            match (task.verb, found) {
                ("restore", Found::AsBefore) if report["hit"] == "miss" && !committed => Ok(()),
                ("restore", Found::Whole) if committed => Ok(()),
                ("restore", found) => Err(format!("the store is {found:?} after a failure")),
                _ => Ok(()),
            }
        }
        code => Err(format!("exit code {code}")),
    }
}

/// Runs the task with one fault and checks everything that must hold after it. Returns the reported phase, or
/// `None` if the fault did not occur.
fn run_with_fault(
    site: &mut PartialStore,
    shelf: &EntryLocation,
    before: &[String],
    task: &Task,
    aims: &[(CallSelector, i32)],
) -> Option<Result<String, String>> {
    let injector = Injector::failing(aims);
    let output = shelf.start(&site.world, task, &injector);
    let Some(calls) = injector.hits() else {
        // The number of calls that threads make varies between runs.
        undo(site, shelf, before, task);
        return None;
    };
    // If two calls fail, the first is the cause.
    let (call, (_, errno)) = (calls[0].clone(), aims[0]);
    let names: Vec<String> = aims.iter().map(|(_, errno)| errno_name(*errno)).collect();
    names.iter().for_each(|name| RECORD.fault(&format!("system call fails with {name}")));
    let world = &site.world;
    let held = || -> Result<Found, String> {
        if site.has_daemon() {
            RECORD.record_daemon_downtime(daemon_answers(world)?);
        }
        check_no_leftovers(world)?;
        let found = site.compare();
        found.inspect_err(|_| RECORD.state_lost())
    };
    let held = held().and_then(|found| {
        check_report(task, &output, &call, errno, found)?;
        let entries = shelf.entries(world);
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let saved = task.verb == "save" && report["saved"] == true;
        // If the report could not be written, the entry may exist nevertheless.
        let unknown = task.verb == "save" && call.what.contains("(deleted)");
        if entries.len() != before.len() + usize::from(saved) && !unknown {
            return Err(format!("entries were {:?} and are {entries:?}", before));
        }
        Ok((found, entries, report["phase"].as_str().unwrap_or_default().to_owned()))
    });
    let about = |e| format!("{names:?} from {calls:?} ({aims:?}): {e}\n{output}");
    match held {
        Ok((found, entries, phase)) => {
            for new in entries.iter().filter(|name| !before.contains(name)) {
                if let Err(e) = shelf.verify_and_remove(world, new) {
                    return Some(Err(about(e)));
                }
            }
            if task.verb == "restore" && found == Found::Whole {
                site.reset();
            }
            Some(Ok(phase))
        }
        Err(e) => {
            let failed = Err(about(e));
            // Clean up, so that each fault is tested independently.
            let store = world.store();
            world.sh(&format!("rm -rf /tmp/storecache-* {store}/.storecache-*"));
            undo(site, shelf, before, task);
            Some(failed)
        }
    }
}

/// Restores the state before the run.
fn undo(site: &mut PartialStore, shelf: &EntryLocation, before: &[String], task: &Task) {
    for new in shelf.entries(&site.world).iter().filter(|name| !before.contains(name)) {
        shelf.verify_and_remove(&site.world, new).unwrap();
    }
    site.reset();
    if task.verb == "save" {
        restore(&site.world);
        site.assert_whole();
    }
}

/// One kind of run in one kind of environment.
struct Campaign {
    role: Role,
    place: Environment,
    task: Task,
    seed: u64,
    /// Whether a call fails with each of its errors in turn, or with one of them.
    every_error: bool,
    /// Selects the calls that may fail.
    about: fn(&World, &Call) -> bool,
    /// Groups similar calls, of which one is chosen; with [`is_long`] all are.
    alike: fn(&Call) -> String,
    /// Selects a call that fails in every run, with `EIO`, so that the campaign tests the calls after it, which
    /// undo the run. If several match, the last one fails.
    first: Option<fn(&Call) -> bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Environment {
    Bare,
    /// As `Bare`, with the entries in a cache service.
    Service,
    Systemd,
    /// A store that was never used.
    Fresh,
}

impl Campaign {
    fn new(role: Role, task: Task, seed: u64) -> Campaign {
        Campaign {
            role,
            place: Environment::Bare,
            task,
            seed,
            every_error: false,
            about: |_, _| true,
            alike: |call| format!("{:?} {:?}", call.half, call.kind),
            first: None,
        }
    }

    /// Returns the calls that fail, and their errors. Calls before `from` never fail.
    fn aims(&self, world: &World, calls: &[Call], from: usize) -> Vec<(CallSelector, i32)> {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, call) in calls.iter().enumerate().skip(from) {
            if (self.about)(world, call) {
                // There are few of these calls, and each has another purpose.
                let alone = is_long() || matches!(call.kind, Kind::Clone | Kind::Sync);
                let group = if alone { format!("{at:06}") } else { (self.alike)(call) };
                groups.entry(group).or_default().push(at);
            }
        }
        let mut dice = Rng(self.seed);
        let mut aims = Vec::new();
        for group in groups.values() {
            let errors = calls[group[0]].kind.errors();
            let one = [errors[dice.below(errors.len())]];
            for &errno in if self.every_error || is_long() { errors } else { &one } {
                aims.push((aim_at(calls, group[dice.below(group.len())]), errno));
            }
        }
        // Shuffle, so that a campaign that is ended early has covered all kinds of calls.
        for at in (1..aims.len()).rev() {
            aims.swap(at, dice.below(at + 1));
        }
        aims
    }

    fn run(&self) {
        let Campaign { task, .. } = self;
        let save = |world: &World| drop(run(world, "runner", "save", &["--full"]));
        let mut site = match self.place {
            Environment::Bare => PartialStore::new(World::build(self.role), save),
            Environment::Service => PartialStore::new(World::build(self.role).network(), save),
            Environment::Systemd => PartialStore::new(World::build(self.role).container(), save),
            Environment::Fresh => PartialStore::fresh(World::build(self.role), save),
        };
        let shelf = match self.place {
            Environment::Service => EntryLocation::Service(CacheService::start()),
            _ => EntryLocation::Directory,
        };
        if task.verb == "save" {
            restore(&site.world);
            site.assert_whole();
        }
        if self.place == Environment::Service {
            // The entry in the service is saved while the store is complete.
            let part = task.verb == "restore";
            if part {
                restore(&site.world);
            }
            shelf.start(&site.world, &SAVE, &Injector::counting()).ok();
            if part {
                site.reset();
            }
        }
        let before = shelf.entries(&site.world);
        let counting = Injector::counting();
        shelf.start(&site.world, task, &counting).ok();
        let mut calls = counting.calls();
        let found = if task.verb == "restore" { Found::Whole } else { Found::AsBefore };
        assert_eq!(site.compare(), Ok(found));
        undo(&mut site, &shelf, &before, task);
        let mut first = None;
        let mut from = 0;
        if let Some(is_first) = self.first {
            let at = calls.iter().rposition(is_first).expect("there is such a call");
            let aim = (aim_at(&calls, at), libc::EIO);
            let counting = Injector::failing(&[aim]);
            shelf.start(&site.world, task, &counting).fails();
            calls = counting.calls();
            from = 1 + calls.iter().rposition(is_first).unwrap();
            first = Some(aim);
        }
        let (mut failed, mut phases) = (Vec::new(), BTreeMap::new());
        for (number, aim) in self.aims(&site.world, &calls, from).into_iter().enumerate() {
            let aims: Vec<_> = first.into_iter().chain([aim]).collect();
            match run_with_fault(&mut site, &shelf, &before, task, &aims) {
                None => continue,
                Some(Ok(phase)) => *phases.entry(phase).or_insert(0) += 1,
                Some(Err(e)) => {
                    println!("#{number} {e}");
                    failed.push(format!("#{number} {e}"));
                }
            }
            if number % INTERVAL == INTERVAL - 1 {
                self.check_next_restore(&mut site);
            }
        }
        self.check_next_restore(&mut site);
        println!("{} calls; the runs ended in {phases:?}", calls.len());
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n---\n"));
    }

    /// Asserts that the next restore succeeds, and that the store's own program finds no fault in the store.
    fn check_next_restore(&self, site: &mut PartialStore) {
        if self.task.verb == "restore" {
            EntryLocation::Directory.start(&site.world, &RESTORE, &Injector::counting()).ok();
            assert_eq!(site.compare(), Ok(Found::Whole));
        }
        site.verify();
        if self.task.verb == "restore" {
            site.reset();
        }
    }
}

/// Returns an aim by the call's number among calls of its kind and process, which varies less between runs than
/// its number among all calls.
fn aim_at(calls: &[Call], at: usize) -> CallSelector {
    let Call { kind, half, .. } = calls[at];
    let same = |call: &&Call| (call.kind, call.half) == (kind, half);
    CallSelector::NthOf(kind, half, calls[..at].iter().filter(same).count())
}

#[test]
fn nix_restore_keeps_the_store_whole_when_a_syscall_fails() {
    Campaign { every_error: true, ..Campaign::new(Role::Mid, RESTORE, 1) }.run();
}

#[test]
fn nix_save_writes_no_partial_entry_when_a_syscall_fails() {
    Campaign { every_error: true, ..Campaign::new(Role::Mid, SAVE, 2) }.run();
}

#[test]
fn guix_restore_keeps_the_store_whole_when_a_syscall_fails() {
    Campaign::new(Role::Guix, RESTORE, 3).run();
}

#[test]
fn guix_save_writes_no_partial_entry_when_a_syscall_fails() {
    Campaign::new(Role::Guix, SAVE, 4).run();
}

/// Tests calls that only occur with units, and with a mount that is in the way.
#[test]
fn systemd_restore_keeps_the_store_whole_when_a_syscall_fails() {
    let about = |_: &World, call: &Call| {
        let around_units = matches!(
            call.kind,
            Kind::Clone | Kind::Dup | Kind::Event | Kind::Exec | Kind::Mount | Kind::Pipe
        );
        call.half != ProcessRole::User && around_units
    };
    Campaign { place: Environment::Systemd, about, ..Campaign::new(Role::Guix, RESTORE, 5) }.run();
}

#[test]
fn new_store_belongs_to_its_owner_after_a_failed_syscall() {
    for role in [Role::Guix, Role::New] {
        let about = |world: &World, call: &Call| {
            let here = [world.store(), world.state()].iter().any(|it| call.what.starts_with(it));
            call.half == ProcessRole::Root && here && !matches!(call.kind, Kind::Read | Kind::List)
        };
        let alike = |call: &Call| {
            let in_state = call.what.split_once("/var/").map(|(_, path)| {
                // Without the random part of the name.
                path.split("/.storecache-").next().unwrap_or_default().to_owned()
            });
            format!("{:?} {}", call.kind, in_state.unwrap_or_default())
        };
        Campaign { place: Environment::Fresh, about, alike, ..Campaign::new(role, RESTORE, 6) }
            .run();
    }
}

/// Tests the calls of the user process, which has the network.
#[test]
fn cache_service_run_is_safe_when_a_syscall_fails() {
    for task in [RESTORE, SAVE] {
        let about = |_: &World, call: &Call| call.half == ProcessRole::User;
        let campaign = Campaign::new(Role::Mid, task, 7);
        Campaign { place: Environment::Service, about, every_error: true, ..campaign }.run();
    }
}

/// A commit fails at its last step, when items are in place and rows are inserted; then one of the calls that
/// undo the commit fails.
#[test]
fn commit_rollback_is_complete_when_a_second_syscall_fails() {
    for role in [Role::Mid, Role::Guix] {
        let first = |call: &Call| {
            call.kind == Kind::Sync
                && call.half == ProcessRole::Root
                && call.what.ends_with("/store")
        };
        Campaign { first: Some(first), ..Campaign::new(role, RESTORE, 8) }.run();
    }
}
