//! Workflows and actions that are called by path: their content is part of the caller.

use super::super::file_source::normalize;
use super::super::yaml::{Data, Node, Pair};
use super::job::names_of_steps;
use super::{Reader, Unreadable, below, sorted};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storecache_entry::Digest;

/// Maximum depth of calls; GitHub allows ten. Source: github/docs
/// `content/actions/reference/workflows-and-actions/reusing-workflow-configurations.md`.
const DEEPEST: usize = 10;

/// Maximum number of calls in total. Ten levels of actions that each call the next one twice make a thousand
/// calls.
const MOST: usize = 1_000;

/// Limit of the expanded size of all files, each counted as often as it is called; in bytes.
const HEAVIEST: u64 = 64 << 20;

/// Parts of an action that are only for readers.
const OF_ACTION: [&str; 4] = ["name", "description", "author", "branding"];

/// Parts of an action that name its files.
const FILES: [&str; 7] =
    ["main", "pre", "post", "image", "entrypoint", "pre-entrypoint", "post-entrypoint"];

impl Reader<'_> {
    /// Reads `uses:` of a job and the workflow that it names.
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
        // The default shell belongs to the workflow that sets it.
        let shell = self.workflow_shell.take();
        self.workflow_body(&here, &node)?;
        self.workflow_shell = shell;
        self.leave();
        Ok(())
    }

    /// Reads `uses:` of a step and the action that it names.
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
                // Scripts in actions must name their shells.
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

    /// Returns the path of the workflow of this repository that `./like/this` names.
    pub(super) fn workflow_at(&self, uses: &str) -> Option<PathBuf> {
        Some(self.top.join(inside(Path::new(""), uses.trim().strip_prefix("./")?)?))
    }

    /// Returns the directories below the top where the action that `./like/this` names may be. Steps start in
    /// the directory of the repository, or in a directory above it.
    fn actions_at(&self, uses: &str) -> Option<Vec<PathBuf>> {
        let named = inside(Path::new(""), uses.trim().strip_prefix("./")?)?;
        let mut places = vec![named.clone()];
        let checkouts = self.checkouts.iter();
        places.extend(checkouts.filter_map(|at| named.strip_prefix(at).ok()).map(Path::to_owned));
        Some(places)
    }

    fn tell_of_missing(&mut self, uses: &Pair) {
        let why = format!("is not in {}", self.tree.describe());
        self.report_unread(uses, &why);
    }

    /// Adds a note about a path that leads out of the work tree. Only for calls by path: other actions are
    /// identified by their version.
    fn tell_of_outside(&mut self, uses: &Pair) {
        if uses.value.text().is_some_and(|text| text.trim().starts_with("./")) {
            self.report_unread(uses, "leads out of the work tree");
        }
    }

    fn report_unread(&mut self, uses: &Pair, why: &str) {
        let (file, line) = (self.file(), uses.place.line);
        let named = uses.value.text().unwrap_or_default().trim();
        self.found.notes.push(format!(
            "{}:{line}: {named} {why}, so its content is not part of the key",
            file.display()
        ));
    }

    /// Starts reading a file that the current one calls. Its values get paths below `path`.
    pub(super) fn enter(&mut self, file: &Path, path: &str) -> Result<Option<Rc<Node>>> {
        let refuse = |reader: &Self, what: String| {
            Err(Unreadable { file: reader.file(), line: 1, column: 1, what }.into())
        };
        if self.stack.iter().any(|known| known == file) {
            return refuse(self, format!("calls by path form a cycle via {}", file.display()));
        }
        if self.stack.len() > DEEPEST {
            return refuse(self, format!("calls by path are nested more than {DEEPEST} deep"));
        }
        self.calls += 1;
        if self.calls > MOST {
            return refuse(self, format!("more than {MOST} calls by path"));
        }
        let Some(node) = self.load(file)? else { return Ok(None) };
        let path = path.len() + file.as_os_str().len();
        self.weight = self.weight.saturating_add(node.weight_below(path));
        if self.weight > HEAVIEST {
            let what = format!("all called files together take more than {} MiB", HEAVIEST >> 20);
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

    /// Adds the default values of the inputs of a called workflow.
    pub(super) fn defaults(&mut self, path: &str, top: &Node) {
        let inputs = top.get("on").and_then(|on| on.get("workflow_call")?.get("inputs")).cloned();
        for pair in sorted(inputs.iter().flat_map(|inputs| inputs.pairs())) {
            if let Some(default) = pair.value.get("default") {
                self.all(&below(&below(&below(path, "inputs"), &pair.key), "default"), default);
            }
        }
    }

    fn action(&mut self, path: &str, place: &Path, top: &Node) -> Result<()> {
        // The outputs of an action refer to its steps too.
        let ids = std::mem::replace(&mut self.ids, names_of_steps(top));
        for pair in sorted(top.pairs().iter()) {
            let here = below(path, &pair.key);
            match pair.key.as_str() {
                key if OF_ACTION.contains(&key) => {
                    self.dropped(path, pair, "it is only for readers");
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
                _ => self.field(path, pair),
            }
        }
        self.ids = ids;
        Ok(())
    }

    fn runs(&mut self, path: &str, place: &Path, runs: &Node) -> Result<()> {
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
        Ok(())
    }

    /// Adds the content of a file that an action runs, if the file exists.
    fn content(&mut self, path: &str, place: Option<PathBuf>, named: &Node) -> Result<()> {
        let Some(file) = place.map(|place| self.top.join(place)) else { return Ok(()) };
        let digest = match self.contents.get(&file) {
            Some(digest) => *digest,
            None => {
                let Some(content) = self.tree.read(&file)? else { return Ok(()) };
                let digest = Digest::hash(&content);
                self.contents.insert(file.clone(), digest);
                digest
            }
        };
        self.take_note(&file);
        self.line(&below(path, "content"), &digest.to_string(), named.place);
        Ok(())
    }
}

/// Resolves a name relative to a place below the top. Returns `None` if the result is outside.
fn inside(place: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    name.is_relative().then(|| normalize(&place.join(name))).flatten()
}
