//! `key suggest`: finds ingredients that would have changed exactly when the store did.
//!
//! Uses head and index of past snapshots and, if the program runs in the repository that they were made from,
//! the commits of that repository.

mod observations;
mod snapshot_commits;
mod text;

use self::observations::{KeyFamily, LeftOut, Observations, Past, largest_kin};
use self::snapshot_commits::{Commits, NotUsed};
use super::{Conclusion, or_json};
use crate::config::Suggest;
use anyhow::Result;
use storecache_key::suggest::{
    Candidate, Ingredient, Observation, Suggestion, of_commits, of_heads, suggest as search,
};
use storecache_runtime::RunContext;

/// With fewer snapshots, almost any ingredient would explain the changes.
const FEWEST: usize = 3;

/// Prints the candidates and the suggestion. Having no suggestion is not a failure.
pub fn suggest(context: &RunContext, options: &Suggest) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Suggest) -> Result<Conclusion> {
    let Observations { past, left_out, older } = observations::read(context, options)?;
    let (kin, past, others) = largest_kin(past);
    let commits = Commits::find(&past)?;
    let enough = |used: &[&Past]| used.len() >= FEWEST && has_changed(&observations(used));
    let (repository, without_commit) = match commits {
        Ok(commits) => {
            let without = past.len() - commits.known.iter().flatten().count();
            (Ok(commits), without)
        }
        Err(why) => (Err(why), past.len()),
    };
    // If this repository has too few of the commits, comparing all snapshots by their heads is more useful.
    let with_commit = |commits: &Commits| -> Vec<&Past> {
        past.iter().zip(&commits.known).filter(|(_, c)| c.is_some()).map(|(past, _)| past).collect()
    };
    let repository = repository.and_then(|commits| match enough(&with_commit(&commits)) {
        true => Ok(commits),
        false => Err(NotUsed::TooFew(commits.why_unknown)),
    });
    let used = match &repository {
        Ok(commits) => with_commit(commits),
        Err(_) => past.iter().collect(),
    };

    let observations = observations(&used);
    let heads: Vec<_> = used.iter().map(|past| &past.head.ingredients).collect();
    let mut candidates = of_heads(&heads);
    let mut gone = Vec::new();
    if let Ok(commits) = &repository {
        let known: Vec<_> = commits.known.iter().flatten().cloned().collect();
        let matters = |at: usize| observations[at].store != observations[at + 1].store;
        let files = of_commits(&commits.repository, &known, matters)?;
        candidates.retain(|candidate| !is_among(candidate, &files.candidates));
        candidates.extend(files.candidates);
        gone = files.gone;
    }
    let suggestion = match used.len() {
        0..FEWEST => search(&[], &[]),
        _ => search(&observations, &candidates),
    };
    let looked = Looked {
        kin,
        others,
        left_out,
        older,
        used: &used,
        without_commit,
        repository: &repository,
        candidates: &candidates,
        gone: &gone,
        suggestion: &suggestion,
    };
    looked.print(&options.output)?;
    Ok(Conclusion::Done)
}

/// Everything that is reported.
struct Looked<'a> {
    kin: Option<KeyFamily>,
    /// Stores that were left out, with the number of their snapshots.
    others: Vec<(KeyFamily, usize)>,
    left_out: Vec<LeftOut>,
    older: usize,
    /// Sorted by time.
    used: &'a [&'a Past],
    /// Number of snapshots whose commits are not in this repository.
    without_commit: usize,
    repository: &'a Result<Commits, NotUsed>,
    candidates: &'a [Candidate],
    /// Files that would be candidates if they still existed.
    gone: &'a [Candidate],
    suggestion: &'a Suggestion,
}

fn observations(past: &[&Past]) -> Vec<Observation> {
    let of = |past: &&Past| Observation {
        store: past.store,
        given: past.head.store.version.raw().to_owned(),
    };
    past.iter().map(of).collect()
}

/// Whether the store ever changed while the parts that are in every key stayed the same.
fn has_changed(observations: &[Observation]) -> bool {
    observations
        .windows(2)
        .any(|pair| pair[0].store != pair[1].store && pair[0].given == pair[1].given)
}

/// Whether a candidate of the heads is one of the files of the commits, which give more information about it.
fn is_among(candidate: &Candidate, files: &[Candidate]) -> bool {
    let Ingredient::Pattern(pattern) = &candidate.ingredient else { return false };
    let same = |file: &Candidate| match &file.ingredient {
        Ingredient::File(path) => path.to_str() == pattern.strip_prefix("./").or(Some(pattern)),
        _ => false,
    };
    files.iter().any(same)
}
