//! What is suspicious about a key, before it has cost anybody a run: parts that are the same for ever, that
//! are new in every run, or that change for what cannot reach the store.

use super::git::Repository;
use super::ingredients::{FILES, Ingredient, Part};
use super::tree::Tree;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// Files of one pattern from which on it is over-broad.
const MANY_FILES: usize = 1_000;

/// A pattern that matches this part of all files of the tree is over-broad, in percent.
const BROAD: usize = 50;

/// Trees with fewer files than this are too small to be told so.
const FEW_FILES: usize = 10;

/// Commits that are looked back.
const LOOK_BACK: usize = 100;

/// Fewer commits tell nothing.
const FEW_COMMITS: usize = 20;

/// An ingredient that changes in this part of all commits is volatile, in percent.
const OFTEN: usize = 50;

/// Files larger than this are not searched, in bytes.
const SEARCHED: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub kind: Kind,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// There is nothing in it, so it never changes.
    Empty,
    /// It changes in every run, or nearly.
    Volatile,
    /// It changes for what cannot reach the store.
    OverBroad,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Empty => "empty",
            Kind::Volatile => "volatile",
            Kind::OverBroad => "over-broad",
        }
    }
}

/// What differs from run to run.
pub struct Volatiles {
    /// What it is, and how it is written now.
    known: Vec<(&'static str, String)>,
}

impl Volatiles {
    /// Commit and number of a run, as far as they are known, and its date as in `2026-11-26`.
    pub fn new(commits: impl IntoIterator<Item = String>, run: &str, date: &str) -> Self {
        let mut known = Vec::new();
        for commit in commits {
            // As people shorten it.
            known.extend(commit.get(..7).map(|short| ("the commit", short.to_owned())));
        }
        // A shorter number may be anything.
        if run.len() > 5 {
            known.push(("the number of the run", run.to_owned()));
        }
        known.push(("the date of today", date.to_owned()));
        known.push(("the date of today", date.replace('-', "")));
        Volatiles { known }
    }

    fn in_text(&self, text: &str) -> Option<&'static str> {
        let found = self.known.iter().find(|(_, value)| text.contains(value));
        let looks_like_a_hash = || {
            let mut words = text.split(|c: char| !c.is_ascii_hexdigit());
            words.any(|word| word.len() == 40)
        };
        found.map(|(what, _)| *what).or_else(|| looks_like_a_hash().then_some("a commit"))
    }

    fn in_content(&self, content: &[u8]) -> Option<&'static str> {
        let found = self.known.iter().find(|(_, value)| {
            content.windows(value.len()).any(|window| window == value.as_bytes())
        });
        found.map(|(what, _)| *what)
    }

    /// What is wrong with a key that somebody has written.
    pub fn of_key(&self, key: &str) -> Option<Warning> {
        let what = self.in_text(key)?;
        let why = format!(
            "it has {what} in it, so that every run saves an entry that no other run finds exactly"
        );
        Some(Warning { kind: Kind::Volatile, why })
    }
}

/// What is suspicious about an ingredient. History is asked where there is one.
pub fn of(
    ingredient: &Ingredient,
    tree: &dyn Tree,
    files: usize,
    repository: Option<&Repository>,
    volatiles: &Volatiles,
) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    let mut warn = |kind, why| warnings.push(Warning { kind, why });
    match &ingredient.part {
        Part::Lines(canonical) if canonical.lines.is_empty() => {
            warn(Kind::Empty, "nothing of the workflow counts, so it never changes the key".into());
        }
        Part::Whole(facts) if facts.iter().all(|(size, _)| *size == 0) => {
            warn(Kind::Empty, "the files have no content, so they hardly ever change".into());
        }
        _ => {}
    }
    if let Part::Whole(_) = ingredient.part {
        for file in &ingredient.files {
            let content = tree.read(file)?.filter(|content| content.len() <= SEARCHED);
            if let Some(what) = content.and_then(|content| volatiles.in_content(&content)) {
                warn(Kind::Volatile, format!("{} has {what} in it", file.display()));
                break;
            }
        }
    }
    if let Some(repository) = repository
        && let Some((changed, all)) = changes(repository, &ingredient.files)?
        && changed * 100 > all * OFTEN
    {
        let why = format!("its files changed in {changed} of the last {all} commits");
        warn(Kind::Volatile, why);
    }
    if let Some(pattern) = ingredient.name.strip_prefix(FILES) {
        let matched = ingredient.files.len();
        let everything = matches!(pattern, "*" | "**" | "**/*" | "." | "./**");
        let most = files >= FEW_FILES && matched * 100 > files * BROAD;
        if everything || most || matched > MANY_FILES {
            let why = format!(
                "it matches {matched} of {files} files, and so changes for what cannot reach the store"
            );
            warn(Kind::OverBroad, why);
        }
    }
    Ok(warnings)
}

/// In how many of the last commits any of the files changed, and how many these are; nothing where there
/// are too few.
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
    // Without a commit there is no HEAD.
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
    fn what_differs_from_run_to_run_is_seen_in_a_key() {
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
            assert_eq!(volatiles.of_key(key).map(|it| it.kind), Some(Kind::Volatile), "{key}");
        }
        for key in ["storecache-guix-x86_64-linux-1.5.0", "nix-2.30.1-3f0c1", "guix-2026"] {
            assert_eq!(volatiles.of_key(key), None, "{key}");
        }
    }
}
