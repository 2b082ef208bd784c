//! Extracts the parts of a workflow that can change a store, as lines that do not depend on formatting.
//!
//! Irrelevant parts are left out: comments, order, quotes and white space; names, timeouts, concurrency,
//! permissions and triggers; versions of actions that do not affect the store (`ignored_pins.rs`). Workflows and
//! actions that are called by path are included (`reusable.rs`). Everything that is not known to be cosmetic
//! counts.

mod expression;
mod flatten;
mod ignored_pins;
mod job;
mod reusable;
mod script;
mod select_jobs;

pub use ignored_pins::Pins;

use super::file_source::{Tree, shown};
use super::yaml::{Node, YamlError};
use anyhow::{Result, anyhow, bail};
use flatten::{below, sorted};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storecache_entry::Digest;
use storecache_runtime::advice::WithAdvice;

/// The selected parts of a workflow.
#[derive(Debug, Clone, Default)]
pub struct Selection<'a> {
    /// The job to read. If `None`, the jobs that cache a store, or else all.
    pub job: Option<&'a str>,
    /// Patterns of the steps that count, by id, name or action; empty means all.
    pub steps: &'a [String],
    /// Patterns of actions whose versions do not count, besides the usual ones.
    pub ignore_pins: &'a [String],
}

/// The lines of a workflow, and the values that were left out.
#[derive(Debug, Default)]
pub struct Canonical {
    pub lines: Vec<CanonicalLine>,
    pub dropped: Vec<Dropped>,
    /// All files that were read, the workflow first.
    pub files: Vec<PathBuf>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// A value that counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CanonicalLine {
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

/// The error for a workflow, or an action that it calls, that cannot be read.
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
    /// [`Unreadable`]; also if the file does not exist, or has no such job or step.
    pub fn new(tree: &dyn Tree, file: &Path, selection: &Selection) -> Result<Self> {
        let pins = Pins::new(selection.ignore_pins)?;
        let steps = ignored_pins::patterns("--workflow-steps", selection.steps)?;
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
                anyhow!(
                    "--workflow-steps {pattern:?} matches no step of {} {among}",
                    file.display()
                )
                .hint("name a step by its id, its name, or its action without the version")
            );
        }
        Ok(reader.found)
    }

    /// Returns the values that were left out, by reason.
    pub fn reasons(&self) -> BTreeMap<&'static str, Vec<&Dropped>> {
        let mut reasons: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for dropped in &self.dropped {
            reasons.entry(dropped.why).or_default().push(dropped);
        }
        reasons
    }

    /// Returns a digest of paths and texts, but not of positions.
    pub fn digest(&self) -> Digest {
        let mut parts = Vec::new();
        for line in &self.lines {
            for part in [&line.path, &line.text] {
                // Lengths make the encoding unambiguous.
                parts.extend_from_slice(&(part.len() as u64).to_be_bytes());
                parts.extend_from_slice(part.as_bytes());
            }
        }
        Digest::hash(&parts)
    }
}

/// Returns the directory that calls by path are relative to: the parent of `.github`.
fn top(file: &Path) -> PathBuf {
    let github = file.ancestors().find(|path| path.file_name().is_some_and(|it| it == ".github"));
    github.and_then(Path::parent).unwrap_or(Path::new("")).to_owned()
}

struct Reader<'a> {
    tree: &'a dyn Tree,
    /// Calls by path are relative to this directory.
    top: PathBuf,
    pins: Pins,
    /// Patterns of the steps that count; empty means all.
    steps: Vec<globset::GlobMatcher>,
    /// Indices of the patterns that matched a step.
    used: BTreeSet<usize>,
    /// Files that are being read, each called by the one before.
    stack: Vec<PathBuf>,
    /// How many of the files on the stack are actions.
    actions: usize,
    /// Number of calls so far.
    calls: usize,
    /// Expanded size of all calls so far, in bytes.
    weight: u64,
    parsed: HashMap<PathBuf, Rc<Node>>,
    contents: HashMap<PathBuf, Digest>,
    /// The default shell of scripts in the current job.
    shell: Option<String>,
    /// The default shell of the current workflow.
    workflow_shell: Option<String>,
    /// Ids of steps that the current job or action refers to.
    ids: BTreeSet<String>,
    /// Directories that the current job checks out its own repository into, relative to the workspace.
    checkouts: Vec<PathBuf>,
    found: Canonical,
}

/// Parts of a workflow that cannot change the content of a store.
const OF_WORKFLOW: [&str; 5] = ["name", "run-name", "on", "permissions", "concurrency"];

/// A larger file is not accepted as a workflow or an action; in bytes.
const LARGEST: usize = 4 << 20;

impl Reader<'_> {
    /// Parses a file, records it, and pushes it on the stack.
    fn load(&mut self, file: &Path) -> Result<Option<Rc<Node>>> {
        let node =
            match self.parsed.get(file) {
                Some(node) => Rc::clone(node),
                None => {
                    let Some(bytes) = self.tree.read(file)? else { return Ok(None) };
                    let node = parse(bytes).map_err(|YamlError { line, column, what }| {
                        Unreadable { file: file.to_owned(), line, column, what }
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

    /// Returns the file that is being read.
    fn file(&self) -> PathBuf {
        self.stack.last().cloned().unwrap_or_default()
    }

    /// Adds the parts of a workflow outside of its jobs.
    fn rest_of_workflow(&mut self, path: &str, top: &Node) {
        self.workflow_shell = shell_of(top);
        for pair in sorted(top.pairs().iter()) {
            match pair.key.as_str() {
                "jobs" => {}
                key if OF_WORKFLOW.contains(&key) => {
                    self.dropped(path, pair, "it does not affect the store");
                }
                _ => self.field(path, pair),
            }
        }
    }
}

fn parse(bytes: Vec<u8>) -> Result<Rc<Node>, YamlError> {
    let at_the_top = |what: String| YamlError { line: 1, column: 1, what };
    if bytes.len() > LARGEST {
        let what = format!("it is larger than {} MiB", LARGEST >> 20);
        return Err(at_the_top(what));
    }
    let text = String::from_utf8(bytes).map_err(|_| at_the_top("it is not UTF-8".into()))?;
    Node::parse(&text)
}

/// Returns the default shell that a workflow or a job sets.
fn shell_of(node: &Node) -> Option<String> {
    Some(node.get("defaults")?.get("run")?.get("shell")?.text()?.to_owned())
}
