//! The commits that snapshots were made from, as far as this repository has them.

use super::observations::Past;
use anyhow::Result;
use std::collections::HashMap;
use storecache_key::{ObjectId, Repository, RepositoryError};
use storecache_runtime::advice::in_one_line;

pub struct Commits {
    pub repository: Repository,
    /// The commit of each snapshot, if this repository has it.
    pub known: Vec<Option<ObjectId>>,
    /// Why some commits are unknown; empty if all are known.
    pub why_unknown: String,
}

/// Why the commits were not used.
pub enum NotUsed {
    /// The working directory is not in a repository; with the reason.
    Nowhere(String),
    /// This repository has too few of the commits; with the reason.
    TooFew(String),
}

impl Commits {
    /// Looks up the commits of snapshots. Names that are not hashes count as unknown.
    ///
    /// # Errors
    /// If git fails. A missing repository is not an error.
    pub fn find(past: &[Past]) -> Result<Result<Self, NotUsed>> {
        let repository = match Repository::here() {
            Ok(repository) => repository,
            Err(e @ RepositoryError::NoRepository { .. }) => {
                return Ok(Err(NotUsed::Nowhere(in_one_line(&e))));
            }
            Err(RepositoryError::Failed(error)) => return Err(error),
        };
        let mut seen: HashMap<&str, Option<ObjectId>> = HashMap::new();
        for one in past {
            let name = one.head.origin.commit.raw();
            // A name that is not a hash may refer to another commit by now.
            seen.entry(name).or_insert_with(|| {
                ObjectId::parse(name).and_then(|id| repository.commit(id.as_str())).ok()
            });
        }
        let commit = |one: &Past| seen.get(one.head.origin.commit.raw()).cloned().flatten();
        let known: Vec<_> = past.iter().map(commit).collect();
        let unknown = || past.iter().zip(&known).filter(|(_, known)| known.is_none());
        let count = |holds: fn(&Past) -> bool| unknown().filter(|(past, _)| holds(past)).count();
        let mut why = Vec::new();
        if count(|past| past.head.origin.commit.is_empty()) > 0 {
            why.push("some do not name a commit".to_owned());
        }
        if count(|past| past.head.origin.reference.raw().starts_with("refs/pull/")) > 0 {
            why.push("merges of pull requests are not on a branch".to_owned());
        }
        if unknown().next().is_some() && repository.is_shallow()? {
            why.push(
                "this is a shallow clone: fetch the rest with `git fetch --unshallow`".to_owned(),
            );
        } else if unknown().next().is_some() && why.is_empty() {
            why.push(
                "they may be from another repository, or rewritten: try `git fetch --all`"
                    .to_owned(),
            );
        }
        Ok(Ok(Commits { repository, known, why_unknown: why.join("; ") }))
    }
}
