//! Collects candidates: ingredients that the heads of snapshots name, and files of the commits that the
//! snapshots were made from.

use super::{Candidate, Trace};
use crate::git::{Files, ObjectId, Repository};
use crate::ingredients::{FILES, SEMANTIC, WORKFLOW, gather};
use crate::{KeyOptions, WorkflowMode};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storecache_entry::Digest;

/// Maximum number of files that become candidates: first those that look like lock files, then those that
/// change least.
const MOST: usize = 4000;

/// Something that can be put into a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingredient {
    /// A pattern of `--hash-files` that snapshots were made with.
    Pattern(String),
    /// The workflow that snapshots were made with, and the mode. Heads do not record which file it was.
    SomeWorkflow(WorkflowMode),
    /// A file of commits, by its path below the top.
    File(PathBuf),
    /// The semantic hash of a workflow of commits.
    Workflow(PathBuf),
    /// An ingredient of a head with a name that this version does not know.
    Unknown(String),
}

impl Ingredient {
    /// Returns the name to display.
    pub fn name(&self) -> String {
        match self {
            Ingredient::Pattern(pattern) => format!("{FILES}{pattern}"),
            Ingredient::SomeWorkflow(WorkflowMode::Semantic) => SEMANTIC.into(),
            Ingredient::SomeWorkflow(_) => WORKFLOW.into(),
            Ingredient::File(path) => path.display().to_string(),
            Ingredient::Workflow(path) => format!("{} (semantic)", path.display()),
            Ingredient::Unknown(name) => name.clone(),
        }
    }

    /// Returns the rank among ingredients that explain the store equally well; lower is better.
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

    /// Returns whether only the times of its changes suggest this file. With few changes that may be a
    /// coincidence.
    pub fn is_any_file(&self) -> bool {
        matches!(self, Ingredient::File(path) if !is_like_a_lock(path) && !is_workflow(path))
    }

    /// Returns a sort key that puts preferred ingredients first: by rank, then by the length of the name.
    pub fn preference(&self) -> (usize, usize, String) {
        let name = self.name();
        (self.rank(), name.len(), name)
    }
}

/// Returns whether the name of the file suggests that it determines the content of a store.
fn is_like_a_lock(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let endings = [".lock", ".nix", ".scm"];
    let names = [".tool-versions", "devbox.json", "devenv.yaml"];
    // npins/sources.json, nix/sources.json
    let pins = name == "sources.json" && path.components().count() > 1;
    endings.iter().any(|ending| name.ends_with(ending)) || names.contains(&&*name) || pins
}

/// Returns whether GitHub treats the file as a workflow.
pub(super) fn is_workflow(path: &Path) -> bool {
    let ending = path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
    path.parent() == Some(Path::new(".github/workflows")) && ending
}

/// Returns the ingredients that heads name; the heads are in the order of the observations. If a head does
/// not have an ingredient, it is unknown whether the ingredient changed.
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
        Candidate { ingredient, trace: Trace::new(&values) }
    };
    names.into_iter().map(candidate).collect()
}

/// Candidates from commits.
#[derive(Debug, Default)]
pub struct InCommits {
    pub candidates: Vec<Candidate>,
    /// Files that the last commit does not have any more, so that no key can be made from them.
    pub gone: Vec<Candidate>,
}

/// Returns the files that changed between two of the commits, and the semantic hashes of the workflows among
/// them. The commits are in the order of the observations. Files that do not look like lock files count only
/// if they changed at a time for which `matters` is true. Only files of the last commit can go into a key;
/// the others are returned as `gone`.
///
/// # Errors
/// If git fails.
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
    // Drop the files that change most often: a file that changes every time explains nothing.
    candidates.sort_by_key(|one| (one.ingredient.rank(), one.trace.changes()));
    candidates.truncate(MOST);
    Ok(InCommits { candidates, gone: gone.into_iter().map(file).collect() })
}

fn file((path, trace): (PathBuf, Trace)) -> Candidate {
    Candidate { ingredient: Ingredient::File(path), trace }
}

/// Returns the files that differ between two commits, as paths below the top.
fn changed(repository: &Repository, from: &ObjectId, to: &ObjectId) -> Result<Vec<PathBuf>> {
    let words = ["diff-tree", "-r", "-z", "--raw", "--no-renames", from.as_str(), to.as_str()];
    let listed = repository.ask(words)?;
    // Each record is `:MODE MODE ID ID STATUS`, then the path.
    let mut fields = listed.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let mut paths = Vec::new();
    while let Some(facts) = fields.next() {
        let path = fields.next().context("git diff-tree: a change without a path")?;
        // Skip submodules.
        if !facts.starts_with(b":160000") && facts.get(8..14) != Some(b"160000") {
            paths.push(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    Ok(paths)
}

/// Returns whether the text can be a line of an input, without surrounding blanks.
fn is_one_line(text: &str) -> bool {
    text.trim() == text && !text.contains(char::is_control)
}

/// Computes the semantic hash of each workflow at each commit; unknown if the workflow cannot be interpreted.
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
        let trace = Trace::new(&values.collect::<Vec<_>>());
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
        return Some(Digest::hash(b""));
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
    fn lock_and_workflow_files_are_recognized() {
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
