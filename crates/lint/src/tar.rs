//! The recipe that storecache replaces: two `sudo tar` steps for a store and its database.

use super::diagnostic::Diagnostic;
use super::shell::{self, Command};
use super::{Level, LintContext, rules};
use storecache_workflow::workflow::Job;

/// Parts of a store, as archives and shells name them.
const STORES: [&str; 4] = ["gnu/store", "nix/store", "var/guix", "nix/var"];

/// Directories of databases.
const DATABASES: [&str; 2] = ["var/guix/db", "nix/var/nix/db"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Create,
    Extract,
}

/// The effects of the commands of a job so far.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// The daemon is stopped.
    stopped: bool,
    /// The store is mounted read-write.
    writable: bool,
    /// The write-ahead log of the database was removed.
    no_log: bool,
    /// There is a consistent copy of the database.
    frozen: bool,
}

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    scene.workflow.jobs.iter().flat_map(|job| check_job(scene, job)).collect()
}

fn check_job(scene: &LintContext, job: &Job) -> Vec<Diagnostic> {
    let is_root = job.node.get("container").is_some();
    let commands: Vec<Command> = job.steps.iter().flat_map(shell::commands).collect();
    let runs: Vec<Option<Run>> = commands.iter().map(|it| tar_run(it, is_root)).collect();
    // An unpacking command need not name the store, because the archive contains the paths. The command of an
    // installer looks alike, but no command of the job packs its archive.
    let packed: Vec<&Run> =
        runs.iter().flatten().filter(|run| run.way == Way::Create && run.names_a_store).collect();
    let mut before = Before::default();
    let mut found = Vec::new();
    for (command, run) in commands.iter().zip(&runs) {
        before.see(command);
        match run {
            Some(run) if run.way == Way::Create && run.names_a_store => {
                let elsewhere = packed.iter().any(|other| other.database);
                found.extend(creates(scene, command, run, before, elsewhere));
            }
            Some(run) if run.way == Way::Extract => {
                let of = packed.iter().find(|other| other.archive == run.archive);
                if run.names_a_store || of.is_some() {
                    let database = of.is_none_or(|it| it.database) || run.database;
                    found.push(extracts(command, before, database));
                }
            }
            Some(_) => {}
            None => found.extend(copies(command, before)),
        }
    }
    found
}

impl Before {
    fn see(&mut self, command: &Command) {
        let text = &command.text;
        let daemon = text.contains("guix-daemon") || text.contains("nix-daemon");
        let words = command.words();
        if daemon && ["stop", "kill", "unload", "bootout"].iter().any(|it| words.contains(it)) {
            self.stopped = true;
        }
        if daemon && ["start", "restart", "load", "bootstrap"].iter().any(|it| words.contains(it)) {
            self.stopped = false;
        }
        let unmounts = text.contains("umount") || text.contains("gnu-store.mount");
        self.writable |= (text.contains("remount") && text.contains("rw")) || unmounts;
        let log =
            text.contains("-wal") || text.contains("db.sqlite-") || text.contains("db.sqlite*");
        self.no_log |= words.contains(&"rm") && log;
        self.frozen |= [".backup", "vacuum into", "wal_checkpoint", ".dump"]
            .iter()
            .any(|word| text.to_lowercase().contains(word));
    }
}

const EXAMPLE: &str = "- uses: OWNER/storecache@v1\n  with:\n    store: guix   # or nix";

fn creates(
    scene: &LintContext,
    command: &Command,
    run: &Run,
    before: Before,
    elsewhere: bool,
) -> Option<Diagnostic> {
    let copied = Diagnostic::error(
        rules::TAR,
        command.line,
        if run.database {
            "this copies the database file while the daemon may write to it: rows that are only in \
             its log are lost, or the copy is inconsistent"
        } else {
            "this packs items without their database: after a restore, the daemon does not know \
             them"
        },
    );
    let whole =
        if run.database { before.stopped || before.frozen } else { elsewhere || before.frozen };
    if !whole {
        return Some(
            copied
                .at("tar")
                .fix("take a snapshot with `storecache save`, which freezes the database")
                .example(EXAMPLE),
        );
    }
    let text = &command.text;
    let database = DATABASES.iter().find(|database| text.contains(*database));
    let roots = text.contains("profiles") || text.contains("gcroots");
    let (Some(database), false) = (database, roots) else { return None };
    let state = database.trim_end_matches("/db");
    let line = (command.line..command.line + 20)
        .find(|line| scene.page.line(*line).is_some_and(|it| it.contains(*database)))?;
    let slash = if text.contains(&format!("/{database}")) { "/" } else { "" };
    let old = format!("{slash}{database}");
    let new = format!("{old} {slash}{state}/profiles {slash}{state}/gcroots");
    Some(
        Diagnostic::warning(
            rules::NO_ROOTS,
            line,
            "profiles and roots are not in the archive: the next garbage collection deletes \
             everything that is restored",
        )
        .at(*database)
        .fix("pack profiles and gcroots too; storecache creates its own roots")
        .lines(scene.page.swap(&[(line, &old, &new)]))
        .example(new.clone()),
    )
}

