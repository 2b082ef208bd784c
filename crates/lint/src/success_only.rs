//! Stores that are saved only if the job succeeds, or never. Source: actions/cache `action.yml`, `post-if`;
//! GitHub changelog of 2026-06-26 and 2026-09-10.

use super::diagnostic::Diagnostic;
use super::{LintContext, rules, store_path, unseeded};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step, Workflow};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        for (at, step) in job.steps.iter().enumerate() {
            let official = step.action().is_some_and(cache_steps::is_official);
            if !official || !cache_steps::saves(step) {
                continue;
            }
            match never(scene, job, step) {
                Some(one) => found.push(one),
                // The saved entry cannot be restored anyway; `stores` reports that.
                None if store_path::is_out_of_reach(job, step) => {}
                None => found.extend(on_success_only(scene, step, &job.steps[at + 1..])),
            }
        }
    }
    found
}

/// Reports a step whose token may only read.
fn never(scene: &LintContext, job: &Job, step: &Step) -> Option<Diagnostic> {
    let mode = mode(scene.workflow, job);
    let why = match mode.as_deref() {
        Some(mode @ ("read" | "none")) => format!("`cache-mode: {mode}` forbids it"),
        Some(_) => return None,
        None => {
            let low = |name: &str| unseeded::LOW_TRUST.contains(&name);
            let names: Vec<&str> =
                scene.workflow.triggers.iter().map(|it| it.name.as_str()).collect();
            if names.is_empty() || !names.iter().all(|name| low(name)) || unseeded::unseeded(scene)
            {
                return None;
            }
            format!("the token of {} runs can only read", names.join(" and "))
        }
    };
    let uses = step.fields.get("uses")?;
    let action = step.action()?;
    let new = if action == "actions/cache" {
        Some(uses.text.replacen("actions/cache@", "actions/cache/restore@", 1))
    } else {
        None
    };
    let lines = new.and_then(|new| scene.page.swap(&[(uses.line, uses.text.trim(), new.trim())]));
    Some(
        Diagnostic::warning(
            rules::READ_ONLY_TOKEN,
            uses.line,
            format!("this step never saves: {why}"),
        )
        .at_first_line(uses)
        .fix("only restore here, and save in runs of `push` or `schedule`")
        .lines(lines)
        .example("- uses: actions/cache/restore@v4"),
    )
}

/// Returns the `cache-mode` of the job or the workflow, if it is set.
fn mode(workflow: &Workflow, job: &Job) -> Option<String> {
    let mode = job.node.get("cache-mode").or_else(|| workflow.node.get("cache-mode"))?;
    Some(mode.text()?.trim().to_lowercase())
}

fn on_success_only(scene: &LintContext, step: &Step, after: &[Step]) -> Option<Diagnostic> {
    let runs = |step: &Step| step.fields.get("run").is_some();
    let uses = step.fields.get("uses")?;
    if step.action() == Some("actions/cache") {
        let kept = step.text("with.save-always").trim() == "true";
        if kept || !after.iter().any(runs) {
            return None;
        }
        let key = cache_steps::key(step).map(|key| key.text.trim()).unwrap_or("…");
        let paths = cache_steps::paths(step);
        let path = match paths.as_slice() {
            [one] => one.clone(),
            all => format!("|\n      {}", all.join("\n      ")),
        };
        let version = uses.text.trim().split_once('@').map_or("v4", |(_, version)| version);
        let part = |name: &str, first: &str| {
            format!(
                "{first}uses: actions/cache/{name}@{version}\n  with:\n    path: {path}\n    key: {key}\n"
            )
        };
        let example = part("restore", "- ")
            + "# … and after the steps that fill the store:\n"
            + &part("save", "- if: always()\n  ");
        return Some(
            Diagnostic::warning(
                rules::SUCCESS_ONLY,
                uses.line,
                "this saves only when the job succeeds: a failed step discards a good store",
            )
            .at_first_line(uses)
            .fix("save in a separate step, with `if: always()`; storecache does so by itself")
            .example(example.trim_end()),
        );
    }
    // A step that saves before the tests loses nothing if the tests fail.
    let condition = step.fields.get("if");
    let text = condition.map(|it| it.text.trim()).unwrap_or_default();
    let always = ["always()", "failure()", "cancelled()"].iter().any(|it| text.contains(it));
    if always || after.iter().any(runs) {
        return None;
    }
    let lines = match condition {
        None => scene.page.add(&step.node, &["if: always()"]),
        Some(it) => {
            let bare = text.strip_prefix("${{").and_then(|it| it.strip_suffix("}}"));
            let new = format!("always() && ({})", bare.unwrap_or(text).trim());
            let new = if bare.is_some() { format!("${{{{ {new} }}}}") } else { new };
            scene.page.swap(&[(it.line, text, &new)])
        }
    };
    Some(
        Diagnostic::warning(
            rules::SUCCESS_ONLY,
            uses.line,
            "this saves only when all steps before it succeed: a failed step discards a good store",
        )
        .at_first_line(uses)
        .fix("save with `if: always()`")
        .lines(lines)
        .example("if: always()"),
    )
}
