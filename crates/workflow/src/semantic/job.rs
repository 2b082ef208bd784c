//! Jobs and their steps.

use super::super::cache_steps::is_ours;
use super::super::file_source::normalize;
use super::super::yaml::{Data, Node, Pair};
use super::{Reader, below, expression, script, shell_of, sorted};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Parts of a job that cannot change the content of a store.
const OF_JOB: [&str; 4] = ["name", "timeout-minutes", "permissions", "concurrency"];

/// Parts of a job that decide whether and when it runs. Outputs of other jobs appear where they are used.
const WHEN: [&str; 2] = ["if", "needs"];

/// Parts of a strategy that only affect how fast its jobs run.
const OF_STRATEGY: [&str; 2] = ["fail-fast", "max-parallel"];

/// Parts of a step that cannot change the content of a store.
const OF_STEP: [&str; 2] = ["name", "timeout-minutes"];

/// Inputs of actions/checkout that change how it fetches, but not the content of the work tree. Source:
/// actions/checkout `action.yml`.
const OF_CHECKOUT: [&str; 10] = [
    "fetch-depth",
    "fetch-tags",
    "persist-credentials",
    "set-safe-directory",
    "show-progress",
    "ssh-key",
    "ssh-known-hosts",
    "ssh-strict",
    "ssh-user",
    "token",
];

/// Inputs of the storecache action that change the content of a snapshot. All others only tune it, or are in
/// the key anyway.
const OF_OURS: [&str; 6] = ["store", "path", "root", "roots", "baseline", "profiles"];

impl Reader<'_> {
    pub(super) fn job(&mut self, path: &str, job: &Node) -> Result<()> {
        self.ids = names_of_steps(job);
        self.checkouts = checkouts(job);
        let shell = shell_of(job).or_else(|| self.workflow_shell.clone());
        self.shell = shell.or_else(|| on_windows(job).then(|| "pwsh".into()));
        for pair in sorted(job.pairs().iter()) {
            let here = below(path, &pair.key);
            match pair.key.as_str() {
                key if OF_JOB.contains(&key) => {
                    self.dropped(path, pair, "it does not affect the store");
                }
                key if WHEN.contains(&key) => {
                    self.dropped(path, pair, "it controls when the job runs, not what it does");
                }
                "runs-on" => self.runner(&here, &pair.value),
                "strategy" => self.strategy(&here, &pair.value),
                "steps" => self.steps(&here, &pair.value)?,
                "uses" => self.call_workflow(&here, pair)?,
                _ => self.field(path, pair),
            }
        }
        Ok(())
    }

    /// Treats a list of one label like the label itself.
    fn runner(&mut self, path: &str, labels: &Node) {
        match labels.elements() {
            [only] if only.text().is_some_and(|label| !label.contains("${{")) => {
                self.all(path, only);
            }
            _ => self.set(path, labels),
        }
    }

    pub(super) fn strategy(&mut self, path: &str, strategy: &Node) {
        if strategy.text().is_some() {
            self.all(path, strategy);
        }
        for pair in sorted(strategy.pairs().iter()) {
            let here = below(path, &pair.key);
            match (pair.key.as_str(), &pair.value.data) {
                (key, _) if OF_STRATEGY.contains(&key) => {
                    self.dropped(path, pair, "it affects how fast the jobs run, not what they do");
                }
                ("matrix", Data::Mapping(axes)) => {
                    for pair in sorted(axes.iter()) {
                        self.set(&below(&here, &pair.key), &pair.value);
                    }
                }
                _ => self.field(path, pair),
            }
        }
    }

    /// Adds the selected steps, in order.
    pub(super) fn steps(&mut self, path: &str, steps: &Node) -> Result<()> {
        let mut at = 0;
        for step in steps.elements() {
            if self.matters(step) {
                self.step(&format!("{path}[{at}]"), step)?;
                at += 1;
            }
        }
        Ok(())
    }

    fn matters(&mut self, step: &Node) -> bool {
        // All steps of a selected action count.
        if self.steps.is_empty() || self.actions > 0 {
            return true;
        }
        let text = |key| step.get(key).and_then(|value| value.text());
        let action = text("uses").map(action);
        let names = [text("id"), text("name"), action];
        let mut any = false;
        for (at, pattern) in self.steps.iter().enumerate() {
            if names.iter().flatten().any(|name| pattern.is_match(name)) {
                self.used.insert(at);
                any = true;
            }
        }
        any
    }

    fn step(&mut self, path: &str, step: &Node) -> Result<()> {
        let uses = step.get("uses").and_then(|uses| uses.text()).unwrap_or_default().trim();
        let action = action(uses);
        for pair in sorted(step.pairs().iter()) {
            let here = below(path, &pair.key);
            match (pair.key.as_str(), &pair.value.data) {
                (key, _) if OF_STEP.contains(&key) => {
                    self.dropped(path, pair, "it does not affect the store");
                }
                ("id", Data::Text(id)) if !self.ids.contains(&id.to_lowercase()) => {
                    self.dropped(path, pair, "nothing refers to it");
                }
                ("run", Data::Text(text)) => {
                    let shell = step.get("shell").and_then(|shell| shell.text());
                    let tidy = script::tidy(text, shell.or(self.shell.as_deref()));
                    self.line(&here, &tidy, pair.value.place);
                }
                ("uses", Data::Text(_)) if uses.starts_with("./") => {
                    self.call_action(&here, pair)?;
                }
                ("uses", Data::Text(_)) if self.pins.are_ignored(action) || is_ours(action) => {
                    let why = "the version of an action that does not affect the store";
                    self.dropped(path, pair, why);
                    self.line(&here, action, pair.value.place);
                }
                ("with", Data::Mapping(inputs)) => self.inputs(&here, action, inputs),
                ("if", Data::Text(text)) => {
                    self.line(&here, expression::bare(text), pair.value.place);
                }
                _ => self.field(path, pair),
            }
        }
        Ok(())
    }

    fn inputs(&mut self, path: &str, action: &str, inputs: &[Pair]) {
        for pair in sorted(inputs.iter()) {
            let key = pair.key.as_str();
            let cosmetic = match action {
                "actions/checkout" => OF_CHECKOUT.contains(&key),
                "actions/upload-artifact" => true,
                ours if is_ours(ours) => !OF_OURS.contains(&key),
                _ => false,
            };
            if cosmetic {
                self.dropped(path, pair, "an input that does not affect the content of the store");
            } else {
                self.pair(path, pair);
            }
        }
    }
}

