//! Examples at the end of the `--help` of each command.
//!
//! A test parses each example, and requires examples for every command that is not hidden.

use clap::Command;

/// The purpose of an example, and its command line.
type Example = (&'static str, &'static str);

/// Examples by command, such as `key diff`; the empty command is the program itself.
const EXAMPLES: [(&str, &[Example]); 15] = [
    (
        "",
        &[
            ("check that this machine can save and restore", "storecache doctor"),
            ("save the store, and restore it on the next machine", "storecache save"),
            ("", "storecache restore"),
            ("read the manual page of a command", "storecache help --man save | man -l -"),
        ],
    ),
    (
        "save",
        &[
            (
                "save all valid items, under a key that includes the lock file",
                "storecache save --hash-files flake.lock",
            ),
            (
                "save what one build needs to a directory, and keep only the two newest entries",
                "storecache save --roots hello-2.12 --backend dir:/srv/snapshots --keep 2",
            ),
            (
                "save directories that belong to root",
                "storecache save --store plain --path /opt/toolchain --key toolchain-1",
            ),
        ],
    ),
    (
        "restore",
        &[
            (
                "restore the newest snapshot whose key matches the lock file",
                "storecache restore --hash-files flake.lock",
            ),
            (
                "show what that would restore",
                "storecache restore --hash-files flake.lock --dry-run",
            ),
            (
                "check whether the job can do without substitute servers; exit code 3 if not",
                "storecache restore --require hello-2.12 --fail-on-miss",
            ),
        ],
    ),
    (
        "key",
        &[
            ("print the key of this checkout", "storecache key --hash-files flake.lock"),
            (
                "show what it is made of, with the inputs of the workflow step",
                "storecache key --explain --from-step",
            ),
        ],
    ),
    (
        "key diff",
        &[
            ("check whether uncommitted changes make a new key", "storecache key diff"),
            ("show what changed in the key since a release", "storecache key diff v1.2 ."),
        ],
    ),
    (
        "key suggest",
        &[
            ("suggest which files should be in the key", "storecache key suggest"),
            (
                "suggest them from the snapshots in a directory",
                "storecache key suggest --backend dir:/srv/snapshots",
            ),
        ],
    ),
    (
        "key simulate",
        &[(
            "replay the commits of half a year, with a key of your own too",
            "storecache key simulate --since 6mo --policy mine=semantic+lock --html keys.html",
        )],
    ),
    (
        "inspect",
        &[
            (
                "show the newest snapshot for the key of this checkout",
                "storecache inspect --hash-files flake.lock",
            ),
            (
                "show what takes space in a snapshot file",
                "storecache inspect store.tar.zst --blame",
            ),
        ],
    ),
    ("verify", &[("check every byte of a snapshot file", "storecache verify store.tar.zst")]),
    (
        "doctor",
        &[
            ("check everything that a save or restore relies on", "storecache doctor"),
            ("print the checks as JSON, for a script", "storecache doctor --store guix --json"),
        ],
    ),
    (
        "list",
        &[(
            "list the entries of a repository, largest first",
            "storecache list --repository OWNER/NAME --sort size",
        )],
    ),
    (
        "usage",
        &[(
            "show what is evicted if 2 GiB more are saved, as a page with tables",
            "storecache usage --repository OWNER/NAME --and 2G --html usage.html",
        )],
    ),
    (
        "prune",
        &[
            ("show what can be deleted, and why", "storecache prune --repository OWNER/NAME"),
            (
                "delete it, and entries that were not used for a week",
                "storecache prune --repository OWNER/NAME --unused-for 7 --apply",
            ),
        ],
    ),
    (
        "lint",
        &[
            ("check the workflows of this checkout", "storecache lint"),
            (
                "check one of them, for code scanning",
                "storecache lint .github/workflows/ci.yml --format sarif",
            ),
        ],
    ),
    (
        "help",
        &[
            ("read a manual page, or install it", "storecache help --man key diff | man -l -"),
            ("", "storecache help --man > ~/.local/share/man/man1/storecache.1"),
            (
                "install completions for bash",
                "storecache help --completions bash > ~/.local/share/bash-completion/completions/storecache",
            ),
        ],
    ),
];

/// Returns the examples of a command.
pub(super) fn examples_of(words: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == words).map_or(&[], |(_, examples)| examples)
}

/// Returns the text that ends the help of a command.
pub(super) fn text(words: &str) -> String {
    let mut text = String::from("Examples:");
    for (purpose, line) in examples_of(words) {
        if !purpose.is_empty() {
            text += &format!("\n  # {purpose}");
        }
        text += &format!("\n  {line}");
    }
    text
}

/// Adds examples to a command and to all of its subcommands.
pub(super) fn add(command: Command) -> Command {
    add_below("", command)
}

fn add_below(parent: &str, command: Command) -> Command {
    let words = format!("{parent} {}", command.get_name());
    let words = words.trim_start();
    let command = command.mut_subcommands(|below| add_below(words, below));
    if examples_of(words).is_empty() { command } else { command.after_help(text(words)) }
}
