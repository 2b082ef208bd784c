//! Tests of help texts, manual pages and completions, also as shells and other programs read them.

use std::fs;
use std::process::Command;

use crate::support::plain_env::{binary, output, storecache};
use clap::{CommandFactory, Parser};
use storecache::cli::{Cli, KeyPart, KeyVerbArgs, Verb};
use tempfile::TempDir;

/// Returns the words of every visible command, as clap defines them; no words for the program itself.
fn commands() -> Vec<Vec<String>> {
    fn below(words: &[String], command: &clap::Command, found: &mut Vec<Vec<String>>) {
        found.push(words.to_vec());
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            below(&[words, &[sub.get_name().to_owned()]].concat(), sub, found);
        }
    }
    let mut found = Vec::new();
    below(&[], &Cli::command(), &mut found);
    assert!(found.len() >= 15, "{found:?}");
    found
}

#[test]
fn cli_page_lists_every_command() {
    let page = include_str!("../../docs/cli.md");
    let (_, list) = page.split_once("\nfor page in ").unwrap();
    let list = list.split(';').next().unwrap();
    let names = commands().into_iter().skip(1).map(|words| match words.len() {
        1 => words[0].clone(),
        _ => format!("\"{}\"", words.join(" ")),
    });
    // The loop in the documentation that installs all manual pages.
    let mut listed = list.to_owned();
    for name in names {
        assert!(format!(" {list} ").contains(&format!(" {name} ")), "{name} in {list}");
        listed = listed.replacen(&name, "", 1);
    }
    assert_eq!(listed.trim(), "", "and no others");
}

fn with<'a>(words: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    words.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn hidden() -> [&'static str; 2] {
    ["privileged", "action"]
}

/// Parses a command line and checks its options, without running anything.
fn check_command_line(line: &str) -> Result<(), String> {
    let parsed = Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
    let options = match parsed.verb {
        Verb::Save(args) => args.options().map(drop),
        Verb::Restore(args) => args.options().map(drop),
        Verb::Key(KeyVerbArgs { part: None, show }) => show.options().map(drop),
        Verb::Key(KeyVerbArgs { part: Some(KeyPart::Diff(args)), .. }) => args.options().map(drop),
        Verb::Key(KeyVerbArgs { part: Some(KeyPart::Suggest(args)), .. }) => {
            args.options().map(drop)
        }
        Verb::Key(KeyVerbArgs { part: Some(KeyPart::Simulate(args)), .. }) => {
            args.options().map(drop)
        }
        Verb::Inspect(args) => args.options().map(drop),
        Verb::Verify(args) => args.options().map(drop),
        Verb::Doctor(args) => args.options().map(drop),
        // Their options need a token from the environment.
        Verb::List(_) | Verb::Usage(_) | Verb::Prune(_) => Ok(()),
        Verb::Lint(args) => args.options().map(drop),
        Verb::Help(args) => args.text().map(drop).map_err(Into::into),
        Verb::Action(_) | Verb::Privileged(_) => return Err("hidden".into()),
    };
    options.map_err(|e| format!("{e:#}"))
}

