//! What of a workflow can change a store, as lines that are the same for all ways to write it.
//!
//! Left out is what cannot: comments, order, quotes and white space; names, timeouts, concurrency,
//! permissions and triggers; versions of actions that have nothing to do with the store (`pins.rs`).
//! Workflows and actions that are called by path are part of it (`calls.rs`). What is not known to be
//! cosmetic counts.

mod calls;
mod expression;
mod job;
mod pins;
mod script;

pub use pins::Pins;

use super::lint::of_a_store;
use super::tree::{Tree, shown};
use super::workflow::read_job;
use super::yaml::{Data, Fault, Node, Pair, Place};
use crate::snapshot::Digest;
use anyhow::{Result, bail};
use calls::Called;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What of a workflow is meant.
#[derive(Debug, Clone, Default)]
pub struct Selection<'a> {
    /// The job that runs; those that keep a store, or else all, when none is named.
    pub job: Option<&'a str>,
    /// Patterns of the steps that matter, by id, name or action; all without any.
    pub steps: &'a [String],
    /// Patterns of actions whose versions do not count, besides the usual ones.
    pub ignore_pins: &'a [String],
}

/// The lines of a workflow, and what was left out on the way.
#[derive(Debug, Default)]
pub struct Canonical {
    pub lines: Vec<Line>,
    pub dropped: Vec<Dropped>,
    /// All files that were read, the workflow first.
    pub files: Vec<PathBuf>,
    /// What somebody should know who relies on it.
    pub notes: Vec<String>,
}

/// A value that counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// As in `job.steps[2].with.version`.
    pub path: String,
    pub text: String,
    #[serde(serialize_with = "shown")]
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

/// A value that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub path: String,
    #[serde(serialize_with = "shown")]
    pub file: PathBuf,
    pub line: usize,
    pub why: &'static str,
}

/// A workflow, or an action that it calls, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}:{column}: {what}", .file.display())]
pub struct Unreadable {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub what: String,
}

impl Canonical {
    /// Reads a workflow of a tree.
    ///
    /// # Errors
    /// [`Unreadable`]; also when it is not there, or has no such job or step.
    pub fn of(tree: &dyn Tree, file: &Path, selection: &Selection) -> Result<Self> {
        let pins = Pins::new(selection.ignore_pins)?;
        let steps = pins::patterns("--workflow-steps", selection.steps)?;
        let mut reader = Reader {
            tree,
            top: top(file),
            pins,
            steps,
            used: BTreeSet::new(),
            stack: Vec::new(),
            calls: 0,
            found: Canonical::default(),
        };
        let Some(workflow) = reader.load(file)? else {
            bail!("read the workflow {}: {} has no such file", file.display(), tree.describe());
        };
        reader.workflow(&workflow, selection)?;
        if let Some(unused) = (0..selection.steps.len()).find(|at| !reader.used.contains(at)) {
            let pattern = &selection.steps[unused];
            let among = match selection.job {
                Some(job) => format!("in the job {job:?}"),
                None => "in its jobs".into(),
            };
            bail!(
                "--workflow-steps {pattern:?} is no step of {} {among}: name one by its id, its name, \
                 or its action without the version",
                file.display()
            );
        }
        Ok(reader.found)
    }

    /// Over paths and texts. Where a value stands does not count.
    pub fn digest(&self) -> Digest {
        let mut parts = Vec::new();
        for line in &self.lines {
            for part in [&line.path, &line.text] {
                // Lengths keep two lines from looking like one.
                parts.extend_from_slice(&(part.len() as u64).to_be_bytes());
                parts.extend_from_slice(part.as_bytes());
            }
        }
        Digest::of(&parts)
    }
}

/// The directory that paths of calls start from: what has the `.github` that a workflow is in.
fn top(file: &Path) -> PathBuf {
    let github = file.ancestors().find(|path| path.file_name().is_some_and(|it| it == ".github"));
    github.and_then(Path::parent).unwrap_or(Path::new("")).to_owned()
}

struct Reader<'a> {
    tree: &'a dyn Tree,
    top: PathBuf,
    pins: Pins,
    /// Steps that matter; all without any.
    steps: Vec<globset::GlobMatcher>,
    /// Those of them that were met.
    used: BTreeSet<usize>,
    /// Files that are being read, each called by the one before.
    stack: Vec<PathBuf>,
    /// Files that were called, each time counted.
    calls: usize,
    found: Canonical,
}

/// Parts of a workflow that cannot change what is in a store.
const OF_WORKFLOW: [&str; 5] = ["name", "run-name", "on", "permissions", "concurrency"];

