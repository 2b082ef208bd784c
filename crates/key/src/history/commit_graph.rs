//! All commits that are reachable from branches, and these branches.

use super::super::git::{ObjectId, Repository};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use storecache_runtime::advice::WithAdvice;

#[derive(Debug)]
pub struct Commit {
    pub id: ObjectId,
    pub tree: ObjectId,
    /// Committer time in seconds since 1970, clamped to a plausible range; the clock may have been wrong.
    pub time: i64,
    /// Indices of the parents that this clone has, first parent first.
    pub parents: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct Graph {
    /// Parents come before their children.
    pub commits: Vec<Commit>,
    /// Tips of each branch: the remote one and the local one, if they differ.
    pub branches: BTreeMap<String, Vec<usize>>,
    /// Branches whose tip is not in this clone.
    pub dangling: Vec<String>,
    pub default_branch: String,
    /// The commit that is checked out.
    pub head: Option<usize>,
    /// Whether the clone is shallow, so that parents of some commits are missing.
    pub shallow: bool,
}

const LOCAL: &str = "refs/heads/";
/// Only `origin`: a remote of another name is another repository, or the same one a second time.
const REMOTE: &str = "refs/remotes/origin/";

/// Upper limit of commit times, for clocks that are far ahead: the year 2200.
const LATEST: i64 = 7_258_118_400;

/// Usual names of the default branch, for repositories that do not record it.
const USUAL: [&str; 3] = ["main", "master", "trunk"];

impl Graph {
    /// Reads all commits of all branches, of this repository and of its `origin`.
    ///
    /// # Errors
    /// If the repository has no commit, or if the default branch cannot be determined.
    pub fn read(repository: &Repository, default_branch: Option<&str>) -> Result<Self> {
        let refs = repository.ask([
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            REMOTE.trim_end_matches('/'),
            LOCAL.trim_end_matches('/'),
        ])?;
        let refs = String::from_utf8_lossy(&refs);
        let mut tips: Vec<(&str, &str)> = Vec::new();
        for line in refs.lines() {
            let Some((id, name)) = line.split_once(' ') else { continue };
            let branch = name.strip_prefix(REMOTE).or_else(|| name.strip_prefix(LOCAL));
            if let Some(branch) = branch.filter(|_| name != format!("{REMOTE}HEAD")) {
                tips.push((id, branch));
            }
        }
        let head = repository.commit("HEAD").ok();
        if tips.is_empty() && head.is_none() {
            bail!("nothing to simulate: there are no commits yet; commit the workflow first");
        }
        let newest = tips.iter().map(|(id, _)| *id).chain(head.iter().map(ObjectId::as_str));
        let commits = read_commits(repository, newest)?;
        let numbers: HashMap<&str, usize> =
            commits.iter().enumerate().map(|(number, it)| (it.id.as_str(), number)).collect();
        let mut branches: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut dangling = Vec::new();
        for (id, branch) in tips {
            let Some(&tip) = numbers.get(id) else {
                dangling.push(branch.to_owned());
                continue;
            };
            let tips = branches.entry(branch.to_owned()).or_default();
            if !tips.contains(&tip) {
                tips.push(tip);
            }
        }
        let head = head.and_then(|head| numbers.get(head.as_str()).copied());
        let default_branch = match default_branch {
            Some(name) if branches.contains_key(name) => name.to_owned(),
            Some(name) => bail!(
                "--default-branch {name}: no such branch; the branches are {}",
                some_of(&branches)
            ),
            None => default_of(repository, &branches)?,
        };
        let shallow = repository.is_shallow()?;
        Ok(Graph { commits, branches, dangling, default_branch, head, shallow })
    }
}

impl Graph {
    /// Returns the commit with the current files: the one that is checked out, or else the tip of the default
    /// branch.
    pub fn newest(&self) -> Option<usize> {
        let default = || self.branches.get(&self.default_branch)?.first().copied();
        self.head.or_else(default).or_else(|| self.commits.len().checked_sub(1))
    }
}

fn read_commits<'n>(
    repository: &Repository,
    newest: impl Iterator<Item = &'n str>,
) -> Result<Vec<Commit>> {
    let words = ["log", "--topo-order", "--no-show-signature", "--format=%H %T %ct %P"];
    let more = ["--ignore-missing", "--stdin"];
    let newest = newest.flat_map(|id| [id, "\n"]).collect::<String>();
    let mut git = repository.start_with(words.into_iter().chain(more), newest.into_bytes())?;
    let output = BufReader::new(git.stdout.take().context("git log has no output")?);
    // git lists children first.
    let mut rows = output.lines().collect::<Result<Vec<_>, _>>().context("read git log")?;
    if !git.wait().context("read git log")?.success() {
        bail!(anyhow!("git log failed").hint("check the repository with `git fsck`"));
    }
    rows.reverse();
    let mut numbers: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    let mut commits = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut words = row.split(' ').filter(|word| !word.is_empty());
        let mut next = || words.next().with_context(|| format!("git log: {row:?}"));
        let (id, tree, time) = (next()?, next()?, next()?);
        // A time that is not a number, or not in the range of a calendar, cannot be a real commit time.
        let time = time.parse::<i64>().unwrap_or_default().clamp(0, LATEST);
        let parents = words.filter_map(|parent| numbers.get(parent).copied()).collect();
        numbers.insert(id, commits.len());
        let (id, tree) = (ObjectId::parse(id)?, ObjectId::parse(tree)?);
        commits.push(Commit { id, tree, time, parents });
    }
    Ok(commits)
}

/// Determines the default branch: as recorded for the remote, as configured, by a usual name, or as the only
/// branch.
fn default_of(repository: &Repository, branches: &BTreeMap<String, Vec<usize>>) -> Result<String> {
    let told = |words: &[&str]| {
        let said = repository.ask(words.iter().copied()).ok()?;
        Some(String::from_utf8_lossy(&said).trim_end().to_owned())
    };
    let remote = told(&["symbolic-ref", "--quiet", &format!("{REMOTE}HEAD")]);
    let remote = remote.and_then(|name| name.strip_prefix(REMOTE).map(str::to_owned));
    let configured = told(&["config", "--get", "init.defaultBranch"]);
    let usual = USUAL.iter().map(|name| (*name).to_owned());
    let mut names = remote.into_iter().chain(configured).chain(usual);
    if let Some(name) = names.find(|name| branches.contains_key(name)) {
        return Ok(name);
    }
    match branches.len() {
        // Only a detached HEAD.
        0 => Ok("main".to_owned()),
        1 => Ok(branches.keys().next().cloned().unwrap_or_default()),
        _ => bail!(
            anyhow!("cannot determine the default branch among {}", some_of(branches))
                .hint("name it with --default-branch")
        ),
    }
}

fn some_of(branches: &BTreeMap<String, Vec<usize>>) -> String {
    const SOME: usize = 8;
    let names: Vec<&str> = branches.keys().take(SOME).map(String::as_str).collect();
    let more = branches.len().saturating_sub(SOME);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}
