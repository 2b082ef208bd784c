//! Tests of the resources of a run: its memory does not grow with the store, and it writes to no disk but the
//! store's own.

mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use storecache_backend::object_store::Service;
use support::cache_service::{CacheService, TOKEN};
use support::memory::{self, Takings, Watch, watched};
use support::object_server::ObjectServer;
use support::place::{self, Place};
use support::procfs;
use support::runs::{self, report};
use support::{Role, World};

const MIB: u64 = 1 << 20;

const DATA: &str = "/var/data";
/// Size of the store in MiB, much more than the memory that a run may take.
const SIZE: u64 = 640;

/// Where the entries are kept.
enum At<'a> {
    Directory,
    Service(&'a CacheService),
    Objects(&'a ObjectServer),
}

/// Returns a plain-directory fixture with [`SIZE`] of pseudorandom files, of some KiB to some MiB each.
fn filled() -> Place {
    let place = Place::new();
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
fn state(place: &Place) -> PathBuf {
    place.host("/state")
}

#[track_caller]
fn run(place: &Place, at: &At, verb: &str, more: &[&str]) -> (Value, Takings) {
    let mut command = Command::new(place::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", DATA, "--root"]);
    command.arg(place.root()).args(["--json", "--quiet"]).args(more);
    command.env_remove("GITHUB_EVENT_PATH").env("XDG_STATE_HOME", state(place));
    match at {
        At::Directory => command.args(["--backend", &format!("dir:{}", place.entries().display())]),
        At::Service(service) => command
            .args(["--backend", "github"])
            .env("ACTIONS_RESULTS_URL", service.url())
            .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
            .env("ACTIONS_CACHE_SERVICE_V2", "True")
            .env("GITHUB_SERVER_URL", "https://github.com"),
        At::Objects(server) => {
            command.args(["--backend", server.backend()]).envs(server.variables())
        }
    };
    let (output, takings) = watched(&mut command);
    (report(&output.ok()), takings)
}

/// Saves and restores with this many threads and a memory limit in MiB, and asserts that each run stays within
/// the limit.
#[track_caller]
fn goes_within(place: &Place, at: &At, threads: u32, given: Option<u64>) {
    let limit = given.unwrap_or(if threads > 2 { 512 } else { 256 });
    let given = given.map(|given| format!("--memory={given}M"));
    let threads = format!("--threads={threads}");
    let flags: Vec<&str> = [threads.as_str()].into_iter().chain(given.as_deref()).collect();
    for verb in ["save", "restore"] {
        if verb == "restore" {
            place.remove(DATA);
        }
        let (told, takings) = run(place, at, verb, &flags);
        let bytes = told["bytes"][if verb == "save" { "packed" } else { "unpacked" }].as_u64();
        assert!(bytes.unwrap() >= SIZE * MIB, "{told}");
        let taken = memory::memory(&takings) / MIB;
        println!("{verb} {flags:?}: {taken} of {limit} MiB");
        assert!(takings.len() >= 2, "both halves were seen");
        assert!(taken <= limit, "{verb} {flags:?}: {taken} of {limit} MiB: {takings:?}");
    }
}

#[test]
fn a_run_takes_no_more_memory_than_it_may_whatever_the_size_of_the_store() {
    let place = filled();
    for (threads, given) in [(2, None), (16, None), (2, Some(128)), (16, Some(160))] {
        goes_within(&place, &At::Directory, threads, given);
    }
}

#[test]
fn neither_does_one_through_the_cache_service() {
    let place = filled();
    for (threads, given) in [(2, None), (16, None), (2, Some(128))] {
        // The service keeps its entries in the memory of the test.
        let service = CacheService::start();
        goes_within(&place, &At::Service(&service), threads, given);
    }
}

#[test]
fn neither_does_one_through_an_object_store() {
    let place = filled();
    let server = ObjectServer::start(Service::S3);
    // With so little memory, blocks of the usual share would be smaller than the minimum for a part of an
    // upload.
    goes_within(&place, &At::Objects(&server), 2, Some(96));
    let (keys, uploads) = server.keys_and_uploads();
    let entries = keys.iter().filter(|key| !key.contains("/.quarantine/")).count();
    assert_eq!((entries, uploads), (1, 0), "{keys:?}");
    let parts = server.log().iter().filter(|it| it[0].contains("partNumber")).count();
    assert!(parts > 20, "{parts}");
}

#[test]
fn the_bytes_of_an_archive_never_touch_the_disk_of_the_runner() {
    let place = filled();
    let service = CacheService::start();
    // State files have few bytes, and none of an archive.
    let is_state = |file: &PathBuf| file.starts_with(state(&place));
    let (_, saved) = run(&place, &At::Service(&service), "save", &[]);
    for taken in &saved {
        assert!(taken.files.iter().all(is_state), "{saved:?}");
        assert!(taken.written < MIB, "{saved:?}");
    }
    place.remove(DATA);
    let (_, restored) = run(&place, &At::Service(&service), "restore", &[]);
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
fn frames_that_items_share_and_the_guardian_are_within_it_too() {
    let world = World::new(Role::Old);
    world.start_daemon();
    // Content that six items share, of the largest size that is packed only once.
    world.sh("mkdir /tmp/shared; head -c 31M /dev/urandom >/tmp/shared/large
         head -c 15M /dev/urandom >/tmp/shared/medium
         for n in 1 2 3 4 5 6; do echo $n >/tmp/shared/number; cp -r /tmp/shared /tmp/item-$n; done
         nix-store --add /tmp/item-* >/dev/null; nix-store --optimise");
    let init = world.init();
    let watch =
        || Watch::begin(move || procfs::companions(init).into_iter().filter(ours).collect());
    let limit = 256;
    for verb in ["save", "restore"] {
        if verb == "restore" {
            world.wipe_store();
        }
        let watch = watch();
        let told = runs::run(&world, "root", verb, &["--threads=2"]);
        let takings = watch.end();
        assert!(told["bytes"]["snapshot"].as_u64().unwrap() < 150 * MIB, "{told}");
        assert!(takings.len() >= if verb == "save" { 2 } else { 3 }, "{takings:?}");
        let taken = memory::memory(&takings) / MIB;
        println!("{verb}: {taken} of {limit} MiB");
        assert!(taken <= limit, "{verb}: {taken} of {limit} MiB: {takings:?}");
    }
    let told = runs::attempt(&world, "root", "restore", &["--threads=2", "--memory=90M"]);
    assert_eq!(told.code(), 0, "nothing is wanted, and so no frame is too large: {told}");
    world.wipe_store();
    let told = runs::attempt(&world, "root", "restore", &["--threads=2", "--memory=90M"]);
    assert!(told.fails().stderr.contains("--memory 90M is too little: this takes at least "));
}

fn ours(pid: &u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"storecache\n")
}

#[test]
fn too_little_memory_is_refused_before_anything_runs() {
    let place = Place::filled();
    for (verb, more, least) in [
        ("save", &["--memory=40M"][..], "87M"),
        ("save", &["--memory=100M", "--level=19"], "154M"),
        ("save", &["--memory=100M", "--long"], "122M"),
        ("restore", &["--memory=40M"], "80M"),
    ] {
        let told = place.attempt(verb, &["/opt/tool"], more);
        assert_eq!(told.code(), 2, "{told}");
        let given = more[0].trim_start_matches("--memory=");
        let line = format!("--memory {given} is too little: this takes at least {least}");
        assert!(told.stderr.contains(&line), "{told}");
    }
}
