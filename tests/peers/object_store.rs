//! Tests of entries in object stores (S3, Google Cloud Storage and Azure Blob Storage), and of their faults.

use std::collections::HashSet;
use std::io::Write;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use crate::support::object_server::{Fault, ObjectServer, SECRETS, VERSION};
use crate::support::plain_env::{self, PlainEnv, assert_same_tree};
use crate::support::world_runs::report;
use crate::support::{Fixture, Output, Role, World, azurite};
use storecache_backend::object_store::Objects;
use storecache_backend::options::{Secret, Service};
use storecache_backend::{
    Backend, BackendError, Entry, EntryList, EntryName, EntryWriter, Inventory, Quarantine,
    QuarantineList, Quarantined, Refused,
};
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::memory::Traffic;

const TOOL: &str = "/opt/tool";

/// The minimum size of a part.
const PART: usize = 5 << 20;

/// Small, so that little content makes many parts and ranges.
const TRAFFIC: Traffic = Traffic { block: PART, blocks: 2, range: 1 << 20, ahead: 16 << 20 };

fn backend(server: &ObjectServer) -> Objects {
    server.open().within(TRAFFIC)
}

/// Returns pseudorandom bytes.
fn content(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn write(mut writer: Box<dyn EntryWriter>, content: &[u8]) -> anyhow::Result<EntryName> {
    // In pieces that do not fit the part size.
    for piece in content.chunks(77_777) {
        writer.write_all(piece)?;
    }
    let entry = writer.finish()?.entry;
    assert_eq!(entry.size, content.len() as u64);
    Ok(entry.name)
}

fn save(backend: &Objects, key: &str, content: &[u8]) -> anyhow::Result<EntryName> {
    write(backend.create(&EntryName::new(key))?, content)
}

/// Reads a whole entry as a restore does: its end, then ranges that were announced before.
fn fetch(backend: &Objects, name: &EntryName) -> anyhow::Result<Vec<u8>> {
    let mut reader = backend.open(name)?;
    let size = reader.size();
    let mut end = vec![0; size.min(9) as usize];
    reader.read_at(size - end.len() as u64, &mut end)?;
    let starts = (0..size).step_by(333_333);
    let ranges: Vec<_> = starts.map(|start| start..size.min(start + 333_333)).collect();
    reader.expect(&ranges);
    let mut all = vec![0; size as usize];
    for range in &ranges {
        reader.read_at(range.start, &mut all[range.start as usize..range.end as usize])?;
    }
    assert!(all.ends_with(&end));
    Ok(all)
}

/// Returns the error with its chain of causes, as users see it, and asserts that it has no secret.
/// Makes a lookup without problems that it has to report.
fn find(
    backend: &dyn Backend,
    rungs: &[Rung],
    passed: &[EntryName],
) -> Result<Option<(EntryName, usize)>, BackendError> {
    let (found, notes) = backend.find(rungs, passed)?;
    assert!(notes.warnings.is_empty() && notes.skipped.is_empty(), "{notes:?}");
    Ok(found.map(|found| (found.name, found.rung)))
}

fn list(backend: &dyn EntryList, rung: &Rung) -> Vec<Entry> {
    backend.entries(rung).unwrap().0
}

fn refused_by(error: BackendError) -> Refused {
    match error {
        BackendError::Refused(refused) => refused,
        other => panic!("{other:#}"),
    }
}

fn line<T, E: std::fmt::Display + std::fmt::Debug>(result: Result<T, E>) -> String {
    let Err(e) = result else { panic!("it did not fail") };
    let line = format!("{e:#} {e:?}");
    for secret in SECRETS.iter().chain([&azurite::KEY]) {
        assert!(!line.contains(secret), "{line}");
    }
    line
}

#[test]
fn entries_of_every_size_come_back_byte_for_byte() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        for length in [1, PART - 1, PART, PART + 1, 4 * PART + 12_345] {
            let content = content(length);
            let name = save(&backend, "size", &content).unwrap();
            assert!(fetch(&backend, &name).unwrap() == content, "{service:?} {length}");
        }
    }
}

