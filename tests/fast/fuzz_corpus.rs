//! Runs the fuzz targets on their stored inputs without a fuzzer, so that each failure that a fuzzer found
//! stays fixed. See `scripts/fuzz`.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::fuzz_seeds;

/// Returns whether a reader accepts the input, and panics if the reader breaks a guarantee.
type Harness = fn(&[u8]) -> bool;

const TARGETS: &[(&str, Harness)] = &[
    ("head", targets::head::run),
    ("index", targets::index::run),
    ("frames", targets::frames::run),
    ("database", targets::database::run),
    ("protocol", targets::protocol::run),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Returns names and contents of the files in a directory.
fn inputs(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn fuzz_targets_pass_on_the_stored_corpus() {
    for &(target, run) in TARGETS {
        let found = inputs(&fuzz().join("corpus").join(target));
        assert!(!found.is_empty(), "{target} has no inputs");
        for (name, input) in found {
            eprintln!("{target}: {name}");
            run(&input);
        }
    }
}

/// A fuzzer makes no progress from an input that is refused. After a change of a format or of the protocol,
/// STORECACHE_WRITE_SEEDS=1 makes the seeds anew from snapshots of real stores.
#[test]
fn fuzz_targets_accept_every_seed() {
    if std::env::var_os("STORECACHE_WRITE_SEEDS").is_some() {
        fuzz_seeds::write(&fuzz().join("seeds"));
    }
    for &(target, run) in TARGETS {
        let seeds = inputs(&fuzz().join("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for (name, seed) in seeds {
            eprintln!("{target}: {name}");
            assert!(run(&seed), "{target}: {name}");
        }
    }
}

#[test]
fn stored_fuzz_inputs_are_small() {
    let all = ["corpus", "seeds"].into_iter().flat_map(|kind| {
        TARGETS.iter().flat_map(move |(target, _)| inputs(&fuzz().join(kind).join(target)))
    });
    let bytes: usize = all.map(|(_, input)| input.len()).sum();
    assert!(bytes < 200_000, "{bytes} bytes");
}

/// The fuzzers have a lock file of their own.
#[test]
fn fuzz_dependencies_match_those_of_the_crate() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(top.join(path)).unwrap();
    let versions = |lock: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in lock.split("[[package]]").skip(1) {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_else(|| panic!("no {key} in {package}")).to_owned()
            };
            versions.entry(value("name = ")).or_default().insert(value("version = "));
        }
        versions
    };
    let ours = versions(&read("Cargo.lock"));
    for (name, theirs) in versions(&read("fuzz/Cargo.lock")) {
        let Some(ours) = ours.get(&name) else { continue };
        let again =
            format!("cargo update --manifest-path fuzz/Cargo.toml {name} --precise VERSION");
        assert!(theirs.is_subset(ours), "{name}: {theirs:?} and not {ours:?}: {again}");
    }
}
