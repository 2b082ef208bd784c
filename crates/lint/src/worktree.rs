//! The files of a work tree, listed when a rule first needs them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// A work tree with more files than this is not listed, so that rules about files report nothing.
const MOST_FILES: usize = 200_000;

/// Maximum number of path components in [`Files::first`]: deeper files often belong to other projects.
const NEAR: usize = 2;

pub struct Files {
    tree: PathBuf,
    list: OnceCell<Option<Vec<PathBuf>>>,
}

impl Files {
    pub fn new(tree: &Path) -> Self {
        Files { tree: tree.to_owned(), list: OnceCell::new() }
    }

    /// Returns the paths below the work tree, without `.git`. Returns `None` if there are too many, or if a
    /// directory cannot be read.
    pub fn list(&self) -> Option<&[PathBuf]> {
        let list = self.list.get_or_init(|| {
            let mut files = Vec::new();
            list(&self.tree, Path::new(""), &mut files).then_some(files)
        });
        list.as_deref()
    }

    /// Returns the path of the first of these names that exists at the top of the work tree or in one of its
    /// directories.
    pub fn first(&self, names: &[&str]) -> Option<String> {
        let files = self.list()?;
        let depth = |path: &Path| path.components().count();
        names.iter().find_map(|name| {
            let named = files.iter().filter(|path| path.file_name().is_some_and(|it| it == *name));
            let named = named.filter(|path| depth(path) <= NEAR);
            let nearest = named.min_by_key(|path| (depth(path), path.as_os_str()))?;
            nearest.to_str().map(str::to_owned)
        })
    }
}

fn list(tree: &Path, below: &Path, files: &mut Vec<PathBuf>) -> bool {
    let Ok(entries) = tree.join(below).read_dir() else { return false };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let path = below.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { return false };
        if kind.is_dir() {
            if entry.file_name() != ".git" && !list(tree, &path, files) {
                return false;
            }
        } else {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return false;
        }
    }
    true
}
