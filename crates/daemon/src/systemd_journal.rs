//! The recent lines of a daemon in the journal of systemd, sorted into classes.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use storecache_programs::{Program, output};

/// How far back the journal is read, in the format of journalctl.
const SINCE: &str = "-10min";
/// The period of `SINCE`, for messages.
pub const SPAN: &str = "ten minutes";
/// At most this many lines of a daemon are read, the newest ones.
const LINES: &str = "5000";
/// Lines of this priority and worse are reported even if they belong to no class (`man 3 syslog`: errors).
const ERROR: u64 = 3;

/// How serious a message of a daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It also occurs in a healthy store.
    Usual,
    /// Jobs are affected.
    Worrying,
    /// The store or its daemon does not work.
    Grave,
}

/// One kind of line.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    pub name: &'static str,
    pub weight: Weight,
    /// Substrings that identify such lines, in lower case.
    parts: &'static [&'static str],
}

/// The classes, from the most to the least specific: a line belongs to the first class that has a substring of
/// it.
///
/// Sources of the texts: `NixOS/nix:src/libstore` and `guix-mirror/guix:nix` for messages of daemons,
/// `systemd/systemd:src/core` for messages of systemd about them, `sqlite.org/rescode.html`.
const CLASSES: [Class; 12] = [
    class(
        "damaged database",
        Weight::Grave,
        &["database disk image is malformed", "file is not a database", "disk i/o error"],
    ),
    class(
        "damaged file system",
        Weight::Grave,
        &["input/output error", "structure needs cleaning"],
    ),
    class(
        "full disk",
        Weight::Grave,
        &["no space left on device", "database or disk is full", "disk quota exceeded"],
    ),
    class(
        "out of memory",
        Weight::Grave,
        &["oom-kill", "out of memory", "cannot allocate memory", "bad_alloc"],
    ),
    class("out of files", Weight::Grave, &["too many open files"]),
    class(
        "read-only store",
        Weight::Grave,
        &["read-only file system", "attempt to write a readonly database"],
    ),
    class(
        "daemon exit",
        Weight::Grave,
        &[
            "main process exited",
            "failed with result",
            "start request repeated too quickly",
            "failed to start",
            "dumped core",
        ],
    ),
    class(
        "busy database",
        Weight::Worrying,
        &["database is locked", "database is busy", "is busy"],
    ),
    class(
        "access denied",
        Weight::Worrying,
        &[
            "permission denied",
            "operation not permitted",
            "is not allowed to",
            "not a trusted user",
            "lacks a valid signature",
            "unauthorized",
        ],
    ),
    class(
        "network",
        Weight::Worrying,
        &[
            "unable to download",
            "could not resolve host",
            "couldn't resolve host",
            "couldn't connect",
            "could not connect",
            "connection refused",
            "connection timed out",
            "connection reset",
            "network is unreachable",
            "name or service not known",
            "tls",
            "substituter failed",
            "disabling binary cache",
        ],
    ),
    class(
        "build",
        Weight::Usual,
        &["builder for", "build of", "cannot build", "hash mismatch", "build users"],
    ),
    class(
        "client disconnected",
        Weight::Usual,
        &["unexpected end-of-file", "unexpected eof", "broken pipe", "interrupted by the user"],
    ),
];

/// Lines that belong to no class, but have the priority of an error.
static OTHER: Class = class("other error", Weight::Worrying, &[]);

const fn class(name: &'static str, weight: Weight, parts: &'static [&'static str]) -> Class {
    Class { name, weight, parts }
}

/// The lines of one class.
#[derive(Debug)]
pub struct Heap {
    pub class: &'static Class,
    pub lines: usize,
    /// The newest of these lines.
    pub last: String,
}

/// Reads the recent journal of units and sorts it into classes, the worst class first.
///
/// # Errors
/// If journalctl is missing, or fails.
pub fn classes_of(units: &[&str]) -> Result<Vec<Heap>> {
    let journal = Program::Journalctl { units, since: SINCE, lines: LINES };
    let output = output(journal).context("run journalctl")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("journalctl failed ({}): {}", output.status, error.trim());
    }
    Ok(sorted(String::from_utf8_lossy(&output.stdout).lines()))
}

