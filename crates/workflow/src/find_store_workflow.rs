//! Finds the workflow that caches a store if none is given.

use super::cache_steps::of_a_store;
use super::file_source::{Pattern, Tree};
use super::workflow::{NotAWorkflow, Workflow};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use storecache_runtime::advice::WithAdvice;

/// The directory of workflows, below the top of the work tree.
const DIRECTORY: &str = ".github/workflows";

/// Advice if no workflow is chosen.
const NAME_ONE: &str = "name one with --workflow FILE";

/// Returns the only workflow of a tree with a step that caches a store.
///
/// # Errors
/// If no workflow has such a step, or more than one has; the message lists them, so that the user can choose.
pub fn store_workflow(tree: &dyn Tree) -> Result<PathBuf> {
    let files = workflows(tree)?;
    let mut keepers = Vec::new();
    let mut unreadable = Vec::new();
    for file in &files {
        let content = tree.read(file)?.unwrap_or_default();
        match Workflow::parse(&String::from_utf8_lossy(&content)) {
            Ok(workflow) => {
                let mut steps = workflow.jobs.iter().flat_map(|job| &job.steps);
                if steps.any(of_a_store) {
                    keepers.push(file);
                }
            }
            Err(NotAWorkflow { line, column, what }) => {
                unreadable.push(format!("{}:{line}:{column}: {what}", file.display()));
            }
        }
    }
    let tell = |files: &[&PathBuf]| {
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    match (keepers.as_slice(), unreadable.as_slice()) {
        ([only], _) => Ok((*only).clone()),
        ([], []) if files.is_empty() => bail!(
            anyhow!("there is no workflow in {DIRECTORY} of {}", tree.describe()).hint(NAME_ONE)
        ),
        ([], []) => bail!(
            anyhow!("no workflow of {} caches a store", tree.describe())
                .note(format!("it has {}", tell(&files.iter().collect::<Vec<_>>())))
                .hint(NAME_ONE)
        ),
        ([], unreadable) => bail!(
            anyhow!("no readable workflow of {} caches a store", tree.describe())
                .note(unreadable.join("; "))
                .hint(format!("correct the others, or {NAME_ONE}"))
        ),
        (several, _) => bail!(
            anyhow!("several workflows of {} cache a store", tree.describe())
                .note(format!("they are {}", tell(several)))
                .hint(NAME_ONE)
        ),
    }
}

/// Returns all workflow files: those below the current directory, or else those at the top of its work tree.
fn workflows(tree: &dyn Tree) -> Result<Vec<PathBuf>> {
    let in_directory = |start: &str| -> Result<Vec<PathBuf>> {
        tree.matching(&Pattern::parse(&format!("{start}{DIRECTORY}/*.{{yml,yaml}}"))?)
    };
    let files = in_directory("")?;
    if !files.is_empty() {
        return Ok(files);
    }
    match top()?.as_deref().and_then(Path::to_str) {
        Some(top) => in_directory(&format!("{}/", globset::escape(top))),
        None => Ok(files),
    }
}

/// Returns the nearest parent of the current directory that is the top of a git work tree.
fn top() -> Result<Option<PathBuf>> {
    let here = std::env::current_dir().context("find the current directory")?;
    Ok(here.ancestors().skip(1).find(|path| path.join(".git").exists()).map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use storecache_runtime::advice::in_one_line;

    struct Texts(BTreeMap<PathBuf, String>);

    impl Tree for Texts {
        fn describe(&self) -> String {
            "HEAD".into()
        }

        fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(path).map(|text| text.clone().into_bytes()))
        }

        fn matching(&self, pattern: &Pattern) -> Result<Vec<PathBuf>> {
            Ok(self.0.keys().filter(|path| pattern.fits(path)).cloned().collect())
        }
    }

    fn chosen(workflows: &[(&str, &str)]) -> Result<String, String> {
        let files = workflows.iter();
        let files = files.map(|(name, text)| (Path::new(DIRECTORY).join(name), (*text).to_owned()));
        let found = store_workflow(&Texts(files.collect()));
        found.map(|file| file.display().to_string()).map_err(|e| in_one_line(e.as_ref()))
    }

    const KEEPS: &str = "on: push\njobs:\n  a:\n    steps:\n      - uses: example/storecache@v1\n";
    const BUILDS: &str = "on: push\njobs:\n  a:\n    steps:\n      - run: make\n";

    #[test]
    fn store_workflow_is_found_among_others() {
        let found = chosen(&[("a.yml", BUILDS), ("b.yaml", KEEPS), ("c.yml", "on: [")]);
        assert_eq!(found.unwrap(), ".github/workflows/b.yaml");
    }

    #[test]
    fn error_lists_the_workflows_to_choose_from() {
        let two = chosen(&[("a.yml", KEEPS), ("b.yml", KEEPS), ("c.yml", BUILDS)]).unwrap_err();
        assert!(two.starts_with("several workflows of HEAD"), "{two}");
        assert!(two.contains("they are .github/workflows/a.yml, .github/workflows/b.yml"), "{two}");
        let none = chosen(&[("c.yml", BUILDS)]).unwrap_err();
        assert!(
            none.ends_with("it has .github/workflows/c.yml; name one with --workflow FILE"),
            "{none}"
        );
        let empty = chosen(&[]).unwrap_err();
        assert!(empty.contains("no workflow in .github/workflows of HEAD"), "{empty}");
        let broken = chosen(&[("a.yml", "on: push\njobs: [\n")]).unwrap_err();
        assert!(broken.contains(".github/workflows/a.yml:3:1: "), "{broken}");
    }
}
