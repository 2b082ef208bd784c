//! The table of a step's inputs, and their conversion into flags.
//!
//! `tests/action.rs` compares action.yml, the README and the flags of `cli.rs` with it.

use super::job_environment::Job;
use super::step::Verb;
use anyhow::{Result, bail};

/// One input.
pub struct Input {
    pub name: &'static str,
    /// The flag that it becomes; `None` for inputs that the step itself uses, and for secrets.
    pub flag: Option<&'static str>,
    pub kind: Kind,
    /// The meaning of an empty value: the default of the flag, or one that suits a job better. Empty if the program
    /// chooses.
    pub default: &'static str,
    pub used_for: For,
    /// One line without quotes.
    pub description: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// One value per line; each becomes a flag.
    Lines,
    /// A flag without a value.
    Boolean,
    Choice(&'static [&'static str]),
    /// Never part of a command line: `cli.rs` reads the environment variable of the input.
    Secret,
}

/// The verbs that an input is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// No verb: the step itself uses it.
    Step,
    Both,
    /// Both verbs, as part of the key. The post part leaves these out, because it already has the key.
    Key,
    Restore,
    Save,
}

/// Every input, in the order of the documentation. Inputs that actions/cache has too have the same names.
pub const INPUTS: [Input; 51] = [
    Input {
        name: "operation",
        flag: None,
        kind: Kind::Choice(&["restore-and-save", "restore", "save"]),
        default: "restore-and-save",
        used_for: For::Step,
        description: "Restore here and save at the end of the job, or only the one of them, here",
    },
    Input {
        name: "store",
        flag: Some("--store"),
        kind: Kind::Choice(&["auto", "guix", "nix", "plain"]),
        default: "auto",
        used_for: For::Both,
        description: "Kind of store; plain is any directories, named with path",
    },
    Input {
        name: "path",
        flag: Some("--path"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Both,
        description: "Directories of a plain store, one a line",
    },
    Input {
        name: "key",
        flag: Some("--key"),
        kind: Kind::Text,
        default: "",
        used_for: For::Key,
        description: "The exact key, instead of one made from the inputs below",
    },
    Input {
        name: "restore-keys",
        flag: Some("--restore-key"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Prefixes to try after the key, one a line",
    },
    Input {
        name: "key-prefix",
        flag: Some("--key-prefix"),
        kind: Kind::Text,
        default: "storecache",
        used_for: For::Key,
        description: "First part of the key",
    },
    Input {
        name: "version",
        flag: Some("--version"),
        kind: Kind::Text,
        default: "",
        used_for: For::Key,
        description: "Version of the package manager, instead of asking it",
    },
    Input {
        name: "hash-files",
        flag: Some("--hash-files"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Files whose content goes into the key, one pattern a line",
    },
    Input {
        name: "workflow",
        flag: Some("--workflow"),
        kind: Kind::Text,
        default: "",
        used_for: For::Key,
        description: "Workflow file that goes into the key; that of this job unless told, where the work tree has it",
    },
    Input {
        name: "workflow-mode",
        flag: Some("--workflow-mode"),
        kind: Kind::Choice(&["semantic", "bytes", "none"]),
        default: "semantic",
        used_for: For::Key,
        description: "How the workflow goes into the key: what of the job can change the store, every byte of the file, or not",
    },
    Input {
        name: "workflow-steps",
        flag: Some("--workflow-steps"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Steps of the workflow that matter, one a line, by id, name or action, with wildcards; all of the job unless told",
    },
    Input {
        name: "ignore-pins",
        flag: Some("--ignore-pins"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Actions whose versions do not count, one a line, with wildcards, besides actions/checkout, actions/cache and actions/upload-artifact",
    },
    Input {
        name: "lookup-only",
        flag: Some("--lookup-only"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Restore,
        description: "Look up and report what there is, and restore nothing",
    },
    Input {
        name: "fail-on-cache-miss",
        flag: Some("--fail-on-miss"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Restore,
        description: "Fail the step when nothing was found, or when something required is not complete",
    },
    Input {
        name: "require",
        flag: Some("--require"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Restore,
        description: "Items whose closures have to be complete afterwards, one a line: paths, or names with wildcards",
    },
    Input {
        name: "profiles",
        flag: Some("--profiles"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Both,
        description: "Guix: take along and bring back what guix pull and guix install made for the user",
    },
    Input {
        name: "save",
        flag: Some("--policy"),
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: "auto",
        used_for: For::Save,
        description: "When to save; auto leaves out what is not worth it, and says why",
    },
    Input {
        name: "save-on-failure",
        flag: Some("--save-on-failure"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "With save: auto, save although the job failed",
    },
    Input {
        name: "job-status",
        flag: Some("--job-status"),
        kind: Kind::Choice(&["success", "failure", "cancelled"]),
        default: "${{ job.status }}",
        used_for: For::Save,
        description: "How the job ended, for save: auto",
    },
    Input {
        name: "min-growth",
        flag: Some("--min-growth"),
        kind: Kind::Text,
        default: "1M",
        used_for: For::Save,
        description: "With save: auto, how much the store has to have grown since the newest entry of the key",
    },
    Input {
        name: "baseline",
        flag: Some("--baseline"),
        kind: Kind::Choice(&["exclude", "include"]),
        default: "exclude",
        used_for: For::Save,
        description: "Whether to save what was valid before the restore, as the items of an installer are",
    },
    Input {
        name: "roots",
        flag: Some("--roots"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Save,
        description: "Save only the closures of these items, one a line: paths, or names with wildcards",
    },
    Input {
        name: "max-size",
        flag: Some("--max-size"),
        kind: Kind::Text,
        default: "",
        used_for: For::Save,
        description: "Leave behind what was used least recently, so that the rest is at most this large unpacked",
    },
    Input {
        name: "full",
        flag: Some("--full"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "Save all items, also those that a snapshot holds which the new one could be a delta on",
    },
    Input {
        name: "rebase-at",
        flag: Some("--rebase-at"),
        kind: Kind::Text,
        default: "0.4",
        used_for: For::Save,
        description: "Save all items when those that are new are more than this part of the base, by size",
    },
    Input {
        name: "keep",
        flag: Some("--keep"),
        kind: Kind::Text,
        default: "",
        used_for: For::Save,
        description: "Delete older entries of the same key after a save, but for the newest so many and what they need",
    },
    Input {
        name: "quarantine-keep-days",
        flag: Some("--quarantine-keep-days"),
        kind: Kind::Text,
        default: "30",
        used_for: For::Both,
        description: "Days for which snapshots that failed their checks are kept aside; 0 keeps them",
    },
    Input {
        name: "token",
        flag: None,
        kind: Kind::Secret,
        default: "${{ github.token }}",
        used_for: For::Save,
        description: "For keep with the cache service: what deletes there, with permissions: actions: write; also asks for attestations",
    },
    Input {
        name: "sign-key",
        flag: None,
        kind: Kind::Secret,
        default: "",
        used_for: For::Save,
        description: "Secret key that snapshots are signed with, as nix-store --generate-binary-cache-key makes it; from a secret",
    },
    Input {
        name: "trusted-keys",
        flag: Some("--trusted-keys"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Public keys, with blanks between: what none of them has signed is a miss",
    },
    Input {
        name: "trust",
        flag: Some("--trust"),
        kind: Kind::Choice(&["any", "same-repository", "default-branch-only"]),
        default: "any",
        used_for: For::Both,
        description: "Where a snapshot has to say that it comes from; its own word unless it is signed",
    },
    Input {
        name: "verify",
        flag: Some("--verify"),
        kind: Kind::Choice(&["rows", "content"]),
        default: "rows",
        used_for: For::Restore,
        description: "What is checked: that rows and disk agree, or also that the content of each item has the hash of its row",
    },
    Input {
        name: "mode",
        flag: Some("--mode"),
        kind: Kind::Choice(&["add", "replace"]),
        default: "add",
        used_for: For::Restore,
        description: "What to do with a plain directory that holds something else: leave it, or swap it",
    },
    Input {
        name: "sync",
        flag: Some("--sync"),
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: "auto",
        used_for: For::Both,
        description: "Whether what is restored is on the disk before it becomes valid, and a saved file before it is there; auto: unless the machine ends with the job",
    },
    Input {
        name: "backend",
        flag: Some("--backend"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Both,
        description: "Where snapshots live, one place a line, asked in this order: github, the cache service of the job, dir:PATH, or an object store as s3://BUCKET/PREFIX, gs:// or az://, with credentials from the environment",
    },
    Input {
        name: "cache-service",
        flag: Some("--cache-service"),
        kind: Kind::Choice(&["v1", "v2"]),
        default: "",
        used_for: For::Both,
        description: "Version of the cache service to speak, where the variables of the job mislead",
    },
    Input {
        name: "network-timeout",
        flag: Some("--network-timeout"),
        kind: Kind::Text,
        default: "20",
        used_for: For::Both,
        description: "Seconds without a byte from the cache service after which a request is made again",
    },
    Input {
        name: "answer-timeout",
        flag: Some("--answer-timeout"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Seconds that the cache service may think before the first byte of an answer; three times network-timeout unless told",
    },
    Input {
        name: "stall-timeout",
        flag: Some("--stall-timeout"),
        kind: Kind::Text,
        default: "60",
        used_for: For::Both,
        description: "Seconds without a sign of life from the half that runs as root, or from a disk, after which the run is called off",
    },
    Input {
        name: "deadline",
        flag: Some("--deadline"),
        kind: Kind::Text,
        default: "0",
        used_for: For::Both,
        description: "Seconds that a restore or a save may take before it is called off and undone; 0 means any time",
    },
    Input {
        name: "root",
        flag: Some("--root"),
        kind: Kind::Text,
        default: "/",
        used_for: For::Both,
        description: "File-system root that the store belongs to, as of a chroot",
    },
    Input {
        name: "daemon",
        flag: Some("--daemon"),
        kind: Kind::Choice(&["auto", "systemd", "shepherd", "process", "command", "none"]),
        default: "auto",
        used_for: For::Both,
        description: "Who runs the daemon",
    },
    Input {
        name: "daemon-stop",
        flag: Some("--daemon-stop"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Shell command that stops the daemon, for daemon: command",
    },
    Input {
        name: "daemon-start",
        flag: Some("--daemon-start"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Shell command that starts the daemon, for daemon: command",
    },
    Input {
        name: "daemon-timeout",
        flag: Some("--daemon-timeout"),
        kind: Kind::Text,
        default: "60",
        used_for: For::Both,
        description: "Seconds to wait until the daemon has stopped, or answers again",
    },
    Input {
        name: "lock-timeout",
        flag: Some("--lock-timeout"),
        kind: Kind::Text,
        default: "60",
        used_for: For::Both,
        description: "Seconds to wait for locks that somebody else holds",
    },
    Input {
        name: "level",
        flag: Some("--level"),
        kind: Kind::Text,
        default: "3",
        used_for: For::Save,
        description: "Compression level of zstd, 1 to 19",
    },
    Input {
        name: "long",
        flag: Some("--long"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "Pack items together into large frames: smaller, but slower, and worse for restores of a part",
    },
    Input {
        name: "threads",
        flag: Some("--threads"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Threads that compress or unpack; one for each processor unless told",
    },
    Input {
        name: "memory",
        flag: Some("--memory"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Memory that all processes of a run may take, as in 192M; 256M with up to two threads, 512M with sixteen",
    },
    Input {
        name: "binary",
        flag: None,
        kind: Kind::Text,
        default: "",
        used_for: For::Step,
        description: "Path of a storecache program to use, instead of finding one",
    },
];

/// Returns the flags of a verb. In the post part, `key` is the key that the main part used.
///
/// # Errors
/// If a value is not valid for its input. Numbers and names are checked later, when the flags are parsed.
pub fn flags(job: &Job, verb: Verb, key: Option<&str>) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for input in INPUTS.iter().filter(|input| input.is_for(verb)) {
        let Some(flag) = input.flag else { continue };
        if input.used_for == For::Key && key.is_some() {
            continue;
        }
        let value = job.input(input.name)?.unwrap_or_else(|| input.known_default().to_owned());
        if value.is_empty() {
            continue;
        }
        match input.kind {
            Kind::Boolean if boolean(input.name, &value)? => words.push(flag.to_owned()),
            Kind::Boolean => {}
            // With `=`, because a value may begin with a dash.
            Kind::Lines => {
                let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
                words.extend(lines.map(|line| format!("{flag}={line}")));
            }
            Kind::Text | Kind::Choice(_) | Kind::Secret => words.push(format!("{flag}={value}")),
        }
    }
    words.extend(key.map(|key| format!("--key={key}")));
    Ok(words)
}

impl Input {
    /// Returns the default, unless only the runner can evaluate it.
    fn known_default(&self) -> &'static str {
        if self.default.starts_with("${{") { "" } else { self.default }
    }

    fn is_for(&self, verb: Verb) -> bool {
        match self.used_for {
            For::Step => false,
            For::Both | For::Key => true,
            For::Restore => verb == Verb::Restore,
            For::Save => verb == Verb::Save,
        }
    }
}

/// Parses a boolean. Source: actions/toolkit `packages/core/src/core.ts`, which follows YAML 1.2.
fn boolean(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        other => bail!("input {name}: {other:?} is neither true nor false"),
    }
}

pub fn markdown() -> String {
    let mut table = "| input | default | meaning |\n|---|---|---|\n".to_owned();
    for Input { name, default, kind, description, used_for, .. } in &INPUTS {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let choices = match kind {
            Kind::Choice(values) => {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                format!(": {}", values.join(", "))
            }
            _ => String::new(),
        };
        let only = match used_for {
            For::Save => " (save)",
            For::Restore => " (restore)",
            _ => "",
        };
        table += &format!("| `{name}` | {default} | {description}{choices}{only} |\n");
    }
    table
}

pub fn yaml() -> String {
    let mut text = "inputs:\n".to_owned();
    for Input { name, default, description, .. } in &INPUTS {
        text += &format!(
            "  {name}:\n    description: \"{description}\"\n    required: false\n    default: \"{default}\"\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_reach_their_flags_as_they_are() {
        let job = Job::from([
            ("INPUT_STORE", " nix "),
            ("INPUT_KEY", "a key's \"é\" --x"),
            ("INPUT_RESTORE-KEYS", "one-\n\n  two three- \r\n--four"),
            ("INPUT_LOOKUP-ONLY", "True"),
            ("INPUT_PROFILES", "false"),
            ("INPUT_LEVEL", "19"),
            ("INPUT_MODE", ""),
            ("INPUT_UNKNOWN", "x"),
        ]);
        let words = flags(&job, Verb::Restore, None).unwrap();
        for expected in [
            "--store=nix",
            "--key=a key's \"é\" --x",
            "--restore-key=one-",
            "--restore-key=two three-",
            "--restore-key=--four",
            "--lookup-only",
            // An input that is not set has its default.
            "--mode=add",
        ] {
            assert!(words.iter().any(|word| word == expected), "{expected}: {words:?}");
        }
        let of = |part: &str| words.iter().filter(|word| word.contains(part)).count();
        let absent = ["--profiles", "--level", "--path", "unknown", "--version"];
        assert!(absent.iter().all(|part| of(part) == 0), "{words:?}");
        assert_eq!(of("--restore-key"), 3);

        let words = flags(&job, Verb::Save, Some("then")).unwrap();
        let keys: Vec<_> = words.iter().filter(|word| word.contains("key")).collect();
        assert_eq!(keys, ["--key=then"]);
        assert!(words.contains(&"--level=19".to_owned()), "{words:?}");
    }

    #[test]
    fn a_boolean_that_is_none_is_named() {
        let job = Job::from([("INPUT_FAIL-ON-CACHE-MISS", "yes")]);
        let error = flags(&job, Verb::Restore, None).unwrap_err().to_string();
        assert_eq!(error, "input fail-on-cache-miss: \"yes\" is neither true nor false");
        assert!(flags(&job, Verb::Save, None).is_ok());
    }
}
