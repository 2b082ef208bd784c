//! Compares the ingredients of a key in two states: which ones changed, in which files, and whether the key
//! changes.

use super::ingredients::{Ingredient, IngredientContent, WORKFLOW};
use crate::{KeyOptions, WorkflowMode};
use anyhow::Result;
use serde::Serialize;
use similar::ChangeTag;
use similar::algorithms::{Capture, Compact, Replace, myers};
use std::collections::BTreeMap;
use std::path::PathBuf;
use storecache_entry::Digest;
use storecache_runtime::advice::in_one_line;
use storecache_workflow::file_source::{Tree, shown};
use storecache_workflow::semantic::CanonicalLine;

/// An ingredient in two states.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    pub name: String,
    pub state: ChangeKind,
    pub files: Vec<MovedFile>,
    /// Lines of a workflow that count and changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<MovedLine>,
    /// Why details are missing, or what would have avoided the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Same,
    /// Its files changed only in parts that do not count: the key stays.
    Cosmetic,
    /// The key changes.
    Real,
    /// Only the second state has it.
    Added,
    /// Only the first state has it.
    Removed,
}

impl ChangeKind {
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Same => "same",
            ChangeKind::Cosmetic => "cosmetic",
            ChangeKind::Real => "real",
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
        }
    }

    /// Returns whether the ingredient leaves the key unchanged.
    pub fn keeps_key(self) -> bool {
        matches!(self, ChangeKind::Same | ChangeKind::Cosmetic)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MovedFile {
    #[serde(serialize_with = "shown")]
    pub path: PathBuf,
    pub change: FileChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    Changed,
    Added,
    Removed,
}

/// A line that counts and was removed or added.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MovedLine {
    pub added: bool,
    pub path: String,
    pub text: String,
    #[serde(serialize_with = "shown")]
    pub file: PathBuf,
    pub line: usize,
}

/// A state that keys are made from: a tree of files, or the digests that a snapshot recorded.
#[derive(Default)]
pub struct Side<'a> {
    pub digests: BTreeMap<String, Digest>,
    /// The ingredients with their files, if known.
    pub ingredients: Vec<Ingredient>,
    pub tree: Option<&'a dyn Tree>,
}

impl<'a> Side<'a> {
    /// Computes each ingredient of a tree. Returns also the errors of those that cannot be computed.
    pub fn of_tree(options: &KeyOptions, tree: &'a dyn Tree) -> (Self, Vec<String>) {
        let mut side = Side { digests: BTreeMap::new(), ingredients: vec![], tree: Some(tree) };
        let mut missing = Vec::new();
        for gathered in super::ingredients::gather_each(options, tree) {
            match gathered {
                Ok(ingredient) => {
                    side.digests.insert(ingredient.name.clone(), ingredient.digest);
                    side.ingredients.push(ingredient);
                }
                Err(e) => missing.push(in_one_line(e.as_ref())),
            }
        }
        (side, missing)
    }

    fn ingredient(&self, name: &str) -> Option<&Ingredient> {
        self.ingredients.iter().find(|ingredient| ingredient.name == name)
    }

    /// Returns the digests of the files of an ingredient.
    fn files(&self, ingredient: Option<&Ingredient>) -> Result<BTreeMap<PathBuf, Digest>> {
        let mut files = BTreeMap::new();
        let (Some(ingredient), Some(tree)) = (ingredient, self.tree) else { return Ok(files) };
        if let IngredientContent::Whole(facts) = &ingredient.part {
            let digests = facts.iter().map(|(_, digest)| *digest);
            return Ok(ingredient.files.iter().cloned().zip(digests).collect());
        }
        for file in &ingredient.files {
            files.extend(tree.read(file)?.map(|content| (file.clone(), Digest::hash(&content))));
        }
        Ok(files)
    }
}

/// Compares all ingredients that either side has, by name.
pub fn diff(options: &KeyOptions, before: &Side, after: &Side) -> Result<Vec<Moved>> {
    let mut names: Vec<&String> = before.digests.keys().chain(after.digests.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| moved(name, options, before, after)).collect()
}

