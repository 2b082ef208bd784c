//! Runs of the program under test on the store of a world, and recorded states of that store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde_json::Value;

use super::cache_service::{CacheService, TOKEN};
use super::invocation::Output;
use super::procfs;
use super::tree::Entry;
use super::world::World;

/// The flags of every run: all tests save under one key of a world's backend.
pub const NIX_FLAGS: [&str; 6] = ["--store", "nix", "--backend", "dir:/cache", "--key", "test"];

/// As [`NIX_FLAGS`], for the kind of store of this world.
pub fn flags(world: &World) -> [&'static str; 6] {
    let mut flags = NIX_FLAGS;
    flags[1] = world.package_manager().name();
    flags
}

/// Saves or restores the world's store under the key `test`, and returns the report.
pub fn run(world: &World, user: &str, verb: &str, more: &[&str]) -> Value {
    let output = attempt(world, user, verb, more).ok();
    report(&output)
}

pub fn attempt(world: &World, user: &str, verb: &str, more: &[&str]) -> Output {
    let words =
        [verb].into_iter().chain(flags(world)).chain(more.iter().copied()).chain(["--json"]);
    world.storecache_as(user, words).run()
}

pub fn report(output: &Output) -> Value {
    assert_eq!(output.stdout.lines().count(), 1, "one JSON object and no more:\n{output}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

pub fn save(world: &World) -> Value {
    run(world, "runner", "save", &[])
}

pub fn restore(world: &World) -> Value {
    run(world, "runner", "restore", &[])
}

/// Saves or restores through the cache service of GitHub Actions, whatever the outcome, and returns the
/// report. The world must share the network of the test process.
pub fn run_with_service(world: &World, service: &CacheService, verb: &str, more: &[&str]) -> Value {
    let words = [verb, "--store", world.package_manager().name(), "--key", "test", "--json"];
    let run = world
        .storecache_as("runner", words.into_iter().chain(more.iter().copied()))
        .env("ACTIONS_RESULTS_URL", service.url())
        .env("ACTIONS_CACHE_URL", service.url())
        .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
        .env("ACTIONS_CACHE_SERVICE_V2", "1");
    report(&run.run())
}

/// The state of the valid items according to Nix, the database and the disk.
#[derive(Default, PartialEq, Eq)]
pub struct StoreState {
    pub references: BTreeMap<String, BTreeSet<String>>,
    pub outputs: BTreeSet<(String, String, String)>,
    pub trees: BTreeMap<String, BTreeMap<PathBuf, Entry>>,
}

pub fn record_state(world: &World) -> StoreState {
    let references = world.references_of_all();
    let trees = references.keys().map(|path| (path.clone(), world.tree_digest(path))).collect();
    StoreState { outputs: world.derivation_outputs(), references, trees }
}

/// Panics with the first difference instead of two whole stores.
#[track_caller]
pub fn assert_same(before: &StoreState, after: &StoreState) {
    assert_eq!(before.references, after.references);
    assert_eq!(before.outputs, after.outputs);
    for (path, tree) in &before.trees {
        assert_eq!(tree, &after.trees[path], "{path}");
    }
}

/// The staging directories in all places where they can be.
pub fn staging(world: &World) -> Vec<String> {
    let store = Path::new(world.store());
    let places = [store, store.parent().unwrap(), Path::new(world.state())];
    let listed = places.iter().filter_map(|place| world.host(place).read_dir().ok()).flatten();
    let names = listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".storecache")).collect()
}

/// Leftovers of runs that have ended: staging, copies of the database, processes, and the lock that blocks
/// collectors.
pub fn leftovers(world: &World) -> Vec<String> {
    let mut found = staging(world);
    let temporary = fs::read_dir(world.host("/tmp")).unwrap().flatten();
    let names = temporary.map(|entry| entry.file_name().to_string_lossy().into_owned());
    found.extend(names.filter(|name| name.contains("storecache")));
    for pid in procfs::processes_in_namespace(world.init()) {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = Path::new(command.split('\0').next().unwrap_or_default());
        let ours = ["storecache", "storecache-guardian", "storecache-backup-guardian", "sudo"];
        if program.file_name().is_some_and(|name| ours.iter().any(|it| name == *it)) {
            found.push(command.replace('\0', " "));
        }
    }
    found.extend(world.try_lock("gc.lock").err());
    found
}

/// The pid of the root helper of a run in a world, as the test process sees it.
#[track_caller]
pub fn root_helper_pid(world: &World) -> Pid {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let ours = namespace(&world.init().to_string());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let found = pids.find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Skips the sudo that started the root helper, and the guardians that it started.
        namespace(pid) == ours && command == b"/usr/local/bin/storecache\0privileged\0"
    });
    Pid::from_raw(found.expect("the root helper runs").parse().unwrap()).unwrap()
}
