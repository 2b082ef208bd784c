//! Workflows whose entries nobody else can read: an entry belongs to the branch that saved it, and only
//! those of the default branch are for all. Source: github/docs, restrictions for accessing a cache.

use super::super::workflow::{Trigger, Workflow};
use super::{Found, Level, caches};

/// Triggers that never fill the cache of the default branch. `workflow_dispatch` does when somebody
/// starts it there by hand, which nobody can rely on; in `pull_request_target` and `issue_comment` the
/// token may only read (GitHub changelog, 2026-06-26).
const NEVER: [&str; 7] = [
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "issue_comment",
    "merge_group",
    "workflow_dispatch",
];

pub fn check<'a>(
    workflow: &Workflow,
    others: impl Iterator<Item = &'a Workflow> + Clone,
    default_branch: Option<&str>,
) -> Vec<Found> {
    let may_seed = |workflow: &Workflow| {
        workflow.triggers.iter().any(|trigger| seeds(trigger, default_branch))
    };
    if may_seed(workflow) {
        return Vec::new();
    }
    let seeded =
        |key: &Option<&str>| others.clone().any(|other| may_seed(other) && saves(other, key));
    let unseeded = keys(workflow).find(|key| !seeded(key));
    let Some(key) = unseeded else { return Vec::new() };
    let names: Vec<_> = workflow.triggers.iter().map(told).collect();
    let branch = default_branch.unwrap_or("main");
    let which = key.map(|key| format!(" under {key}")).unwrap_or_default();
    vec![(
        workflow.on,
        Level::Warning,
        format!(
            "nothing saves the store{which} on the default branch, as this runs on {} only: what \
             another branch or a pull request saves, no other one can read",
            names.join(" and ")
        ),
        format!(
            "add `push: branches: [{branch}]` or a `schedule`, which fill the cache for all branches"
        ),
    )]
}

fn seeds(trigger: &Trigger, default_branch: Option<&str>) -> bool {
    // Of any other trigger the filter is about where it comes from, and not where it runs.
    let of_branch = |branch| trigger.name != "push" || trigger.branches.hold(branch);
    !NEVER.contains(&trigger.name.as_str())
        && !trigger.only_tags
        && default_branch.is_none_or(of_branch)
}

fn told(trigger: &Trigger) -> String {
    match trigger.name.as_str() {
        "push" if trigger.only_tags => "push of tags".into(),
        "push" => "push to other branches".into(),
        name => name.to_owned(),
    }
}

fn saves(workflow: &Workflow, wanted: &Option<&str>) -> bool {
    keys(workflow).any(|key| key == *wanted)
}

/// The key of each step that saves a store, where it is given one.
fn keys(workflow: &Workflow) -> impl Iterator<Item = Option<&str>> {
    let steps = workflow.jobs.iter().flat_map(|job| &job.steps).filter(|step| caches::saves(step));
    steps.map(|step| caches::key(step).map(|key| key.text.trim()))
}
