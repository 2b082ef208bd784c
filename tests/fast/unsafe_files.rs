//! Tests which files contain `unsafe`. The lint `unsafe_code` denies it, but files can allow it for themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each of these files explains beside the code why it needs `unsafe`.
const ALLOWED: [&str; 6] = [
    "fuzz/src/fake_kernel.rs",
    "crates/root-helper/src/seccomp.rs",
    "crates/root-helper/src/sanitize.rs",
    "crates/programs/src/child_context.rs",
    "tests/campaign/ptrace.rs",
    "tests/support/syscall_injector.rs",
];

const TREES: [&str; 6] = ["src", "crates", "tests", "benches", "fuzz", "scripts"];

/// Adds every Rust source below `directory`, except for build output.
pub fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Returns whether the code of a source, without comments, has the keyword or names the lint.
fn is_unsafe(source: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    source.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let mut words = code.split(|c| !part_of_word(c));
        words.any(|word| word == "unsafe" || word == "unsafe_code")
    })
}

#[test]
fn unsafe_code_is_in_the_listed_files_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    TREES.iter().for_each(|tree| sources(&root.join(tree), &mut files));
    assert!(files.len() > 300, "the sources were not found");
    let found: BTreeSet<String> = files
        .iter()
        .filter(|file| is_unsafe(&fs::read_to_string(file).unwrap()))
        .map(|file| file.strip_prefix(root).unwrap().to_str().unwrap().to_owned())
        .filter(|file| file != "tests/fast/unsafe_files.rs")
        .collect();
    assert_eq!(found, ALLOWED.map(str::to_owned).into());
}

#[test]
fn unsafe_code_is_denied_in_every_manifest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let denied = "unsafe_code = \"deny\"\n";
    assert!(read(&root.join("Cargo.toml")).contains(&format!("[workspace.lints.rust]\n{denied}")));
    assert!(read(&root.join("fuzz/Cargo.toml")).contains(&format!("[lints.rust]\n{denied}")));
    let crates = fs::read_dir(root.join("crates")).unwrap();
    let manifests = crates.map(|it| it.unwrap().path().join("Cargo.toml"));
    for manifest in manifests.chain([root.join("Cargo.toml")]) {
        assert!(read(&manifest).contains("[lints]\nworkspace = true\n"), "{manifest:?}");
    }
}

#[test]
fn unsafe_code_is_found_in_every_form() {
    for source in [
        "unsafe { f() }",
        "  unsafe fn f() {}",
        "unsafe impl Send for X {}",
        "#![allow(unsafe_code)]",
    ] {
        assert!(is_unsafe(source), "{source}");
    }
    for source in ["// unsafe { f() }", "let unsafely = 1;", "\"style-src 'unsafe-inline'\""] {
        assert!(!is_unsafe(source), "{source}");
    }
}
