//! Ingredients: files whose content goes into a key.

use crate::{KeyOptions, WorkflowMode};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use storecache_entry::Digest;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_workflow::file_source::{Pattern, Tree};
use storecache_workflow::semantic::{Canonical, Selection, Unreadable};

/// An ingredient and the files that it matched.
#[derive(Debug)]
pub struct Ingredient {
    /// `workflow` (by its bytes), `workflow:semantic`, or `files:` and a pattern.
    pub name: String,
    /// Sorted; for a workflow, the workflow and then the files that it calls by path.
    pub files: Vec<PathBuf>,
    /// Digest of names and contents of the files; for `workflow:semantic`, of the lines that count.
    pub digest: Digest,
    pub part: IngredientContent,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The parts of the files that count.
#[derive(Debug)]
pub enum IngredientContent {
    /// Whole files: size in bytes and digest, in the order of the files.
    Whole(Vec<(u64, Digest)>),
    /// Some lines of a workflow.
    Lines(Canonical),
}

/// The name of a workflow that is hashed by its bytes.
pub const WORKFLOW: &str = "workflow";

/// The name of a workflow of which only the relevant lines are hashed.
pub const SEMANTIC: &str = "workflow:semantic";

/// The prefix of the name of an ingredient of `--hash-files`.
pub const FILES: &str = "files:";

/// Reads all requested ingredients.
///
/// # Errors
/// If a pattern matches no file: an empty hash would never change. [`Unreadable`] if the workflow cannot be
/// interpreted; in a job that is only a note, and the file is hashed by its bytes.
pub fn gather(options: &KeyOptions, tree: &dyn Tree) -> Result<Vec<Ingredient>> {
    gather_each(options, tree).collect()
}

/// As [`gather`], but returns each ingredient with its own error.
pub fn gather_each(
    options: &KeyOptions,
    tree: &dyn Tree,
) -> impl Iterator<Item = Result<Ingredient>> {
    let workflow =
        options.workflow.iter().filter_map(|file| workflow(options, file, tree).transpose());
    workflow.chain(options.hash_files.iter().map(|pattern| files(pattern, tree)))
}

fn workflow(options: &KeyOptions, file: &Path, tree: &dyn Tree) -> Result<Option<Ingredient>> {
    match options.workflow_mode {
        WorkflowMode::None => Ok(None),
        WorkflowMode::Bytes => bytes(file, tree).map(Some),
        WorkflowMode::Semantic => match semantic(options, file, tree) {
            Err(e) if options.in_job => {
                let mut ingredient = bytes(file, tree)?;
                ingredient.notes.push(format!(
                    "falling back to workflow-mode bytes: {}",
                    in_one_line(e.as_ref())
                ));
                Ok(Some(ingredient))
            }
            Err(e) if e.is::<Unreadable>() => Err(e.context(
                "cannot determine which parts of the workflow count (fix it, or use \
                 --workflow-mode bytes)",
            )),
            made => made.map(Some),
        },
    }
}

fn bytes(file: &Path, tree: &dyn Tree) -> Result<Ingredient> {
    let content = tree.read(file)?.with_context(|| {
        format!("read the workflow {}: {} has no such file", file.display(), tree.describe())
    })?;
    let digest = Digest::hash(&content);
    Ok(Ingredient {
        name: WORKFLOW.into(),
        files: vec![file.to_owned()],
        digest,
        part: IngredientContent::Whole(vec![(content.len() as u64, digest)]),
        notes: Vec::new(),
    })
}

fn semantic(options: &KeyOptions, file: &Path, tree: &dyn Tree) -> Result<Ingredient> {
    let selection = Selection {
        job: options.workflow_job.as_deref(),
        steps: &options.workflow_steps,
        ignore_pins: &options.ignore_pins,
    };
    let mut canonical = Canonical::new(tree, file, &selection)?;
    Ok(Ingredient {
        name: SEMANTIC.into(),
        files: std::mem::take(&mut canonical.files),
        digest: canonical.digest(),
        notes: std::mem::take(&mut canonical.notes),
        part: IngredientContent::Lines(canonical),
    })
}

fn files(pattern: &str, tree: &dyn Tree) -> Result<Ingredient> {
    let files = tree.matching(&Pattern::parse(pattern)?)?;
    if files.is_empty() {
        bail!(
            anyhow!("--hash-files {pattern:?} matches no file below {}", tree.describe())
                .hint("correct the pattern, or leave it out")
        );
    }
    let mut hashed = Vec::new();
    let mut facts = Vec::new();
    for file in &files {
        let content =
            tree.read(file)?.with_context(|| format!("{} no longer exists", file.display()))?;
        let digest = Digest::hash(&content);
        let name = file.as_os_str().as_encoded_bytes();
        // Lengths make the encoding unambiguous.
        hashed.extend_from_slice(&(name.len() as u64).to_be_bytes());
        hashed.extend_from_slice(name);
        hashed.extend_from_slice(digest.as_bytes());
        facts.push((content.len() as u64, digest));
    }
    Ok(Ingredient {
        name: format!("{FILES}{pattern}"),
        files,
        digest: Digest::hash(&hashed),
        part: IngredientContent::Whole(facts),
        notes: Vec::new(),
    })
}
