//! Ingredients: files whose content goes into a key.

use crate::options::{KeyOptions, WorkflowMode};
use crate::snapshot::Digest;
use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use std::path::{Path, PathBuf};

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
pub fn gather(options: &KeyOptions) -> Result<Vec<Ingredient>> {
    let mut ingredients = Vec::new();
    if let (Some(file), WorkflowMode::Bytes) = (&options.workflow, options.workflow_mode) {
        let content =
            std::fs::read(file).with_context(|| format!("read the workflow {}", file.display()))?;
        ingredients.push(Ingredient {
            name: "workflow".into(),
            files: vec![file.clone()],
            digest: Digest::of(&content),
        });
    }
    for pattern in &options.hash_files {
        let files = matching(pattern)?;
        if files.is_empty() {
            bail!(
                "--hash-files {pattern:?} matches no file below {}; correct the pattern, or leave \
                 it out",
                std::env::current_dir().unwrap_or_default().display()
            );
        }
        let mut parts = Vec::new();
        for file in &files {
            let content = std::fs::read(file).with_context(|| file.display().to_string())?;
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

/// Files that match, sorted; paths stay relative when the pattern is.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let trimmed = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = GlobBuilder::new(trimmed)
        .literal_separator(true)
        .build()
        .with_context(|| format!("--hash-files {pattern:?} is no pattern"))?
        .compile_matcher();
    // Walk only below the part without wildcards.
    let fixed: PathBuf = Path::new(trimmed)
        .components()
        .take_while(|c| !c.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[{\\".contains(b)))
        .collect();
    let mut files = Vec::new();
    if fixed.is_file() {
        files.push(fixed);
    } else {
        let start = if fixed.as_os_str().is_empty() { Path::new(".") } else { &fixed };
        collect(start, &glob, &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(directory: &Path, glob: &GlobMatcher, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| directory.display().to_string()),
    };
    for entry in entries {
        let path = entry?.path();
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        // Links to directories are not followed: they may lead round in circles.
        if path.symlink_metadata()?.is_dir() {
            if path.file_name().is_none_or(|name| name != ".git") {
                collect(&path, glob, files)?;
            }
        } else if glob.is_match(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
