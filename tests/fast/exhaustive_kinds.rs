//! Tests that a new kind of store, daemon or backend cannot silently count as another kind: the compiler has to show
//! each place that must decide about it. So code neither compares kinds nor matches them with a wildcard.

use std::fs;
use std::path::{Path, PathBuf};

/// The enums of kinds.
const KINDS: [&str; 12] = [
    "BackendOptions",
    "CacheService",
    "CacheServiceVersion",
    "Daemon",
    "DaemonChoice",
    "InventoryOptions",
    "Service",
    "Starter",
    "StoppedDaemon",
    "Stopper",
    "Store",
    "StoreKind",
];

/// The source files of the program and its crates.
fn sources() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![top.join("src"), top.join("crates")];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// Returns whether `text` names a variant of a kind, as in `StoreKind::Nix`.
fn names_variant(text: &str) -> bool {
    text.match_indices("::").any(|(at, _)| {
        let name = text[..at].rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        KINDS.contains(&name) && text[at + 2..].starts_with(|c: char| c.is_uppercase())
    })
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Returns the arms of the match that begins in the first line: the lines with the least indentation of its body.
fn arms<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let body = lines[1..].iter().filter(|line| !line.trim().is_empty());
    let depth = indentation(lines[0]) + 4;
    let body = body.take_while(|line| indentation(line) >= depth);
    body.filter(|line| indentation(line) == depth).map(|line| line.trim()).collect()
}

fn pattern(arm: &str) -> &str {
    arm.split("=>").next().unwrap_or_default()
}

/// Whether an arm takes everything: `_ =>`, `other =>` or one of these with a condition.
fn is_wildcard(arm: &str) -> bool {
    let (pattern, is_arm) = (pattern(arm).trim(), arm.contains("=>"));
    let name = pattern.split(' ').next().unwrap_or_default();
    let rest = pattern[name.len()..].trim_start();
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
    is_arm && is_name && (rest.is_empty() || rest.starts_with("if "))
}

/// Returns the line numbers, counted from 1, that treat a kind in a way that a new kind would not be noticed.
fn implicit_kinds(code: &str) -> Vec<usize> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().collect();
    let is_bad = |(at, line): (usize, &&str)| {
        if line.trim_start().starts_with("//") {
            return false;
        }
        let compared = ["== ", "!= ", "matches!("].iter().any(|operator| {
            line.split_once(operator).is_some_and(|(_, rest)| {
                let operand = rest.split([';', '{', '&']).find(|part| !part.trim().is_empty());
                names_variant(operand.unwrap_or_default())
            })
        });
        let destructured = line.split_once("let ").and_then(|(_, rest)| rest.split_once(" = "));
        let is_destructured = destructured.is_some_and(|(pattern, _)| names_variant(pattern));
        let arms = if line.contains("match ") && line.ends_with('{') {
            arms(&lines[at..])
        } else {
            Vec::new()
        };
        let is_open = arms.iter().any(|arm| names_variant(pattern(arm)))
            && arms.iter().any(|arm| is_wildcard(arm));
        compared || is_destructured || is_open
    };
    lines.iter().enumerate().filter(|line| is_bad(*line)).map(|(at, _)| at + 1).collect()
}

#[test]
fn kinds_are_matched_exhaustively() {
    let mut found = Vec::new();
    for file in sources() {
        let lines = implicit_kinds(&fs::read_to_string(&file).unwrap());
        found.extend(lines.into_iter().map(|line| format!("{}:{line}", file.display())));
    }
    assert!(found.is_empty(), "a new kind would not be noticed here:\n{}", found.join("\n"));
}

#[test]
fn check_finds_wildcards_and_comparisons() {
    for code in [
        "match kind {\n    StoreKind::Nix => 1,\n    _ => 2,\n}",
        "match kind {\n    StoreKind::Nix => {\n        1\n    }\n    other => 2,\n}",
        "match kind {\n    _ if x => 0,\n    StoreKind::Nix => 1,\n}",
        "let a = kind == StoreKind::Nix;",
        "if kind != Some(StoreKind::Nix) {",
        "if *daemon == Daemon::None && x {",
        "let b = matches!(daemon, Daemon::Process { .. });",
        "if let DaemonChoice::Command { stop, start } = &self.daemon {",
        "let Some(BackendOptions::Directory { path, .. }) = backend else { return };",
    ] {
        assert_eq!(implicit_kinds(code), [1], "{code}");
    }
    for code in [
        "match kind {\n    StoreKind::Nix => 1,\n    StoreKind::Guix | StoreKind::Plain => 2,\n}",
        "match kind {\n    StoreKind::Nix => match x {\n        1 => 1,\n        _ => 2,\n    },\n    StoreKind::Guix => 3,\n}",
        "let kind = StoreKind::parse(name)?;",
        "// if kind == StoreKind::Nix",
        "let all = StoreKind::ALL;",
    ] {
        assert_eq!(implicit_kinds(code), [0; 0], "{code}");
    }
}