#[test]
fn upload_parts_have_the_minimum_size_with_little_memory() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let backend = server.open().within(Traffic { block: 1 << 20, ..TRAFFIC });
        let content = content(2 * PART + 12_345);
        let name = save(&backend, "small", &content).unwrap();
        assert!(fetch(&backend, &name).unwrap() == content, "{service:?}");
    }
}

#[test]
fn find_returns_newest_entry_of_the_first_matching_key() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        let odd = "k-a/b c%é";
        let names: Vec<_> = (0..3).map(|n| save(&backend, odd, &[n]).unwrap()).collect();
        let longer = save(&backend, "k-a/b c%é-longer", b"longer").unwrap();
        let rungs = [Rung::Exact(odd.into()), Rung::Prefix("k-a/".into())];
        let found = |passed: &[EntryName]| find(&backend, &rungs, passed).unwrap();
        assert_eq!(found(&[]), Some((names[2].clone(), 0)), "{service:?}");
        assert_eq!(found(&names[1..]), Some((names[0].clone(), 0)), "{service:?}");
        assert_eq!(found(&names), Some((longer, 1)), "{service:?}");
        let all = list(&backend, &Rung::Prefix(String::new()));
        assert_eq!(all.len(), 4, "{service:?}");
        assert_eq!(all[1].name, names[2], "{service:?}: newest first");
        assert!(find(&backend, &[Rung::Exact("k-a".into())], &[]).unwrap().is_none());

        let other =
            Objects::new(&RunContext::default(), &server.options(), &VERSION.replace('5', "6"))
                .unwrap();
        assert!(find(&other, &rungs, &[]).unwrap().is_none(), "{service:?}");

        // The inventory has the entries of all layouts, and no internal objects.
        save(&other, "elsewhere", b"x").unwrap();
        let records = Inventory::records(&other).unwrap();
        let layouts: HashSet<_> = records.iter().map(|it| it.version.clone()).collect();
        assert_eq!((records.len(), layouts.len()), (5, 2), "{service:?}: {records:?}");

        EntryList::delete(&backend, &all[1]).unwrap();
        EntryList::delete(&backend, &all[1]).unwrap();
        assert_eq!(found(&[]), Some((names[1].clone(), 0)), "{service:?}");
        assert!(
            backend.open(&names[2]).is_err_and(|e| matches!(e, BackendError::Gone(_))),
            "{service:?}"
        );
    }
}

#[test]
fn list_reads_all_pages() {
    let server = ObjectServer::start(Service::S3);
    let backend = backend(&server);
    // Pages of S3 have a thousand keys; notes and claims are not among the entries.
    let name = save(&backend, "k", b"x").unwrap();
    for number in 0..1_001 {
        server.put_invalid_object(&format!(
            "ci/stores/{VERSION}/a{number:04}.20200101T000000.000000Z.tar.zst"
        ));
    }
    assert_eq!(list(&backend, &Rung::Prefix(String::new())).len(), 1_002);
    assert_eq!(find(&backend, &[Rung::Prefix("k".into())], &[]).unwrap(), Some((name, 0)));
}

#[test]
fn second_writer_of_a_name_is_refused() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        for round in 0..4 {
            let name = EntryName::new(&format!("k-{round}"));
            // One content is small, the other is assembled from parts at the end.
            let contents = [vec![1; 20], vec![2; PART + 5]];
            let start = Barrier::new(2);
            let done: Vec<_> = thread::scope(|scope| {
                let writers = contents.iter().map(|content| {
                    let (start, name, server) = (&start, &name, &server);
                    scope.spawn(move || {
                        let backend = backend(server);
                        start.wait();
                        write(backend.create(name)?, content)
                    })
                });
                let writers: Vec<_> = writers.collect();
                writers.into_iter().map(|writer| writer.join().unwrap()).collect()
            });
            let won: Vec<_> = (0..2).filter(|&at| done[at].is_ok()).collect();
            assert_eq!(won.len(), 1, "{service:?}: {done:?}");
            let lost = done.into_iter().find_map(Result::err).unwrap();
            let taken = Refused::Taken(name.to_string());
            assert_eq!(refused_by(lost.downcast().unwrap()), taken, "{service:?}");
            assert!(fetch(&backend(&server), &name).unwrap() == contents[won[0]], "{service:?}");
            // A later attempt is refused, too.
            let again = backend(&server).create(&name).err().unwrap();
            refused_by(again);
        }
    }
}

