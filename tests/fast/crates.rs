//! Tests which crates the crates of the workspace depend on.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Crates that can open a connection to another machine, and those that encrypt it.
const NETWORK: [&str; 12] = [
    "h2",
    "hyper",
    "native-tls",
    "object_store",
    "octocrab",
    "openssl",
    "quinn",
    "reqwest",
    "rustls",
    "tokio",
    "tower",
    "ureq",
];

/// The crates of the workspace that each of them uses. Fewer is better; `ARCHITECTURE.md` explains each.
const DEPENDENCIES: [(&str, &[&str]); 11] = [
    ("backend", &["entry", "runtime"]),
    ("daemon", &["programs", "runtime"]),
    ("entry", &[]),
    ("key", &["entry", "runtime", "workflow"]),
    ("lint", &["workflow"]),
    ("programs", &["runtime"]),
    ("root-helper", &["daemon", "entry", "programs", "runtime", "snapshot", "store"]),
    ("runtime", &[]),
    ("snapshot", &["entry", "runtime"]),
    ("store", &["runtime"]),
    ("workflow", &["entry", "runtime"]),
];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn assert_no_network_crate(selection: &[&str]) {
    let tree = ["tree", "--edges", "normal,build", "--prefix", "none", "--target", "all"];
    let tree = cargo(&[&tree[..], &["--locked", "--offline"], selection].concat());
    assert!(tree.contains("rusqlite"), "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(!NETWORK.contains(&name), "{line}");
    }
}

#[test]
fn root_helper_depends_on_no_network_crate() {
    assert_no_network_crate(&["--package", "storecache-root-helper"]);
}

#[test]
fn program_without_features_depends_on_no_network_crate() {
    assert_no_network_crate(&["--no-default-features"]);
}

#[test]
fn crates_depend_only_on_the_listed_ones() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let Some(name) = package["name"].as_str().unwrap().strip_prefix("storecache-") else {
            continue;
        };
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let names = dependencies.filter_map(|it| it["name"].as_str()?.strip_prefix("storecache-"));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort_unstable();
        found.insert(name.to_owned(), names);
    }
    let expected = DEPENDENCIES
        .map(|(name, uses)| (name.to_owned(), uses.iter().map(|it| (*it).to_owned()).collect()));
    assert_eq!(found, BTreeMap::from(expected));
}
