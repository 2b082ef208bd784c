//! The relevant files at each commit. Commits with identical files share one state.
//!
//! States are computed from `git diff-tree`, so that the cost of a state is that of its changes. The files of
//! a pattern are represented by a sum of hashes, one hash for each path with its blob; a removed file is
//! subtracted from the sum. Only workflows and the files that they may call are kept as lists, because they
//! are read later.

use super::super::git::{Blob, Files, ObjectId, Repository};
use super::commit_graph::Graph;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::rc::Rc;
use storecache_entry::Digest;
use storecache_runtime::advice::WithAdvice;
use storecache_workflow::file_source::{Pattern, normalize};

/// The set of relevant files.
pub struct Watch<'r> {
    repository: &'r Repository,
    /// Every state has one sum for each of these.
    patterns: &'r [FilePattern],
    /// Path of the workflow below the top of the work tree.
    workflow: Option<PathBuf>,
    /// Relevant symbolic links by their targets: a change of the target counts as a change of the link.
    links: HashMap<PathBuf, Vec<PathBuf>>,
}

/// A pattern of relevant files.
#[derive(Debug)]
pub struct FilePattern {
    pattern: Pattern,
    text: String,
    /// Whether the pattern matches paths below the top of the work tree, instead of the names that flags use,
    /// which are relative to the current directory.
    everywhere: bool,
}

impl FilePattern {
    /// Returns a pattern of file names as flags give them.
    ///
    /// # Errors
    /// If it is not a valid pattern.
    pub fn here(text: &str) -> Result<Self> {
        Ok(FilePattern { pattern: Pattern::parse(text)?, text: text.to_owned(), everywhere: false })
    }

    /// Returns a pattern of paths in the whole work tree.
    pub fn everywhere(text: &str) -> Result<Self> {
        Ok(FilePattern { everywhere: true, ..Self::here(text)? })
    }

    pub fn is_same(&self, other: &Self) -> bool {
        (&self.text, self.everywhere) == (&other.text, other.everywhere)
    }

    /// Returns whether the pattern matches the file at `path` below the top.
    fn holds(&self, path: &Path, repository: &Repository) -> bool {
        if self.everywhere {
            return self.pattern.fits(path);
        }
        let called = repository.called(path, &self.pattern);
        called.is_some_and(|called| self.pattern.fits(&called))
    }
}

/// The message if git cannot compare two trees although it listed their commits.
const MISSING: &str = "git diff-tree failed: trees of some commits are missing";
/// The advice about [`MISSING`].
const FETCH: &str = "fetch them with `git fetch --refetch --filter=blob:none`";

/// The index of a state.
pub type StateId = usize;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileState {
    /// The sum for each pattern; 0 if it matches no file.
    pub sums: Vec<u128>,
    /// Index into [`States::workflows`].
    pub workflow: usize,
}

#[derive(Debug, Default)]
pub struct States {
    pub distinct: Vec<FileState>,
    /// The workflow and all files that it may call by path, for each [`FileState::workflow`].
    pub workflows: Vec<Rc<Files>>,
    /// The state of each requested commit, by the index of the commit in the graph.
    pub of: HashMap<usize, StateId>,
}

/// The reasons why a file is relevant.
#[derive(Debug, Clone, Default)]
struct Interest {
    /// Indices of patterns that match it.
    patterns: Vec<usize>,
    workflow: bool,
}

impl States {
    /// Reads the states of these commits, parents before children. Calls `done` after each commit.
    ///
    /// # Errors
    /// If trees are missing, as in some partial clones.
    pub fn read(
        watch: &Watch,
        graph: &Graph,
        commits: &[usize],
        done: &mut dyn FnMut(),
    ) -> Result<Self> {
        let empty = watch.repository.ask(["hash-object", "-t", "tree", "--stdin"])?;
        let empty = ObjectId::parse(String::from_utf8_lossy(&empty).trim())?;
        let plan = plan(graph, commits);
        let tree = |commit: &usize| &graph.commits[*commit].tree;
        let mut orders = Vec::new();
        for (from, commit) in &plan {
            let from = from.as_ref().map_or(&empty, tree);
            orders.extend_from_slice(from.as_str().as_bytes());
            orders.push(b' ');
            orders.extend_from_slice(tree(commit).as_str().as_bytes());
            orders.push(b'\n');
        }
        // The ids of trees go through standard input. With renames, the output would have another format.
        let words = ["diff-tree", "--stdin", "-r", "--raw", "-z", "--no-renames", "--no-abbrev"];
        let mut git = watch.repository.start_with(words, orders)?;
        let mut changes = Changes {
            output: BufReader::new(git.stdout.take().context("git diff-tree has no output")?),
        };
        let mut making = Making::new(watch);
        for (from, commit) in plan {
            if !changes.begin().context(MISSING).hint(FETCH)? {
                bail!(anyhow!(MISSING).hint(FETCH));
            }
            making.go_on_from(from);
            while let Some(change) = changes.next().context(MISSING).hint(FETCH)? {
                making.apply(change)?;
            }
            making.reached(commit);
            done();
        }
        if !git.wait().context("read git diff-tree")?.success() {
            bail!(MISSING);
        }
        Ok(making.made)
    }
}