#[test]
fn aborted_upload_creates_no_entry() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        let name = EntryName::new("k");
        let mut writer = backend.create(&name).unwrap();
        writer.write_all(&content(3 * PART)).unwrap();
        let all = || list(&backend, &Rung::Prefix(String::new()));
        assert!(all().is_empty(), "{service:?}");
        assert!(
            backend.open(&name).is_err_and(|e| matches!(e, BackendError::Gone(_))),
            "{service:?}"
        );
        if service != Service::Azure {
            assert_eq!(server.keys_and_uploads().1, 1, "{service:?}: it has begun");
        }
        drop(writer);
        assert!(all().is_empty(), "{service:?}");
        if service != Service::Azure {
            assert_eq!(server.keys_and_uploads(), (Vec::new(), 0), "{service:?}");
        }
        // The name is free again, and leftover parts do no harm.
        write(backend.create(&name).unwrap(), b"whole").unwrap();
        assert_eq!(fetch(&backend, &name).unwrap(), b"whole", "{service:?}");

        // An entry whose writer was killed does not appear either.
        let mut killed = backend.create(&EntryName::new("killed")).unwrap();
        killed.write_all(&content(2 * PART)).unwrap();
        std::mem::forget(killed);
        assert_eq!(all().len(), 1, "{service:?}");
        save(&backend, "killed", b"next").unwrap();
    }
}

#[test]
fn lost_write_lock_stops_the_writer() {
    for service in [Service::S3, Service::Google] {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        let name = EntryName::new("k");
        for length in [10, PART + 10] {
            let mut writer = backend.create(&name).unwrap();
            writer.write_all(&content(length)).unwrap();
            // As if the writer had paused for days, and another writer had begun.
            server.delete_object(&format!("ci/stores/{VERSION}/.claims/{name}.tar.zst"));
            let other = self::backend(&server).create(&name).unwrap();
            assert!(line(writer.finish()).contains("another run may be writing it"), "{service:?}");
            assert!(list(&backend, &Rung::Prefix(String::new())).is_empty());
            drop(other);
        }
        assert_eq!(server.keys_and_uploads(), (Vec::new(), 0), "{service:?}");
    }
}

#[test]
fn temporary_range_faults_are_retried() {
    let content = content(6 << 20);
    for service in [Service::S3, Service::Google] {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        let name = save(&backend, "k", &content).unwrap();
        for fault in [Fault::Cut, Fault::HangUp, Fault::Stall, Fault::Status(503, "SlowDown")] {
            for skip in [0, 3] {
                server.inject_faults("^GET .*tar.zst", fault, skip, 2);
                assert!(fetch(&backend, &name).unwrap() == content, "{service:?} {fault:?} {skip}");
            }
        }
        server.inject_faults("^GET .*tar.zst", Fault::Hang, 1, 1);
        assert!(fetch(&backend, &name).unwrap() == content, "{service:?}");
        server.clear_faults();
        server.log();
        assert!(fetch(&backend, &name).unwrap() == content);
        let ranges: HashSet<_> = server.log().into_iter().map(|it| it[1].clone()).collect();
        assert!(ranges.len() > 6, "{service:?}: in ranges: {ranges:?}");
    }
}

