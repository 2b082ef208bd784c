//! Where candidates come from: what the heads of snapshots name, and the files of the commits that they
//! were made from.

use super::{Candidate, Trace};
use crate::key::git::{Files, ObjectId, Repository};
use crate::key::ingredients::{FILES, SEMANTIC, WORKFLOW, gather};
use crate::options::{KeyOptions, WorkflowMode};
use crate::snapshot::Digest;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Files that become candidates at most; those that look like locks first, then those that change
/// least.
const MOST: usize = 4000;

/// Something to put into a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingredient {
    /// A pattern of `--hash-files` that snapshots were made with.
    Pattern(String),
    /// The workflow that snapshots were made with, and how; which one, no head tells.
    SomeWorkflow(WorkflowMode),
    /// A file of commits, by its path below the top.
    File(PathBuf),
    /// What a workflow of commits means.
    Workflow(PathBuf),
    /// A head names it, and this version does not know it.
    Unknown(String),
}

impl Ingredient {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Ingredient::Pattern(pattern) => format!("{FILES}{pattern}"),
            Ingredient::SomeWorkflow(WorkflowMode::Semantic) => SEMANTIC.into(),
            Ingredient::SomeWorkflow(_) => WORKFLOW.into(),
            Ingredient::File(path) => path.display().to_string(),
            Ingredient::Workflow(path) => format!("{} (what it means)", path.display()),
            Ingredient::Unknown(name) => name.clone(),
        }
    }

    /// How little it is preferred to others that do as well.
    pub fn rank(&self) -> usize {
        match self {
            Ingredient::File(path) if is_like_a_lock(path) => 0,
            Ingredient::Pattern(_) => 1,
            Ingredient::Workflow(_) => 2,
            Ingredient::File(path) if is_workflow(path) => 3,
            Ingredient::SomeWorkflow(_) => 4,
            Ingredient::File(_) => 5,
            Ingredient::Unknown(_) => 6,
        }
    }

    /// Whether nothing but the times of its changes speaks for it: that may be chance where they are few.
    pub fn is_any_file(&self) -> bool {
        matches!(self, Ingredient::File(path) if !is_like_a_lock(path) && !is_workflow(path))
    }

    /// Sorts the preferred before the others: by rank, then the shortest name.
    pub fn preference(&self) -> (usize, usize, String) {
        let name = self.name();
        (self.rank(), name.len(), name)
    }
}

/// Whether a file by its name says what a store is made of.
fn is_like_a_lock(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let endings = [".lock", ".nix", ".scm"];
    let names = [".tool-versions", "devbox.json", "devenv.yaml"];
    // npins/sources.json, nix/sources.json
    let pins = name == "sources.json" && path.components().count() > 1;
    endings.iter().any(|ending| name.ends_with(ending)) || names.contains(&&*name) || pins
}

/// Whether GitHub takes it for a workflow.
pub(super) fn is_workflow(path: &Path) -> bool {
    let ending = path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
    path.parent() == Some(Path::new(".github/workflows")) && ending
}

/// The ingredients that heads name, given in the order of the observations. Where a head has none of a
/// name, it is not known whether that has changed.
pub fn of_heads(heads: &[&BTreeMap<String, Digest>]) -> Vec<Candidate> {
    let mut names: Vec<&str> = heads.iter().flat_map(|head| head.keys()).map(|k| &**k).collect();
    names.sort_unstable();
    names.dedup();
    let candidate = |name: &str| {
        let values: Vec<_> = heads.iter().map(|head| head.get(name)).collect();
        let ingredient = match name.strip_prefix(FILES) {
            Some(pattern) if is_one_line(pattern) => Ingredient::Pattern(pattern.to_owned()),
            None if name == WORKFLOW => Ingredient::SomeWorkflow(WorkflowMode::Bytes),
            None if name == SEMANTIC => Ingredient::SomeWorkflow(WorkflowMode::Semantic),
            _ => Ingredient::Unknown(name.escape_debug().to_string()),
        };
        Candidate { ingredient, trace: Trace::of(&values) }
    };
    names.into_iter().map(candidate).collect()
}

/// What was found in commits.
#[derive(Debug, Default)]
pub struct InCommits {
    pub candidates: Vec<Candidate>,
    /// What would be, had the last commit still the file: no key can be made of it.
    pub gone: Vec<Candidate>,
}