/// Pairs each commit with the commit that it is compared with: its first parent, or else the commit that was
/// read last, because most trees differ little.
fn plan(graph: &Graph, commits: &[usize]) -> Vec<(Option<usize>, usize)> {
    let mut known = vec![false; graph.commits.len()];
    let mut last = None;
    let mut plan = Vec::with_capacity(commits.len());
    for &commit in commits {
        let parent = graph.commits[commit].parents.first();
        let from = parent.copied().filter(|parent| known[*parent]).or(last);
        plan.push((from, commit));
        known[commit] = true;
        last = Some(commit);
    }
    plan
}

struct Making<'w> {
    watch: &'w Watch<'w>,
    interests: HashMap<Vec<u8>, Interest>,
    ids: HashMap<FileState, StateId>,
    workflows: HashMap<Rc<Files>, usize>,
    made: States,
    /// The sums of the commit that is being read, starting from those of the commit that it is compared with.
    sums: Vec<u128>,
    workflow: usize,
    /// The files of workflows, if they differ from those of the commit that it is compared with.
    changed: Option<Files>,
}

impl<'w> Making<'w> {
    fn new(watch: &'w Watch<'w>) -> Self {
        let none = Rc::new(Files::new());
        let made = States { workflows: vec![Rc::clone(&none)], ..States::default() };
        Making {
            watch,
            interests: HashMap::new(),
            ids: HashMap::new(),
            workflows: HashMap::from([(none, 0)]),
            made,
            sums: Vec::new(),
            workflow: 0,
            changed: None,
        }
    }

    fn go_on_from(&mut self, commit: Option<usize>) {
        let state = commit.and_then(|it| self.made.of.get(&it)).map(|id| &self.made.distinct[*id]);
        match state {
            Some(state) => (self.sums, self.workflow) = (state.sums.clone(), state.workflow),
            None => (self.sums, self.workflow) = (vec![0; self.watch.patterns.len()], 0),
        }
        self.changed = None;
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        if !self.interests.contains_key(&change.path) {
            let path = Path::new(OsStr::from_bytes(&change.path));
            let interest = self.watch.interest(path);
            self.interests.insert(change.path.clone(), interest);
        }
        let interest = &self.interests[&change.path];
        for &pattern in &interest.patterns {
            let hash = |blob: &Blob| hash_of(&change.path, blob);
            let (gone, came) = (change.old.as_ref().map(hash), change.new.as_ref().map(hash));
            let sum = &mut self.sums[pattern];
            *sum = sum.wrapping_sub(gone.unwrap_or(0)).wrapping_add(came.unwrap_or(0));
        }
        if interest.workflow {
            let known = &self.made.workflows[self.workflow];
            let files = self.changed.get_or_insert_with(|| Files::clone(known));
            let path = PathBuf::from(OsString::from_vec(change.path));
            match change.new {
                Some(blob) => drop(files.insert(path, blob)),
                None => drop(files.remove(&path)),
            }
        }
        Ok(())
    }

    fn reached(&mut self, commit: usize) {
        if let Some(files) = self.changed.take() {
            let files = Rc::new(files);
            let next = self.made.workflows.len();
            self.workflow = *self.workflows.entry(Rc::clone(&files)).or_insert(next);
            if self.workflow == next {
                self.made.workflows.push(files);
            }
        }
        let state = FileState { sums: std::mem::take(&mut self.sums), workflow: self.workflow };
        let next = self.made.distinct.len();
        let id = *self.ids.entry(state.clone()).or_insert(next);
        if id == next {
            self.made.distinct.push(state);
        }
        self.made.of.insert(commit, id);
    }
}

