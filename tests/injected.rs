//! The fault campaign, system calls: any call of a save or a restore fails once, with any error that it may
//! come back with, and nothing is lost. Ordinarily a sample with a fixed seed, of every kind of call in every
//! process; with STORECACHE_CAMPAIGN=long every single call.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use serde_json::Value;
use support::injector::{Aim, Call, Half, Injector};
use support::invariants::{Found, daemon_answers, nothing_left};
use support::record::{Record, is_long};
use support::runs::{self, flags, restore, run};
use support::site::{Dice, Site};
use support::syscalls::Kind;
use support::{Output, Role, World};

static RECORD: Record = Record::of("injected");

/// After which a run counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often between faults a whole restore is made, and the store verified by its own program.
const INTERVAL: usize = 12;

/// A site whose one entry is in a directory.
fn site(role: Role, container: bool) -> Site {
    let plan = World::build(role);
    let plan = if container { plan.container() } else { plan };
    Site::new(plan, |world| drop(run(world, "runner", "save", &["--full"])))
}

fn start(site: &Site, task: &Task, injector: &Injector) -> Output {
    let words = [task.verb].into_iter().chain(flags(&site.world));
    let words = words.chain(task.more.iter().copied()).chain(["--json"]);
    site.world.storecache_as("runner", words).under(injector).patience(PATIENCE).run()
}

/// The files that are entries.
fn listed(world: &World) -> Vec<String> {
    let entries = world.backend().host_path().read_dir().unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Undoes what went well.
fn again(site: &mut Site, task: &Task, output: &Output) {
    if task.verb == "restore" {
        return site.reset();
    }
    let entry = runs::report(output)["entry"].as_str().unwrap().to_owned();
    fs::remove_file(site.world.backend().host_path().join(format!("{entry}.tar.zst"))).unwrap();
}

/// What is done under faults.
struct Task {
    verb: &'static str,
    more: &'static [&'static str],
}

const RESTORE: Task = Task { verb: "restore", more: &[] };
const SAVE: Task = Task { verb: "save", more: &["--full"] };

/// The texts that stand for an error.
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

/// `ENOSPC` and the like.
fn name_of(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}

/// What SQLite makes of errors of its files, whichever they are. The last is what it makes of an error while
/// it checks pages: it passes for damage.
const OF_SQLITE: [&str; 4] = [
    "disk I/O error",
    "unable to open database file",
    "locking protocol",
    "database disk image is malformed",
];

/// What only follows from a fault, and tells nobody what to do.
const CONSEQUENCES: [&str; 8] = [
    "panicked",
    "the guardian died",
    "closed the connection",
    "the other half went away",
    "Broken pipe",
    "unpacking was stopped",
    "packing was stopped",
    "no reason given",
];

/// What has to be told of a run in which `call` came back with `errno`.
fn check_told(
    task: &Task,
    output: &Output,
    call: &Call,
    errno: i32,
    found: Found,
) -> Result<(), String> {
    let said = format!("{}{}", output.stdout, output.stderr);
    if let Some(text) = CONSEQUENCES.iter().find(|text| said.contains(**text)) {
        return Err(format!("it says {text:?}"));
    }
    let named = |text: &str| {
        // It looks at every directory on the way.
        let sqlite_asked = call.what.contains("db.sqlite") || call.kind == Kind::Stat;
        let of_sqlite = sqlite_asked && OF_SQLITE.iter().any(|it| text.contains(it));
        // The C library makes one of the other where a thread cannot be started.
        let of_thread = [Kind::Clone, Kind::Mmap].contains(&call.kind)
            && texts(libc::EAGAIN).iter().any(|it| text.contains(it));
        of_sqlite || of_thread || texts(errno).iter().any(|it| text.contains(it))
    };
    // Where the report itself can not be written, or there is no memory left to make it.
    let reportless = (call.half == Half::User && call.what.contains("(deleted)"))
        || (call.kind == Kind::Mmap && output.stderr.contains("memory allocation of"));
    if reportless && output.code() != 0 {
        return if named(&said) { Ok(()) } else { Err("the cause is not told".into()) };
    }
    let report: Value = serde_json::from_str(&output.stdout).map_err(|e| format!("{e}"))?;
    let reason = report["reason"].as_str().unwrap_or_default();
    match output.code() {
        0 if report["failed"] == true => Err("it failed, and the exit code is 0".into()),
        0 if task.verb == "restore" && report["hit"] == "exact" => match found {
            Found::Whole => Ok(()),
            Found::AsBefore => Err("it says that all is there".into()),
        },
        0 if task.verb == "save" && report["saved"] == true => Ok(()),
        0 if named(reason) => Ok(()),
        1 => {
            if report["failed"] != true {
                return Err("the report does not say that it failed".into());
            }
            let phase = report["phase"].as_str().unwrap_or_default();
            if !reason.starts_with(&format!("{}: {phase}: ", task.verb)) {
                return Err("the reason does not begin with the phase".into());
            }
            if !named(reason) {
                return Err("the cause is not told".into());
            }
            let committed = ["daemon", "verify"].contains(&phase);
            match (task.verb, found) {
                ("restore", Found::AsBefore) if report["hit"] == "miss" && !committed => Ok(()),
                ("restore", Found::Whole) if committed => Ok(()),
                ("restore", found) => Err(format!("the store is found {found:?} after a failure")),
                _ => Ok(()),
            }
        }
        code => Err(format!("exit code {code}")),
    }
}

