//! Maps each commit to a run: its ref, its time, and the refs whose entries it could read.

use super::commit_graph::Graph;
use super::commit_times::straighten;
use serde::Serialize;

/// A ref that entries belong to, as an index into [`Runs::refs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(pub u32);

impl Scope {
    /// The scope of the default branch.
    pub const DEFAULT: Scope = Scope(0);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    DefaultBranch,
    PullRequest,
    OtherBranch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Index of the commit in the graph.
    pub commit: usize,
    /// Seconds since 1970.
    pub time: i64,
    pub kind: RunKind,
    /// The ref that it saves entries under.
    pub scope: Scope,
    /// The base branch, for a pull request.
    pub base: Option<Scope>,
}

impl Run {
    /// Returns the scopes whose entries the run can read, in the order of lookup: its own ref, the base of
    /// its pull request, the default branch. Source: github/docs
    /// `content/actions/reference/workflows-and-actions/dependency-caching.md`, "Restrictions for accessing a
    /// cache".
    pub fn readable(&self) -> impl Iterator<Item = Scope> {
        let base = self.base.filter(|base| *base != self.scope && *base != Scope::DEFAULT);
        let default = (self.scope != Scope::DEFAULT).then_some(Scope::DEFAULT);
        [Some(self.scope), base, default].into_iter().flatten()
    }
}

#[derive(Debug, Default)]
pub struct Runs {
    /// In chronological order.
    pub runs: Vec<Run>,
    /// The name of the ref of each scope.
    pub refs: Vec<String>,
}

impl Runs {
    /// Makes one run of every commit.
    pub fn from_graph(graph: &Graph) -> Self {
        let mut sorter =
            Sorter { graph, taken: vec![false; graph.commits.len()], made: Runs::default() };
        let default = graph.branches.get(&graph.default_branch);
        sorter.branch(&graph.default_branch, default.map(Vec::as_slice).unwrap_or_default());
        let others = graph.branches.iter().filter(|(name, _)| **name != graph.default_branch);
        let mut others: Vec<_> = others.collect();
        // Commits that two branches share count as pushed to the older branch.
        let newest = |tips: &[usize]| tips.iter().map(|tip| graph.commits[*tip].time).max();
        others.sort_by_key(|(name, tips)| (newest(tips), *name));
        for (name, tips) in others {
            sorter.branch(name, tips);
        }
        if let Some(head) = graph.head.filter(|head| !sorter.taken[*head]) {
            sorter.branch("HEAD", &[head]);
        }
        let mut made = sorter.made;
        made.runs.sort_by_key(|run| (run.time, run.commit));
        made
    }
}

impl Runs {
    /// Keeps the runs for which `was` returns true.
    pub fn only(mut self, was: impl Fn(&Run, &Runs) -> bool) -> Self {
        let runs = std::mem::take(&mut self.runs);
        self.runs = runs.into_iter().filter(|run| was(run, &self)).collect();
        self
    }
}

struct Sorter<'g> {
    graph: &'g Graph,
    /// For each commit, whether a run of it was made already.
    taken: Vec<bool>,
    made: Runs,
}