impl<'r> Watch<'r> {
    /// Watches these files, and the targets of those that are symbolic links in `newest`.
    pub fn new(
        repository: &'r Repository,
        patterns: &'r [FilePattern],
        workflow: Option<PathBuf>,
        newest: &Files,
    ) -> Self {
        let mut watch = Watch { repository, patterns, workflow, links: HashMap::new() };
        for (path, blob) in newest.iter().filter(|(_, blob)| blob.is_link) {
            let interest = watch.own_interest(path);
            // Links with a missing blob are ignored. Links to links are not followed; they are very rare.
            let target = match interest.workflow || !interest.patterns.is_empty() {
                true => repository.content(&blob.id).ok(),
                false => None,
            };
            let target = target.and_then(|target| {
                let target = Path::new(OsStr::from_bytes(&target));
                normalize(&path.parent().unwrap_or(Path::new("")).join(target))
            });
            if let Some(target) = target {
                watch.links.entry(target).or_default().push(path.clone());
            }
        }
        watch
    }

    fn interest(&self, path: &Path) -> Interest {
        let mut interest = self.own_interest(path);
        for link in self.links.get(path).into_iter().flatten() {
            let more = self.own_interest(link);
            interest.workflow |= more.workflow;
            interest.patterns.extend(more.patterns);
        }
        interest.patterns.sort_unstable();
        interest.patterns.dedup();
        interest
    }

    fn own_interest(&self, path: &Path) -> Interest {
        let holds = |at: &usize| self.patterns[*at].holds(path, self.repository);
        let patterns = (0..self.patterns.len()).filter(holds).collect();
        // A composite action is called by its directory, which may be anywhere.
        let action = path.file_name().is_some_and(|it| it == "action.yml" || it == "action.yaml");
        let workflow =
            action || path.starts_with(".github") || self.workflow.as_deref() == Some(path);
        Interest { patterns, workflow: workflow && self.workflow.is_some() }
    }
}

fn hash_of(path: &[u8], blob: &Blob) -> u128 {
    let length = (path.len() as u64).to_be_bytes();
    let parts = [&length, path, &[u8::from(blob.is_link)], blob.id.as_str().as_bytes()];
    let digest = Digest::of_parts(parts);
    u128::from_be_bytes(digest.as_bytes()[..16].try_into().unwrap_or_default())
}

/// One changed file of `git diff-tree --raw`. A side is `None` if the file does not exist there or is not a
/// file.
struct Change {
    path: Vec<u8>,
    old: Option<Blob>,
    new: Option<Blob>,
}

/// Parser of the output of `git diff-tree --stdin --raw -z`: for each pair of trees one line with their ids,
/// then `:MODE MODE ID ID STATUS`, NUL, path, NUL for each file that differs.
struct Changes {
    output: BufReader<ChildStdout>,
}

impl Changes {
    /// Goes to the next pair of trees. Returns false at the end.
    fn begin(&mut self) -> Result<bool> {
        let mut line = Vec::new();
        Ok(self.output.read_until(b'\n', &mut line)? > 0)
    }

    fn next(&mut self) -> Result<Option<Change>> {
        if self.output.fill_buf()?.first() != Some(&b':') {
            return Ok(None);
        }
        let mut facts = Vec::new();
        let mut path = Vec::new();
        for part in [&mut facts, &mut path] {
            self.output.by_ref().read_until(0, part)?;
            part.pop();
        }
        let facts = String::from_utf8_lossy(facts.get(1..).unwrap_or_default()).into_owned();
        let words: Vec<&str> = facts.split(' ').collect();
        let [old_mode, new_mode, old, new, _] = words[..] else {
            bail!("unexpected output: {facts:?}")
        };
        let blob = |mode: &str, id: &str| -> Result<Option<Blob>> {
            // `000000` means absent, and `160000` is a submodule.
            match mode {
                "100644" | "100755" | "100664" => {
                    Ok(Some(Blob { id: ObjectId::parse(id)?, is_link: false }))
                }
                "120000" => Ok(Some(Blob { id: ObjectId::parse(id)?, is_link: true })),
                _ => Ok(None),
            }
        };
        Ok(Some(Change { path, old: blob(old_mode, old)?, new: blob(new_mode, new)? }))
    }
}
