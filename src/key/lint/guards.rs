//! Conditions on an output that is never set, so that what they guard never happens, or always does.
//! Source: actions/cache `action.yml`, whose only output is `cache-hit`, and `restore/action.yml`.

use super::super::workflow::{Job, Workflow};
use super::{Found, Level};

pub fn check(workflow: &Workflow) -> Vec<Found> {
    workflow.jobs.iter().flat_map(check_job).collect()
}

fn check_job(job: &Job) -> Vec<Found> {
    let mut found = Vec::new();
    for step in &job.steps {
        for (_, text) in step.fields.iter() {
            for (at, id, output) in outputs(&text.text) {
                let meant = job.steps.iter().find(|step| {
                    step.fields.get("id").is_some_and(|text| text.text.eq_ignore_ascii_case(id))
                });
                let Some(action) = meant.and_then(|step| step.action()) else { continue };
                if action == "actions/cache"
                    && output.starts_with("cache-")
                    && output != "cache-hit"
                {
                    found.push((
                        text.line_at(at),
                        Level::Error,
                        format!(
                            "`steps.{id}.outputs.{output}` is always empty: actions/cache sets \
                             `cache-hit` only, so a restore that this guards never runs"
                        ),
                        "use actions/cache/restore, which sets it, or `uses: …/storecache`".into(),
                    ));
                }
            }
        }
    }
    found
}

/// Where a text names an output of a step: offset, id and output.
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