fn extracts(command: &Command, before: Before, database: bool) -> Diagnostic {
    let mut parts = Vec::new();
    if !before.stopped {
        parts.push("the daemon may have it open");
    }
    if database && !before.no_log {
        parts.push("a log left beside the new database silently undoes it");
    }
    if !before.writable {
        parts.push("tar fails if the store is mounted read-only, as for Guix");
    }
    let level = if parts.is_empty() { Level::Warning } else { Level::Error };
    if database {
        parts.push("replacing the database loses rows that only the old one has");
    }
    let found = match level {
        Level::Error => Diagnostic::error,
        Level::Warning => Diagnostic::warning,
    };
    let parts =
        if parts.is_empty() { vec!["the database has no rows for these items"] } else { parts };
    found(rules::TAR, command.line, format!("this unpacks over a live store: {}", parts.join("; ")))
        .at("tar")
        .fix(
            "restore with `storecache restore`, which adds rows to the live database, or changes \
             nothing",
        )
        .example(EXAMPLE)
}

/// Reports copies of a database by programs other than tar.
fn copies(command: &Command, before: Before) -> Option<Diagnostic> {
    let programs = ["cp", "mv", "install", "rsync"];
    let arguments = programs.iter().find_map(|program| command.arguments(program))?;
    let is_database = |word: &&str| DATABASES.iter().any(|database| word.contains(database));
    let (last, others) = arguments.split_last()?;
    let (message, fix) = if is_database(last) {
        if before.stopped && before.no_log {
            return None;
        }
        (
            "this replaces a live database: rows that only the old one has are lost, and a log \
             left beside it silently undoes the new one",
            "restore with `storecache restore`, which adds rows to the live database",
        )
    } else if others.iter().any(is_database) && !before.stopped && !before.frozen {
        (
            "this copies the database file while the daemon may write to it: rows that are only in \
             its log are lost, or the copy is inconsistent",
            "copy it with `sqlite3 FILE \".backup COPY\"`, or save with storecache",
        )
    } else {
        return None;
    };
    Some(
        Diagnostic::error(rules::DATABASE, command.line, message)
            .at("db")
            .fix(fix)
            .example(EXAMPLE),
    )
}

#[derive(Debug)]
struct Run {
    way: Way,
    names_a_store: bool,
    /// The database is among the paths that the command names.
    database: bool,
    /// File name of the archive without its directory; empty for a pipe.
    archive: String,
}

/// Parses a command that runs tar as root.
fn tar_run(command: &Command, is_root: bool) -> Option<Run> {
    let words: Vec<&str> = command.text.split_whitespace().collect();
    let tar = words.iter().position(|word| *word == "tar" || word.ends_with("/tar"))?;
    if !is_root && !words.contains(&"sudo") {
        return None;
    }
    let arguments = words.get(tar + 1..)?;
    let way = way(arguments)?;
    let word =
        |names: &[&str]| words.iter().any(|word| names.contains(&word.trim_end_matches('/')));
    let names_a_store = STORES.iter().any(|store| command.text.contains(store))
        || word(&["/nix", "nix", "/gnu", "gnu"]);
    let database = DATABASES.iter().any(|database| command.text.contains(database))
        || word(&["/nix", "nix", "/nix/var", "nix/var", "/nix/var/nix", "nix/var/nix"])
        || word(&["/var/guix", "var/guix"]);
    Some(Run { way, names_a_store, database, archive: archive(arguments) })
}

/// Returns whether a word is a bundle of one-letter flags: the first word, with or without a dash, and later
/// words with one.
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

/// Returns the name of an archive without its directory.
fn archive(arguments: &[&str]) -> String {
    let name = archive_path(arguments);
    let name = name.rsplit('/').next().unwrap_or_default();
    if name == "-" { String::new() } else { name.to_owned() }
}

fn archive_path<'w>(arguments: &[&'w str]) -> &'w str {
    let mut words = arguments.iter().enumerate();
    let file = words.find_map(|(at, word)| match word.strip_prefix("--file") {
        Some("") => arguments.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None if is_bundle(at, word) && word.ends_with('f') => arguments.get(at + 1).copied(),
        None => None,
    });
    file.unwrap_or("-").trim_matches(['"', '\''])
}

/// Returns the directory of the archive that a command packs or unpacks.
pub fn directory(command: &Command) -> Option<&str> {
    let words: Vec<&str> = command.text.split_whitespace().collect();
    let tar = words.iter().position(|word| *word == "tar" || word.ends_with("/tar"))?;
    way(words.get(tar + 1..)?)?;
    Some(archive_path(words.get(tar + 1..)?).rsplit_once('/')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_workflow::workflow::Text;

    #[test]
    fn tar_commands_are_detected_in_every_form() {
        let runs = |text: &str| {
            let text = Text { text: text.into(), line: 1 };
            let all = shell::split(&text).into_iter();
            all.filter_map(|command| tar_run(&command, false).map(|run| (command.line, run)))
                .map(|(line, run)| (line, run.way, run.names_a_store, run.archive))
                .collect::<Vec<_>>()
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
