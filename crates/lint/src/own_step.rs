//! Mistakes in the use of the storecache step.

use super::diagnostic::Diagnostic;
use super::{Lines, LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step};
use storecache_workflow::yaml::{Data, Node};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        let mut kept = false;
        for (at, step) in job.steps.iter().enumerate().filter(|(_, step)| cache_steps::ours(step)) {
            found.extend(inputs(scene, step));
            // Report the permissions of a job only once, even if several steps need them.
            if !kept && let Some(one) = keep(scene, job, step) {
                found.push(one);
                kept = true;
            }
            found.extend(early(scene, job, at));
        }
    }
    found
}

fn inputs(scene: &LintContext, step: &Step) -> Vec<Diagnostic> {
    let known = &scene.knowledge.inputs;
    let given = step.node.get("with").map(|with| with.pairs()).unwrap_or_default();
    let is_known = |name: &str| known.iter().any(|it| it.eq_ignore_ascii_case(name));
    let unknown = given.iter().filter(|pair| !known.is_empty() && !is_known(&pair.key));
    let told = unknown.map(|pair| {
        let near = nearest(&pair.key, known);
        let line = pair.place.line;
        let message = format!("storecache has no input `{}`: the runner ignores it", pair.key);
        let found = Diagnostic::error(rules::UNKNOWN_INPUT, line, message).at(&pair.key);
        match near {
            Some(near) => {
                let old = format!("{}:", pair.key);
                found
                    .fix(format!("did you mean `{near}`?"))
                    .lines(scene.page.swap(&[(line, &old, &format!("{near}:"))]))
                    .example(format!("{near}: …"))
            }
            None => found
                .fix("remove it; `storecache action inputs` lists all inputs")
                .example(format!("# one of: {}", known.join(", "))),
        }
    });
    told.collect()
}

/// Returns the input that a misspelled name probably means.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase().replace('_', "-");
    let near = known.iter().map(|it| (distance(&name, it), *it)).min()?;
    let part = || {
        let mut parts = known.iter().filter(|it| {
            it.len() > 3
                && (name.starts_with(**it) || (name.len() > 3 && it.starts_with(name.as_str())))
        });
        parts.next().copied()
    };
    let most = if name.len() > 5 { 2 } else { 1 };
    if near.0 <= most { Some(near.1) } else { part() }
}

/// Returns the Levenshtein distance: the number of letters to insert, delete or replace.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, c) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (column, d) in other.iter().enumerate() {
            let swapped = row[column] + usize::from(c != *d);
            next.push(swapped.min(row[column + 1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Reports `keep` without the permission to delete. If the workflow does not set permissions, the settings of
/// the repository decide, and nothing is reported.
fn keep(scene: &LintContext, job: &Job, step: &Step) -> Option<Diagnostic> {
    let keep = step.fields.get("with.keep")?;
    let given = step.fields.get("with.token").is_some();
    let backend = step.text("with.backend").trim();
    if given || !(backend.is_empty() || backend == "github") {
        return None;
    }
    let permissions =
        job.node.pair("permissions").or_else(|| scene.workflow.node.pair("permissions"))?;
    let granted = match &permissions.value.data {
        Data::Text(text) => text == "write-all",
        Data::Mapping(_) => {
            permissions.value.get("actions").and_then(|it| it.text()) == Some("write")
        }
        _ => false,
    };
    if granted {
        return None;
    }
    let message = "`keep` deletes older entries, for which the token of this job needs \
                   `actions: write`";
    Some(
        Diagnostic::warning(rules::PERMISSIONS, keep.line, message)
            .at("keep")
            .fix("grant `actions: write` to the job")
            .lines(grant(scene, &permissions.value, permissions.place.line))
            .example("permissions:\n  actions: write\n  contents: read"),
    )
}

fn grant(scene: &LintContext, permissions: &Node, line: usize) -> Option<Lines> {
    let Some(actions) = permissions.pair("actions") else {
        return match &permissions.data {
            Data::Mapping(pairs) if pairs.is_empty() => {
                scene.page.swap(&[(line, "{}", "{actions: write}")])
            }
            Data::Mapping(_) => scene.page.add(permissions, &["actions: write"]),
            _ => None,
        };
    };
    let old = actions.value.text()?;
    scene.page.swap(&[(actions.value.place.line, old, "write")])
}

/// Reports a step that needs files for its key but comes before the checkout.
fn early(scene: &LintContext, job: &Job, at: usize) -> Option<Diagnostic> {
    let step = job.steps.get(at)?;
    let hashes = !step.text("with.hash-files").trim().is_empty();
    let workflow =
        cache_steps::key(step).is_none() && step.text("with.workflow-mode").trim() != "none";
    let is_checkout = |step: &Step| step.action() == Some("actions/checkout");
    if !(hashes || workflow) || job.steps[..at].iter().any(is_checkout) {
        return None;
    }
    // Another step may have created the files.
    let fetched = job.steps[..at].iter().any(|step| {
        step.fields.get("run").is_some() || step.action().is_some_and(|it| it.contains("download"))
    });
    if fetched {
        return None;
    }
    let what = if hashes { "the files of `hash-files`" } else { "the workflow" };
    let message =
        format!("nothing is checked out before this step, so {what} cannot go into the key");
    let found = if hashes { Diagnostic::error } else { Diagnostic::warning };
    let uses = step.fields.get("uses")?;
    let (from, _) = scene.page.block(&step.node)?;
    let lines = match job.steps[at + 1..].iter().find(|step| is_checkout(step)) {
        // Move the checkout before the step, and keep the steps between them.
        Some(checkout) => scene.page.block(&checkout.node).and_then(|(first, last)| {
            let mut lines = scene.page.lines(first, last);
            lines.extend(scene.page.lines(from, first - 1));
            scene.page.put(from, last, &lines)
        }),
        None => {
            let indent = " ".repeat(step.node.place.column.saturating_sub(3));
            scene.page.before(from, &[format!("{indent}- uses: actions/checkout@v4")])
        }
    };
    Some(
        found(rules::BEFORE_CHECKOUT, uses.line, message)
            .at_first_line(uses)
            .fix("put actions/checkout before it")
            .lines(lines)
            .example("- uses: actions/checkout@v4"),
    )
}
