//! Tests that only the programs in `crates/programs/src/programs.rs` can be executed with root's rights.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates that run with root's rights.
const CRATES: [&str; 7] =
    ["daemon", "entry", "programs", "root-helper", "runtime", "snapshot", "store"];

/// Every way to make a process or to become another program.
const EXECUTIONS: [&str; 10] = [
    "Command::new",
    "Command::from",
    "Command as ",
    ".exec()",
    "SYS_exec",
    "execv",
    "execl",
    "fork(",
    "posix_spawn",
    "libc::system",
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")
}

/// Returns the code of a file, without comments and without its unit tests, which come last.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending: Vec<_> = CRATES.iter().map(|name| crates().join(name).join("src")).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn programs_are_executed_from_one_file_alone() {
    let mut found = BTreeSet::new();
    for path in files() {
        let code = code(&path);
        let name = path.strip_prefix(crates()).unwrap().display().to_string();
        found.extend(
            EXECUTIONS.iter().filter(|way| code.contains(*way)).map(|way| format!("{name}: {way}")),
        );
    }
    // `Exec` in child_context.rs runs `execveat` on an open file; only programs.rs uses it.
    let expected =
        ["programs/src/child_context.rs: SYS_exec", "programs/src/child_context.rs: execv"];
    let expected: BTreeSet<_> = expected
        .into_iter()
        .chain(["programs/src/programs.rs: Command::new"])
        .map(str::to_owned)
        .collect();
    assert_eq!(found, expected, "make it a `Program` of crates/programs/src/programs.rs");
}

#[test]
fn the_list_of_programs_is_closed() {
    let code = code(&crates().join("programs/src/programs.rs"));
    let made: Vec<_> = code.split("Command::new(").skip(1).collect();
    let mut names: Vec<_> = made.iter().map(|rest| rest.split(')').next().unwrap()).collect();
    names.sort_unstable();
    // The names without quotes are the open file of a daemon, a package manager, and this program itself,
    // twice.
    let expected = [
        "\"/bin/sh\"",
        "\"herd\"",
        "\"journalctl\"",
        "\"sudo\"",
        "\"systemctl\"",
        "\"systemd-run\"",
        "name",
        "path",
        "program",
        "program",
    ];
    assert_eq!(names, expected, "SECURITY.md must list all programs that run as root");
}
