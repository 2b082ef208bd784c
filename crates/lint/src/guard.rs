//! Conditions on an output that is never set, so that the guarded step never runs, or always does. Source:
//! actions/cache `action.yml`, whose only output is `cache-hit`, and `restore/action.yml`.

use super::diagnostic::Diagnostic;
use super::fix::Lines;
use super::{LintContext, rules};
use storecache_workflow::workflow::{Job, Text};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    scene.workflow.jobs.iter().flat_map(|job| check_job(scene, job)).collect()
}

fn check_job(scene: &LintContext, job: &Job) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for step in &job.steps {
        for (name, text) in step.fields.iter() {
            for (at, id, output) in outputs(&text.text) {
                let meant = job.steps.iter().find(|step| step.text("id").eq_ignore_ascii_case(id));
                let Some(action) = meant.and_then(|step| step.action()) else { continue };
                if action != "actions/cache"
                    || !output.starts_with("cache-")
                    || output == "cache-hit"
                {
                    continue;
                }
                let message = format!(
                    "`steps.{id}.outputs.{output}` is always empty: actions/cache sets only \
                     `cache-hit`, so a restore under this condition never runs"
                );
                let line = text.line_at(at);
                let lines = if name == "if" { asked_anew(scene, text, line, output) } else { None };
                found.push(
                    Diagnostic::error(rules::GUARD, line, message)
                        .at(format!("steps.{id}"))
                        .fix("use actions/cache/restore, which sets it, or `uses: …/storecache`")
                        .lines(lines)
                        .example(format!("- id: {id}\n  uses: actions/cache/restore@v4")),
                );
            }
        }
    }
    found
}

/// Rewrites the condition to use `cache-hit`, which is empty if nothing was found, and otherwise shows
/// whether the exact key matched. Source: actions/cache `action.yml` and `src/restoreImpl.ts`.
fn asked_anew(scene: &LintContext, text: &Text, line: usize, output: &str) -> Option<Lines> {
    let asks = output == "cache-matched-key" && text.text.replace('"', "'").contains("!= ''");
    asks.then(|| scene.page.swap(&[(line, output, "cache-hit")])).flatten()
}

/// Returns where a text refers to outputs of steps: offset, id and output.
fn outputs(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let name = |rest: &str| {
        rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .unwrap_or(rest.len())
    };
    text.match_indices("steps.").filter_map(move |(at, word)| {
        let rest = text.get(at + word.len()..)?;
        let (id, rest) = rest.split_at(name(rest));
        let rest = rest.strip_prefix(".outputs.")?;
        Some((at, id, &rest[..name(rest)]))
    })
}
