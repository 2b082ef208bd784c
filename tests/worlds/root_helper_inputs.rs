//! Compares what the root helper and its guardians read with the tables under "Inputs of the root helper" in
//! `SECURITY.md`, which state who controls each input and why it is harmless. An input that is missing in the
//! tables is an error, so that no new input goes unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::helper_requests::RULE;
use crate::support::strace::{Input, Process, Trace};
use crate::support::{Fixture, Role, World, world_runs};

const PAGE: &str = "SECURITY.md";
/// The section with the tables, and the tables that the traces are compared with.
const SECTION: &str = "\n## Inputs of the root helper\n";
const TRACED: [&str; 4] = ["Files", "Sockets", "Programs", "Descriptors"];
/// The value in the column `seen` of rows that some run of these tests must show.
const ALWAYS: &str = "always";

/// The directories in which the helper and its guardians search for programs.
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The directories in which the helper searches for a package manager, to run it with `--version`.
const PACKAGE_PATH: [&str; 7] = [
    "/nix/var/nix/profiles/default/bin",
    "/var/guix/profiles/per-user/root/current-guix/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/run/current-system/sw/bin",
    "/run/current-system/profile/bin",
];

/// An input, with the parts that differ between runs replaced by a name in angle brackets.
type Pattern = (&'static str, String);

/// Reduces paths to patterns.
struct Reduction {
    store: &'static str,
    state: &'static str,
}

impl Reduction {
    fn pattern(&self, input: &Input) -> Pattern {
        match input {
            Input::File(path) => ("Files", self.path(path)),
            Input::Socket(path) => ("Sockets", self.path(path)),
            Input::Program(words) => ("Programs", program(words)),
            Input::Descriptor(call) => ("Descriptors", call.clone()),
        }
    }

    fn path(&self, path: &str) -> String {
        let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
        match parts[..] {
            ["", "proc", "self", ref rest @ ..] => format!("/proc/self/{}", numbered(rest)),
            ["", "proc", process, ref rest @ ..] if is_number(process) => {
                format!("/proc/<pid>/{}", numbered(rest)).trim_end_matches('/').to_owned()
            }
            ["", "lib" | "lib64" | "usr", ..] if path.contains(".so") => "<libraries>".into(),
            ["", "tmp", name, ref rest @ ..] if name.starts_with("storecache-database-") => {
                below("<copy>", rest)
            }
            ["", "sys", "fs", "cgroup", ..] => "/sys/fs/cgroup/…".into(),
            // Named after the device and the inode of a store.
            ["", "run", "storecache", _] => "/run/storecache/…".into(),
            ["", "var", "lib", "storecache", _] => "/var/lib/storecache/…".into(),
            _ => self.in_store(path.trim_end_matches("/.")),
        }
    }

    fn in_store(&self, path: &str) -> String {
        let parent = Path::new(self.store).parent().unwrap().to_str().unwrap();
        let places = [(self.store, "<store>"), (self.state, "<state>"), (parent, "<parent>")];
        let found = places.iter().find_map(|(place, name)| {
            let rest = path.strip_prefix(place)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((*name, rest))
        });
        let Some((name, rest)) = found else { return path.to_owned() };
        let parts: Vec<&str> = rest.split('/').skip(1).collect();
        match parts[..] {
            [first] if first.starts_with(".storecache-") => "<staging>".into(),
            [first, record] if first.starts_with(".storecache-") && record.starts_with('.') => {
                format!("<staging>/{record}")
            }
            [first, ..] if first.starts_with(".storecache-") => "<staging>/…".into(),
            [_] if name == "<store>" => "<store>/<item>".into(),
            [_, ..] if name == "<store>" => "<store>/<item>/…".into(),
            _ => format!("{name}{rest}"),
        }
    }
}

/// Returns the program, by the list in which it was searched for, and its first argument that is not an option.
fn program(words: &[String]) -> String {
    let [path, name, arguments @ ..] = words else { panic!("{words:?}") };
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let verb = arguments.iter().find(|it| !it.starts_with('-')).map_or("", |verb| verb);
    let searched = file == name && SEARCH_PATH.contains(&directory);
    match file {
        "nix-store" | "guix" if PACKAGE_PATH.contains(&directory) && arguments == ["--version"] => {
            format!("<package path>/{file} --version")
        }
        "systemctl" if searched => format!("<search path>/systemctl {verb}"),
        "journalctl" if searched => "<search path>/journalctl".into(),
        _ => words.join(" "),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns path components below a process, with numbers replaced.
fn numbered(parts: &[&str]) -> String {
    let mut before = "";
    let mut shown = Vec::new();
    for &part in parts {
        shown.push(match (before, is_number(part)) {
            ("task", true) => "<tid>",
            ("fd" | "fdinfo", true) => "<n>",
            _ => part,
        });
        before = part;
    }
    shown.join("/")
}

fn below(name: &str, rest: &[&str]) -> String {
    if rest.is_empty() { name.to_owned() } else { format!("{name}/…") }
}

/// A row of a table.
#[derive(Debug)]
struct Row {
    heading: String,
    patterns: Vec<String>,
    cells: Vec<String>,
}

impl Row {
    fn all() -> Vec<Row> {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let (_, section) = page.split_once(SECTION).unwrap_or_else(|| panic!("no {SECTION}"));
        let text = section.split("\n## ").next().unwrap();
        let mut heading = String::new();
        let mut rows = Vec::new();
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("### ") {
                heading = title.to_owned();
            }
            let Some(inside) = line.strip_prefix("| `") else { continue };
            let inside = format!("`{}", inside.trim_end().trim_end_matches('|'));
            let cells: Vec<String> = inside.split(" | ").map(|it| it.trim().to_owned()).collect();
            let patterns = cells[0].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            rows.push(Row { heading: heading.clone(), patterns, cells });
        }
        rows
    }

    /// Returns the names in the first column of one section.
    fn names(heading: &str) -> BTreeSet<String> {
        let rows = Row::all().into_iter().filter(|row| row.heading == heading);
        let names: Vec<String> = rows.flat_map(|row| row.patterns).collect();
        let distinct: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(names.len(), distinct.len(), "{heading}: a name appears twice");
        distinct
    }

    fn is_of(&self, process: Process) -> bool {
        let reader = match process {
            Process::Helper => "helper",
            Process::Guardian => "guardian",
        };
        self.cells[1] == reader || self.cells[1] == "both"
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all inputs of a save, a restore into an empty store, a second restore with verified content and a
/// required closure, and a `doctor`.
fn inputs_of(world: &World) -> BTreeSet<(Process, Pattern)> {
    fs::write(world.host("/etc/sudoers.d/runner"), RULE).unwrap();
    let reduction = Reduction { store: world.store(), state: world.state() };
    let mut seen = BTreeSet::new();
    let mut run = |words: &[&str]| {
        let trace = Trace::new();
        let words = words.iter().copied().chain(["--store", world.package_manager().name()]);
        let done = world.storecache_as("runner", words.chain(["--backend", "dir:/cache"]));
        let done = done.traced(&trace).run();
        assert!(done.status.success() || done.command.contains("doctor"), "{done}");
        let inputs = trace.inputs();
        assert!(inputs.iter().any(|(process, _)| *process == Process::Guardian), "{done}");
        seen.extend(
            inputs.into_iter().map(|(process, input)| (process, reduction.pattern(&input))),
        );
    };
    let empty = || {
        world.wipe_store();
        // On Debian a group can write to this directory, which the helper accepts only if systemd runs the
        // daemon.
        world.sh(&format!("chmod 755 {}/daemon-socket", world.state()));
    };
    run(&["save", "--key", "test"]);
    empty();
    run(&["restore", "--key", "test"]);
    world_runs::save(world);
    empty();
    run(&["restore", "--key", "test", "--verify", "content", "--require", "*-top"]);
    run(&["doctor"]);
    seen
}

#[test]
fn root_helper_opens_only_inputs_listed_in_security_md() {
    let nix = World::with_fixture(Role::Mid, Fixture::Small);
    nix.start_daemon();
    let guix = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let seen: BTreeSet<_> = [nix, guix].iter().flat_map(inputs_of).collect();

    let rows = Row::all();
    let covers = |row: &Row, process, (heading, pattern): &Pattern| {
        row.heading == *heading && row.is_of(process) && row.patterns.contains(pattern)
    };
    let uncovered: Vec<String> = seen
        .iter()
        .filter(|(process, pattern)| !rows.iter().any(|row| covers(row, *process, pattern)))
        .map(|(process, (heading, pattern))| format!("{heading}: {process:?}: {pattern}"))
        .collect();
    let unseen: Vec<String> = rows
        .iter()
        .filter(|row| TRACED.contains(&&*row.heading))
        .filter(|row| row.cells[2] == ALWAYS)
        .flat_map(|row| row.patterns.iter().map(move |pattern| (row, pattern)))
        .filter(|(row, pattern)| {
            !seen
                .iter()
                .any(|(process, found)| covers(row, *process, found) && found.1 == **pattern)
        })
        .map(|(row, pattern)| format!("{}: {pattern}", row.heading))
        .collect();
    assert!(
        uncovered.is_empty() && unseen.is_empty(),
        "{PAGE} has no rows for:\n{}\nand has rows that no run shows:\n{}",
        uncovered.join("\n"),
        unseen.join("\n")
    );
}

/// Returns the fields of the messages in the source of the protocol, as `Type.field`.
fn fields_of_requests() -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("crates/root-helper/src/protocol.rs")).unwrap();
    let body = |start: &str| -> Vec<String> {
        let (_, rest) = source.split_once(start).unwrap_or_else(|| panic!("no {start}"));
        rest.split_once("\n}").unwrap().0.lines().map(str::to_owned).collect()
    };
    let field = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    let mut fields = BTreeSet::new();
    let mut variant = String::new();
    for line in body("pub enum Request {") {
        let text = line.trim();
        if line.starts_with("    ") && text.starts_with(|it: char| it.is_ascii_uppercase()) {
            let name = text.split(|it: char| !it.is_ascii_alphanumeric()).next().unwrap();
            name.clone_into(&mut variant);
            fields.insert(variant.clone());
        } else if !text.starts_with('/') && line.starts_with("        ") {
            fields.extend(field(text).map(|name| format!("{variant}.{name}")));
        }
    }
    for name in ["StoreRequest", "SaveRequest", "RestoreRequest", "FrameId", "KnownItem"] {
        let mut skipped = false;
        for line in body(&format!("pub struct {name} {{")) {
            let text = line.trim();
            if let Some(rest) = text.strip_prefix("pub ") {
                if !skipped {
                    fields.extend(field(rest).map(|field| format!("{name}.{field}")));
                }
                skipped = false;
            }
            skipped |= text == "#[serde(skip)]";
        }
    }
    fields
}

#[test]
fn request_fields_match_security_md() {
    assert_eq!(fields_of_requests(), Row::names("Fields of requests"));
}

/// Compares the names of environment variables in the helper's source, without its tests, with the table.
#[test]
fn environment_variables_match_security_md() {
    let mut found = BTreeMap::new();
    let mut pending = vec![root().join("crates/root-helper/src")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // The client runs in the user process.
        if path.file_name().is_some_and(|name| name == "client.rs") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let (source, _) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
        for text in source.split('"').skip(1).step_by(2) {
            let is_name = text.len() > 2
                && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
                && !text.starts_with('_');
            if is_name {
                found.insert(text.to_owned(), path.clone());
            }
        }
    }
    let names: BTreeSet<String> = found.into_keys().collect();
    assert_eq!(names, Row::names("Environment variables"));
}