#[test]
fn help_examples_of_every_command_are_valid() {
    for words in commands() {
        let help = storecache(with(&words, &["--help"])).ok();
        let (_, examples) =
            help.stdout.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{help}"));
        let lines: Vec<&str> =
            examples.lines().map(str::trim).filter(|it| !it.starts_with('#')).collect();
        assert!(!lines.is_empty(), "{words:?}");
        let own = format!("storecache {}", words.join(" "));
        assert!(lines.iter().any(|line| line.starts_with(own.trim())), "{words:?}: {lines:?}");
        for line in lines {
            let line = line.split([' ', '\t']).take_while(|it| !["|", ">"].contains(it));
            let line = line.collect::<Vec<_>>().join(" ");
            check_command_line(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}

#[test]
fn help_command_prints_the_same_text_as_the_help_flag() {
    for words in commands() {
        let help = storecache([&["help"][..], &with(&words, &[])].concat()).ok();
        assert_eq!(help.stdout, storecache(with(&words, &["--help"])).ok().stdout);
        assert_eq!(help.stderr, "");
    }
    for name in hidden() {
        assert!(!storecache(["help"]).ok().stdout.contains(name));
    }
    for words in [
        &["help", "nothing"][..],
        &["help", "key", "nothing"],
        &["help", "--man", "nothing"],
        &["help", "--man", "key", "nothing"],
        &["help", "--", "--version"],
        &["help", "--completions", "tcsh"],
        &["help", "--completions", "bash", "save"],
        &["help", "--completions", "bash", "--man"],
    ] {
        let said = storecache(words);
        assert_eq!(said.code(), 2, "{words:?}: {said}");
        assert_eq!(said.stdout, "", "{words:?}");
        assert!(said.stderr.starts_with("error: "), "{words:?}: {said}");
    }
}

#[test]
fn every_command_has_a_manual_page_valid_for_groff_and_mandoc() {
    let directory = TempDir::new().unwrap();
    for words in commands() {
        let page = storecache([&["help", "--man"][..], &with(&words, &[])].concat()).ok().stdout;
        let name = [&["storecache".to_owned()][..], &words].concat().join("-");
        let file = directory.path().join(format!("{name}.1"));
        fs::write(&file, &page).unwrap();

        let judged =
            output(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&file)).ok();
        assert_eq!(judged.stdout, "", "{name}");
        let mut groff = Command::new("groff");
        let judged = output(groff.args(["-man", "-ww", "-Tutf8", "-P-c"]).arg(&file)).ok();
        assert_eq!(judged.stderr, "", "{name}");
        let shown =
            plain(&output(Command::new("mandoc").args(["-T", "utf8"]).arg(&file)).ok().stdout);
        assert!(shown.contains(&format!("{name} - ")), "{shown}");
        for heading in ["SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert!(shown.lines().any(|line| line == heading), "{name}: {heading}\n{shown}");
        }
        // Each example is on a single line, as it is typed.
        let help = storecache(with(&words, &["--help"])).ok().stdout;
        let (_, examples) = help.split_once("\nExamples:\n").unwrap();
        for line in examples.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            assert!(shown.lines().any(|shown| shown.trim() == line), "{name}: {line}\n{shown}");
        }
        for name in hidden() {
            assert!(!shown.contains(&format!("storecache-{name}")), "{shown}");
        }
    }
}

/// Returns the page without the overstruck letters that make bold and underlined text.
fn plain(page: &str) -> String {
    let letters: Vec<char> = page.chars().collect();
    let kept = |&at: &usize| letters[at] != '\u{8}' && letters.get(at + 1) != Some(&'\u{8}');
    (0..letters.len()).filter(kept).map(|at| letters[at]).collect()
}

fn completions(shell: &str, directory: &TempDir) -> String {
    let script = storecache(["help", "--completions", shell]).ok().stdout;
    let file = directory.path().join(shell);
    fs::write(&file, &script).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Words on a command line of which the last is incomplete, and the completions that shells offer.
const TYPED: [(&[&str], &[&str]); 5] = [
    (&["sa"], &["save"]),
    (&["key", "si"], &["simulate"]),
    (&["restore", "--fail"], &["--fail-on-miss"]),
    (&["restore", "--mode", "r"], &["replace"]),
    (&["help", "--completions", ""], &["bash", "fish", "zsh"]),
];

#[test]
fn bash_completes_commands_flags_and_values() {
    let directory = TempDir::new().unwrap();
    let file = completions("bash", &directory);
    output(Command::new("bash").args(["-n", &file])).ok();
    let offered = |words: &[&str]| -> Vec<String> {
        let script = format!(
            "source {file}; COMP_WORDS=(storecache \"$@\"); COMP_CWORD=$#; \
             _storecache storecache \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &script, "bash"]).args(words).current_dir(directory.path());
        output(&mut bash).ok().lines()
    };
    assert_completes(offered);
}

/// Asserts which completions a shell offers for command lines.
fn assert_completes(offered: impl Fn(&[&str]) -> Vec<String>) {
    for (words, expected) in TYPED {
        assert_eq!(offered(words), expected, "{words:?}");
    }
    let first = offered(&[""]);
    assert!(first.contains(&"restore".to_owned()), "{first:?}");
    assert!(hidden().iter().all(|name| !first.contains(&(*name).to_owned())), "{first:?}");
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let directory = TempDir::new().unwrap();
    let file = completions("fish", &directory);
    output(Command::new("fish").args(["--no-execute", &file])).ok();
    let offered = |words: &[&str]| -> Vec<String> {
        let line = format!("storecache {}", words.join(" "));
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete --do-complete $argv[2]"]);
        let said = output(fish.args([&file, &line]).env("HOME", directory.path())).ok();
        // A tab separates the completion from its description.
        said.lines().iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    };
    assert_completes(offered);
}

#[test]
fn zsh_loads_its_completions_for_the_program() {
    let directory = TempDir::new().unwrap();
    let file = completions("zsh", &directory);
    output(Command::new("zsh").args(["-f", "-n", &file])).ok();
    fs::rename(&file, directory.path().join("_storecache")).unwrap();
    let script = "fpath=($1 $fpath); autoload -U compinit; compinit -u -d $1/dump; print $_comps[storecache]";
    let mut zsh = Command::new("zsh");
    let said = output(zsh.args(["-f", "-c", script, "zsh"]).arg(directory.path())).ok();
    assert_eq!(said.lines(), ["_storecache"]);
    let script = fs::read_to_string(directory.path().join("_storecache")).unwrap();
    assert!(
        script.contains("'save:")
            && !hidden().iter().any(|name| script.contains(&format!("'{name}:")))
    );
}

#[test]
fn help_output_into_a_closed_pipe_is_not_an_error() {
    let mut shell = Command::new("bash");
    let script = "set -o pipefail; \"$0\" help --man save | head -n 1; \"$0\" help --completions zsh | head -n 1";
    let said = output(shell.args(["-c", script]).arg(binary())).ok();
    assert_eq!(said.lines().len(), 2, "{said}");
    assert_eq!(said.stderr, "");
}

#[test]
fn short_help_of_every_command_fits_two_screens() {
    for words in commands() {
        let help = storecache(with(&words, &["-h"])).ok();
        let lines = help.stdout.lines().count();
        assert!(lines <= 75, "{words:?} has {lines} lines:\n{help}");
        let name = [&["help_of_storecache".to_owned()], &words[..]].concat().join("_");
        insta::assert_snapshot!(name, help.stdout);
    }
}

#[test]
fn commands_have_only_flags_that_act_on_them() {
    let flags = |words: &[&str]| storecache([words, &["--help"]].concat()).ok().stdout;
    for words in [&["verify"][..], &["inspect"], &["key"], &["key", "diff"]] {
        let help = flags(words);
        for flag in ["--daemon", "--daemon-stop", "--lock-timeout", "--daemon-timeout"] {
            assert!(!help.contains(&format!("{flag} ")), "{words:?} has {flag}");
        }
    }
    for words in [&["save"][..], &["restore"], &["doctor"]] {
        assert!(flags(words).contains("--daemon-stop "), "{words:?}");
    }
}

/// Headings lead to flags: each flag stands below the heading that says what it is about.
#[test]
fn flags_of_save_are_in_groups() {
    let help = storecache(["save", "-h"]).ok().stdout;
    let mut groups = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    let mut heading = "";
    for line in help.lines().take_while(|line| *line != "Examples:") {
        match line.strip_suffix(':') {
            Some(name) if !line.starts_with(' ') => heading = name,
            _ => {
                let flag = line.split_whitespace().find(|word| word.starts_with("--"));
                let starts = line.starts_with("      --") || line.starts_with("  -");
                if let Some(flag) = flag.filter(|_| starts) {
                    groups.entry(heading).or_default().push(flag);
                }
            }
        }
    }
    insta::assert_debug_snapshot!(groups);
}