#[test]
fn permanent_range_faults_are_reported_with_their_cause() {
    let server = ObjectServer::start(Service::S3);
    let backend = backend(&server);
    let name = save(&backend, "k", &content(3 << 20)).unwrap();
    for (fault, words) in [
        (Fault::Cut, &["truncated: got ", " of ", " bytes", "(5 tries)"][..]),
        (Fault::HangUp, &["(5 tries)"]),
        (Fault::Status(500, "InternalError"), &["HTTP 500 InternalError", "(5 tries)"]),
        (Fault::Status(403, "ExpiredToken"), &["HTTP 403 ExpiredToken", "credentials"]),
        (Fault::Status(412, "PreconditionFailed"), &["the entry was changed while it was read"]),
        (Fault::Status(404, "NoSuchKey"), &["the entry was deleted in the meantime"]),
    ] {
        server.clear_faults();
        let mut reader = backend.open(&name).unwrap();
        server.inject_faults("^GET .*tar.zst", fault, 0, 1000);
        let mut bytes = vec![0; 1 << 20];
        let error = line(reader.read_at(1 << 20, &mut bytes).map_err(anyhow::Error::from));
        assert!(words.iter().all(|word| error.contains(word)), "{fault:?}: {error}");
    }
    server.clear_faults();
    // Another object of the same name is not read as the same entry.
    let mut reader = backend.open(&name).unwrap();
    server.put_invalid_object(&format!("ci/stores/{VERSION}/{name}.tar.zst"));
    let error = line(reader.read_at(1 << 20, &mut [0; 99]).map_err(anyhow::Error::from));
    assert!(error.contains("changed while it was read"), "{error}");
    let mut reader = backend.open(&name).unwrap();
    let error = reader.read_at(9, &mut [0; 99]).unwrap_err().to_string();
    assert_eq!(error, "truncated: got 21 of 108 bytes");
}

#[test]
fn temporary_upload_faults_are_retried() {
    let content = content(2 * PART + 99);
    for service in [Service::S3, Service::Google] {
        let server = ObjectServer::start(service);
        let backend = backend(&server);
        for expression in [
            "PUT .*partNumber",
            "PUT .*claims",
            "POST .*uploads",
            "POST .*uploadId",
            "HEAD",
            "DELETE",
        ] {
            for fault in [Fault::HangUp, Fault::Lost, Fault::Status(503, "SlowDown")] {
                server.inject_faults(expression, fault, 0, 2);
                let name = save(&backend, "k", &content).unwrap_or_else(|e| {
                    panic!("{service:?} {expression} {fault:?}: {e:#}");
                });
                assert!(fetch(&backend, &name).unwrap() == content, "{service:?} {expression}");
                server.clear_faults();
            }
        }
        let (keys, uploads) = server.keys_and_uploads();
        assert_eq!(keys.len(), 18, "nothing but the entries: {keys:?}");
        // The ID of an upload is unknown if the response was lost; the bucket's lifecycle rule deletes such
        // uploads.
        assert!(uploads <= 2, "{uploads}");
    }
}

#[test]
fn failed_upload_leaves_no_object() {
    let server = ObjectServer::start(Service::S3);
    let backend = backend(&server);
    for (expression, fault, words) in [
        ("PUT .*partNumber", Fault::Status(500, "InternalError"), &["send a part", "HTTP 500"][..]),
        ("POST .*uploads", Fault::HangUp, &["start the upload of the snapshot", "(5 tries)"]),
        (
            "POST .*uploadId",
            Fault::Status(400, "InvalidPart"),
            &["assemble the parts", "InvalidPart"],
        ),
        ("PUT .*claims", Fault::Status(404, "NoSuchBucket"), &["there is no such bucket"]),
    ] {
        server.inject_faults(expression, fault, 0, 1000);
        let error = line(save(&backend, "k", &content(PART + 9)));
        assert!(words.iter().all(|word| error.contains(word)), "{expression}: {error}");
        server.clear_faults();
        assert_eq!(server.keys_and_uploads(), (Vec::new(), 0), "{expression}");
    }
    // If writing is denied, the error is `Refused::Write`, which is not a failure for saves that are optional.
    server.inject_faults("PUT .*claims", Fault::Status(403, "AccessDenied"), 0, 1000);
    let denied = backend.create(&EntryName::new("k")).err().unwrap();
    assert!(matches!(refused_by(denied), Refused::Write(why) if why.contains("AccessDenied")));
    // If deleting is denied, claims stay, which do no harm.
    server.inject_faults("DELETE", Fault::Status(403, "AccessDenied"), 0, 1000);
    for _ in 0..2 {
        save(&backend, "k", b"x").unwrap();
    }
    assert_eq!(list(&backend, &Rung::Exact("k".into())).len(), 2);
}

