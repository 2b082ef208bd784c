//! Detects mistakes in workflows that make a cache of a store useless, before the workflow runs.
//!
//! Each file checks one subject and may report several rules. To add a rule, name it in `rules.rs`, report it from the
//! `check` of a file, and call the `check` of a new file below.
//! Rules do not report anything that cannot be decided from the files. A correction is offered only if it was
//! tried: the corrected file was parsed and checked again, and the mistake was gone.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod container_store;
mod daemon_stopped;
mod diagnostic;
mod empty_hash;
mod fix;
mod guard;
mod key_limits;
mod key_system;
mod matrix;
mod own_step;
mod owners;
mod path_version;
mod rules;
mod shell;
mod store_path;
mod success_only;
mod tar;
mod unpinned;
mod unseeded;
mod volatile_key;
mod worktree;

pub use fix::Lines;
pub use rules::{RULES, Rule};

use diagnostic::Diagnostic;
use fix::Page;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use storecache_workflow::workflow::{NotAWorkflow, Workflow};
use worktree::Files;

/// A mistake and its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub level: Level,
    /// The name of the [`Rule`].
    pub rule: &'static str,
    pub message: String,
    /// The correction in words.
    pub fix: String,
    /// The corrected lines, if known.
    pub lines: Option<Lines>,
    /// An example, if the corrected lines are not known.
    pub example: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It may be intended, or may only cost time.
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
pub struct WorkflowFile {
    pub file: PathBuf,
    /// The top of the work tree that the file belongs to.
    pub tree: PathBuf,
    pub text: String,
}

/// Facts that are not in the files.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// The default branch. If it is known, findings about it are more precise.
    pub default_branch: Option<String>,
    /// The inputs of the storecache step.
    pub inputs: Vec<&'static str>,
}

/// The data that a rule can use.
pub(crate) struct LintContext<'a> {
    workflow: &'a Workflow,
    page: &'a Page<'a>,
    /// All workflows, including this one: a workflow may fill the cache that another one reads.
    all: &'a [&'a Workflow],
    files: &'a Files,
    knowledge: &'a Knowledge,
}

/// Limit of the total size of corrected workflows that are checked again, in bytes, so that a large file with
/// a thousand mistakes does not take a thousand times as long.
const TRIED: usize = 4 << 20;

/// Checks workflows together. Returns findings sorted by file and line.
pub fn lint(sources: &[WorkflowFile], knowledge: &Knowledge) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut workflows = Vec::new();
    let mut trees: BTreeMap<_, Files> = BTreeMap::new();
    for source in sources {
        trees.entry(&source.tree).or_insert_with(|| Files::new(&source.tree));
        match Workflow::parse(&source.text) {
            Ok(workflow) => workflows.push((source, workflow)),
            Err(e) => findings.push(unreadable(source, &e)),
        }
    }
    let all: Vec<&Workflow> = workflows.iter().map(|(_, workflow)| workflow).collect();
    let mut left = TRIED;
    for (source, workflow) in &workflows {
        let page = Page::new(&source.text);
        let files = &trees[&source.tree];
        let scene = LintContext { workflow, page: &page, all: &all, files, knowledge };
        let found = check(&scene);
        for one in &found {
            let tried = one.lines.as_ref().filter(|lines| {
                left = left.saturating_sub(source.text.len().max(1));
                left > 0 && mends(lines, one, &found, &scene, &source.text)
            });
            findings.push(one.finding(source, &page, tried.cloned()));
        }
    }
    let place = |it: &Finding| (it.file.clone(), it.line, it.column);
    findings.sort_by_key(place);
    findings
}

/// Returns all mistakes of one workflow.
fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let rules = [
        empty_hash::check,
        unseeded::check,
        key_system::check,
        volatile_key::check,
        key_limits::check,
        matrix::check,
        path_version::check,
        store_path::check,
        success_only::check,
        guard::check,
        tar::check,
        daemon_stopped::check,
        owners::check,
        container_store::check,
        unpinned::check,
        own_step::check,
    ];
    rules.iter().flat_map(|rule| rule(scene)).collect()
}

