//! Mistakes in workflows that make a cache of a store useless, found before it runs.
//!
//! One file for each kind of mistake. What cannot be known from the file is not held against it.

mod caches;
mod guards;
mod hashes;
mod keys;
mod recipe;
mod seeds;

pub(super) use caches::{is_ours, of_a_store};

use super::workflow::{NotAWorkflow, Workflow};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A mistake and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    pub level: Level,
    /// A word for the kind of mistake.
    pub rule: &'static str,
    pub message: String,
    /// What mends it.
    pub fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It may well be meant, or may cost time only.
    Warning,
    /// The cache cannot work like this.
    Error,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// A workflow file with its work tree.
pub struct Source {
    pub file: PathBuf,
    /// The top of the work tree that it belongs to.
    pub tree: PathBuf,
    pub text: String,
}

/// A finding before it has a file.
type Found = (usize, Level, String, String);

/// Looks at workflows together: one may fill the cache that another one reads. What is on the default
/// branch is told better where its name is known.
pub fn lint(sources: &[Source], default_branch: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut workflows = Vec::new();
    for source in sources {
        match Workflow::parse(&source.text) {
            Ok(workflow) => workflows.push((source, workflow)),
            Err(e) => {
                let line = e.downcast_ref::<NotAWorkflow>().map_or(1, |error| error.line);
                let fix = "mend the file".to_owned();
                let found = (line, Level::Error, format!("{e:#}"), fix);
                findings.push(finding(&source.file, "unreadable", found));
            }
        }
    }
    for (source, workflow) in &workflows {
        let others = workflows.iter().map(|(_, other)| other);
        let mut add = |rule, found: Vec<Found>| {
            findings.extend(found.into_iter().map(|found| finding(&source.file, rule, found)));
        };
        add("empty-hash", hashes::check(workflow, &source.tree));
        add("unseeded", seeds::check(workflow, others, default_branch));
        add("key", keys::check(workflow));
        add("guard", guards::check(workflow));
        add("tar", recipe::check(workflow));
    }
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    findings
}

fn finding(file: &Path, rule: &'static str, (line, level, message, fix): Found) -> Finding {
    Finding { file: file.to_owned(), line, level, rule, message, fix }
}