#[test]
fn quarantined_entry_is_hidden_and_later_deleted() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let (one, other) = (backend(&server), backend(&server));
        let (old, new) = (save(&one, "k", b"old").unwrap(), save(&one, "k", b"new").unwrap());
        let note = Quarantined { reason: "damaged".into(), ..Quarantined::default() };
        let file = one.set_aside(&new, &note).unwrap().unwrap();
        assert!(file.to_str().unwrap().ends_with(&format!("{VERSION}/{new}.tar.zst")), "{file:?}");
        let rung = [Rung::Exact("k".into())];
        assert_eq!(find(&other, &rung, &[]).unwrap(), Some((old.clone(), 0)), "{service:?}");
        assert!(other.open(&new).is_err_and(|e| matches!(e, BackendError::Gone(_))), "{service:?}");
        let asides = other.quarantined().unwrap();
        assert_eq!((asides.len(), asides[0].size), (1, Some(3)), "{service:?}");
        assert_eq!((&*asides[0].entry, &*asides[0].reason), (&*new.to_string(), "damaged"));
        assert_eq!(Inventory::records(&one).unwrap().len(), 1, "{service:?}");

        other.sweep(std::time::Duration::from_secs(3600)).unwrap();
        assert_eq!(one.quarantined().unwrap().len(), 1, "{service:?}: it is not over");
        one.sweep(std::time::Duration::ZERO).unwrap();
        assert_eq!(one.quarantined().unwrap().len(), 1, "{service:?}: once an hour");
    }
    let server = ObjectServer::start(Service::S3);
    let backend = backend(&server);
    let name = save(&backend, "k", b"bad").unwrap();
    backend.set_aside(&name, &Quarantined::default()).unwrap();
    backend.sweep(std::time::Duration::ZERO).unwrap();
    let (keys, _) = server.keys_and_uploads();
    assert_eq!(keys, [format!("ci/stores/{VERSION}/.quarantine/.swept")]);
}

#[test]
fn missing_credentials_or_https_is_an_error_without_secrets() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let mut options = server.options();
        options.settings.retain(|(name, _)| !name.ends_with("ALLOW_HTTP"));
        let insecure = Objects::new(&RunContext::default(), &options, VERSION).unwrap();
        let error = line(find(&insecure, &[Rung::Exact("k".into())], &[]));
        assert!(error.contains("does not use https") && error.contains("ALLOW_HTTP"), "{error}");
        options.settings.clear();
        let error = line(Objects::new(&RunContext::default(), &options, VERSION));
        assert!(error.contains("no credentials in the environment: set "), "{error}");
    }
    let server = ObjectServer::start(Service::Azure);
    let mut options = server.options();
    let key = options.settings.iter_mut().find(|(name, _)| name.ends_with("ACCOUNT_KEY"));
    key.unwrap().1 = Secret::new("bm8=");
    let backend = Objects::new(&RunContext::default(), &options, VERSION).unwrap();
    let error = line(find(&backend, &[Rung::Exact("k".into())], &[]));
    assert!(error.contains("HTTP 403"), "{error}");
    let mut options = server.options();
    options.address.bucket = "nowhere".into();
    let backend = Objects::new(&RunContext::default(), &options, VERSION).unwrap();
    let error = line(find(&backend, &[Rung::Exact("k".into())], &[]));
    assert!(error.contains("there is no such bucket"), "{error}");
    assert!(!format!("{options:?}").contains(azurite::KEY));
}

/// Runs a verb on `/opt/tool` and asserts that no secret is printed. The run may fail.
fn attempt(place: &PlainEnv, server: &ObjectServer, verb: &str, more: &[&str]) -> Output {
    let mut command = Command::new(plain_env::binary());
    command.arg(verb);
    if !matches!(verb, "list" | "usage" | "prune") {
        command.args(["--store", "plain", "--key", "test"]);
    }
    if matches!(verb, "save" | "restore") {
        command.args(["--path", TOOL, "--root"]).arg(place.root());
    }
    command.args(["--backend", server.backend(), "--network-timeout", "2"]).args(more);
    command.envs(server.variables()).env("HOME", place.entries());
    for name in ["XDG_CACHE_HOME", "XDG_STATE_HOME", "GITHUB_EVENT_PATH"] {
        command.env_remove(name);
    }
    let output = plain_env::output(&mut command);
    for secret in SECRETS.iter().chain([&azurite::KEY]) {
        assert!(!format!("{output}").contains(secret), "{output}");
    }
    output
}

