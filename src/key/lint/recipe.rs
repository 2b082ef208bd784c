//! The recipe that storecache replaces: two `sudo tar` steps over a store and its database.

use super::super::workflow::{Text, Workflow};
use super::{Found, Level};

/// What is part of a store, as archives and shells name it.
const STORES: [&str; 4] = ["gnu/store", "nix/store", "var/guix", "nix/var"];

enum Way {
    Create,
    Extract,
}

pub fn check(workflow: &Workflow) -> Vec<Found> {
    let mut found = Vec::new();
    for job in &workflow.jobs {
        let scripts = job.steps.iter().filter_map(|step| step.fields.get("run"));
        // The one that unpacks need not name the store: the archive does.
        let runs: Vec<_> = scripts.flat_map(tar_runs).collect();
        if !runs.iter().any(|run| run.names_a_store) {
            continue;
        }
        for run in runs {
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

struct Run {
    line: usize,
    way: Way,
    names_a_store: bool,
}

/// Commands of a script that run tar as root.
fn tar_runs(script: &Text) -> Vec<Run> {
    let mut found = Vec::new();
    let mut lines = script.text.split('\n').enumerate();
    while let Some((at, first)) = lines.next() {
        let mut command = first.trim_start().to_owned();
        while command.ends_with('\\') {
            command.pop();
            command.push_str(lines.next().map_or("", |(_, line)| line.trim_start()));
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        let is_tar = |word: &&str| *word == "tar" || word.ends_with("/tar");
        let (false, true, Some(tar)) =
            (command.starts_with('#'), words.contains(&"sudo"), words.iter().position(is_tar))
        else {
            continue;
        };
        let flags = &words[tar + 1..];
        // The first word is a bundle of flags, with or without its dash.
        let bundle = flags.first().filter(|word| !word.starts_with("--")).unwrap_or(&"");
        let short = |letter| {
            let bundles =
                flags.iter().filter(|word| word.starts_with('-') && !word.starts_with("--"));
            bundle.contains(letter) && !bundle.contains('/')
                || bundles.into_iter().any(|word| word.contains(letter))
        };
        let way = if flags.contains(&"--create") || short('c') {
            Way::Create
        } else if flags.contains(&"--extract") || flags.contains(&"--get") || short('x') {
            Way::Extract
        } else {
            continue;
        };
        let names_a_store = STORES.iter().any(|store| command.contains(store))
            || words.iter().any(|word| matches!(*word, "/nix" | "nix" | "/gnu" | "gnu"));
        found.push(Run { line: script.line + at, way, names_a_store });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_is_seen_however_it_is_written() {
        let ways = |text: &str| {
            let runs = tar_runs(&Text { text: text.into(), line: 1 });
            let letter = |run: &Run| match run.way {
                Way::Create => 'c',
                Way::Extract => 'x',
            };
            runs.iter().map(|run| (run.line, letter(run), run.names_a_store)).collect::<Vec<_>>()
        };
        assert_eq!(ways("sudo tar --create --zstd \\\n -C / gnu/store"), [(1, 'c', true)]);
        assert_eq!(ways("echo\nsudo -E /bin/tar cf x.tar /nix"), [(2, 'c', true)]);
        assert_eq!(ways("sudo tar -C / -xf store.tar"), [(1, 'x', false)]);
        assert_eq!(ways("tar -xf gnu/store.tar\n# sudo tar -x\nsudo tar -tf x"), []);
    }
}
