//! The fault campaign for backends: a cache service or a directory of entries that dies, stalls, is slow,
//! responds twice or out of order, or changes while it is read. The sequences are random with a fixed seed;
//! STORECACHE_CAMPAIGN=long runs many more of them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::cache_service::{CacheService, Fault, RequestKind, TOKEN};
use crate::support::campaign_record::CampaignRecord;
use crate::support::invariants::{Found, check_no_leftovers, daemon_answers};
use crate::support::partial_store::PartialStore;
use crate::support::rng::{Rng, is_long};
use crate::support::syscall_injector::{Call, CallSelector, Injector, ProcessRole};
use crate::support::world_runs::{report, restore, run};
use crate::support::{Output, Role, World};
use serde_json::Value;

static RECORD: CampaignRecord = CampaignRecord::new("backend");

/// After this many faults, a whole restore is made and the store is verified by its package manager.
const VERIFY_INTERVAL: usize = 10;
/// A number of repetitions that exceeds all retries.
const MORE_THAN_ALL_RETRIES: usize = 60;
/// Texts that no run may print, whatever happened to it.
const FORBIDDEN_TEXTS: [&str; 3] = ["panicked", "sig=", "unpacking was stopped"];

/// Faults of a request, and their names in the record.
fn faults() -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::Reset, "connection lost"),
        (Fault::LostAnswer, "response lost"),
        (Fault::ResetInBody, "connection lost"),
        (Fault::Short, "connection lost"),
        (Fault::Stall, "stalls"),
        (Fault::StallInBody, "stalls"),
        (Fault::Drips, "responds byte by byte"),
        (Fault::Slow, "responds out of order"),
        (Fault::OtherRange, "responds out of order"),
        (Fault::Twice, "request or response repeated"),
        (Fault::AnsweredTwice, "request or response repeated"),
        (Fault::Status(500, "boom"), "fails (429 or 5xx)"),
        (Fault::Status(503, "busy"), "fails (429 or 5xx)"),
        (Fault::Later(429, 0), "fails (429 or 5xx)"),
        (Fault::Later(503, 900), "fails (429 or 5xx)"),
        (Fault::Status(403, "no"), "refuses (403, 404, 409)"),
        (Fault::Status(404, "gone"), "refuses (403, 404, 409)"),
        (Fault::Status(409, "taken"), "refuses (403, 404, 409)"),
        (Fault::Page, "sends wrong content"),
        (Fault::WholeBody, "sends wrong content"),
        (Fault::WholeInChunks, "sends wrong content"),
        (Fault::OtherTag, "sends wrong content"),
        (Fault::Flipped, "sends wrong content"),
        (Fault::Expire, "URL expires"),
        (Fault::Evict, "entry evicted"),
        (Fault::Die, "dies"),
    ]
}

/// Key, version and content of each entry of a service.
type StoredEntries = Vec<(String, String, Vec<u8>)>;

fn run_through_service(
    site: &PartialStore,
    service: &CacheService,
    version: &str,
    verb: &str,
    more: &[&str],
) -> Output {
    let world = &site.world;
    let words = [verb, "--store", world.package_manager().name(), "--key", "test", "--json"];
    let how = ["--network-timeout", "1", "--cache-service", version];
    let run = world.storecache_as("runner", words.iter().chain(more).chain(&how));
    run.env("ACTIONS_RESULTS_URL", service.url())
        .env("ACTIONS_CACHE_URL", service.url())
        .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
        .env("ACTIONS_CACHE_SERVICE_V2", "1")
        .run()
}

/// Starts a service that has these entries.
fn start_service_with(stored: &StoredEntries) -> CacheService {
    let service = CacheService::start();
    for (key, version, content) in stored {
        service.put(key, version, content);
    }
    service
}

/// Queues a few faults at random requests. Returns a description of each.
fn inject_random_faults(
    service: &CacheService,
    places: &[RequestKind],
    dice: &mut Rng,
) -> Vec<String> {
    let all = faults();
    let mut injected = Vec::new();
    let mut queues: BTreeMap<RequestKind, Vec<Fault>> = BTreeMap::new();
    for _ in 0..1 + dice.below(4) {
        let at = places[dice.below(places.len())];
        let (fault, name) = all[dice.below(all.len())].clone();
        let (after, times) =
            (dice.below(4), if dice.below(6) == 0 { MORE_THAN_ALL_RETRIES } else { 1 });
        let queue = queues.entry(at).or_default();
        queue.extend(std::iter::repeat_n(Fault::Nothing, after));
        queue.extend(std::iter::repeat_n(fault.clone(), times));
        RECORD.fault(&format!("backend: {name}"));
        injected.push(format!("{times} times {fault:?} at {at:?} after {after}"));
    }
    for (at, queue) in queues {
        service.inject_faults(at, queue);
    }
    injected
}

