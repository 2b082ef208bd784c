//! Tests of the resources of a run: its memory does not grow with the store, and it writes to no disk but the
//! store's own.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cache_service::{CacheService, TOKEN};
use crate::support::object_server::ObjectServer;
use crate::support::plain_env::{self, PlainEnv};
use crate::support::procfs;
use crate::support::resource_usage::{self, RunUsage, UsageMonitor, run_measured};
use crate::support::world_runs::{self, report};
use crate::support::{Role, World};
use serde_json::Value;
use storecache_backend::options::Service;

const MIB: u64 = 1 << 20;

const DATA: &str = "/var/data";
/// Size of the store in MiB, much more than the memory that a run may take.
const SIZE: u64 = 640;

/// Where the entries are kept.
enum EntryLocation<'a> {
    Directory,
    Service(&'a CacheService),
    Objects(&'a ObjectServer),
}

/// Returns a plain-directory fixture with [`SIZE`] of pseudorandom files, of some KiB to some MiB each.
fn large_store() -> PlainEnv {
    let place = PlainEnv::new();
    let mut state = 7u64;
    let mut left = SIZE * MIB;
    for number in 0.. {
        if left == 0 {
            return place;
        }
        let size = [3 << 10, 40 << 10, 600 << 10, 9 << 20][number % 4].min(left);
        let path = place.host(&format!("{DATA}/{}/{number}", number % 16));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, size, number % 8 == 7, &mut state);
        left -= size;
    }
    unreachable!()
}

/// Fills a file with bytes that do not compress, or with text that compresses to half its size.
fn write(path: &Path, size: u64, dense: bool, state: &mut u64) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut left = size as usize;
    while left > 0 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let digits = |at: u32| b"0123456789abcdef"[(*state >> (4 * at) & 15) as usize];
        let text: [u8; 16] = std::array::from_fn(|at| digits(at as u32));
        let bytes = if dense { &state.to_ne_bytes()[..] } else { &text[..] };
        let count = bytes.len().min(left);
        file.write_all(&bytes[..count]).unwrap();
        left -= count;
    }
}

/// Returns the directory in which runs record state for later runs.
fn state(place: &PlainEnv) -> PathBuf {
    place.host("/state")
}

