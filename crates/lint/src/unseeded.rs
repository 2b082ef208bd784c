//! Workflows whose entries other branches cannot read: an entry belongs to the branch that saved it, and only
//! entries of the default branch are visible to all. Source: github/docs, restrictions for accessing a cache.

use super::diagnostic::Diagnostic;
use super::fix::Lines;
use super::{LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Trigger, Workflow};
use storecache_workflow::yaml::Data;

/// Events that anyone can trigger, whose token may only read the cache of the default branch. Source: GitHub
/// changelog, 2026-06-26.
pub const LOW_TRUST: [&str; 4] =
    ["pull_request_target", "issue_comment", "issues", "discussion_comment"];

/// Other triggers that never fill the cache of the default branch. `workflow_dispatch` does if a user starts
/// it there by hand, which is not reliable.
const NEVER: [&str; 6] = [
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "merge_group",
    "release",
    "workflow_dispatch",
];

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let workflow = scene.workflow;
    let Some(key) = unseeded_key(scene) else { return Vec::new() };
    let names: Vec<_> = workflow.triggers.iter().map(told).collect();
    let branch = scene.knowledge.default_branch.as_deref().unwrap_or("main");
    let which = key.map(|key| format!(" under {key}")).unwrap_or_default();
    let message = format!(
        "nothing saves the store{which} on the default branch, because this workflow runs only \
         on {}: a branch cannot read what another branch or a pull request saves",
        names.join(" and ")
    );
    vec![
        Diagnostic::warning(rules::UNSEEDED, workflow.on, message)
            .at("on")
            .fix(format!(
                "add `push: branches: [{branch}]` or a `schedule`, which fill the cache for all branches"
            ))
            .lines(seeded(scene, branch))
            .example(format!("on:\n  push:\n    branches: [{branch}]")),
    ]
}

/// Returns whether no workflow fills the cache that this workflow reads.
pub fn unseeded(scene: &LintContext) -> bool {
    unseeded_key(scene).is_some()
}

/// Returns the key that no workflow saves on the default branch; the inner `None` is a step without a key.
fn unseeded_key<'s>(scene: &'s LintContext) -> Option<Option<&'s str>> {
    let default_branch = scene.knowledge.default_branch.as_deref();
    let may_seed = |workflow: &Workflow| {
        workflow.triggers.iter().any(|trigger| seeds(trigger, default_branch))
    };
    if may_seed(scene.workflow) {
        return None;
    }
    let seeded =
        |key: &Option<&str>| scene.all.iter().any(|other| may_seed(other) && saves(other, key));
    keys(scene.workflow).find(|key| !seeded(key))
}

/// Adds a trigger that fills the cache.
fn seeded(scene: &LintContext, branch: &str) -> Option<Lines> {
    let on = scene.workflow.node.pair("on")?;
    let line = scene.page.line(on.place.line)?;
    let has_push = scene.workflow.triggers.iter().any(|trigger| trigger.name == "push");
    let new = if has_push {
        vec!["schedule:".to_owned(), "  - cron: '23 4 * * 1'".to_owned()]
    } else {
        vec!["push:".to_owned(), format!("  branches: [{branch}]")]
    };
    match &on.value.data {
        Data::Mapping(pairs) => {
            let first = pairs.first()?;
            let indent = " ".repeat(first.place.column.checked_sub(1)?);
            let new: Vec<_> = new.iter().map(|line| format!("{indent}{line}")).collect();
            (first.place.line > on.place.line).then(|| scene.page.before(first.place.line, &new))?
        }
        // `on` is a name or a list, on one line.
        _ => {
            let head = &line[..line.find(':')? + 1];
            let names = scene.workflow.triggers.iter().map(|it| format!("  {}:", it.name));
            let new = new.iter().map(|line| format!("  {line}"));
            let lines: Vec<_> = [head.to_owned()].into_iter().chain(new).chain(names).collect();
            let end = scene.page.end_of(on.place.line, 2);
            scene.page.put(on.place.line, end, &lines)
        }
    }
}

fn seeds(trigger: &Trigger, default_branch: Option<&str>) -> bool {
    // The branch filters of other triggers do not select the branch that the workflow runs on.
    let of_branch = |branch| trigger.name != "push" || trigger.branches.hold(branch);
    let name = trigger.name.as_str();
    !NEVER.contains(&name)
        && !LOW_TRUST.contains(&name)
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

/// Returns the key of each step that saves a store; `None` for a step without a key.
fn keys(workflow: &Workflow) -> impl Iterator<Item = Option<&str>> {
    let steps =
        workflow.jobs.iter().flat_map(|job| &job.steps).filter(|step| cache_steps::saves(step));
    steps.map(|step| cache_steps::key(step).map(|key| key.text.trim()))
}