impl Reader<'_> {
    /// Parses a file and takes note of it.
    fn load(&mut self, file: &Path) -> Result<Option<Rc<Node>>> {
        let Some(bytes) = self.tree.read(file)? else { return Ok(None) };
        let unreadable =
            |Fault { line, column, what }| Unreadable { file: file.to_owned(), line, column, what };
        let text = String::from_utf8(bytes).map_err(|_| {
            unreadable(Fault { line: 1, column: 1, what: "it is not UTF-8".into() })
        })?;
        let node = Node::parse(&text).map_err(unreadable)?;
        if !self.found.files.iter().any(|known| known == file) {
            self.found.files.push(file.to_owned());
        }
        self.stack.push(file.to_owned());
        Ok(Some(node))
    }

    /// The file that is being read.
    fn file(&self) -> PathBuf {
        self.stack.last().cloned().unwrap_or_default()
    }

    fn workflow(&mut self, top: &Node, selection: &Selection) -> Result<()> {
        let Some(jobs) = top.get("jobs") else {
            let (file, what) = (self.file(), "it has no `jobs`, so it is no workflow".into());
            return Err(Unreadable { file, line: 1, column: 1, what }.into());
        };
        self.rest_of_workflow("", top);
        let Some(wanted) = selection.job else {
            let keeps = |job: &&Pair| read_job(&job.value).steps.iter().any(of_a_store);
            let keepers: Vec<_> = jobs.pairs().iter().filter(keeps).collect();
            return match keepers.as_slice() {
                [only] => self.job("job", &only.value),
                some => {
                    if some.len() > 1 {
                        let names: Vec<_> = some.iter().map(|job| job.key.as_str()).collect();
                        self.found.notes.push(format!(
                            "the jobs {} of {} keep a store; in a job only its own part counts: name \
                             it with --workflow-job",
                            names.join(", "),
                            self.file().display()
                        ));
                    }
                    let all = jobs.pairs().iter().filter(|job| {
                        some.is_empty() || some.iter().any(|keeper| keeper.key == job.key)
                    });
                    self.jobs("", all)
                }
            };
        };
        if let Some(job) = jobs.get(wanted) {
            return self.job("job", job);
        }
        // A job of a workflow that one of these calls.
        let mut any = false;
        for caller in sorted(jobs.pairs().iter()) {
            if let Some(uses) = caller.value.get("uses").and_then(|uses| uses.text())
                && let Some(file) = self.local(uses)
                && let Some(called) = self.enter(&file)?
            {
                let job = called.get("jobs").and_then(|jobs| jobs.get(wanted)).cloned();
                self.leave();
                if let Some(job) = job {
                    any = true;
                    self.called_job(&caller.value, &file, &called, &job)?;
                }
            }
        }
        if !any {
            let names: Vec<_> = jobs.pairs().iter().map(|job| job.key.as_str()).collect();
            bail!(
                "{} has no job {wanted:?}, nor has a workflow that it calls by path; it has {}",
                self.file().display(),
                names.join(", ")
            );
        }
        Ok(())
    }

    /// What of a workflow is outside of its jobs.
    fn rest_of_workflow(&mut self, path: &str, top: &Node) {
        for pair in sorted(top.pairs().iter()) {
            match pair.key.as_str() {
                "jobs" => {}
                key if OF_WORKFLOW.contains(&key) => {
                    self.dropped(path, pair, "it does not reach the store");
                }
                _ => self.pair(path, pair),
            }
        }
    }

    fn jobs<'n>(&mut self, path: &str, jobs: impl Iterator<Item = &'n Pair>) -> Result<()> {
        for job in sorted(jobs) {
            self.job(&below(&below(path, "jobs"), &job.key), &job.value)?;
        }
        Ok(())
    }

    /// All below a node counts.
    fn all(&mut self, path: &str, node: &Node) {
        match &node.data {
            Data::Null => {}
            Data::Text(text) => self.line(path, text, node.place),
            Data::Sequence(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    self.all(&format!("{path}[{at}]"), element);
                }
            }
            Data::Mapping(pairs) => {
                sorted(pairs.iter()).into_iter().for_each(|pair| self.pair(path, pair));
            }
        }
    }

    fn pair(&mut self, path: &str, pair: &Pair) {
        self.all(&below(path, &pair.key), &pair.value);
    }

    /// All below a node counts, but not the order of a list.
    fn set(&mut self, path: &str, node: &Node) {
        let mut elements: Vec<_> = node.elements().iter().collect();
        if elements.is_empty() || elements.iter().any(|element| element.text().is_none()) {
            return self.all(path, node);
        }
        elements.sort_by(|a, b| a.text().cmp(&b.text()));
        for (at, element) in elements.into_iter().enumerate() {
            self.all(&format!("{path}[{at}]"), element);
        }
    }

    fn line(&mut self, path: &str, text: &str, Place { line, .. }: Place) {
        let (path, text, file) = (path.to_owned(), expression::tidy(text), self.file());
        self.found.lines.push(Line { path, text, file, line });
    }

    fn dropped(&mut self, path: &str, pair: &Pair, why: &'static str) {
        let (path, file, line) = (below(path, &pair.key), self.file(), pair.place.line);
        self.found.dropped.push(Dropped { path, file, line, why });
    }

    /// A file of the work tree that is named `./like/this`.
    fn local(&self, uses: &str) -> Option<PathBuf> {
        let below = uses.trim().strip_prefix("./")?;
        Some(self.top.join(below.trim_end_matches('/')))
    }
}

/// By their keys, whatever order they are in.
fn sorted<'n>(pairs: impl Iterator<Item = &'n Pair>) -> Vec<&'n Pair> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.key.cmp(&b.key));
    pairs
}

fn below(path: &str, key: &str) -> String {
    let quoted = key.contains(['.', '[', '"']).then(|| format!("{key:?}"));
    let key = quoted.as_deref().unwrap_or(key);
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