#[track_caller]
fn run(place: &PlainEnv, at: &EntryLocation, verb: &str, more: &[&str]) -> (Value, RunUsage) {
    let mut command = Command::new(plain_env::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", DATA, "--root"]);
    command.arg(place.root()).args(["--json", "--quiet"]).args(more);
    command.env_remove("GITHUB_EVENT_PATH").env("XDG_STATE_HOME", state(place));
    match at {
        EntryLocation::Directory => {
            command.args(["--backend", &format!("dir:{}", place.entries().display())])
        }
        EntryLocation::Service(service) => command
            .args(["--backend", "github"])
            .env("ACTIONS_RESULTS_URL", service.url())
            .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
            .env("ACTIONS_CACHE_SERVICE_V2", "True")
            .env("GITHUB_SERVER_URL", "https://github.com"),
        EntryLocation::Objects(server) => {
            command.args(["--backend", server.backend()]).envs(server.variables())
        }
    };
    let (output, takings) = run_measured(&mut command);
    (report(&output.ok()), takings)
}

/// Saves and restores with this many threads and a memory limit in MiB, and asserts that each run stays within
/// the limit.
#[track_caller]
fn assert_within_limit(place: &PlainEnv, at: &EntryLocation, threads: u32, given: Option<u64>) {
    let limit = given.unwrap_or(if threads > 2 { 512 } else { 256 });
    let given = given.map(|given| format!("--memory={given}M"));
    let threads = format!("--threads={threads}");
    let flags: Vec<&str> = [threads.as_str()].into_iter().chain(given.as_deref()).collect();
    for verb in ["save", "restore"] {
        if verb == "restore" {
            place.remove(DATA);
        }
        let (report, takings) = run(place, at, verb, &flags);
        let bytes = report["bytes"][if verb == "save" { "packed" } else { "unpacked" }].as_u64();
        assert!(bytes.unwrap() >= SIZE * MIB, "{report}");
        let taken = resource_usage::memory(&takings) / MIB;
        println!("{verb} {flags:?}: {taken} of {limit} MiB");
        assert!(takings.len() >= 2, "the user process and the root helper were measured");
        assert!(taken <= limit, "{verb} {flags:?}: {taken} of {limit} MiB: {takings:?}");
    }
}

#[test]
fn run_stays_within_the_memory_limit_for_a_large_store() {
    let place = large_store();
    for (threads, given) in [(2, None), (16, None), (2, Some(128)), (16, Some(160))] {
        assert_within_limit(&place, &EntryLocation::Directory, threads, given);
    }
}

#[test]
fn cache_service_run_stays_within_the_memory_limit() {
    let place = large_store();
    for (threads, given) in [(2, None), (16, None), (2, Some(128))] {
        // The service keeps its entries in the memory of the test.
        let service = CacheService::start();
        assert_within_limit(&place, &EntryLocation::Service(&service), threads, given);
    }
}

#[test]
fn object_store_run_stays_within_the_memory_limit() {
    let place = large_store();
    let server = ObjectServer::start(Service::S3);
    // With so little memory, blocks of the usual share would be smaller than the minimum for a part of an
    // upload.
    assert_within_limit(&place, &EntryLocation::Objects(&server), 2, Some(96));
    let (keys, uploads) = server.keys_and_uploads();
    let entries = keys.iter().filter(|key| !key.contains("/.quarantine/")).count();
    assert_eq!((entries, uploads), (1, 0), "{keys:?}");
    let parts = server.log().iter().filter(|it| it[0].contains("partNumber")).count();
    assert!(parts > 20, "{parts}");
}

#[test]
fn run_writes_no_archive_data_to_the_disk_of_the_runner() {
    let place = large_store();
    let service = CacheService::start();
    // State files have few bytes, and none of an archive.
    let is_state = |file: &PathBuf| file.starts_with(state(&place));
    let (_, saved) = run(&place, &EntryLocation::Service(&service), "save", &[]);
    for taken in &saved {
        assert!(taken.files.iter().all(is_state), "{saved:?}");
        assert!(taken.written < MIB, "{saved:?}");
    }
    place.remove(DATA);
    let (_, restored) = run(&place, &EntryLocation::Service(&service), "restore", &[]);
    let [user, root] = &restored[..] else { panic!("{restored:?}") };
    assert!(user.files.iter().all(is_state), "{user:?}");
    // Its counter includes that of the root helper, which has ended.
    let by_user = user.written.saturating_sub(root.written);
    assert!(by_user < SIZE * MIB / 50, "{restored:?}");
    let store = place.root();
    assert!(root.files.iter().all(|file| file.starts_with(&store)), "{root:?}");
    assert!(!root.files.is_empty(), "it was seen");
    assert!(root.written < SIZE * MIB / 10 * 11, "{root:?}");
}

#[test]
fn shared_frames_and_guardian_stay_within_the_memory_limit() {
    let world = World::new(Role::Old);
    world.start_daemon();
    // Content that six items share, of the largest size that is packed only once.
    world.sh("mkdir /tmp/shared; head -c 31M /dev/urandom >/tmp/shared/large
         head -c 15M /dev/urandom >/tmp/shared/medium
         for n in 1 2 3 4 5 6; do echo $n >/tmp/shared/number; cp -r /tmp/shared /tmp/item-$n; done
         nix-store --add /tmp/item-* >/dev/null; nix-store --optimise");
    let init = world.init();
    let watch = || {
        UsageMonitor::begin(move || {
            procfs::processes_in_namespace(init).into_iter().filter(is_storecache).collect()
        })
    };
    let limit = 256;
    for verb in ["save", "restore"] {
        if verb == "restore" {
            world.wipe_store();
        }
        let watch = watch();
        let report = world_runs::run(&world, "root", verb, &["--threads=2"]);
        let takings = watch.end();
        assert!(report["bytes"]["snapshot"].as_u64().unwrap() < 150 * MIB, "{report}");
        assert!(takings.len() >= if verb == "save" { 2 } else { 3 }, "{takings:?}");
        let taken = resource_usage::memory(&takings) / MIB;
        println!("{verb}: {taken} of {limit} MiB");
        assert!(taken <= limit, "{verb}: {taken} of {limit} MiB: {takings:?}");
    }
    let output = world_runs::attempt(&world, "root", "restore", &["--threads=2", "--memory=90M"]);
    assert_eq!(output.code(), 0, "no frame is needed, so none is too large: {output}");
    world.wipe_store();
    let output = world_runs::attempt(&world, "root", "restore", &["--threads=2", "--memory=90M"]);
    assert!(output.fails().stderr.contains("--memory 90M is too little: this takes at least "));
}

fn is_storecache(pid: &u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"storecache\n")
}

#[test]
fn memory_limit_below_the_minimum_is_a_usage_error() {
    let place = PlainEnv::filled();
    for (verb, more, least) in [
        ("save", &["--memory=40M"][..], "87M"),
        ("save", &["--memory=100M", "--level=19"], "154M"),
        ("save", &["--memory=100M", "--long"], "122M"),
        ("restore", &["--memory=40M"], "80M"),
    ] {
        let output = place.attempt(verb, &["/opt/tool"], more);
        assert_eq!(output.code(), 2, "{output}");
        let given = more[0].trim_start_matches("--memory=");
        let line = format!("--memory {given} is too little: this takes at least {least}");
        assert!(output.stderr.contains(&line), "{output}");
    }
}