/// The files of commits, given in the order of the observations, that changed between two of them, and
/// what the workflows among them mean. Of files that do not look like locks only those which changed at
/// one of the times that `matters`, and of all only those that the last commit has: no other can go
/// into a key.
///
/// # Errors
/// When git fails.
pub fn of_commits(
    repository: &Repository,
    commits: &[ObjectId],
    matters: impl Fn(usize) -> bool,
) -> Result<InCommits> {
    let Some(last) = commits.last() else { return Ok(InCommits::default()) };
    let mut traces: BTreeMap<PathBuf, Trace> = BTreeMap::new();
    let mut known: HashMap<(&ObjectId, &ObjectId), Vec<PathBuf>> = HashMap::new();
    let pairs = commits.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]);
    let mut helps: HashMap<PathBuf, bool> = HashMap::new();
    for (at, pair) in pairs {
        let changed = match known.get(&(&pair[0], &pair[1])) {
            Some(paths) => paths.clone(),
            None => changed(repository, &pair[0], &pair[1])?,
        };
        for path in &changed {
            let trace = traces.entry(path.clone()).or_insert_with(|| Trace::still(commits.len()));
            trace.change(at);
            *helps.entry(path.clone()).or_default() |= matters(at);
        }
        known.insert((&pair[0], &pair[1]), changed);
    }
    let there = Rc::new(repository.files(last)?);
    traces.retain(|path, _| {
        let useful = helps.get(path).copied().unwrap_or_default() || is_like_a_lock(path);
        useful && path.to_str().is_some_and(is_one_line)
    });
    let (traces, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
        traces.into_iter().partition(|(path, _)| there.contains_key(path));
    let workflows: Vec<_> = traces.keys().filter(|path| is_workflow(path)).cloned().collect();
    let meanings = meanings(repository, commits, &workflows)?;
    let mut candidates: Vec<_> = traces.into_iter().map(file).chain(meanings).collect();
    // Whatever changes at every turn explains nothing.
    candidates.sort_by_key(|one| (one.ingredient.rank(), one.trace.changes()));
    candidates.truncate(MOST);
    Ok(InCommits { candidates, gone: gone.into_iter().map(file).collect() })
}

fn file((path, trace): (PathBuf, Trace)) -> Candidate {
    Candidate { ingredient: Ingredient::File(path), trace }
}

/// The files that differ between two commits, by their paths below the top.
fn changed(repository: &Repository, from: &ObjectId, to: &ObjectId) -> Result<Vec<PathBuf>> {
    let words = ["diff-tree", "-r", "-z", "--raw", "--no-renames", from.as_str(), to.as_str()];
    let listed = repository.ask(words)?;
    // `:MODE MODE ID ID STATUS`, then the path.
    let mut fields = listed.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let mut paths = Vec::new();
    while let Some(facts) = fields.next() {
        let path = fields.next().context("git diff-tree: a change without a path")?;
        // Other repositories are commits here, and no files.
        if !facts.starts_with(b":160000") && facts.get(8..14) != Some(b"160000") {
            paths.push(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    Ok(paths)
}

/// Whether a line of an input can be this, without blanks around it.
fn is_one_line(text: &str) -> bool {
    text.trim() == text && !text.contains(char::is_control)
}

/// What workflows mean at each of the commits; not known where one is not understood.
fn meanings(
    repository: &Repository,
    commits: &[ObjectId],
    workflows: &[PathBuf],
) -> Result<Vec<Candidate>> {
    let mut digests: HashMap<&ObjectId, Vec<Option<Digest>>> = HashMap::new();
    if workflows.is_empty() {
        return Ok(Vec::new());
    }
    for commit in commits {
        if !digests.contains_key(commit) {
            let files = Rc::new(repository.files(commit)?);
            let of = workflows.iter().map(|path| meaning(repository, commit, &files, path));
            digests.insert(commit, of.collect());
        }
    }
    let candidate = |(at, path): (usize, &PathBuf)| {
        let values = commits.iter().map(|commit| *digests.get(commit)?.get(at)?);
        let trace = Trace::of(&values.collect::<Vec<_>>());
        Candidate { ingredient: Ingredient::Workflow(path.clone()), trace }
    };
    Ok(workflows.iter().enumerate().map(candidate).collect())
}

fn meaning(
    repository: &Repository,
    commit: &ObjectId,
    files: &Rc<Files>,
    path: &Path,
) -> Option<Digest> {
    if !files.contains_key(path) {
        return Some(Digest::of(b""));
    }
    let options = KeyOptions {
        key: None,
        restore_keys: Vec::new(),
        prefix: String::new(),
        version: None,
        hash_files: Vec::new(),
        workflow: Some(repository.top().join(path)),
        workflow_mode: WorkflowMode::Semantic,
        workflow_job: None,
        workflow_steps: Vec::new(),
        ignore_pins: Vec::new(),
        in_job: false,
    };
    let tree = repository.tree(commit.as_str(), Rc::clone(files));
    let ingredients = gather(&options, &tree).ok()?;
    ingredients.first().map(|ingredient| ingredient.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_lock_is_preferred() {
        for path in ["flake.lock", "nix/pins.nix", "guix/channels.scm", "npins/sources.json"] {
            assert!(is_like_a_lock(Path::new(path)), "{path}");
        }
        for path in ["sources.json", "README.md", "lock", "a.nix.md"] {
            assert!(!is_like_a_lock(Path::new(path)), "{path}");
        }
        assert!(is_workflow(Path::new(".github/workflows/ci.yml")));
        assert!(!is_workflow(Path::new("a/.github/workflows/ci.yml")));
    }
}