fn moved(name: &str, options: &KeyOptions, before: &Side, after: &Side) -> Result<Moved> {
    let (old, new) = (before.ingredient(name), after.ingredient(name));
    let files = file_changes(&before.files(old)?, &after.files(new)?);
    let known =
        |digest: Option<&Digest>, has: Option<&Ingredient>| digest.is_none() || has.is_some();
    let (was, is) = (before.digests.get(name), after.digests.get(name));
    let detailed = known(was, old) && known(is, new);
    let state = match (was, is) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        (Some(a), Some(b)) if a != b => ChangeKind::Real,
        _ if detailed && !files.is_empty() => ChangeKind::Cosmetic,
        _ => ChangeKind::Same,
    };
    let lines = match (old.map(|it| &it.part), new.map(|it| &it.part)) {
        (Some(IngredientContent::Lines(a)), Some(IngredientContent::Lines(b))) => {
            line_changes(&a.lines, &b.lines)
        }
        _ => Vec::new(),
    };
    let note = match state {
        ChangeKind::Real if !detailed => Some(
            "the snapshot records only the digest, and its commit is missing or has another digest"
                .into(),
        ),
        ChangeKind::Real if name == WORKFLOW => would_stay(options, before, after),
        _ => None,
    };
    let files = if detailed { files } else { Vec::new() };
    Ok(Moved { name: name.to_owned(), state, files, lines, note })
}

/// Checks whether a workflow that is hashed by its bytes changed only in parts that do not count.
fn would_stay(options: &KeyOptions, before: &Side, after: &Side) -> Option<String> {
    let options = KeyOptions {
        workflow_mode: WorkflowMode::Semantic,
        hash_files: Vec::new(),
        in_job: false,
        ..options.clone()
    };
    let digest = |side: &Side| Side::of_tree(&options, side.tree?).0.digests.into_values().next();
    let stays = digest(before)? == digest(after)?;
    stays.then(|| {
        "the change is cosmetic: with --workflow-mode semantic the key would not change".into()
    })
}

fn file_changes(
    before: &BTreeMap<PathBuf, Digest>,
    after: &BTreeMap<PathBuf, Digest>,
) -> Vec<MovedFile> {
    let mut all: Vec<_> = before.keys().chain(after.keys()).collect();
    all.sort_unstable();
    all.dedup();
    let change = |path: &PathBuf| match (before.get(path), after.get(path)) {
        (None, _) => Some(FileChange::Added),
        (_, None) => Some(FileChange::Removed),
        (a, b) => (a != b).then_some(FileChange::Changed),
    };
    let moved = |path: &PathBuf| Some(MovedFile { path: path.clone(), change: change(path)? });
    all.into_iter().filter_map(moved).collect()
}

/// Returns the lines that only one side has. Indices of steps are ignored, so that inserting a step does not
/// change those after it.
fn line_changes(before: &[CanonicalLine], after: &[CanonicalLine]) -> Vec<MovedLine> {
    let shown = |lines: &[CanonicalLine]| -> Vec<String> {
        lines.iter().map(|line| format!("{}\0{}", without_numbers(&line.path), line.text)).collect()
    };
    let (old, new) = (shown(before), shown(after));
    // Use one algorithm only: selecting among all of them would add 200 kB to the program.
    let mut diff = Compact::new(Replace::new(Capture::new()), &old[..], &new[..]);
    let Ok(()) = myers::diff(&mut diff, &old[..], 0..old.len(), &new[..], 0..new.len());
    let operations = diff.into_inner().into_inner().into_ops();
    let mut moved = Vec::new();
    for change in operations.iter().flat_map(|it| it.iter_changes(&old[..], &new[..])) {
        let (added, line) = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => (false, change.old_index().and_then(|at| before.get(at))),
            ChangeTag::Insert => (true, change.new_index().and_then(|at| after.get(at))),
        };
        let Some(CanonicalLine { path, text, file, line }) = line.cloned() else { continue };
        moved.push(MovedLine { added, path, text, file, line });
    }
    moved
}

fn without_numbers(path: &str) -> String {
    let mut parts = path.split('[');
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        short.push_str("[]");
        short.push_str(part.split_once(']').map_or(part, |(_, rest)| rest));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[(&str, &str)]) -> Vec<CanonicalLine> {
        let line = |(at, (path, text)): (usize, &(&str, &str))| CanonicalLine {
            path: (*path).into(),
            text: (*text).into(),
            file: "ci.yml".into(),
            line: at,
        };
        texts.iter().enumerate().map(line).collect()
    }

    #[test]
    fn inserted_step_is_the_only_change() {
        let before = lines(&[("job.steps[0].run", "a"), ("job.steps[1].run", "b")]);
        let after = lines(&[
            ("job.steps[0].run", "new"),
            ("job.steps[1].run", "a"),
            ("job.steps[2].run", "b"),
        ]);
        let moved = line_changes(&before, &after);
        assert_eq!(moved.len(), 1);
        assert!(moved[0].added && moved[0].text == "new", "{moved:?}");
        assert_eq!(line_changes(&after, &after), []);
        let swapped = lines(&[("job.steps[0].run", "b"), ("job.steps[1].run", "a")]);
        assert_eq!(line_changes(&before, &swapped).len(), 2);
    }
}
