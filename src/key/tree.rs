//! The files that keys are made of: those of a work tree, or of a commit (`git.rs`).

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobMatcher};
use serde::Serializer;
use std::path::{Component, Path, PathBuf};

/// Files by the names that flags give them: relative to where the program runs, or absolute.
pub trait Tree {
    /// For people: what and where this is.
    fn describe(&self) -> String;

    /// The content of a file; nothing where there is none of this name.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;

    /// The files that match, sorted, by names that are relative when the pattern is.
    fn matching(&self, pattern: &Pattern) -> Result<Vec<PathBuf>>;
}

/// Writes a path as people read it; not all of them are UTF-8, as JSON has to be.
pub fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A pattern of `--hash-files`.
#[derive(Debug, Clone)]
pub struct Pattern {
    glob: GlobMatcher,
    /// The part before the first wildcard: nothing outside of it matches.
    fixed: PathBuf,
}

impl Pattern {
    /// # Errors
    /// When it is no pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        let glob = GlobBuilder::new(trimmed)
            .literal_separator(true)
            .build()
            .with_context(|| format!("--hash-files {text:?} is no pattern"))?
            .compile_matcher();
        let fixed = Path::new(trimmed)
            .components()
            .take_while(|c| !c.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[{\\".contains(b)))
            .collect();
        Ok(Pattern { glob, fixed })
    }

    /// Whether a file matches: by the pattern, or as the very file that it names.
    pub fn fits(&self, path: &Path) -> bool {
        self.glob.is_match(path) || path == self.fixed
    }

    pub fn is_absolute(&self) -> bool {
        self.fixed.is_absolute()
    }

    /// How many directories above the current one it starts.
    pub fn levels_up(&self) -> usize {
        self.fixed.components().take_while(|it| *it == Component::ParentDir).count()
    }
}

/// The files on the disk.
pub struct WorkTree;

impl Tree for WorkTree {
    fn describe(&self) -> String {
        std::env::current_dir().unwrap_or_default().display().to_string()
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        if !path.is_file() {
            return Ok(None);
        }
        std::fs::read(path).map(Some).with_context(|| format!("read {}", path.display()))
    }

    fn matching(&self, pattern: &Pattern) -> Result<Vec<PathBuf>> {
        let fixed = &pattern.fixed;
        let mut files = Vec::new();
        if fixed.is_file() {
            files.push(fixed.clone());
        } else {
            let start = if fixed.as_os_str().is_empty() { Path::new(".") } else { fixed };
            collect(start, pattern, &mut files)?;
        }
        files.sort();
        Ok(files)
    }
}

fn collect(directory: &Path, pattern: &Pattern, files: &mut Vec<PathBuf>) -> Result<()> {
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
                collect(&path, pattern, files)?;
            }
        } else if pattern.glob.is_match(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
