//! Workflows and actions that are called by path: what they do is part of who calls them.

use super::super::yaml::{Data, Node, Pair};
use super::{Reader, Unreadable, below, sorted};
use crate::snapshot::Digest;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Files that call each other; GitHub allows ten.
/// Source: github/docs `content/actions/reference/workflows-and-actions/reusing-workflow-configurations.md`.
const DEEPEST: usize = 10;

/// Calls in all. Two actions that call each other twice make a thousand of ten levels.
const MOST: usize = 1_000;

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Called {
    Workflow,
    Action,
}

/// Parts of an action that people read.
const OF_ACTION: [&str; 4] = ["name", "description", "author", "branding"];

/// Parts of an action that name files of it.
const FILES: [&str; 7] =
    ["main", "pre", "post", "image", "entrypoint", "pre-entrypoint", "post-entrypoint"];

impl Reader<'_> {
    /// `uses: ./path`, and what is there.
    pub(super) fn call(&mut self, path: &str, uses: &Pair, called: Called) -> Result<()> {
        self.all(path, &uses.value);
        let Some(place) = uses.value.text().and_then(|text| self.local(text)) else {
            return Ok(());
        };
        let files = match called {
            Called::Workflow => vec![place.clone()],
            Called::Action => vec![place.join("action.yml"), place.join("action.yaml")],
        };
        for file in files {
            let Some(node) = self.enter(&file)? else { continue };
            let done = match called {
                Called::Workflow => self.workflow_body(&below(path, "called"), &node),
                Called::Action => self.action(&below(path, "called"), &place, &node),
            };
            self.leave();
            return done;
        }
        let (file, line) = (self.file(), uses.place.line);
        self.found.notes.push(format!(
            "{}:{line}: {} is not in {}, so what it does is no part of the key",
            file.display(),
            place.display(),
            self.tree.describe()
        ));
        Ok(())
    }

    /// Begins to read a file that is called from the one before.
    pub(super) fn enter(&mut self, file: &Path) -> Result<Option<Rc<Node>>> {
        let refuse = |reader: &Self, what: String| {
            Err(Unreadable { file: reader.file(), line: 1, column: 1, what }.into())
        };
        if self.stack.iter().any(|known| known == file) {
            return refuse(self, format!("it is called by {}, which it calls", file.display()));
        }
        if self.stack.len() > DEEPEST {
            return refuse(self, format!("it is called over more than {DEEPEST} others"));
        }
        self.calls += 1;
        if self.calls > MOST {
            return refuse(self, format!("there are more than {MOST} calls by path"));
        }
        self.load(file)
    }

    pub(super) fn leave(&mut self) {
        self.stack.pop();
    }

    /// Whether the file that is being read is an action.
    pub(super) fn is_in_action(&self) -> bool {
        self.file().file_stem().is_some_and(|stem| stem == "action")
    }

    fn workflow_body(&mut self, path: &str, top: &Node) -> Result<()> {
        self.rest_of_workflow(path, top);
        self.defaults(path, top);
        match top.get("jobs") {
            Some(jobs) => self.jobs(path, jobs.pairs().iter()),
            None => Ok(()),
        }
    }

    /// What a called workflow takes for inputs that nobody sets.
    fn defaults(&mut self, path: &str, top: &Node) {
        let inputs = top.get("on").and_then(|on| on.get("workflow_call")?.get("inputs")).cloned();
        for pair in sorted(inputs.iter().flat_map(|inputs| inputs.pairs())) {
            if let Some(default) = pair.value.get("default") {
                self.all(&below(&below(&below(path, "inputs"), &pair.key), "default"), default);
            }
        }
    }

    /// One job of a called workflow, when it is the one that runs.
    pub(super) fn called_job(
        &mut self,
        caller: &Node,
        file: &Path,
        called: &Node,
        job: &Node,
    ) -> Result<()> {
        for pair in sorted(caller.pairs().iter()) {
            // Inputs reach it; what else the caller says is about when it runs.
            if matches!(pair.key.as_str(), "with" | "strategy") {
                self.all(&below("caller", &pair.key), &pair.value);
            }
        }
        self.stack.push(file.to_owned());
        self.rest_of_workflow("called", called);
        self.defaults("called", called);
        let done = self.job("job", job);
        self.leave();
        done
    }

    fn action(&mut self, path: &str, place: &Path, top: &Node) -> Result<()> {
        for pair in sorted(top.pairs().iter()) {
            let here = below(path, &pair.key);
            match pair.key.as_str() {
                key if OF_ACTION.contains(&key) => {
                    self.dropped(path, pair, "people read it, and nothing else does");
                }
                "inputs" => {
                    for input in sorted(pair.value.pairs().iter()) {
                        if let Some(default) = input.value.get("default") {
                            self.all(&below(&below(&here, &input.key), "default"), default);
                        }
                    }
                }
                "outputs" => {
                    for output in sorted(pair.value.pairs().iter()) {
                        if let Some(value) = output.value.get("value") {
                            self.all(&below(&below(&here, &output.key), "value"), value);
                        }
                    }
                }
                "runs" => self.runs(&here, place, &pair.value)?,
                _ => self.all(&here, &pair.value),
            }
        }
        Ok(())
    }

    fn runs(&mut self, path: &str, place: &Path, runs: &Node) -> Result<()> {
        for pair in sorted(runs.pairs().iter()) {
            let here = below(path, &pair.key);
            match (pair.key.as_str(), &pair.value.data) {
                ("steps", _) => self.steps(&here, &pair.value)?,
                (key, Data::Text(name)) if FILES.contains(&key) => {
                    self.all(&here, &pair.value);
                    self.content(&here, &place.join(name), &pair.value)?;
                }
                _ => self.all(&here, &pair.value),
            }
        }
        Ok(())
    }

    /// The content of a file that an action runs, where there is one of this name.
    fn content(&mut self, path: &str, file: &PathBuf, named: &Node) -> Result<()> {
        if let Some(content) = self.tree.read(file)? {
            if !self.found.files.contains(file) {
                self.found.files.push(file.clone());
            }
            let digest = Digest::of(&content).to_string();
            self.line(&below(path, "content"), &digest, named.place);
        }
        Ok(())
    }
}
