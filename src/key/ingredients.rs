//! Ingredients: files whose content goes into a key.

use super::tree::{Pattern, Tree};
use crate::options::{KeyOptions, WorkflowMode};
use crate::snapshot::Digest;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// One ingredient and what it matched.
#[derive(Debug, Clone)]
pub struct Ingredient {
    pub name: String,
    /// Sorted.
    pub files: Vec<PathBuf>,
    /// Over names and contents.
    pub digest: Digest,
}

/// Reads all ingredients that were asked for.
///
/// # Errors
/// When a pattern matches no file: an empty hash would be the same for ever.
pub fn gather(options: &KeyOptions, tree: &dyn Tree) -> Result<Vec<Ingredient>> {
    let mut ingredients = Vec::new();
    if let (Some(file), WorkflowMode::Bytes) = (&options.workflow, options.workflow_mode) {
        let content = tree.read(file)?.with_context(|| {
            format!("read the workflow {}: {} has no such file", file.display(), tree.describe())
        })?;
        ingredients.push(Ingredient {
            name: "workflow".into(),
            files: vec![file.clone()],
            digest: Digest::of(&content),
        });
    }
    for pattern in &options.hash_files {
        let files = tree.matching(&Pattern::parse(pattern)?)?;
        if files.is_empty() {
            bail!(
                "--hash-files {pattern:?} matches no file below {}; correct the pattern, or leave \
                 it out",
                tree.describe()
            );
        }
        let mut parts = Vec::new();
        for file in &files {
            let content =
                tree.read(file)?.with_context(|| format!("{} is gone", file.display()))?;
            let name = file.as_os_str().as_encoded_bytes();
            // Lengths keep two files from looking like one.
            parts.extend_from_slice(&(name.len() as u64).to_be_bytes());
            parts.extend_from_slice(name);
            parts.extend_from_slice(Digest::of(&content).as_bytes());
        }
        let name = format!("files:{pattern}");
        ingredients.push(Ingredient { name, files, digest: Digest::of(&parts) });
    }
    Ok(ingredients)
}

/// The hash over all ingredients; nothing when there are none.
pub fn hash(ingredients: &[Ingredient]) -> Option<Digest> {
    if ingredients.is_empty() {
        return None;
    }
    let mut parts: Vec<Vec<u8>> = ingredients
        .iter()
        .map(|i| [i.name.as_bytes(), b"\0", i.digest.as_bytes()].concat())
        .collect();
    // The order of flags does not count.
    parts.sort_unstable();
    Some(Digest::of_parts(parts.iter().map(Vec::as_slice)))
}
