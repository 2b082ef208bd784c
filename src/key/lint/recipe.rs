//! The recipe that storecache replaces: two `sudo tar` steps over a store and its database.

use super::super::workflow::{Step, Text, Workflow};
use super::{Found, Level};

/// What is part of a store, as archives and shells name it.
const STORES: [&str; 4] = ["gnu/store", "nix/store", "var/guix", "nix/var"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Create,
    Extract,
}

pub fn check(workflow: &Workflow) -> Vec<Found> {
    let mut found = Vec::new();
    for job in &workflow.jobs {
        let runs: Vec<Run> = job.steps.iter().flat_map(scripts).flat_map(tar_runs).collect();
        // The one that unpacks need not name the store, as the archive does: an installer's looks the
        // same, but that nobody here has packed.
        let packed = |run: &Run| run.way == Way::Create && run.names_a_store;
        let packed: Vec<_> =
            runs.iter().filter(|run| packed(run)).map(|run| &run.archive).collect();
        for run in runs.iter().filter(|run| run.names_a_store || packed.contains(&&run.archive)) {
            let (what, fix) = match run.way {
                Way::Create => (
                    "this copies the database file while the daemon may write to it: rows that are \
                     in its log alone are lost, or the copy is torn",
                    "take a snapshot with `storecache save`, which freezes the database",
                ),
                Way::Extract => (
                    "this unpacks over a live store: a log left beside the new database undoes it \
                     silently, and where the store is mounted read-only tar fails, with the daemon \
                     left stopped",
                    "restore with `storecache restore`, which adds rows to the live database, or \
                     leaves everything as it was",
                ),
            };
            found.push((run.line, Level::Error, what.into(), fix.into()));
        }
    }
    found
}

/// What a step runs, also through an action that tries again.
fn scripts(step: &Step) -> impl Iterator<Item = &Text> {
    ["run", "with.command"].into_iter().filter_map(|name| step.fields.get(name))
}

#[derive(Debug)]
struct Run {
    line: usize,
    way: Way,
    names_a_store: bool,
    /// Name of the file without its directory; empty for a pipe.
    archive: String,
}

/// Commands of a script that run tar as root.
fn tar_runs(script: &Text) -> Vec<Run> {
    let mut found = Vec::new();
    let mut lines = script.text.split('\n').enumerate();
    while let Some((at, first)) = lines.next() {
        let mut command = first.trim().to_owned();
        while command.ends_with('\\') {
            command.pop();
            command.push_str(lines.next().map_or("", |(_, line)| line.trim()));
        }
        if command.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        let tar = words.iter().position(|word| *word == "tar" || word.ends_with("/tar"));
        let Some(arguments) = tar.filter(|_| words.contains(&"sudo")).map(|at| &words[at + 1..])
        else {
            continue;
        };
        let Some(way) = way(arguments) else { continue };
        let names_a_store = STORES.iter().any(|store| command.contains(store))
            || words.iter().any(|word| matches!(*word, "/nix" | "nix" | "/gnu" | "gnu"));
        let archive = archive(arguments);
        found.push(Run { line: script.line + at, way, names_a_store, archive });
    }
    found
}

/// Bundles of one-letter flags: the first word, with or without its dash, and later ones with it.
fn is_bundle(at: usize, word: &str) -> bool {
    match word.strip_prefix('-') {
        Some(rest) => !rest.starts_with('-'),
        None => at == 0,
    }
}

fn way(arguments: &[&str]) -> Option<Way> {
    let short = |letter| {
        let mut words = arguments.iter().enumerate();
        words.any(|(at, word)| is_bundle(at, word) && word.contains(letter))
    };
    if arguments.contains(&"--create") || short('c') {
        Some(Way::Create)
    } else if arguments.contains(&"--extract") || arguments.contains(&"--get") || short('x') {
        Some(Way::Extract)
    } else {
        None
    }
}

fn archive(arguments: &[&str]) -> String {
    let mut words = arguments.iter().enumerate();
    let file = words.find_map(|(at, word)| match word.strip_prefix("--file") {
        Some("") => arguments.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None if is_bundle(at, word) && word.ends_with('f') => arguments.get(at + 1).copied(),
        None => None,
    });
    let name = file.unwrap_or("-").trim_matches(['"', '\'']);
    let name = name.rsplit('/').next().unwrap_or(name);
    if name == "-" { String::new() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_is_seen_however_it_is_written() {
        let runs = |text: &str| {
            let runs = tar_runs(&Text { text: text.into(), line: 1 });
            let shown = |run: Run| (run.line, run.way, run.names_a_store, run.archive);
            runs.into_iter().map(shown).collect::<Vec<_>>()
        };
        let (create, extract) = (Way::Create, Way::Extract);
        let piped = "sudo tar --create --zstd \\\n -C / gnu/store | cat >s.tar";
        assert_eq!(runs(piped), [(1, create, true, String::new())]);
        let bundled = "echo\nsudo -E /bin/tar cf x.tar /nix";
        assert_eq!(runs(bundled), [(2, create, true, "x.tar".into())]);
        for text in [
            "sudo tar -C / -xf '/tmp/s.tar'",
            "sudo -- tar --extract --file \"/tmp/s.tar\"",
            "sudo tar --get --file=s.tar",
        ] {
            assert_eq!(runs(text), [(1, extract, false, "s.tar".into())], "{text}");
        }
        assert!(runs("tar -xf gnu/store.tar\n# sudo tar -x\nsudo tar -tf x").is_empty());
    }
}