impl Sorter<'_> {
    /// Adds the pushes to a branch, and the pull requests that were merged into it.
    fn branch(&mut self, name: &str, tips: &[usize]) {
        let scope = self.scope(format!("refs/heads/{name}"));
        let default = scope == Scope::DEFAULT;
        let kind = if default { RunKind::DefaultBranch } else { RunKind::OtherBranch };
        for &tip in tips {
            let chain = self.chain(tip);
            let mut times: Vec<i64> = chain.iter().map(|it| self.graph.commits[*it].time).collect();
            straighten(&mut times);
            for (&commit, &time) in chain.iter().zip(&times) {
                let side = self.side(commit);
                self.pull_request(&side, scope, time);
                self.made.runs.push(Run { commit, time, kind, scope, base: None });
            }
        }
    }

    fn scope(&mut self, name: String) -> Scope {
        self.made.refs.push(name);
        Scope(self.made.refs.len() as u32 - 1)
    }

    /// Takes the first-parent chain from `tip` down to the first commit that is taken already. Oldest first.
    fn chain(&mut self, tip: usize) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut next = Some(tip);
        while let Some(commit) = next.filter(|commit| !self.taken[*commit]) {
            self.taken[commit] = true;
            chain.push(commit);
            next = self.graph.commits[commit].parents.first().copied();
        }
        chain.reverse();
        chain
    }

    /// Takes the commits that a merge brought in through its other parents, parents before children.
    fn side(&mut self, merge: usize) -> Vec<usize> {
        let mut side = Vec::new();
        let mut next: Vec<usize> =
            self.graph.commits[merge].parents.iter().skip(1).copied().collect();
        while let Some(commit) = next.pop() {
            if !std::mem::replace(&mut self.taken[commit], true) {
                side.push(commit);
                next.extend(&self.graph.commits[commit].parents);
            }
        }
        side.sort_unstable();
        side
    }

    /// Adds the runs of a pull request, at times no later than its merge.
    fn pull_request(&mut self, commits: &[usize], base: Scope, merged: i64) {
        if commits.is_empty() {
            return;
        }
        // The graph does not contain the real number. This one is only an internal identifier.
        let scope = self.scope(format!("refs/pull/{}/merge", self.made.refs.len()));
        let time_of = |commit: &usize| self.graph.commits[*commit].time.min(merged);
        let mut times: Vec<i64> = commits.iter().map(time_of).collect();
        straighten(&mut times);
        let kind = RunKind::PullRequest;
        for (&commit, &time) in commits.iter().zip(&times) {
            self.made.runs.push(Run { commit, time, kind, scope, base: Some(base) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::git::ObjectId;
    use super::super::commit_graph::Commit;
    use super::*;

    /// Builds a graph of commits, given as time and parents.
    fn graph(commits: &[(i64, &[usize])], branches: &[(&str, &[usize])]) -> Graph {
        let id = ObjectId::parse(&"0".repeat(40)).unwrap();
        let commit = |(time, parents): &(i64, &[usize])| Commit {
            id: id.clone(),
            tree: id.clone(),
            time: *time,
            parents: parents.to_vec(),
        };
        Graph {
            commits: commits.iter().map(commit).collect(),
            branches: branches
                .iter()
                .map(|(name, tips)| ((*name).to_owned(), tips.to_vec()))
                .collect(),
            default_branch: "main".into(),
            dangling: vec![],
            head: None,
            shallow: false,
        }
    }

    /// Renders each run as `TIME COMMIT REF <- REFS THAT IT READS`.
    fn told(graph: &Graph) -> Vec<String> {
        let made = Runs::from_graph(graph);
        let name = |scope: Scope| made.refs[scope.0 as usize].trim_start_matches("refs/");
        let line = |run: &Run| {
            let read: Vec<_> = run.readable().map(name).collect();
            format!("{} {} {} <- {}", run.time, run.commit, name(run.scope), read.join(" "))
        };
        made.runs.iter().map(line).collect()
    }

    #[test]
    fn merged_commits_ran_as_a_pull_request_before() {
        // 0 - 1 ------- 4   main
        //  \- 2 - 3 --/
        let merged = graph(
            &[(10, &[]), (20, &[0]), (12, &[0]), (99, &[2]), (40, &[1, 3])],
            &[("main", &[4])],
        );
        assert_eq!(
            told(&merged),
            [
                "10 0 heads/main <- heads/main",
                "12 2 pull/1/merge <- pull/1/merge heads/main",
                "20 1 heads/main <- heads/main",
                "40 3 pull/1/merge <- pull/1/merge heads/main",
                "40 4 heads/main <- heads/main",
            ]
        );
    }

    #[test]
    fn every_merge_is_a_separate_pull_request() {
        let two = graph(
            &[(10, &[]), (11, &[0]), (12, &[0, 1]), (13, &[1]), (14, &[2, 3])],
            &[("main", &[4])],
        );
        let of = |commit: usize| {
            let made = Runs::from_graph(&two);
            made.runs.iter().find(|run| run.commit == commit).unwrap().scope
        };
        assert_ne!(of(1), of(3));
    }

    #[test]
    fn nested_pull_request_reads_its_base_and_default_branch() {
        // 0        main
        //  \- 1 ----- 3   next
        //      \- 2 -/
        let nested = graph(
            &[(10, &[]), (20, &[0]), (30, &[1]), (40, &[1, 2])],
            &[("main", &[0]), ("next", &[3])],
        );
        assert_eq!(
            told(&nested),
            [
                "10 0 heads/main <- heads/main",
                "20 1 heads/next <- heads/next heads/main",
                "30 2 pull/2/merge <- pull/2/merge heads/next heads/main",
                "40 3 heads/next <- heads/next heads/main",
            ]
        );
    }

    #[test]
    fn commits_replaced_by_a_force_push_keep_their_ref() {
        // `origin/main` is at commit 1, the local `main` still at commit 2.
        let pushed = graph(&[(10, &[]), (30, &[0]), (20, &[0])], &[("main", &[1, 2])]);
        assert_eq!(
            told(&pushed),
            [
                "10 0 heads/main <- heads/main",
                "20 2 heads/main <- heads/main",
                "30 1 heads/main <- heads/main",
            ]
        );
    }

    #[test]
    fn shared_commits_belong_to_the_older_branch() {
        let stacked = graph(
            &[(10, &[]), (20, &[0]), (30, &[1])],
            &[("main", &[0]), ("a-later", &[2]), ("b-earlier", &[1])],
        );
        assert_eq!(told(&stacked)[1], "20 1 heads/b-earlier <- heads/b-earlier heads/main");
    }

    #[test]
    fn detached_head_counts_as_a_branch() {
        let detached =
            Graph { head: Some(1), ..graph(&[(10, &[]), (20, &[0])], &[("main", &[0])]) };
        assert_eq!(told(&detached)[1], "20 1 heads/HEAD <- heads/HEAD heads/main");
    }
}
