//! Warnings that qualify the result of a simulation.

use crate::report::plural;
use anyhow::{Result, anyhow, bail};
use std::path::Path;
use storecache_key::history::{Graph, Run, RunKind};
use storecache_key::simulate::Read;
use storecache_runtime::advice::WithAdvice;

/// Reports which part of the history is missing from this clone.
pub fn of_history(graph: &Graph) -> Vec<String> {
    let mut warnings = Vec::new();
    if graph.shallow {
        warnings.push(format!(
            "the clone is shallow: only {} of its history are here; fetch the rest with `git fetch \
             --unshallow`, or set `fetch-depth: 0` for actions/checkout",
            plural(graph.commits.len() as u64, "commit"),
        ));
    }
    match graph.dangling.as_slice() {
        [] => {}
        [branch] => {
            warnings.push(format!("{branch} has no commit in this clone: see `git fsck`"));
        }
        [first, others @ ..] => warnings.push(format!(
            "{first} and {} have no commit in this clone: see `git fsck`",
            match others.len() {
                1 => "another branch".to_owned(),
                count => format!("{count} other branches"),
            }
        )),
    }
    warnings
}

/// Reports in how many of the commits the workflow could be read.
///
/// # Errors
/// If no commit has the workflow.
pub fn of_workflow(path: &Path, fates: &[Read]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let name = path.display();
    let count = |fate: Read| fates.iter().filter(|it| **it == fate).count() as u64;
    if count(Read::Absent) == fates.len() as u64 {
        bail!(
            anyhow!("none of the commits has the workflow {name}")
                .hint("name another with --workflow FILE")
        );
    }
    if count(Read::Absent) > 0 {
        let commits = plural(count(Read::Absent), "commit");
        warnings.push(format!("{commits} had no {name}, so no run"));
    }
    let runs = |fate| plural(count(fate), "run");
    if count(Read::NotUnderstood) > 0 {
        warnings.push(format!(
            "in {} {name} cannot be interpreted, so all of its bytes count",
            runs(Read::NotUnderstood)
        ));
    }
    if count(Read::NotHere) > 0 {
        warnings.push(format!(
            "in {} the content of {name} is not in this clone, so any edit counts; fetch it with \
             `git fetch --refetch --no-filter`",
            runs(Read::NotHere)
        ));
    }
    Ok(warnings)
}

/// Reports runs that today's workflow would not have had.
pub fn untriggered<'r>(runs: impl Iterator<Item = &'r Run>) -> Option<String> {
    let (seeds, others): (Vec<&Run>, Vec<&Run>) =
        runs.partition(|run| run.kind == RunKind::DefaultBranch);
    let unseeded = match seeds.is_empty() {
        true => "",
        false => ", including those of the default branch, whose entries all branches could read",
    };
    let count = seeds.len() + others.len();
    (count > 0).then(|| {
        format!(
            "for {} the current workflow has no trigger{unseeded}: see --as-triggered",
            plural(count as u64, "run")
        )
    })
}
