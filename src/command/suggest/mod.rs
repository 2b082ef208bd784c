//! `key suggest`: which ingredients would have changed exactly when the store did.
//!
//! From the two ends of past snapshots alone, and from the repository that they were made from where
//! the program runs in it.

mod commits;
mod past;
mod tell;

use self::commits::{Commits, NotUsed};
use self::past::{Found, Kin, LeftOut, Past, largest_kin};
use super::{Ending, or_json};
use crate::key::suggest::{
    Candidate, Ingredient, Observation, Suggestion, of_commits, of_heads, suggest as search,
};
use crate::options::Suggest;
use anyhow::Result;

/// With fewer snapshots anything explains anything.
const FEWEST: usize = 3;

/// Prints the candidates and the suggestion. That there is none is no failure.
pub fn suggest(options: &Suggest) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Suggest) -> Result<Ending> {
    let Found { past, left_out, older } = past::read(options)?;
    let (kin, past, others) = largest_kin(past);
    let commits = Commits::of(&past)?;
    let enough = |used: &[&Past]| used.len() >= FEWEST && has_changed(&observations(used));
    let (repository, without_commit) = match commits {
        Ok(commits) => {
            let without = past.len() - commits.known.iter().flatten().count();
            (Ok(commits), without)
        }
        Err(why) => (Err(why), past.len()),
    };
    // Where too few have their commits here, all of them by their heads alone say more.
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
    looked.tell(&options.output)?;
    Ok(Ending::Done)
}

/// All that is to be told.
struct Looked<'a> {
    kin: Option<Kin>,
    /// Stores that were not looked at, with the number of their snapshots.
    others: Vec<(Kin, usize)>,
    left_out: Vec<LeftOut>,
    older: usize,
    /// In the order of time.
    used: &'a [&'a Past],
    /// Snapshots whose commits are not known here.
    without_commit: usize,
    repository: &'a Result<Commits, NotUsed>,
    candidates: &'a [Candidate],
    /// Files that would be candidates, were they still there.
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

/// Whether the store ever did, when nothing that is in every key did.
fn has_changed(observations: &[Observation]) -> bool {
    observations
        .windows(2)
        .any(|pair| pair[0].store != pair[1].store && pair[0].given == pair[1].given)
}

/// Whether what a head names is one of the files of the commits, which say more of it.
fn is_among(candidate: &Candidate, files: &[Candidate]) -> bool {
    let Ingredient::Pattern(pattern) = &candidate.ingredient else { return false };
    let same = |file: &Candidate| match &file.ingredient {
        Ingredient::File(path) => path.to_str() == pattern.strip_prefix("./").or(Some(pattern)),
        _ => false,
    };
    files.iter().any(same)
}
