//! Keys: their ingredients, and the order in which entries are looked up.
//!
//! A key is `PREFIX-STORE-SYSTEM-VERSION-HASH`. The hash covers the ingredients; a key without ingredients
//! has no hash.
//!
//! - `ingredients`: the files and the parts of a workflow that go into a key
//! - `diff`: which ingredients differ between two states
//! - [`history`]: the past runs of a workflow, reconstructed from git
//! - [`simulate`]: replays these runs against a model of GitHub's cache
//! - [`suggest`]: finds ingredients that would have changed exactly when the store did
//!
//! This crate reads the work tree and its git repository. It must not depend on stores or backends.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod diff;
mod from_step;
mod git;
pub mod history;
mod ingredients;
mod options;
pub mod simulate;
pub mod suggest;
mod warnings;

pub use diff::{ChangeKind, FileChange, Moved, MovedFile, MovedLine, Side, diff};
pub use from_step::{OfStep, of_step};
pub use git::{CommitTree, Files, ObjectId, Repository, RepositoryError};
pub use ingredients::{FILES, Ingredient, IngredientContent, WORKFLOW, gather};
pub use options::{KeyOptions, WorkflowMode};
pub use warnings::{Volatiles, Warning, WarningKind, warnings_of};

use anyhow::Result;
use std::collections::BTreeMap;
use storecache_entry::{Digest, Ladder};
use storecache_workflow::WorkTree;

/// A key and everything that it was made from.
#[derive(Debug)]
pub struct Key {
    pub text: String,
    /// Version of the package manager; `None` if the whole key was given.
    pub version: Option<String>,
    /// The part of the key that is the hash of its ingredients.
    pub hash: Option<String>,
    pub ladder: Ladder,
    pub ingredients: Vec<Ingredient>,
}

/// Digits of the hash in a key: 128 bits, so that keys stay readable.
const HASH_DIGITS: usize = 32;

impl Key {
    /// Makes the key for a store of `kind` on `system`. Calls `version` only if the version is needed.
    ///
    /// # Errors
    /// If an ingredient cannot be read or matches nothing, or if `version` fails.
    pub fn make(
        options: &KeyOptions,
        kind: &str,
        system: &str,
        version: impl FnOnce() -> Result<String>,
    ) -> Result<Self> {
        let ingredients = gather(options, &WorkTree)?;
        if let Some(key) = &options.key {
            let ladder = Ladder::new(key, None, &options.restore_keys);
            return Ok(Key { text: key.clone(), version: None, hash: None, ladder, ingredients });
        }
        let version = match &options.version {
            Some(version) => version.clone(),
            None => version()?,
        };
        let stem = format!("{}-{kind}-{system}-{version}", options.prefix);
        let fallback = format!("{stem}-");
        let hash = hash_of(&digests(&ingredients));
        let text = match &hash {
            Some(hash) => format!("{stem}-{hash}"),
            None => stem,
        };
        let ladder = Ladder::new(&text, Some(&fallback), &options.restore_keys);
        Ok(Key { text, version: Some(version), hash, ladder, ingredients })
    }

    /// Returns the notes for the user of all ingredients.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.ingredients.iter().flat_map(|ingredient| &ingredient.notes).map(String::as_str)
    }

    /// Returns the digest of each ingredient by name, for the head of a snapshot.
    pub fn digests(&self) -> BTreeMap<String, Digest> {
        digests(&self.ingredients)
    }
}

fn digests(ingredients: &[Ingredient]) -> BTreeMap<String, Digest> {
    ingredients.iter().map(|i| (i.name.clone(), i.digest)).collect()
}

/// Returns the hash of ingredients that goes into a key; `None` without ingredients.
pub fn hash_of(digests: &BTreeMap<String, Digest>) -> Option<String> {
    if digests.is_empty() {
        return None;
    }
    let part = |(name, digest): (&String, &Digest)| {
        [name.as_bytes(), b"\0", digest.as_bytes().as_slice()].concat()
    };
    let mut parts: Vec<Vec<u8>> = digests.iter().map(part).collect();
    // Sort again, by the encoded bytes: the order of flags must not matter.
    parts.sort_unstable();
    let hash = Digest::of_parts(parts.iter().map(Vec::as_slice));
    Some(hash.to_string()[..HASH_DIGITS].to_owned())
}
