//! Warnings about a key before it causes useless runs: parts that never change, that change in every run, or
//! that change for reasons that cannot affect the store.

use super::git::Repository;
use super::ingredients::{FILES, Ingredient, IngredientContent};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use storecache_workflow::file_source::Tree;

/// A pattern that matches more files than this is over-broad.
const MANY_FILES: usize = 1_000;

/// A pattern that matches more than this percentage of all files of the tree is over-broad.
const BROAD: usize = 50;

/// Trees with fewer files than this get no warning about the percentage.
const FEW_FILES: usize = 10;

/// Number of commits to examine.
const LOOK_BACK: usize = 100;

/// With fewer commits, no conclusion is drawn.
const FEW_COMMITS: usize = 20;

/// An ingredient that changes in more than this percentage of all commits is volatile.
const OFTEN: usize = 50;

/// Files larger than this are not searched, in bytes.
const SEARCHED: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub kind: WarningKind,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// It is empty, so it never changes.
    Empty,
    /// It changes in every run, or nearly.
    Volatile,
    /// It changes for reasons that cannot affect the store.
    OverBroad,
}

impl WarningKind {
    pub fn name(self) -> &'static str {
        match self {
            WarningKind::Empty => "empty",
            WarningKind::Volatile => "volatile",
            WarningKind::OverBroad => "over-broad",
        }
    }
}

/// Values that differ from run to run.
pub struct Volatiles {
    /// A description, and the current value as text.
    known: Vec<(&'static str, String)>,
}

impl Volatiles {
    /// Collects the volatile values: commits, the number of the run if it is known, and its date as in
    /// `2026-11-26`.
    pub fn new(commits: impl IntoIterator<Item = String>, run: &str, date: &str) -> Self {
        let mut known = Vec::new();
        for commit in commits {
            // The first seven digits, so that abbreviated hashes are found too.
            known.extend(commit.get(..7).map(|short| ("the commit hash", short.to_owned())));
        }
        // A shorter number could be anything.
        if run.len() > 5 {
            known.push(("the run number", run.to_owned()));
        }
        known.push(("today's date", date.to_owned()));
        known.push(("today's date", date.replace('-', "")));
        Volatiles { known }
    }

    fn in_text(&self, text: &str) -> Option<&'static str> {
        let found = self.known.iter().find(|(_, value)| text.contains(value));
        let looks_like_a_hash = || {
            let mut words = text.split(|c: char| !c.is_ascii_hexdigit());
            words.any(|word| word.len() == 40)
        };
        found.map(|(what, _)| *what).or_else(|| looks_like_a_hash().then_some("a commit hash"))
    }

    fn in_content(&self, content: &[u8]) -> Option<&'static str> {
        let found = self.known.iter().find(|(_, value)| {
            content.windows(value.len()).any(|window| window == value.as_bytes())
        });
        found.map(|(what, _)| *what)
    }

    /// Returns the warning about a key that was given as a whole, if any.
    pub fn of_key(&self, key: &str) -> Option<Warning> {
        let what = self.in_text(key)?;
        let why = format!(
            "it contains {what}, so each run saves an entry that no other run matches exactly"
        );
        Some(Warning { kind: WarningKind::Volatile, why })
    }
}

/// Returns the warnings about an ingredient. Examines the history if there is a repository.
pub fn warnings_of(
    ingredient: &Ingredient,
    tree: &dyn Tree,
    files: usize,
    repository: Option<&Repository>,
    volatiles: &Volatiles,
) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    let mut warn = |kind, why| warnings.push(Warning { kind, why });
    match &ingredient.part {
        IngredientContent::Lines(canonical) if canonical.lines.is_empty() => {
            warn(
                WarningKind::Empty,
                "no part of the workflow counts, so it never changes the key".into(),
            );
        }
        IngredientContent::Whole(facts) if facts.iter().all(|(size, _)| *size == 0) => {
            warn(WarningKind::Empty, "the files are empty, so they hardly ever change".into());
        }
        _ => {}
    }
    if let IngredientContent::Whole(_) = ingredient.part {
        for file in &ingredient.files {
            let content = tree.read(file)?.filter(|content| content.len() <= SEARCHED);
            if let Some(what) = content.and_then(|content| volatiles.in_content(&content)) {
                warn(WarningKind::Volatile, format!("{} contains {what}", file.display()));
                break;
            }
        }
    }
    if let Some(repository) = repository
        && let Some((changed, all)) = changes(repository, &ingredient.files)?
        && changed * 100 > all * OFTEN
    {
        let why = format!("its files changed in {changed} of the last {all} commits");
        warn(WarningKind::Volatile, why);
    }
    if let Some(pattern) = ingredient.name.strip_prefix(FILES) {
        let matched = ingredient.files.len();
        let everything = matches!(pattern, "*" | "**" | "**/*" | "." | "./**");
        let most = files >= FEW_FILES && matched * 100 > files * BROAD;
        if everything || most || matched > MANY_FILES {
            let why = format!(
                "it matches {matched} of {files} files, so files that cannot affect the store \
                 change it too"
            );
            warn(WarningKind::OverBroad, why);
        }
    }
    Ok(warnings)
}

/// Returns in how many of the last commits any of the files changed, and the number of commits examined.
/// Returns `None` if there are too few commits.
fn changes(repository: &Repository, files: &[impl AsRef<Path>]) -> Result<Option<(usize, usize)>> {
    let limit = format!("--max-count={LOOK_BACK}");
    let log = |more: &[&str]| -> Result<Vec<Vec<u8>>> {
        let words = ["log", "--format=%H", "--no-show-signature", &limit].into_iter();
        let said = repository.ask(words.chain(more.iter().copied()))?;
        Ok(said
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    };
    // HEAD does not exist before the first commit.
    let Ok(all) = log(&["HEAD"]) else { return Ok(None) };
    if all.len() < FEW_COMMITS {
        return Ok(None);
    }
    let paths: Option<Vec<String>> = files
        .iter()
        .take(MANY_FILES)
        .map(|file| {
            Some(format!(":(top,literal){}", repository.below_top(file.as_ref())?.to_str()?))
        })
        .collect();
    let Some(paths) = paths else { return Ok(None) };
    let mut words = vec!["HEAD", "--"];
    words.extend(paths.iter().map(String::as_str));
    let touched = log(&words)?;
    Ok(Some((touched.iter().filter(|commit| all.contains(commit)).count(), all.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volatile_parts_of_a_key_are_detected() {
        let commit = "3f0c1de7d3a1b1a7c9a4c5a2f0d1e2b34f0c1de7".to_owned();
        let volatiles = Volatiles::new([commit], "9876543210", "2026-11-26");
        for key in [
            "guix-3f0c1de7d3a1b1a7c9a4c5a2f0d1e2b34f0c1de7",
            "guix-3f0c1de",
            "nix-9876543210",
            "nix-20261126",
            "nix-2026-11-26-x",
            "nix-0123456789012345678901234567890123456789",
        ] {
            assert_eq!(
                volatiles.of_key(key).map(|it| it.kind),
                Some(WarningKind::Volatile),
                "{key}"
            );
        }
        for key in ["storecache-guix-x86_64-linux-1.5.0", "nix-2.30.1-3f0c1", "guix-2026"] {
            assert_eq!(volatiles.of_key(key), None, "{key}");
        }
    }
}