/// Returns whether the corrected workflow can be parsed and the mistake is gone, without a new error.
fn mends(
    lines: &Lines,
    one: &Diagnostic,
    found: &[Diagnostic],
    scene: &LintContext,
    source: &str,
) -> bool {
    let Some(text) = lines.apply(source) else { return false };
    let Ok(workflow) = Workflow::parse(&text) else { return false };
    let page = Page::new(&text);
    let is_this = |it: &Workflow| std::ptr::eq(it, scene.workflow);
    let all = scene.all.iter().map(|it| if is_this(it) { &workflow } else { *it });
    let all: Vec<&Workflow> = all.collect();
    let LintContext { files, knowledge, .. } = *scene;
    let now = check(&LintContext { workflow: &workflow, page: &page, all: &all, files, knowledge });
    let same = |found: &[Diagnostic]| found.iter().filter(|it| it.rule == one.rule).count();
    let errors = |found: &[Diagnostic]| found.iter().filter(|it| it.level == Level::Error).count();
    same(&now) < same(found) && errors(&now) <= errors(found)
}

fn unreadable(source: &WorkflowFile, error: &NotAWorkflow) -> Finding {
    Finding {
        file: source.file.clone(),
        line: error.line.max(1),
        column: error.column.max(1),
        level: Level::Error,
        rule: rules::UNREADABLE,
        message: error.to_string(),
        fix: "fix the file: GitHub does not run it either".into(),
        lines: None,
        example: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// Returns the workflows of the integration tests.
    fn shapes() -> Vec<String> {
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lint_workflows");
        let mut files: Vec<_> =
            shapes.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
    }

    /// A replacement of a part of a text.
    #[derive(Debug, Clone)]
    struct Change {
        from: prop::sample::Index,
        length: usize,
        text: String,
    }

    fn change() -> impl Strategy<Value = Change> {
        let odd = "[-:{}\\[\\]|>&*!'\"#$ \n\r\t,/.=é漢]{0,4}";
        let words = prop::sample::select(vec![
            "${{ matrix.os }}",
            "uses:",
            "run: |",
            "if: always()",
            "\n",
            "key:",
            "- ",
            "*it",
            "&it ",
            "<<: ",
            "with:",
            "sudo tar -x",
            "on:",
            "jobs:",
            "container:",
            "guix pull",
        ]);
        let text = prop_oneof![odd.prop_map(|it| it), words.prop_map(str::to_owned)];
        (any::<prop::sample::Index>(), 0usize..40, text).prop_map(|(from, length, text)| Change {
            from,
            length,
            text,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn lint_of_any_file_reports_valid_positions_and_fixes(
            shape in any::<prop::sample::Index>(),
            changes in prop::collection::vec(change(), 0..6),
            windows in any::<bool>(),
        ) {
            let shapes = shapes();
            let mut text: Vec<char> = shape.get(&shapes).chars().collect();
            for Change { from, length, text: new } in changes {
                let from = from.index(text.len() + 1);
                let to = (from + length).min(text.len());
                text.splice(from..to, new.chars());
            }
            let mut text: String = text.into_iter().collect();
            if windows {
                text = text.replace('\n', "\r\n");
            }
            let tree = tempfile::tempdir().unwrap();
            let file = PathBuf::from("ci.yml");
            let source = WorkflowFile { file, tree: tree.path().to_owned(), text };
            let knowledge = Knowledge { default_branch: None, inputs: vec!["store", "key", "keep"] };
            for finding in lint(std::slice::from_ref(&source), &knowledge) {
                prop_assert!(finding.line >= 1 && finding.column >= 1);
                prop_assert!(RULES.iter().any(|rule| rule.name == finding.rule));
                if let Some(lines) = finding.lines {
                    let mended = lines.apply(&source.text).unwrap();
                    prop_assert!(Workflow::parse(&mended).is_ok());
                }
            }
        }
    }
}
