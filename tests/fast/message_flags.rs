//! Flags that messages name exist, and in a job the inputs are named instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use storecache::action::{INPUTS, words};
use storecache::cli::Cli;

/// Returns every flag of every command, as typed.
fn flags_of_commands() -> BTreeSet<String> {
    fn add(command: &clap::Command, flags: &mut BTreeSet<String>) {
        let long = command.get_arguments().filter_map(clap::Arg::get_long);
        flags.extend(long.map(|name| format!("--{name}")));
        command.get_subcommands().for_each(|below| add(below, flags));
    }
    let mut flags = BTreeSet::from(["--help".to_owned()]);
    add(&Cli::command(), &mut flags);
    flags
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Returns the string literals of a source file, without its unit tests.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let from = &rest[at..];
        rest = if from.starts_with("//") {
            from.find('\n').map_or("", |end| &from[end..])
        } else if let Some(after) = from.strip_prefix("'\"'") {
            after
        } else if let Some(text) = from.strip_prefix('"') {
            let mut end = 0;
            let bytes = text.as_bytes();
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            found.push(joined(&text[..end]));
            &text[end + 1..]
        } else {
            &from[1..]
        };
    }
    found
}

/// Joins the lines of a literal as the compiler does.
fn joined(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// Returns the flags that a message names outside of commands in backquotes.
fn flags_of(message: &str) -> Vec<String> {
    let parts = message.split('`').enumerate();
    let prose = parts
        .filter(|(number, part)| number % 2 == 0 || !part.contains(' ') || part.starts_with("--"));
    let words = prose.flat_map(|(_, part)| part.split([' ', '(', ')', '\'', '"', ',', ';', ':']));
    let flags = words.filter_map(|word| {
        let name = word.strip_prefix("--")?;
        let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(name.len());
        name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| format!("--{}", &name[..end]))
    });
    flags.collect()
}

/// Returns the flags in the messages of the program, each with a file that names it.
fn flags_in_messages() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("crates"), &mut files);
    let mut found = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if OTHER_TEXTS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        for literal in literals(&fs::read_to_string(&file).unwrap()) {
            // A literal without a space is an argument of a program.
            let first = literal.split_once(' ').map(|(first, _)| first);
            if first.is_some_and(|first| !COMMANDS.contains(&first) && !first.contains('=')) {
                found.extend(flags_of(&literal).into_iter().map(|flag| (flag, name.clone())));
            }
        }
    }
    assert!(found.len() >= 20, "{found:?}");
    found
}

/// Texts that are not messages of a run: examples of the help, and advice about the steps of workflows.
const OTHER_TEXTS: [&str; 4] =
    ["src/action/inputs.rs", "src/cli/examples.rs", "src/cli/help.rs", "crates/lint/"];

/// Programs of which a literal may be a command line, such as those that `doctor` suggests.
const COMMANDS: [&str; 11] = [
    "",
    "curl",
    "date",
    "findmnt",
    "guix",
    "guix-daemon",
    "herd",
    "journalctl",
    "nix-store",
    "storecache",
    "umount",
];

#[test]
fn flags_in_messages_exist() {
    let known = flags_of_commands();
    let unknown: Vec<_> =
        flags_in_messages().into_iter().filter(|(flag, _)| !known.contains(flag)).collect();
    assert!(
        unknown.is_empty(),
        "not flags of storecache, so put their command in backquotes: {unknown:?}"
    );
}

#[test]
fn flags_in_messages_become_inputs_in_a_job() {
    let mut shown = Vec::new();
    for flag in flags_in_messages().into_keys() {
        let word = words().apply(&format!("use {flag}"));
        let word = word.strip_prefix("use ").unwrap().to_owned();
        match INPUTS.iter().find(|input| input.flag == Some(&*flag)) {
            Some(input) => assert_eq!(word.trim_end_matches(": true"), input.name),
            None => assert!(word == flag || flag == format!("--{word}"), "{flag}: {word}"),
        }
        shown.push(format!("{flag} -> {word}"));
    }
    insta::assert_snapshot!(shown.join("\n"));
}