/// One fault, and everything that has to hold after it. Gives back the phase that was told.
fn trial(
    site: &mut Site,
    before: &[String],
    task: &Task,
    aim: Aim,
    errno: i32,
) -> Option<Result<String, String>> {
    let injector = Injector::failing(aim, errno);
    let output = start(site, task, &injector);
    let Some(call) = injector.hit() else {
        // Threads do not always make their calls in the same numbers.
        again(site, task, &output.ok());
        return None;
    };
    RECORD.fault(&name_of(errno));
    let world = &site.world;
    let held = || -> Result<Found, String> {
        RECORD.daemon_took(daemon_answers(world)?);
        nothing_left(world)?;
        let found = site.compare();
        found.inspect_err(|_| RECORD.state_lost())
    };
    let held = held().and_then(|found| {
        check_told(task, &output, &call, errno, found)?;
        let entries = listed(&site.world);
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let saved = task.verb == "save" && report["saved"] == true;
        // A report that did not get out may be of an entry that is there.
        let unknown = task.verb == "save" && call.what.contains("(deleted)");
        if entries.len() != before.len() + usize::from(saved) && !unknown {
            return Err(format!("entries were {:?} and are {entries:?}", before));
        }
        Ok((found, entries, report["phase"].as_str().unwrap_or_default().to_owned()))
    });
    let name = name_of(errno);
    let about = |e| format!("{name} from {call:?} ({aim:?}): {e}\n{output}");
    match held {
        Ok((found, entries, phase)) => {
            if task.verb == "save" {
                for new in entries.iter().filter(|name| !before.contains(name)) {
                    let path = world.backend().host_path().join(new);
                    let whole = world.storecache(["verify", &format!("/cache/{new}")]).run();
                    if !whole.status.success() {
                        return Some(Err(about(format!("an entry that is not whole: {whole}"))));
                    }
                    fs::remove_file(path).unwrap();
                }
            }
            if task.verb == "restore" && found == Found::Whole {
                site.reset();
            }
            Some(Ok(phase))
        }
        Err(e) => {
            let failed = Err(about(e));
            for new in listed(&site.world).iter().filter(|name| !before.contains(name)) {
                fs::remove_file(world.backend().host_path().join(new)).unwrap();
            }
            // Each shall be judged for itself.
            let store = site.world.store();
            site.world.sh(&format!("rm -rf /tmp/storecache-* {store}/.storecache-*"));
            site.reset();
            if task.verb == "save" {
                restore(&site.world);
                site.is_whole();
            }
            Some(failed)
        }
    }
}

/// Which calls fail, with what.
fn aims(calls: &[Call], seed: u64, every_error: bool) -> Vec<(Aim, i32)> {
    if is_long() {
        let each = calls.iter().enumerate();
        return each
            .flat_map(|(at, call)| {
                call.kind.errors().iter().map(move |&errno| (Aim::Nth(at), errno))
            })
            .collect();
    }
    let mut counts: BTreeMap<(Kind, Half), usize> = BTreeMap::new();
    for call in calls {
        *counts.entry((call.kind, call.half)).or_default() += 1;
    }
    let mut dice = Dice(seed);
    let mut aims = Vec::new();
    for ((kind, half), count) in counts {
        let errors = kind.errors();
        let one = [errors[dice.below(errors.len())]];
        for &errno in if every_error { errors } else { &one } {
            aims.push((Aim::NthOf(kind, half, dice.below(count)), errno));
        }
    }
    aims
}

fn campaign(role: Role, container: bool, task: &Task, seed: u64, every_error: bool) {
    let mut site = site(role, container);
    let before = listed(&site.world);
    if task.verb == "save" {
        restore(&site.world);
        site.is_whole();
    }
    let counting = Injector::counting();
    let counted = start(&site, task, &counting).ok();
    let calls = counting.calls();
    let found = if task.verb == "restore" { Found::Whole } else { Found::AsBefore };
    assert_eq!(site.compare(), Ok(found));
    again(&mut site, task, &counted);
    let mut failed = Vec::new();
    let mut phases = BTreeMap::new();
    let only: Option<usize> = std::env::var("ONLY").ok().and_then(|it| it.parse().ok());
    for (number, (aim, errno)) in aims(&calls, seed, every_error).into_iter().enumerate() {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        match trial(&mut site, &before, task, aim, errno) {
            None => continue,
            Some(Ok(phase)) => *phases.entry(phase).or_insert(0) += 1,
            Some(Err(e)) => {
                println!("#{number} {e}");
                failed.push(format!("#{number} {e}"));
            }
        }
        if number % INTERVAL == INTERVAL - 1 {
            if task.verb == "restore" {
                restore(&site.world);
                assert_eq!(site.compare(), Ok(Found::Whole));
            }
            site.world.verify_store();
            if task.verb == "restore" {
                site.reset();
            }
        }
    }
    site.world.verify_store();
    println!("{} calls, {phases:?}", calls.len());
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n---\n"));
}

#[test]
fn a_restore_into_nix_survives_any_call_that_fails() {
    campaign(Role::Mid, false, &RESTORE, 1, true);
}

#[test]
fn a_save_of_nix_survives_any_call_that_fails() {
    campaign(Role::Mid, false, &SAVE, 2, true);
}

#[test]
fn a_restore_into_guix_survives_any_call_that_fails() {
    campaign(Role::Guix, false, &RESTORE, 3, false);
}

#[test]
fn a_save_of_guix_survives_any_call_that_fails() {
    campaign(Role::Guix, false, &SAVE, 4, false);
}
