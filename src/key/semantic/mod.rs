//! What of a workflow can change a store, as lines that are the same for all ways to write it.
//!
//! Left out is what cannot: comments, order, quotes and white space; names, timeouts, concurrency,
//! permissions and triggers; versions of actions that have nothing to do with the store (`pins.rs`).
//! Workflows and actions that are called by path are part of it (`calls.rs`). What is not known to be
//! cosmetic counts.

mod calls;
mod choose;
mod expression;
mod job;
mod pins;
mod script;
mod values;

pub use pins::Pins;

use super::tree::{Tree, shown};
use super::yaml::{Fault, Node};
use crate::snapshot::Digest;
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use values::{below, sorted};

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
            actions: 0,
            calls: 0,
            weight: 0,
            parsed: HashMap::new(),
            contents: HashMap::new(),
            shell: None,
            workflow_shell: None,
            ids: BTreeSet::new(),
            checkouts: Vec::new(),
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

    /// What was left out, by reason.
    pub fn reasons(&self) -> BTreeMap<&'static str, Vec<&Dropped>> {
        let mut reasons: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for dropped in &self.dropped {
            reasons.entry(dropped.why).or_default().push(dropped);
        }
        reasons
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
    /// Paths of calls start here.
    top: PathBuf,
    pins: Pins,
    /// Steps that matter; all without any.
    steps: Vec<globset::GlobMatcher>,
    /// Those of them that were met.
    used: BTreeSet<usize>,
    /// Files that are being read, each called by the one before.
    stack: Vec<PathBuf>,
    /// How many of them are actions.
    actions: usize,
    /// Files that were called, each time counted.
    calls: usize,
    /// What they take when they are written out, in bytes.
    weight: u64,
    parsed: HashMap<PathBuf, Rc<Node>>,
    contents: HashMap<PathBuf, Digest>,
    /// What a script runs in that names no shell.
    shell: Option<String>,
    /// The same of the workflow that is being read.
    workflow_shell: Option<String>,
    /// Steps that texts refer to by their ids.
    ids: BTreeSet<String>,
    /// Where the job checks out its repository, below the directory that its steps start in.
    checkouts: Vec<PathBuf>,
    found: Canonical,
}

/// Parts of a workflow that cannot change what is in a store.
const OF_WORKFLOW: [&str; 5] = ["name", "run-name", "on", "permissions", "concurrency"];

/// A file that is larger is no workflow and no action; in bytes.
const LARGEST: usize = 4 << 20;

impl Reader<'_> {
    /// Parses a file and takes note of it.
    fn load(&mut self, file: &Path) -> Result<Option<Rc<Node>>> {
        let node = match self.parsed.get(file) {
            Some(node) => Rc::clone(node),
            None => {
                let Some(bytes) = self.tree.read(file)? else { return Ok(None) };
                let node = parse(bytes).map_err(|Fault { line, column, what }| Unreadable {
                    file: file.to_owned(),
                    line,
                    column,
                    what,
                })?;
                self.parsed.insert(file.to_owned(), Rc::clone(&node));
                node
            }
        };
        self.take_note(file);
        self.stack.push(file.to_owned());
        Ok(Some(node))
    }

    fn take_note(&mut self, file: &Path) {
        if !self.found.files.iter().any(|known| known == file) {
            self.found.files.push(file.to_owned());
        }
    }

    /// The file that is being read.
    fn file(&self) -> PathBuf {
        self.stack.last().cloned().unwrap_or_default()
    }

    /// What of a workflow is outside of its jobs.
    fn rest_of_workflow(&mut self, path: &str, top: &Node) {
        self.workflow_shell = shell_of(top);
        for pair in sorted(top.pairs().iter()) {
            match pair.key.as_str() {
                "jobs" => {}
                key if OF_WORKFLOW.contains(&key) => {
                    self.dropped(path, pair, "it does not reach the store");
                }
                _ => self.field(path, pair),
            }
        }
    }
}

fn parse(bytes: Vec<u8>) -> Result<Rc<Node>, Fault> {
    let at_the_top = |what: String| Fault { line: 1, column: 1, what };
    if bytes.len() > LARGEST {
        let what = format!("it is larger than {} MiB", LARGEST >> 20);
        return Err(at_the_top(what));
    }
    let text = String::from_utf8(bytes).map_err(|_| at_the_top("it is not UTF-8".into()))?;
    Node::parse(&text)
}

/// The shell that a workflow or a job gives to scripts that name none.
fn shell_of(node: &Node) -> Option<String> {
    Some(node.get("defaults")?.get("run")?.get("shell")?.text()?.to_owned())
}