/// Returns the action of `uses` without its version.
fn action(uses: &str) -> &str {
    let uses = uses.trim();
    uses.split_once('@').map_or(uses, |(action, _)| action)
}

/// Returns the ids of steps that a job or an action refers to.
pub fn names_of_steps(node: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_text(node, &mut |text| names.extend(expression::names_of("steps", text)));
    names
}

/// Returns whether a job may run on Windows, where the default shell is not one that `script.rs` supports.
fn on_windows(job: &Node) -> bool {
    let mut any = false;
    for part in ["runs-on", "strategy"].iter().filter_map(|key| job.get(key)) {
        each_text(part, &mut |text| any |= text.to_lowercase().contains("windows"));
    }
    any
}

/// Returns the directories that a job checks out its own repository into.
fn checkouts(job: &Node) -> Vec<PathBuf> {
    let steps = job.get("steps").map(|steps| steps.elements()).unwrap_or_default();
    let path = |step: &Node| {
        let uses = step.get("uses")?.text()?;
        let with = step.get("with").filter(|with| with.get("repository").is_none())?;
        let path = with.get("path")?.text().filter(|_| action(uses) == "actions/checkout")?;
        normalize(Path::new(path.trim())).filter(|path| !path.as_os_str().is_empty())
    };
    steps.iter().filter_map(|step| path(step)).collect()
}

fn each_text(node: &Node, with: &mut impl FnMut(&str)) {
    match &node.data {
        Data::Null => {}
        Data::Text(text) => with(text),
        Data::Sequence(elements) => elements.iter().for_each(|element| each_text(element, with)),
        Data::Mapping(pairs) => pairs.iter().for_each(|pair| each_text(&pair.value, with)),
    }
}
