//! Tests which module may import which.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything directly below `src`, without file name extensions.
const ROOMS: [&str; 23] = [
    "action",
    "backend",
    "cli",
    "commands",
    "config",
    "daemon",
    "disclosure",
    "files",
    "key",
    "lib",
    "liveness",
    "main",
    "memory",
    "path_audit",
    "report",
    "retry",
    "root_helper",
    "snapshot",
    "store",
    "system",
    "threads",
    "untrusted",
    "writeback",
];

/// Importing module and module that it must never import. Only `main` may import `commands` or `cli`.
const NEVER: [(&str, &str); 8] = [
    ("snapshot", "store"),
    ("snapshot", "daemon"),
    ("snapshot", "backend"),
    ("store", "backend"),
    ("store", "key"),
    ("backend", "store"),
    ("backend", "daemon"),
    ("root_helper", "backend"),
];

/// Importing module and module of which it may only import the top level.
const FACE_ONLY: [(&str, &str); 1] = [("backend", "snapshot")];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns every source file by its path below `src`.
fn files() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let below = path.strip_prefix(source()).unwrap().to_owned();
                found.push((below, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// Returns the module that a file below `src` belongs to.
fn room_of(file: &Path) -> String {
    let first = file.components().next().unwrap();
    let first = Path::new(first.as_os_str());
    first.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Returns the code without comments and string literals, spaced so that no path is split.
fn code(source: &str) -> String {
    let mut code = String::new();
    let source = source.replace("'\"'", "' '");
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|&c| c == '\n');
            }
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push_str("\"\"");
            }
            c if c.is_whitespace() => code.push(' '),
            c => code.push(c),
        }
    }
    let words: Vec<_> = code.split_whitespace().collect();
    words.join(" ").replace(" ::", "::").replace(":: ", "::")
}

/// Returns the paths that a source names, relative to the crate root: `store::Layout` for `use
/// crate::{store::Layout}`.
fn imports(source: &str) -> BTreeSet<String> {
    let code = code(source);
    let mut found = BTreeSet::new();
    // In a file of a module, `super::super` is the crate root.
    for prefix in ["crate::", "storecache::", "super::super::"] {
        for (at, _) in code.match_indices(prefix) {
            let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let whole_word = !code[..at].ends_with(inside);
            if whole_word {
                expand(&code[at + prefix.len()..], &mut found);
            }
        }
    }
    found
}

/// Adds the path at the start of `code`, or each path of the group at the start.
fn expand(code: &str, found: &mut BTreeSet<String>) {
    let Some(group) = code.strip_prefix('{') else {
        let part_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = code.find(|c| !part_of_path(c)).unwrap_or(code.len());
        found.insert(code[..end].trim_end_matches(':').to_owned());
        return;
    };
    let mut depth = 0;
    let mut at_start = true;
    for (at, c) in group.char_indices() {
        if at_start && c != ' ' && c != '}' {
            expand(&group[at..], found);
            at_start = false;
        }
        match c {
            '}' if depth == 0 => return,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ => {}
        }
    }
}

/// Returns a line for each forbidden import of a file.
fn forbidden(file: &Path, source: &str) -> Vec<String> {
    let from = room_of(file);
    let mut wrong = Vec::new();
    for import in imports(source) {
        let mut parts = import.split("::");
        let to = parts.next().unwrap_or_default();
        let behind_the_face = parts.next().is_some_and(|part| {
            let first = part.chars().next();
            first.is_some_and(|c| c.is_lowercase()) && parts.next().is_some()
        });
        let upwards = matches!(to, "commands" | "cli") && from != "main" && from != to;
        let never = NEVER.contains(&(&from, to));
        let inside = FACE_ONLY.contains(&(&from, to)) && behind_the_face;
        if upwards || never || inside {
            wrong.push(format!("{} imports {import}", file.display()));
        }
    }
    wrong
}

#[test]
fn no_room_imports_what_it_never_may() {
    let files = files();
    assert!(files.len() > 40, "the sources were not found");
    let wrong: Vec<_> = files.iter().flat_map(|(file, source)| forbidden(file, source)).collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_folder_and_file_is_a_known_room() {
    let entries = fs::read_dir(source()).unwrap();
    let found: BTreeSet<_> =
        entries.map(|entry| room_of(Path::new(&entry.unwrap().file_name()))).collect();
    assert_eq!(found, ROOMS.map(str::to_owned).into());
}

#[test]
fn only_the_commands_import_the_root_helper() {
    for (file, source) in files() {
        let from = room_of(&file);
        let knows =
            imports(&source).iter().any(|import| import.split("::").next() == Some("root_helper"));
        let may = ["root_helper", "commands", "main"].contains(&from.as_str());
        assert!(may || !knows, "{} imports root_helper", file.display());
    }
}

#[test]
fn a_forbidden_import_is_found_in_every_way_to_write_it() {
    let snapshot = Path::new("snapshot/pack.rs");
    for (source, import) in [
        ("use crate::store::Layout;", "store::Layout"),
        ("pub use crate::store;", "store"),
        ("use crate::{key, store::{Layout, Lock}};", "store"),
        ("use crate::{\n    key,\n    store as other,\n};", "store"),
        ("fn f() { crate::daemon::find() }", "daemon::find"),
        ("let x: crate ::backend:: Entry;", "backend"),
        ("use crate::cli::Cli;", "cli::Cli"),
        ("use storecache::commands;", "commands"),
        ("use super::super::store;", "store"),
        ("const Q: char = '\"'; use crate::store;", "store"),
    ] {
        let wrong = forbidden(snapshot, source);
        assert_eq!(wrong.len(), 1, "{source}: {wrong:?}");
        let line = format!("snapshot/pack.rs imports {import}");
        assert!(wrong[0].starts_with(&line), "{wrong:?}");
    }
    let backend = Path::new("backend/github.rs");
    assert_eq!(forbidden(backend, "use crate::snapshot::index::Index;").len(), 1);
    assert_eq!(forbidden(backend, "use crate::snapshot::Digest;"), [""; 0]);
    assert_eq!(forbidden(Path::new("main.rs"), "use storecache::cli::Cli;"), [""; 0]);
    let command = Path::new("commands/save.rs");
    assert_eq!(forbidden(command, "use crate::commands::Ending;"), [""; 0]);
    assert_eq!(forbidden(Path::new("key/mod.rs"), "use crate::commands::x;").len(), 1);
}

#[test]
fn comments_and_texts_are_no_imports() {
    let source = "//! See [crate::store].\nlet x = \"crate::store\"; // crate::daemon\n";
    assert_eq!(imports(source), BTreeSet::new());
    assert_eq!(imports("use mycrate::store;"), BTreeSet::new());
}
