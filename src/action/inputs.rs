//! The table of a step's inputs, and their conversion into flags.
//!
//! `storecache action inputs --yaml` and `--markdown` print the parts of action.yml and docs/inputs.md that are made from
//! it. `tests/worlds/action.rs` compares these files and the flags in `src/cli/` with it.

use super::job_environment::Job;
use super::step::Verb;
use crate::report::{Word, Words};
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
    /// Never part of a command line: `src/cli/backend.rs` and `src/cli/trust.rs` read the environment variables of these
    /// inputs.
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
        description: "Restore here and save at the end of the job, or do only one of the two, here",
    },
    Input {
        name: "store",
        flag: Some("--store"),
        kind: Kind::Choice(&["auto", "guix", "nix", "plain"]),
        default: "auto",
        used_for: For::Both,
        description: "Kind of store; plain means the directories in path",
    },
    Input {
        name: "path",
        flag: Some("--path"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Both,
        description: "Directories of a plain store, one per line",
    },
    Input {
        name: "key",
        flag: Some("--key"),
        kind: Kind::Text,
        default: "",
        used_for: For::Key,
        description: "Exact key, instead of one made from the inputs below",
    },
    Input {
        name: "restore-keys",
        flag: Some("--restore-key"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Prefixes to try after the key, one per line",
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
        description: "Version of the package manager in the key; as reported by the package manager if empty",
    },
    Input {
        name: "hash-files",
        flag: Some("--hash-files"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Files to hash into the key, one pattern per line",
    },
    Input {
        name: "workflow",
        flag: Some("--workflow"),
        kind: Kind::Text,
        default: "",
        used_for: For::Key,
        description: "Workflow file that goes into the key; if empty, the workflow of this job, if it is in the work tree",
    },
    Input {
        name: "workflow-mode",
        flag: Some("--workflow-mode"),
        kind: Kind::Choice(&["semantic", "bytes", "none"]),
        default: "semantic",
        used_for: For::Key,
        description: "How the workflow goes into the key: the parts of the job that can change the store, every byte of the file, or not at all",
    },
    Input {
        name: "workflow-steps",
        flag: Some("--workflow-steps"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Steps of the workflow that count for the key, one per line, by id, name or action, with wildcards; if empty, all steps of the job",
    },
    Input {
        name: "ignore-pins",
        flag: Some("--ignore-pins"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Key,
        description: "Actions whose versions do not change the key, one per line, with wildcards, in addition to actions/checkout, actions/cache and actions/upload-artifact",
    },
    Input {
        name: "lookup-only",
        flag: Some("--lookup-only"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Restore,
        description: "Report the matching snapshot without restoring it",
    },
    Input {
        name: "fail-on-cache-miss",
        flag: Some("--fail-on-miss"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Restore,
        description: "Fail the step on a miss, or if a required item is incomplete",
    },
    Input {
        name: "require",
        flag: Some("--require"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Restore,
        description: "Items whose closures must be complete after the restore, one per line: paths, or names with wildcards",
    },
    Input {
        name: "profiles",
        flag: Some("--profiles"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Both,
        description: "Guix: also save and restore the profiles that guix pull and guix install made for the user",
    },
    Input {
        name: "save",
        flag: Some("--policy"),
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: "auto",
        used_for: For::Save,
        description: "When to save; auto skips saves that are not worthwhile, and reports why",
    },
    Input {
        name: "save-on-failure",
        flag: Some("--save-on-failure"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "With save: auto, save even if the job failed",
    },
    Input {
        name: "job-status",
        flag: Some("--job-status"),
        kind: Kind::Choice(&["success", "failure", "cancelled"]),
        default: "${{ job.status }}",
        used_for: For::Save,
        description: "Result of the job, for save: auto",
    },
    Input {
        name: "min-growth",
        flag: Some("--min-growth"),
        kind: Kind::Text,
        default: "1M",
        used_for: For::Save,
        description: "With save: auto, minimum growth of the store since the newest entry of the key",
    },
    Input {
        name: "baseline",
        flag: Some("--baseline"),
        kind: Kind::Choice(&["exclude", "include"]),
        default: "exclude",
        used_for: For::Save,
        description: "Whether to save items that were valid before the restore, such as those of an installer",
    },
    Input {
        name: "roots",
        flag: Some("--roots"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Save,
        description: "Save only the closures of these items, one per line: paths, or names with wildcards",
    },
    Input {
        name: "max-size",
        flag: Some("--max-size"),
        kind: Kind::Text,
        default: "",
        used_for: For::Save,
        description: "Omit the least recently used items until the rest has at most this size unpacked",
    },
    Input {
        name: "full",
        flag: Some("--full"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "Save all items, even if a delta on an existing snapshot is possible",
    },
    Input {
        name: "rebase-at",
        flag: Some("--rebase-at"),
        kind: Kind::Text,
        default: "0.4",
        used_for: For::Save,
        description: "Save all items if the new ones exceed this fraction of the base, by size",
    },
    Input {
        name: "keep",
        flag: Some("--keep"),
        kind: Kind::Text,
        default: "",
        used_for: For::Save,
        description: "After a save, keep only this many of the newest entries of the key, and the bases that they depend on",
    },
    Input {
        name: "quarantine-keep-days",
        flag: Some("--quarantine-keep-days"),
        kind: Kind::Text,
        default: "30",
        used_for: For::Both,
        description: "Days to keep snapshots that failed their checks in quarantine; 0 keeps them forever",
    },
    Input {
        name: "token",
        flag: None,
        kind: Kind::Secret,
        default: "${{ github.token }}",
        used_for: For::Save,
        description: "Token to delete entries of the cache service for keep, with permissions: actions: write, and to look up attestations",
    },
    Input {
        name: "sign-key",
        flag: None,
        kind: Kind::Secret,
        default: "",
        used_for: For::Save,
        description: "Secret key to sign snapshots with, as nix-store --generate-binary-cache-key writes it; pass it from a secret",
    },
    Input {
        name: "trusted-keys",
        flag: Some("--trusted-keys"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Trusted public keys, separated by spaces; snapshots that none of them signed are ignored",
    },
    Input {
        name: "trust",
        flag: Some("--trust"),
        kind: Kind::Choice(&["any", "same-repository", "default-branch-only"]),
        default: "any",
        used_for: For::Both,
        description: "Accepted origins of snapshots; the origin is only a claim unless the snapshot is signed",
    },
    Input {
        name: "verify",
        flag: Some("--verify"),
        kind: Kind::Choice(&["rows", "content"]),
        default: "rows",
        used_for: For::Restore,
        description: "Checks before a restore is complete: that rows and disk agree, or also that the content of each item matches the hash in its row",
    },
    Input {
        name: "mode",
        flag: Some("--mode"),
        kind: Kind::Choice(&["add", "replace"]),
        default: "add",
        used_for: For::Restore,
        description: "Handling of a plain directory that has other content: leave it, or swap it",
    },
    Input {
        name: "sync",
        flag: Some("--sync"),
        kind: Kind::Choice(&["auto", "always", "never"]),
        default: "auto",
        used_for: For::Both,
        description: "Whether to flush restored items, or a saved file, to disk before publishing them; auto skips this on GitHub-hosted runners",
    },
    Input {
        name: "backend",
        flag: Some("--backend"),
        kind: Kind::Lines,
        default: "",
        used_for: For::Both,
        description: "Where to keep snapshots, one backend per line, searched in this order: github (the cache service of the job), dir:PATH, or an object store as s3://BUCKET/PREFIX, gs:// or az://, with credentials from the environment",
    },
    Input {
        name: "cache-service",
        flag: Some("--cache-service"),
        kind: Kind::Choice(&["v1", "v2"]),
        default: "",
        used_for: For::Both,
        description: "Version of the cache service, if the variables of the job are misleading",
    },
    Input {
        name: "network-timeout",
        flag: Some("--network-timeout"),
        kind: Kind::Text,
        default: "20",
        used_for: For::Both,
        description: "Retry a request after this many seconds without data from the cache service or object store",
    },
    Input {
        name: "answer-timeout",
        flag: Some("--answer-timeout"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Seconds to wait for the first byte of a response from the cache service or object store; if empty, three times network-timeout",
    },
    Input {
        name: "stall-timeout",
        flag: Some("--stall-timeout"),
        kind: Kind::Text,
        default: "60",
        used_for: For::Both,
        description: "Abort after this many seconds without activity in the root helper or on a disk",
    },
    Input {
        name: "deadline",
        flag: Some("--deadline"),
        kind: Kind::Text,
        default: "0",
        used_for: For::Both,
        description: "Cancel and undo a restore or save after this many seconds; 0 means no limit",
    },
    Input {
        name: "root",
        flag: Some("--root"),
        kind: Kind::Text,
        default: "/",
        used_for: For::Both,
        description: "Root directory of the system that the store belongs to, such as a chroot",
    },
    Input {
        name: "daemon",
        flag: Some("--daemon"),
        kind: Kind::Choice(&["auto", "systemd", "shepherd", "process", "command", "none"]),
        default: "auto",
        used_for: For::Both,
        description: "How to stop and start the daemon",
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
        description: "Seconds to wait for the daemon to stop, or to answer again",
    },
    Input {
        name: "lock-timeout",
        flag: Some("--lock-timeout"),
        kind: Kind::Text,
        default: "60",
        used_for: For::Both,
        description: "Seconds to wait for locks that other processes hold",
    },
    Input {
        name: "level",
        flag: Some("--level"),
        kind: Kind::Text,
        default: "3",
        used_for: For::Save,
        description: "zstd compression level, 1 to 19",
    },
    Input {
        name: "long",
        flag: Some("--long"),
        kind: Kind::Boolean,
        default: "false",
        used_for: For::Save,
        description: "Use large frames with long-distance matching: smaller snapshots, slower saves, and partial restores read more",
    },
    Input {
        name: "threads",
        flag: Some("--threads"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Threads for compression and unpacking; if empty, one per processor",
    },
    Input {
        name: "memory",
        flag: Some("--memory"),
        kind: Kind::Text,
        default: "",
        used_for: For::Both,
        description: "Memory limit for all processes of a run, as in 192M; if empty, 256M with up to two threads, 512M with sixteen",
    },
    Input {
        name: "binary",
        flag: None,
        kind: Kind::Text,
        default: "",
        used_for: For::Step,
        description: "Path of the storecache program to use; if empty, the step finds one",
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

/// Returns the words of a job: messages name inputs instead of flags.
pub fn words() -> Words {
    Words::new(|flag| INPUTS.iter().find(|input| input.is_named(flag)).map(Input::word))
}

impl Input {
    /// Returns whether a flag has the meaning of the input. A secret is not passed as a flag.
    fn is_named(&self, flag: &str) -> bool {
        match self.kind {
            Kind::Secret => flag.strip_prefix("--") == Some(self.name),
            Kind::Text | Kind::Lines | Kind::Boolean | Kind::Choice(_) => self.flag == Some(flag),
        }
    }

    /// Returns how messages name the input.
    fn word(&self) -> Word {
        match self.kind {
            Kind::Boolean => Word::Switch(self.name),
            Kind::Choice(values) => Word::Name(self.name, values),
            Kind::Text | Kind::Lines | Kind::Secret => Word::Name(self.name, &[]),
        }
    }

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
    fn inputs_become_flags_with_unchanged_values() {
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
    fn invalid_boolean_input_is_named_in_the_error() {
        let job = Job::from([("INPUT_FAIL-ON-CACHE-MISS", "yes")]);
        let error = flags(&job, Verb::Restore, None).unwrap_err().to_string();
        assert_eq!(error, "input fail-on-cache-miss: \"yes\" is neither true nor false");
        assert!(flags(&job, Verb::Save, None).is_ok());
    }
}
