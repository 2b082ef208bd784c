//! Renders a set of ingredients as flags of a command line and as inputs of a step.

use super::Ingredient;
use super::candidates::is_workflow;
use crate::WorkflowMode;
use std::path::Path;

/// Flags and inputs that put a set of ingredients into a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Patterns of `--hash-files`.
    hash_files: Vec<String>,
    /// The workflow and its mode. The path is empty if the workflow is unknown.
    workflow: Option<(String, &'static str)>,
    /// Ingredients that this version has no flag for.
    pub unknown: Vec<String>,
}

/// Placeholder for an unknown workflow.
const SOME_FILE: &str = "FILE";

impl Flags {
    pub fn new<'a>(ingredients: impl IntoIterator<Item = &'a Ingredient>) -> Self {
        let mut flags = Flags::default();
        let mut ingredients: Vec<_> = ingredients.into_iter().collect();
        // A key has at most one workflow: the preferred one; others are added as files.
        ingredients.sort_by_key(|ingredient| ingredient.preference());
        for ingredient in ingredients {
            match ingredient {
                Ingredient::Pattern(pattern) => flags.hash_files.push(pattern.clone()),
                Ingredient::Workflow(path) => flags.put_workflow(path, "semantic"),
                Ingredient::File(path) if is_workflow(path) => flags.put_workflow(path, "bytes"),
                Ingredient::File(path) => flags.hash_files.push(pattern_of(path)),
                Ingredient::SomeWorkflow(mode) => {
                    let semantic = *mode == WorkflowMode::Semantic;
                    let mode = if semantic { "semantic" } else { "bytes" };
                    flags.workflow.get_or_insert((String::new(), mode));
                }
                Ingredient::Unknown(name) => flags.unknown.push(name.clone()),
            }
        }
        flags
    }

    fn put_workflow(&mut self, path: &Path, mode: &'static str) {
        match &self.workflow {
            None => self.workflow = Some((path.display().to_string(), mode)),
            Some(_) => self.hash_files.push(pattern_of(path)),
        }
    }

    /// Returns the words of a command line that is run at the top of the work tree.
    pub fn words(&self) -> Vec<String> {
        let files = self.hash_files.iter().flat_map(|p| ["--hash-files".to_owned(), p.clone()]);
        let mut words: Vec<_> = files.collect();
        if let Some((file, mode)) = &self.workflow {
            let file = if file.is_empty() { SOME_FILE } else { file };
            words.extend(["--workflow", file, "--workflow-mode", mode].map(str::to_owned));
        }
        words
    }

    /// As [`Flags::words`], quoted for a shell.
    pub fn line(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+@:,".contains(c);
        let quoted = self.words().into_iter().map(|word| match word.chars().all(plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', r"'\''")),
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Returns the inputs of the step and their values. By default the step uses its own workflow, so that an
    /// unknown workflow needs no input, and `workflow-mode` is `none` without a workflow.
    pub fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = Vec::new();
        if !self.hash_files.is_empty() {
            inputs.push(("hash-files", self.hash_files.join("\n")));
        }
        match &self.workflow {
            None => inputs.push(("workflow-mode", "none".into())),
            Some((file, mode)) => {
                inputs.push(("workflow", file.clone()));
                inputs.push(("workflow-mode", (*mode).into()));
            }
        }
        inputs.retain(|(_, value)| !value.is_empty());
        inputs
    }

    /// As [`Flags::inputs`], as lines of YAML.
    pub fn yaml(&self) -> String {
        let mut text = "with:\n".to_owned();
        for (name, value) in self.inputs() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            if name == "hash-files" {
                text += "  hash-files: |\n";
                value.lines().for_each(|line| text += &format!("    {line}\n"));
            } else if value.chars().all(plain) {
                text += &format!("  {name}: {value}\n");
            } else {
                text += &format!("  {name}: '{}'\n", value.replace('\'', "''"));
            }
        }
        text
    }
}

/// Returns a pattern that matches only this file.
fn pattern_of(path: &Path) -> String {
    globset::escape(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_workflow::file_source::Pattern;

    fn file(path: &str) -> Ingredient {
        Ingredient::File(path.into())
    }

    #[test]
    fn files_become_patterns_without_the_workflow() {
        let flags = Flags::new(&[file("flake.lock"), Ingredient::Pattern("nix/**/*.nix".into())]);
        assert_eq!(flags.line(), "--hash-files flake.lock --hash-files 'nix/**/*.nix'");
        let lines =
            "with:\n  hash-files: |\n    flake.lock\n    nix/**/*.nix\n  workflow-mode: none\n";
        assert_eq!(flags.yaml(), lines);
    }

    #[test]
    fn second_workflow_is_rendered_as_a_hashed_file() {
        let flags = Flags::new(&[
            file(".github/workflows/a b's.yml"),
            Ingredient::Workflow(".github/workflows/ci.yml".into()),
        ]);
        assert_eq!(
            flags.line(),
            "--hash-files '.github/workflows/a b'\\''s.yml' --workflow .github/workflows/ci.yml \
             --workflow-mode semantic"
        );
        assert!(flags.yaml().ends_with("  workflow-mode: semantic\n"));
    }

    #[test]
    fn unknown_workflow_is_a_placeholder_and_no_input() {
        let flags = Flags::new(&[Ingredient::SomeWorkflow(WorkflowMode::Bytes)]);
        assert_eq!(flags.words(), ["--workflow", "FILE", "--workflow-mode", "bytes"]);
        assert_eq!(flags.inputs(), [("workflow-mode", "bytes".to_owned())]);
    }

    #[test]
    fn file_name_with_wildcards_is_escaped_in_its_pattern() {
        let pattern = Pattern::parse(&pattern_of(Path::new("a[1]*.nix"))).unwrap();
        assert!(pattern.fits(Path::new("a[1]*.nix")));
        assert!(!pattern.fits(Path::new("a1b.nix")));
    }
}
