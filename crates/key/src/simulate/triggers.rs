//! Determines for which commits a workflow runs, as far as its triggers show.

use super::super::history::{Run, RunKind, Runs, Scope};
use storecache_workflow::workflow::{Trigger, Workflow};

/// The triggers of a workflow.
pub struct Triggers(Vec<Trigger>);

/// Stands for the name of a branch that was deleted after its merge. Patterns that match any branch match it.
const FORGOTTEN: &str = "a-branch-that-is-merged-and-gone";

impl Triggers {
    /// Reads the triggers. Returns `None` if the text is not a workflow, or if other workflows call it: then
    /// the callers have the triggers.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let workflow = Workflow::parse(&String::from_utf8_lossy(text)).ok()?;
        let called = workflow.triggers.iter().any(|trigger| trigger.name == "workflow_call");
        (!called).then_some(Triggers(workflow.triggers))
    }

    /// Returns whether a run happened. A commit on an unmerged branch may belong to a pull request too. Path
    /// filters are ignored.
    pub fn fire_for(&self, run: &Run, runs: &Runs) -> bool {
        let branch = |scope: Scope| {
            let name = runs.refs.get(scope.0 as usize).map(String::as_str).unwrap_or_default();
            name.strip_prefix("refs/heads/").unwrap_or(FORGOTTEN)
        };
        let (pushed, base) = (branch(run.scope), branch(run.base.unwrap_or(Scope::DEFAULT)));
        self.0.iter().any(|trigger| match trigger.name.as_str() {
            "push" => !trigger.only_tags && trigger.branches.hold(pushed),
            "pull_request" => run.kind != RunKind::DefaultBranch && trigger.branches.hold(base),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_fire_only_for_matching_runs() {
        let refs = ["main", "topic", "next"].map(|name| format!("refs/heads/{name}"));
        let runs = Runs {
            runs: vec![],
            refs: refs.into_iter().chain(["refs/pull/3/merge".into()]).collect(),
        };
        let run = |kind, scope, base: Option<u32>| Run {
            commit: 0,
            time: 0,
            kind,
            scope: Scope(scope),
            base: base.map(Scope),
        };
        let all = [
            run(RunKind::DefaultBranch, 0, None),
            run(RunKind::OtherBranch, 1, None),
            run(RunKind::PullRequest, 3, Some(0)),
            run(RunKind::PullRequest, 3, Some(2)),
        ];
        for (on, expected) in [
            ("push", [true, true, true, true]),
            ("[push, pull_request]", [true, true, true, true]),
            ("pull_request", [false, true, true, true]),
            ("{push: {branches: [main]}}", [true, false, false, false]),
            ("{push: {branches: [main]}, pull_request: }", [true, true, true, true]),
            ("{push: {tags: ['v*']}}", [false, false, false, false]),
            (
                "{push: {branches: [main]}, pull_request: {branches: [main]}}",
                [true, true, true, false],
            ),
            ("{push: {branches-ignore: [main]}}", [false, true, true, true]),
            ("workflow_dispatch", [false, false, false, false]),
        ] {
            let text = format!("on: {on}\njobs:\n  a:\n    steps: []\n");
            let triggers = Triggers::parse(text.as_bytes()).unwrap();
            assert_eq!(all.each_ref().map(|run| triggers.fire_for(run, &runs)), expected, "{on}");
        }
        assert!(Triggers::parse(b"on: workflow_call\njobs: {}\n").is_none());
        assert!(Triggers::parse(b"on: [").is_none());
    }
}
