//! Workflows and actions that are called by path: what they do is part of who calls them.

use super::super::git::normal;
use super::super::yaml::{Data, Node, Pair};
use super::job::names_of_steps;
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

/// What all files take together when they are written out, each as often as it is called; in bytes.
const HEAVIEST: u64 = 64 << 20;

/// Parts of an action that people read.
const OF_ACTION: [&str; 4] = ["name", "description", "author", "branding"];

/// Parts of an action that name files of it.
const FILES: [&str; 7] =
    ["main", "pre", "post", "image", "entrypoint", "pre-entrypoint", "post-entrypoint"];

impl Reader<'_> {
    /// `uses:` of a job, and the workflow that is there.
    pub(super) fn call_workflow(&mut self, path: &str, uses: &Pair) -> Result<()> {
        self.all(path, &uses.value);
        let text = uses.value.text().unwrap_or_default();
        let Some(file) = self.workflow_at(text) else {
            self.tell_of_outside(uses);
            return Ok(());
        };
        let here = below(path, "called");
        let Some(node) = self.enter(&file, &here)? else {
            self.tell_of_missing(uses);
            return Ok(());
        };
        // Shells and checkouts are of the workflow that has them.
        let shell = self.workflow_shell.take();
        self.workflow_body(&here, &node)?;
        self.workflow_shell = shell;
        self.leave();
        Ok(())
    }

    /// `uses:` of a step, and the action that is there.
    pub(super) fn call_action(&mut self, path: &str, uses: &Pair) -> Result<()> {
        self.all(path, &uses.value);
        let places = uses.value.text().and_then(|text| self.actions_at(text)).unwrap_or_default();
        if places.is_empty() {
            self.tell_of_outside(uses);
            return Ok(());
        }
        let here = below(path, "called");
        for place in places {
            for name in ["action.yml", "action.yaml"] {
                let file = self.top.join(&place).join(name);
                let Some(node) = self.enter(&file, &here)? else { continue };
                // Scripts of actions name their shells.
                let shell = self.shell.take();
                self.actions += 1;
                self.action(&here, &place, &node)?;
                self.actions -= 1;
                self.shell = shell;
                self.leave();
                return Ok(());
            }
        }
        self.tell_of_missing(uses);
        Ok(())
    }

    /// The workflow of this repository that `./like/this` names.
    pub(super) fn workflow_at(&self, uses: &str) -> Option<PathBuf> {
        Some(self.top.join(inside(Path::new(""), uses.trim().strip_prefix("./")?)?))
    }

    /// The places below the top where the action may be that `./like/this` names: steps start where the
    /// repository is, or in a directory above it.
    fn actions_at(&self, uses: &str) -> Option<Vec<PathBuf>> {
        let named = inside(Path::new(""), uses.trim().strip_prefix("./")?)?;
        let mut places = vec![named.clone()];
        let checkouts = self.checkouts.iter();
        places.extend(checkouts.filter_map(|at| named.strip_prefix(at).ok()).map(Path::to_owned));
        Some(places)
    }

    fn tell_of_missing(&mut self, uses: &Pair) {
        let why = format!("is not in {}", self.tree.describe());
        self.tell(uses, &why);
    }

    /// Only of what is named by path: all else is where its version says.
    fn tell_of_outside(&mut self, uses: &Pair) {
        if uses.value.text().is_some_and(|text| text.trim().starts_with("./")) {
            self.tell(uses, "leads out of the work tree");
        }
    }

    fn tell(&mut self, uses: &Pair, why: &str) {
        let (file, line) = (self.file(), uses.place.line);
        let named = uses.value.text().unwrap_or_default().trim();
        self.found.notes.push(format!(
            "{}:{line}: {named} {why}, so what it does is no part of the key",
            file.display()
        ));
    }

    /// Begins to read a file that is called from the one before; its values will stand below `path`.
    pub(super) fn enter(&mut self, file: &Path, path: &str) -> Result<Option<Rc<Node>>> {
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
        let Some(node) = self.load(file)? else { return Ok(None) };
        let path = path.len() + file.as_os_str().len();
        self.weight = self.weight.saturating_add(node.weight_below(path));
        if self.weight > HEAVIEST {
            let what = format!("with all that is called it takes more than {} MiB", HEAVIEST >> 20);
            return refuse(self, what);
        }
        Ok(Some(node))
    }

    pub(super) fn leave(&mut self) {
        self.stack.pop();
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
    pub(super) fn defaults(&mut self, path: &str, top: &Node) {
        let inputs = top.get("on").and_then(|on| on.get("workflow_call")?.get("inputs")).cloned();
        for pair in sorted(inputs.iter().flat_map(|inputs| inputs.pairs())) {
            if let Some(default) = pair.value.get("default") {
                self.all(&below(&below(&below(path, "inputs"), &pair.key), "default"), default);
            }
        }
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
        let ids = std::mem::replace(&mut self.ids, names_of_steps(runs));
        for pair in sorted(runs.pairs().iter()) {
            let here = below(path, &pair.key);
            match (pair.key.as_str(), &pair.value.data) {
                ("steps", _) => self.steps(&here, &pair.value)?,
                (key, Data::Text(name)) if FILES.contains(&key) => {
                    self.all(&here, &pair.value);
                    self.content(&here, inside(place, name), &pair.value)?;
                }
                _ => self.all(&here, &pair.value),
            }
        }
        self.ids = ids;
        Ok(())
    }

    /// The content of a file that an action runs, where there is one of this name.
    fn content(&mut self, path: &str, place: Option<PathBuf>, named: &Node) -> Result<()> {
        let Some(file) = place.map(|place| self.top.join(place)) else { return Ok(()) };
        let digest = match self.contents.get(&file) {
            Some(digest) => *digest,
            None => {
                let Some(content) = self.tree.read(&file)? else { return Ok(()) };
                let digest = Digest::of(&content);
                self.contents.insert(file.clone(), digest);
                digest
            }
        };
        self.take_note(&file);
        self.line(&below(path, "content"), &digest.to_string(), named.place);
        Ok(())
    }
}

/// Where a name leads from a place below the top; nothing where that is outside.
fn inside(place: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    name.is_relative().then(|| normal(&place.join(name))).flatten()
}
