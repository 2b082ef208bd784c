//! Tests which state of the process is global. A run passes its state on as a `RunContext`, so that two runs in one
//! process are independent of each other.

use super::unsafe_files::sources;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each of these is set once for the whole process, with its reason beside the code.
const ALLOWED: [&str; 3] = [
    // Rights belong to the process: no run may lift the limit of another one.
    "crates/runtime/src/disclosure.rs: READER",
    // Only in fuzzers, in which programs are not executed.
    "crates/programs/src/fake_run.rs: SCRIPT",
    // A constant list, which is made on first use.
    "src/commands/key_stem.rs: SYSTEMS",
];

/// Types of statics that a process can change. A lazy one may hold anything.
const CHANGEABLE: [&str; 6] = ["Mutex<", "RwLock<", "Atomic", "OnceLock<", "LazyLock<", "Cell<"];

/// Returns the names of the statics in a source that can be changed.
fn statics(source: &str) -> impl Iterator<Item = &str> {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    code.filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) => rest.trim_start_matches(|c: char| c == '(' || c.is_alphabetic()),
            None => line,
        };
        let (name, kind) =
            line.trim_start_matches([')', ' ']).strip_prefix("static ")?.split_once(':')?;
        let is_mutable = name.starts_with("mut ");
        let changes = CHANGEABLE.iter().any(|changeable| kind.contains(changeable));
        (is_mutable || changes).then_some(name)
    })
}

#[test]
fn state_of_a_run_is_not_global() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "crates"].iter().for_each(|tree| sources(&root.join(tree), &mut files));
    assert!(files.len() > 150, "the sources were not found");
    let mut found = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(root).unwrap().display().to_string();
        found.extend(statics(&source).map(|name| format!("{shown}: {name}")));
    }
    assert_eq!(found, ALLOWED.map(str::to_owned).into());
}

#[test]
fn changeable_statics_are_recognized() {
    let source = "
        static A: Mutex<u8> = x;
        pub static B: AtomicBool = y; // static C: Mutex<u8>
        static D: u8 = 1;
        pub(crate) static RUN: LazyLock<RunContext> = LazyLock::new(RunContext::default);
        static mut E: u8 = 1;
    ";
    assert_eq!(statics(source).collect::<Vec<_>>(), ["A", "B", "RUN", "mut E"]);
}