#[test]
fn save_restore_list_and_prune_work_on_every_object_store() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let place = PlainEnv::filled();
        let before = place.tree(TOOL);
        let run = |verb: &str, more: &[&str]| {
            report(&attempt(&place, &server, verb, &[more, &["--json"]].concat()).ok())
        };
        assert_eq!(run("restore", &[])["hit"], "miss", "{service:?}");
        let saved = run("save", &[]);
        let location = format!("{} at {}", server.backend(), server.host());
        assert_eq!(saved["backend"], location.as_str());
        place.remove(TOOL);
        let restored = run("restore", &[]);
        assert_eq!((&restored["hit"], &restored["entry"]), (&"exact".into(), &saved["entry"]));
        assert_eq!(restored["backend"], location.as_str());
        assert_same_tree(&before, &place.tree(TOOL));
        attempt(&place, &server, "verify", &[]).ok();
        attempt(&place, &server, "inspect", &[]).ok();
        let listed = run("list", &[]);
        assert_eq!(listed["entries"][0]["store"], "plain", "{listed}");
        assert_eq!(listed["entries"][0]["size"], saved["bytes"]["uploaded"]);
        run("usage", &[]);

        // Older entries are deleted by the next save or by `prune`.
        place.write("/opt/tool/more", "more\n");
        run("save", &[]);
        let kept = run("save", &["--keep", "2"]);
        assert_eq!(kept["deleted"], serde_json::json!([saved["entry"]]), "{service:?}");
        run("prune", &["--apply"]);
        assert_eq!(run("list", &[])["entries"].as_array().unwrap().len(), 1, "{service:?}");
    }
}

#[test]
fn restore_quarantines_a_damaged_object() {
    let server = ObjectServer::start(Service::S3);
    let place = PlainEnv::filled();
    let run = |verb: &str, more: &[&str]| {
        report(&attempt(&place, &server, verb, &[more, &["--json"]].concat()).ok())
    };
    let good = run("save", &[]);
    let bad = run("save", &[]);
    let layout = run("list", &[])["entries"][0]["version"].as_str().unwrap().to_owned();
    let entry = bad["entry"].as_str().unwrap();
    server.put_invalid_object(&format!("ci/stores/{layout}/{entry}.tar.zst"));
    place.remove(TOOL);
    let restored = run("restore", &[]);
    assert_eq!(restored["entry"], good["entry"]);
    let file = restored["quarantined"][0]["file"].as_str().unwrap();
    assert_eq!(file, format!("s3://entries/ci/stores/{layout}/{entry}.tar.zst"));
    let warned = restored["warnings"].to_string();
    assert!(warned.contains("is marked as bad") && warned.contains(file), "{warned}");
    // Later restores skip it, on any machine.
    let again = run("restore", &[]);
    assert_eq!(
        (&again["entry"], again["passed_over"].as_array().map_or(0, Vec::len)),
        (&good["entry"], 0)
    );
    let listed = run("list", &[]);
    assert_eq!(listed["quarantined"][0]["entry"], entry, "{listed}");
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn delta_restores_from_an_object_store() {
    let server = ObjectServer::start(Service::S3);
    let world = World::build(Role::Mid).fixture(Fixture::Small).network().start();
    world.start_daemon();
    let run = |verb: &str| {
        let words =
            [verb, "--store", "nix", "--key", "test", "--backend", server.backend(), "--json"];
        let run =
            world.storecache_as("runner", words.into_iter().chain(["--network-timeout", "2"]));
        let run = server.variables().iter().fold(run, |run, (name, value)| run.env(name, value));
        report(&run.ok())
    };
    let base = run("save");
    world.add_text("more");
    let delta = run("save");
    assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
    let before = world.valid_paths();
    world.wipe_store();
    server.inject_faults("^GET .*tar.zst", Fault::Cut, 1, 3);
    let restored = run("restore");
    assert_eq!(restored["entry"], delta["entry"], "{restored}");
    assert_eq!(world.valid_paths(), before);
    world.verify_store();
}
