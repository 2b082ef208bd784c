//! Keys: what they are made of, and in which order entries are looked for.
//!
//! A key is `PREFIX-STORE-SYSTEM-VERSION-HASH`. The hash covers the ingredients; without any
//! ingredient there is none. The room knows text and files of the work tree. It must not know
//! stores or backends.

mod git;
pub mod history;
mod ingredients;
mod ladder;
pub mod lint;
pub mod simulate;
mod tree;
mod which;
mod workflow;
mod yaml;

pub use git::{CommitTree, NoRepository, Repository};
pub use ingredients::{Ingredient, gather};
pub use ladder::{Ladder, Rung};
pub use tree::{Pattern, Tree, WorkTree};
pub use which::store_workflow;

use crate::options::KeyOptions;
use anyhow::Result;
use std::collections::BTreeMap;

/// A key with all that it came from.
#[derive(Debug, Clone)]
pub struct Key {
    pub text: String,
    pub ladder: Ladder,
    pub ingredients: Vec<Ingredient>,
}

/// Digits of the hash in a key: 128 bits, so that keys stay readable.
const HASH_DIGITS: usize = 32;

impl Key {
    /// Makes the key for a store of `kind` on `system`. `version` is asked only when it is needed.
    ///
    /// # Errors
    /// When an ingredient cannot be read or matches nothing, or when there is no version.
    pub fn make(
        options: &KeyOptions,
        kind: &str,
        system: &str,
        version: impl FnOnce() -> Result<String>,
    ) -> Result<Self> {
        let ingredients = gather(options, &WorkTree)?;
        if let Some(key) = &options.key {
            let ladder = Ladder::new(key, None, &options.restore_keys);
            return Ok(Key { text: key.clone(), ladder, ingredients });
        }
        let version = match &options.version {
            Some(version) => version.clone(),
            None => version()?,
        };
        let stem = format!("{}-{kind}-{system}-{version}", options.prefix);
        let fallback = format!("{stem}-");
        let text = match ingredients::hash(&ingredients) {
            Some(hash) => format!("{stem}-{}", &hash.to_string()[..HASH_DIGITS]),
            None => stem,
        };
        let ladder = Ladder::new(&text, Some(&fallback), &options.restore_keys);
        Ok(Key { text, ladder, ingredients })
    }

    /// Digest of each ingredient by name, for the head of a snapshot.
    pub fn digests(&self) -> BTreeMap<String, crate::snapshot::Digest> {
        self.ingredients.iter().map(|i| (i.name.clone(), i.digest)).collect()
    }
}