/// Checks the world and the report after a run. Returns the report and the state of the store.
fn check_run(site: &PartialStore, output: &Output) -> Result<(Value, Found), String> {
    RECORD.record_daemon_downtime(daemon_answers(&site.world)?);
    check_no_leftovers(&site.world)?;
    let found = site.compare().inspect_err(|_| RECORD.state_lost())?;
    let said = format!("{}{}", output.stdout, output.stderr);
    if let Some(text) = FORBIDDEN_TEXTS.iter().find(|text| said.contains(**text)) {
        return Err(format!("it prints {text:?}"));
    }
    let report = report(output);
    let failed = report["failed"] == true;
    if output.code() != i32::from(failed) {
        return Err("the exit code contradicts the report".into());
    }
    let done = match report["command"].as_str() {
        Some("restore") => report["hit"] == "exact",
        _ => report["saved"] == true,
    };
    match report["reason"].as_str() {
        None if !done => Err("the report has no reason".into()),
        Some(_) if failed && done => Err("it failed, and reports success".into()),
        Some(reason) if failed && !reason.contains(": ") => Err("the reason names no phase".into()),
        _ => Ok((report, found)),
    }
}

fn check_restore(site: &PartialStore, output: &Output) -> Result<Found, String> {
    let (report, found) = check_run(site, output)?;
    let expected = if report["hit"] == "exact" { Found::Whole } else { Found::AsBefore };
    if found == expected { Ok(found) } else { Err(format!("the store is {found:?}")) }
}

/// Checks that every entry that a lookup could find is whole and unchanged.
fn check_entries(
    site: &PartialStore,
    service: &CacheService,
    stored: &StoredEntries,
) -> Result<(), String> {
    for key in service.keys() {
        let content = service.content(&key);
        match stored.iter().find(|(known, _, _)| *known == key) {
            Some((_, _, known)) if *known == content => {}
            Some(_) => return Err(format!("the content of {key} has changed")),
            None => {
                fs::write(site.world.backend().host_path().join("new.tar.zst"), content).unwrap();
                let whole = site.world.storecache(["verify", "/cache/new.tar.zst"]).run();
                if !whole.status.success() {
                    return Err(format!("an incomplete entry can be found: {whole}"));
                }
            }
        }
    }
    Ok(())
}

fn check_save(
    site: &PartialStore,
    service: &CacheService,
    stored: &StoredEntries,
    output: &Output,
) -> Result<(), String> {
    let (report, _) = check_run(site, output)?;
    check_entries(site, service, stored)?;
    let keys = service.keys();
    let saved = report["entry"].as_str().filter(|_| report["saved"] == true);
    // Unless the entries were evicted after the save.
    if let Some(entry) = saved.filter(|_| keys.len() >= stored.len())
        && !keys.iter().any(|key| key == entry)
    {
        return Err(format!("{entry} was saved and is missing: {keys:?}"));
    }
    Ok(())
}

