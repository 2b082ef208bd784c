//! Git repositories with arbitrary histories, written as one stream for `git fast-import`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::invocation::Output;
use super::plain_env::{output, storecache_in};
use super::world_runs::report;

/// Start of the histories in seconds since 1970: 2025-01-01.
pub const BEGIN: i64 = 1_735_689_600;

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;

/// Path of the workflow.
pub const WORKFLOW: &str = ".github/workflows/ci.yml";

/// A workflow that keeps a store and runs a command. The comment does not affect the store.
pub fn workflow(command: &str, comment: &str) -> String {
    format!(
        "# {comment}\non: [push, pull_request]\njobs:\n  test:\n    runs-on: ubuntu-24.04\n    steps:\n\
         \x20     - uses: example/storecache@v1\n      - run: {command}\n"
    )
}

/// A history that is being written.
#[derive(Default)]
pub struct History {
    stream: Vec<u8>,
    commits: usize,
}

/// A commit, by its number from 1.
pub type Mark = usize;

impl History {
    /// Adds a commit to a branch, this many seconds after the start, with the given changes. Its first parent
    /// is `parents[0]`, or else the tip of the branch. The other parents are merged.
    pub fn commit(
        &mut self,
        branch: impl AsRef<[u8]>,
        after: i64,
        parents: &[Mark],
        files: &[(&str, &str)],
    ) -> Mark {
        let changes = files.iter().map(|(path, content)| {
            let quoted = format!("{path:?}").into_bytes();
            (quoted, content.as_bytes())
        });
        self.commit_bytes(branch.as_ref(), after, parents, changes)
    }

    /// As [`History::commit`], with quoted paths as `git fast-import` reads them.
    pub fn commit_bytes<'a>(
        &mut self,
        branch: &[u8],
        after: i64,
        parents: &[Mark],
        files: impl IntoIterator<Item = (Vec<u8>, &'a [u8])>,
    ) -> Mark {
        self.commits += 1;
        let (mark, time) = (self.commits, BEGIN + after);
        let out = &mut self.stream;
        out.extend_from_slice(b"commit refs/heads/");
        out.extend_from_slice(branch);
        writeln!(out, "\nmark :{mark}\ncommitter A <a@example.org> {time} +0000\ndata 1\nx")
            .unwrap();
        let words = ["from"].into_iter().chain(std::iter::repeat("merge"));
        for (word, parent) in words.zip(parents) {
            writeln!(out, "{word} :{parent}").unwrap();
        }
        for (path, content) in files {
            out.extend_from_slice(b"M 100644 inline ");
            out.extend_from_slice(&path);
            writeln!(out, "\ndata {}", content.len()).unwrap();
            out.extend_from_slice(content);
            out.push(b'\n');
        }
        mark
    }

    /// Points a ref to a commit.
    pub fn reset(&mut self, reference: &str, mark: Mark) {
        writeln!(self.stream, "reset {reference}\nfrom :{mark}\n").unwrap();
    }

    /// Writes the repository and checks out `main` if it exists.
    pub fn write(self) -> Repository {
        self.write_as("sha1")
    }

    /// As [`History::write`], with another object format.
    pub fn write_as(self, format: &str) -> Repository {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository { directory };
        let format = format!("--object-format={format}");
        repository.git(&["init", "--quiet", "--initial-branch=main", &format]);
        let mut import = repository.command(&["fast-import", "--quiet", "--force"]);
        let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
        import.stdin.take().unwrap().write_all(&self.stream).unwrap();
        assert!(import.wait().unwrap().success());
        repository
    }
}

/// A repository on disk.
pub struct Repository {
    directory: TempDir,
}

impl Repository {
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.directory.path());
        command.args(["-c", "protocol.file.allow=always"]).args(words);
        command
    }

    #[track_caller]
    pub fn git(&self, words: &[&str]) -> String {
        output(&mut self.command(words)).ok().stdout.trim().to_owned()
    }

    /// Clones over the transport protocol, so that the clone can be shallow or partial.
    pub fn clone(&self, words: &[&str]) -> Repository {
        self.git(&["config", "uploadpack.allowFilter", "true"]);
        let copy = Repository { directory: tempfile::tempdir().unwrap() };
        let url = format!("file://{}", self.directory.path().display());
        copy.git(&[&["clone", "--quiet"], words, &[&url, "."]].concat());
        copy
    }

    /// Runs `key simulate`, whatever the outcome. Unless `more` names a backend, there are no snapshots of
    /// the past.
    pub fn attempt(&self, more: &[&str]) -> Output {
        self.attempt_in(self.directory.path(), more)
    }

    pub fn attempt_in(&self, directory: &Path, more: &[&str]) -> Output {
        let nowhere = format!("dir:{}", self.directory.path().join("nowhere").display());
        let words = ["key", "simulate"].iter().map(OsStr::new);
        let backend: &[&str] =
            if more.contains(&"--backend") { &[] } else { &["--backend", &nowhere] };
        let more = more.iter().chain(backend).map(OsStr::new);
        storecache_in(directory, words.chain(more))
    }

    /// Runs `key simulate` and returns its report.
    #[track_caller]
    pub fn simulate(&self, more: &[&str]) -> Value {
        report(&self.attempt(&[more, &["--json"]].concat()).ok())
    }
}

/// A history of 10,000 commits in 200 blocks of 50 hours. Each block begins with an edit of the workflow on
/// `main`: in every other block it changes a command that the store depends on, in the others only a comment.
/// Then follow 29 commits on `main`, 19 commits of a pull request, and its merge.
pub fn history_of_ten_thousand_commits() -> History {
    let mut history = History::default();
    let mut hour = 0;
    let mut hours = move || {
        hour += 1;
        (hour - 1) * HOUR
    };
    let mut tip: Vec<Mark> = Vec::new();
    for block in 0..200 {
        let edited =
            workflow(&format!("guix shell package-{}", (block + 1) / 2), &block.to_string());
        let start: Vec<(String, String)> = match block {
            0 => (0..40).map(|n| (format!("src/{n}/file"), n.to_string())).collect(),
            _ => Vec::new(),
        };
        let mut files: Vec<(&str, &str)> =
            start.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
        files.push((WORKFLOW, &edited));
        tip = vec![history.commit("main", hours(), &tip, &files)];
        for n in 0..29 {
            let (path, content) = (format!("src/{n}/file"), format!("{block} {n}"));
            tip = vec![history.commit("main", hours(), &tip, &[(&path, &content)])];
        }
        let mut side = tip.clone();
        for n in 0..19 {
            let (path, content) = (format!("topic/{block}/{n}"), n.to_string());
            side = vec![history.commit("topic", hours(), &side, &[(&path, &content)])];
        }
        tip = vec![history.commit("main", hours(), &[tip[0], side[0]], &[])];
    }
    history.reset("refs/heads/topic", tip[0]);
    history
}
