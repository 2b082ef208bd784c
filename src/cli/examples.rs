//! What `--help` ends with: examples for each command.
//!
//! A test parses each of them, and wants some for every command that is shown.

use clap::Command;

/// What it is for, and the line to type.
type Example = (&'static str, &'static str);

/// By the words of the command; none for the program itself.
const EXAMPLES: [(&str, &[Example]); 15] = [
    (
        "",
        &[
            ("can this machine save and restore?", "storecache doctor"),
            ("save the store, and on the next machine bring it back", "storecache save"),
            ("", "storecache restore"),
            ("what a command does, as a manual page", "storecache help --man save | man -l -"),
        ],
    ),
    (
        "save",
        &[
            (
                "all that the database calls valid, under a key with the lock file in it",
                "storecache save --hash-files flake.lock",
            ),
            (
                "what one build needs, into a directory, and no more than the two newest entries",
                "storecache save --roots hello-2.12 --backend dir:/srv/snapshots --keep 2",
            ),
            (
                "directories that belong to root",
                "storecache save --store plain --path /opt/toolchain --key toolchain-1",
            ),
        ],
    ),
    (
        "restore",
        &[
            (
                "the newest snapshot whose key fits the lock file",
                "storecache restore --hash-files flake.lock",
            ),
            ("what that would do", "storecache restore --hash-files flake.lock --dry-run"),
            (
                "can the job do without substitute servers? 3 if not",
                "storecache restore --require hello-2.12 --fail-on-miss",
            ),
        ],
    ),
    (
        "key",
        &[
            ("the key of this checkout", "storecache key --hash-files flake.lock"),
            (
                "what it is made of, as the step of the workflow asks for it",
                "storecache key --explain --from-step",
            ),
        ],
    ),
    (
        "key diff",
        &[
            ("will what I have changed make a new key?", "storecache key diff"),
            ("what moved since a release", "storecache key diff v1.2 ."),
        ],
    ),
    (
        "key suggest",
        &[
            ("which files should be in the key?", "storecache key suggest"),
            (
                "judged by snapshots of a directory",
                "storecache key suggest --backend dir:/srv/snapshots",
            ),
        ],
    ),
    (
        "key simulate",
        &[(
            "how often half a year of commits would have hit, with a key of yours too",
            "storecache key simulate --since 6mo --policy mine=semantic+lock --html keys.html",
        )],
    ),
    (
        "inspect",
        &[
            (
                "the newest snapshot of this checkout's key",
                "storecache inspect --hash-files flake.lock",
            ),
            ("what fills a file", "storecache inspect store.tar.zst --blame"),
        ],
    ),
    ("verify", &[("is every byte of it as it was written?", "storecache verify store.tar.zst")]),
    (
        "doctor",
        &[
            ("all that a save or restore relies on", "storecache doctor"),
            ("the red and yellow ones, for a script", "storecache doctor --store guix --json"),
        ],
    ),
    (
        "list",
        &[(
            "what a repository keeps, the largest first",
            "storecache list --repository OWNER/NAME --sort size",
        )],
    ),
    (
        "usage",
        &[(
            "what goes when two gigabytes more are saved, as a page with maps",
            "storecache usage --repository OWNER/NAME --and 2G --html usage.html",
        )],
    ),
    (
        "prune",
        &[
            ("what can go, and why", "storecache prune --repository OWNER/NAME"),
            (
                "let it go, and what nobody has read for a week",
                "storecache prune --repository OWNER/NAME --unused-for 7 --apply",
            ),
        ],
    ),
    (
        "lint",
        &[
            ("the workflows of this checkout", "storecache lint"),
            (
                "one of them, for code scanning",
                "storecache lint .github/workflows/ci.yml --format sarif",
            ),
        ],
    ),
    (
        "help",
        &[
            ("read a manual page, or keep it", "storecache help --man key diff | man -l -"),
            ("", "storecache help --man > ~/.local/share/man/man1/storecache.1"),
            (
                "complete commands and flags in bash",
                "storecache help --completions bash > ~/.local/share/bash-completion/completions/storecache",
            ),
        ],
    ),
];

/// Those of a command, by its words.
pub(super) fn of(words: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == words).map_or(&[], |(_, examples)| examples)
}

/// The end of the help of a command.
pub(super) fn text(words: &str) -> String {
    let mut text = String::from("Examples:");
    for (purpose, line) in of(words) {
        if !purpose.is_empty() {
            text += &format!("\n  # {purpose}");
        }
        text += &format!("\n  {line}");
    }
    text
}

/// The command with its examples, and all below it with theirs.
pub(super) fn add(command: Command) -> Command {
    add_below("", command)
}

fn add_below(parent: &str, command: Command) -> Command {
    let words = format!("{parent} {}", command.get_name());
    let words = words.trim_start();
    let command = command.mut_subcommands(|below| add_below(words, below));
    if of(words).is_empty() { command } else { command.after_help(text(words)) }
}
