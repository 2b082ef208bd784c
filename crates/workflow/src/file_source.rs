//! The files that keys are made from: those of a work tree, or those of a commit (`CommitTree` in
//! `crates/key/src/git.rs`).

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobMatcher};
use serde::Serializer;
use std::path::{Component, Path, PathBuf};

/// Files by the names that flags use: absolute, or relative to the current directory.
pub trait Tree {
    /// Returns a description to display.
    fn describe(&self) -> String;

    /// Returns the content of a file, or `None` if there is no such file.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;

    /// Returns the matching files, sorted. Names are relative if the pattern is.
    fn matching(&self, pattern: &Pattern) -> Result<Vec<PathBuf>>;
}

/// Serializes a path as text; a path that is not UTF-8 is written lossily, because JSON has to be UTF-8.
pub fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Resolves `.` and `..` lexically. Returns `None` if the path is absolute or leads above its start.
pub fn normalize(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if !clean.pop() => return None,
            Component::ParentDir => {}
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// A pattern of `--hash-files`.
#[derive(Debug, Clone)]
pub struct Pattern {
    glob: GlobMatcher,
    /// The part before the first wildcard; all matches are inside of it.
    fixed: PathBuf,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If it is not a valid pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        let glob = GlobBuilder::new(trimmed)
            .literal_separator(true)
            .build()
            .with_context(|| format!("--hash-files {text:?} is not a valid pattern"))?
            .compile_matcher();
        let fixed = Path::new(trimmed)
            .components()
            .take_while(|c| !c.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[{\\".contains(b)))
            .collect();
        Ok(Pattern { glob, fixed })
    }

    /// Returns whether the pattern matches a file, or is literally its path.
    pub fn fits(&self, path: &Path) -> bool {
        self.glob.is_match(path) || path == self.fixed
    }

    pub fn is_absolute(&self) -> bool {
        self.fixed.is_absolute()
    }

    /// Returns how many directories above the current one the pattern starts.
    pub fn levels_up(&self) -> usize {
        self.fixed.components().take_while(|it| *it == Component::ParentDir).count()
    }
}

/// The files on the disk, as seen from the current directory.
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
        // Do not follow links to directories: there may be cycles.
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