fn run_service_campaign(role: Role, seed: u64, trials: usize) {
    let trials = if is_long() { trials * 25 } else { trials };
    let service = CacheService::start();
    let mut stored: BTreeMap<&str, StoredEntries> = BTreeMap::new();
    let mut site = PartialStore::new(World::build(role).network(), save_to_directory);
    // Two entries with the same content: the store is whole whichever is restored.
    restore_from_directory(&mut site);
    for version in ["v1", "v2"] {
        let mut entries = Vec::new();
        for _ in 0..2 {
            let saved =
                report(&run_through_service(&site, &service, version, "save", &["--full"]).ok());
            let key = saved["entry"].as_str().unwrap_or_else(|| panic!("{saved}")).to_owned();
            entries.push((key.clone(), service.version_of(&key), service.content(&key)));
        }
        entries.iter().for_each(|(key, _, _)| service.evict(key));
        stored.insert(version, entries);
    }
    let mut dice = Rng(seed);
    let mut failed = Vec::new();
    for verb in ["save", "restore"] {
        if verb == "restore" {
            site.reset();
        }
        for number in 0..trials {
            let version = ["v1", "v2"][number % 2];
            let stored = &stored[version];
            let service = start_service_with(stored);
            let places: &[RequestKind] = match verb {
                "restore" => &[RequestKind::Lookup, RequestKind::Range, RequestKind::Range],
                _ => &[
                    RequestKind::Lookup,
                    RequestKind::Reserve,
                    RequestKind::Block,
                    RequestKind::BlockList,
                    RequestKind::Finalize,
                ],
            };
            let injected = inject_random_faults(&service, places, &mut dice);
            let output = match verb {
                "restore" => run_through_service(&site, &service, version, verb, &[]),
                _ => run_through_service(&site, &service, version, verb, &["--full"]),
            };
            service.clear_faults();
            let checked = match verb {
                "restore" => check_restore(&site, &output).map(Some),
                _ => check_save(&site, &service, stored, &output).map(|()| None),
            };
            // The earlier entries can still be found.
            let service = start_service_with(stored);
            let found = report(&run_through_service(
                &site,
                &service,
                version,
                "restore",
                &["--lookup-only"],
            ));
            assert_eq!(found["entry"].as_str(), Some(&*stored[1].0), "{found}");
            match checked {
                Ok(Some(Found::Whole)) => site.reset(),
                Ok(_) => {}
                Err(e) => {
                    println!("#{number} {role:?} {version} {verb}: {injected:?}: {e}\n{output}");
                    failed.push(format!("#{number} {version} {verb}: {injected:?}: {e}\n{output}"));
                    if verb == "restore" {
                        site.reset();
                    }
                }
            }
            if number % VERIFY_INTERVAL == VERIFY_INTERVAL - 1 {
                if verb == "restore" {
                    run_through_service(&site, &service, version, "restore", &[]).ok();
                    assert_eq!(site.compare(), Ok(Found::Whole));
                    site.world.verify_store();
                    site.reset();
                } else {
                    site.world.verify_store();
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n---\n"));
}

/// Saves a snapshot that no fault reaches.
fn save_to_directory(world: &World) {
    run(world, "runner", "save", &["--full"]);
}

/// Restores the whole store from that snapshot.
fn restore_from_directory(site: &mut PartialStore) {
    restore(&site.world);
    site.assert_whole();
}

#[test]
fn nix_store_survives_cache_service_faults() {
    run_service_campaign(Role::Mid, 11, 30);
}

#[test]
fn guix_store_survives_cache_service_faults() {
    run_service_campaign(Role::Guix, 12, 10);
}

/// A change to a directory of entries while a run uses it.
#[derive(Clone, Copy, Debug)]
enum DirectoryChange {
    Vanishes,
    IsReadOnly,
    MayNotBeRead,
    LosesTheEntry,
    /// The file is truncated.
    IsCutOff,
    /// Another file is renamed to its name.
    IsReplaced,
    /// Other bytes are written to the same file.
    IsOverwritten,
}

const CHANGES: [(DirectoryChange, &str); 7] = [
    (DirectoryChange::Vanishes, "directory gone"),
    (DirectoryChange::IsReadOnly, "directory read-only"),
    (DirectoryChange::MayNotBeRead, "directory unreadable"),
    (DirectoryChange::LosesTheEntry, "entry evicted"),
    (DirectoryChange::IsCutOff, "entry truncated"),
    (DirectoryChange::IsReplaced, "entry replaced"),
    (DirectoryChange::IsOverwritten, "entry overwritten"),
];

/// `newest` is the newest entry from before the run.
fn change(entries: &Path, newest: &Path, change: DirectoryChange, share: u64) {
    let length = fs::metadata(newest).unwrap().len();
    match change {
        DirectoryChange::Vanishes => fs::rename(entries, entries.with_extension("gone")).unwrap(),
        DirectoryChange::IsReadOnly => {
            fs::set_permissions(entries, Permissions::from_mode(0o555)).unwrap()
        }
        DirectoryChange::MayNotBeRead => {
            fs::set_permissions(entries, Permissions::from_mode(0o0)).unwrap()
        }
        DirectoryChange::LosesTheEntry => fs::remove_file(newest).unwrap(),
        DirectoryChange::IsCutOff => {
            let file = fs::File::options().write(true).open(newest).unwrap();
            file.set_len(length * share / 100).unwrap();
        }
        DirectoryChange::IsReplaced => {
            let other = entries.join("other");
            fs::write(&other, vec![7; length as usize]).unwrap();
            fs::rename(other, newest).unwrap();
        }
        DirectoryChange::IsOverwritten => {
            use std::os::unix::fs::FileExt;
            let file = fs::File::options().write(true).open(newest).unwrap();
            file.write_all_at(&vec![7; 4096], length * share / 100).unwrap();
            file.set_len(length).unwrap();
        }
    }
}

fn run_directory_campaign(role: Role, seed: u64, trials: usize) {
    let trials = if is_long() { trials * 25 } else { trials };
    let mut site = PartialStore::new(World::build(role), save_to_directory);
    let entries = site.world.backend().host_path().join("entries");
    let kept = site.world.backend().host_path().join("kept");
    let start = |site: &PartialStore, verb: &str, injector: &Injector| {
        let words =
            [verb, "--store", role.package_manager().name(), "--backend", "dir:/cache/entries"];
        let more: &[&str] = if verb == "save" { &["--full"] } else { &[] };
        let words = words.iter().chain(&["--key", "test", "--json"]).chain(more);
        site.world.storecache_as("runner", words).under(injector).run()
    };
    let put_back = |entries: &PathBuf| {
        for path in [entries.clone(), entries.with_extension("gone")] {
            let _ = fs::remove_dir_all(path);
        }
        let copied = std::process::Command::new("cp").arg("-a").args([&kept, entries]).status();
        assert!(copied.unwrap().success());
    };
    restore_from_directory(&mut site);
    for _ in 0..2 {
        start(&site, "save", &Injector::counting()).ok();
    }
    fs::rename(&entries, &kept).unwrap();
    let names = |directory: &Path| {
        let names = fs::read_dir(directory).unwrap().map(|it| it.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let known = names(&kept);
    let mut dice = Rng(seed);
    let mut failed = Vec::new();
    for verb in ["save", "restore"] {
        if verb == "restore" {
            site.reset();
        }
        put_back(&entries);
        let counting = Injector::counting();
        start(&site, verb, &counting).ok();
        if verb == "restore" {
            site.reset();
        }
        // From the first call that is about entries to the last call.
        let user = |call: &&Call| call.half == ProcessRole::User;
        let calls: Vec<Call> = counting.calls().iter().filter(user).cloned().collect();
        let first = calls.iter().position(|call| call.what.contains("/cache")).unwrap();
        for number in 0..trials {
            put_back(&entries);
            let at = first + dice.below(calls.len() - first);
            let (what, name) = CHANGES[number % CHANGES.len()];
            let Call { kind, half, .. } = calls[at];
            let nth = calls[..at].iter().filter(|call| call.kind == kind).count();
            let (place, share) = (entries.clone(), dice.below(100) as u64);
            let newest = entries.join(known.iter().max().unwrap());
            let aim = CallSelector::NthOf(kind, half, nth);
            let injector = Injector::before(aim, move || change(&place, &newest, what, share));
            let output = start(&site, verb, &injector);
            if injector.hits().is_some() {
                RECORD.fault(&format!("backend: {name}"));
            }
            let checked = match verb {
                "restore" => check_restore(&site, &output).map(Some),
                _ => check_run(&site, &output).map(|_| None),
            };
            let checked = checked.and_then(|found| {
                for path in [entries.clone(), entries.with_extension("gone")] {
                    let _ = fs::set_permissions(&path, Permissions::from_mode(0o777));
                    let Ok(found) = fs::read_dir(&path) else { continue };
                    for new in found.map(|it| it.unwrap().path()) {
                        let name = new.file_name().unwrap().to_string_lossy().into_owned();
                        // Skips the known entries, and the quarantine, which lookups ignore.
                        if known.contains(&name) || name == ".quarantine" {
                            continue;
                        }
                        let inside =
                            format!("/cache/{}/{name}", path.file_name().unwrap().display());
                        let whole = site.world.storecache(["verify", &inside]).run();
                        if !whole.status.success() {
                            return Err(format!("an incomplete entry: {whole}"));
                        }
                    }
                }
                Ok(found)
            });
            match checked {
                Ok(Some(Found::Whole)) => site.reset(),
                Ok(_) => {}
                Err(e) => {
                    println!("#{number} {verb}: {what:?} before {:?}: {e}\n{output}", calls[at]);
                    failed.push(format!("#{number} {verb}: {what:?}: {e}\n{output}"));
                    if verb == "restore" {
                        site.reset();
                    }
                }
            }
            if number % VERIFY_INTERVAL == VERIFY_INTERVAL - 1 {
                put_back(&entries);
                if verb == "restore" {
                    start(&site, verb, &Injector::counting()).ok();
                    assert_eq!(site.compare(), Ok(Found::Whole));
                }
                site.world.verify_store();
                if verb == "restore" {
                    site.reset();
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n---\n"));
}

#[test]
fn nix_store_survives_backend_directory_changes() {
    run_directory_campaign(Role::Mid, 21, 28);
}

#[test]
fn guix_store_survives_backend_directory_changes() {
    run_directory_campaign(Role::Guix, 22, 7);
}