/// Sorts journalctl's lines of JSON into classes. Lines without a message or a class are skipped.
fn sorted<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<Heap> {
    let mut heaps: Vec<Heap> = Vec::new();
    for line in lines {
        let Some((message, priority)) = message_of(line) else { continue };
        let Some(class) = class_of(&message, priority) else { continue };
        match heaps.iter_mut().find(|heap| heap.class == class) {
            Some(heap) => {
                heap.lines += 1;
                heap.last = message;
            }
            None => heaps.push(Heap { class, lines: 1, last: message }),
        }
    }
    heaps.sort_by(|a, b| b.class.weight.cmp(&a.class.weight).then(b.lines.cmp(&a.lines)));
    heaps
}

/// Returns text and priority. A message that is not valid UTF-8 is an array of bytes (`man 1 journalctl`,
/// json).
fn message_of(line: &str) -> Option<(String, u64)> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let message = match &entry["MESSAGE"] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes = bytes.iter().filter_map(|byte| byte.as_u64()?.try_into().ok());
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        }
        _ => return None,
    };
    let priority = entry["PRIORITY"].as_str().and_then(|text| text.parse().ok()).unwrap_or(6);
    Some((message, priority))
}

fn class_of(message: &str, priority: u64) -> Option<&'static Class> {
    let message = message.to_lowercase();
    let known = CLASSES.iter().find(|class| class.parts.iter().any(|part| message.contains(part)));
    known.or((priority <= ERROR).then_some(&OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, priority: &str) -> String {
        serde_json::json!({ "MESSAGE": message, "PRIORITY": priority }).to_string()
    }

    #[test]
    fn journal_lines_are_classified_and_sorted_by_severity() {
        let lines = [
            line("accepted connection from pid 12, user runner", "6"),
            line("error: unexpected end-of-file", "3"),
            line("warning: SQLite database '/nix/var/nix/db/db.sqlite' is busy", "4"),
            line("error: writing to file: No space left on device", "3"),
            line("error: executing SQLite query: database or disk is full", "3"),
            line("warning: unable to download 'http://[::1]/x.narinfo': Couldn't connect to server", "4"),
            line("something else went wrong", "3"),
            line("guix-daemon.service: Failed with result 'exit-code'.", "4"),
            r#"{"MESSAGE":[101,114,255,78,111,32,115,112,97,99,101,32,108,101,102,116,32,111,110,32,100,101,118,105,99,101],"PRIORITY":"3"}"#.into(),
            r#"{"MESSAGE":null}"#.into(),
            "no JSON".into(),
        ];
        let heaps = sorted(lines.iter().map(String::as_str));
        let told: Vec<_> = heaps.iter().map(|heap| (heap.class.name, heap.lines)).collect();
        assert_eq!(told[..2], [("full disk", 3), ("daemon exit", 1)]);
        let mut rest = told[2..].to_vec();
        rest.sort_unstable();
        let expected =
            [("busy database", 1), ("client disconnected", 1), ("network", 1), ("other error", 1)];
        assert_eq!(rest, expected);
        assert!(heaps[0].last.contains("No space left"), "{}", heaps[0].last);
        assert_eq!(heaps.last().map(|heap| heap.class.weight), Some(Weight::Usual));
    }

    #[test]
    fn class_patterns_are_lower_case_and_reachable() {
        for class in &CLASSES {
            for part in class.parts {
                assert_eq!(part.to_lowercase(), *part);
                assert_eq!(class_of(part, 6).map(|found| found.name), Some(class.name), "{part}");
            }
        }
        assert_eq!(class_of("nothing of note", 6), None);
    }
}
