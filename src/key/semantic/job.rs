//! Jobs and their steps.

use super::super::lint::is_ours;
use super::super::yaml::{Data, Node};
use super::{Called, Reader, below, script, sorted};
use anyhow::Result;

/// Parts of a job that cannot change what is in a store.
const OF_JOB: [&str; 4] = ["name", "timeout-minutes", "permissions", "concurrency"];

/// Parts of a strategy that say how fast its jobs run, and not what they are.
const OF_STRATEGY: [&str; 2] = ["fail-fast", "max-parallel"];

/// Parts of a step that cannot. Who refers to an id has it in a text of its own.
const OF_STEP: [&str; 3] = ["name", "id", "timeout-minutes"];

/// Inputs of actions/checkout that change how it fetches, and not what is in the work tree.
/// Source: actions/checkout `action.yml`.
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

/// Inputs of this action that change what is in a snapshot. All others tune it, or are in the key anyway.
const OF_OURS: [&str; 6] = ["store", "path", "root", "roots", "baseline", "profiles"];

impl Reader<'_> {
    pub(super) fn job(&mut self, path: &str, job: &Node) -> Result<()> {
        for pair in sorted(job.pairs().iter()) {
            let here = below(path, &pair.key);
            match pair.key.as_str() {
                key if OF_JOB.contains(&key) => {
                    self.dropped(path, pair, "it does not reach the store");
                }
                "runs-on" | "needs" => self.set(&here, &pair.value),
                "strategy" => self.strategy(&here, &pair.value),
                "steps" => self.steps(&here, &pair.value)?,
                "uses" => self.call(&here, pair, Called::Workflow)?,
                _ => self.all(&here, &pair.value),
            }
        }
        Ok(())
    }

    fn strategy(&mut self, path: &str, strategy: &Node) {
        for pair in sorted(strategy.pairs().iter()) {
            let here = below(path, &pair.key);
            match pair.key.as_str() {
                key if OF_STRATEGY.contains(&key) => {
                    self.dropped(path, pair, "it says how fast, and not what");
                }
                "matrix" => {
                    for pair in sorted(pair.value.pairs().iter()) {
                        self.set(&below(&here, &pair.key), &pair.value);
                    }
                    if pair.value.text().is_some() {
                        self.all(&here, &pair.value);
                    }
                }
                _ => self.all(&here, &pair.value),
            }
        }
    }

    /// The steps that matter, in their order.
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
        // Below an action that matters, all does.
        if self.steps.is_empty() || self.stack.len() > 1 && self.is_in_action() {
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
                    self.dropped(path, pair, "it does not reach the store");
                }
                ("run", Data::Text(text)) => {
                    let shell = step.get("shell").and_then(|shell| shell.text());
                    self.line(&here, &script::tidy(text, shell), pair.value.place);
                }
                ("uses", Data::Text(_)) if uses.starts_with("./") => {
                    self.call(&here, pair, Called::Action)?;
                }
                ("uses", Data::Text(_)) if self.pins.are_ignored(action) || is_ours(action) => {
                    self.dropped(
                        path,
                        pair,
                        "the version of an action that does not reach the store",
                    );
                    self.line(&here, action, pair.value.place);
                }
                ("with", _) => self.inputs(&here, action, &pair.value),
                ("if", Data::Text(text)) => {
                    self.line(&here, super::expression::bare(text), pair.value.place);
                }
                _ => self.all(&here, &pair.value),
            }
        }
        Ok(())
    }

    fn inputs(&mut self, path: &str, action: &str, inputs: &Node) {
        for pair in sorted(inputs.pairs().iter()) {
            let key = pair.key.as_str();
            let cosmetic = match action {
                "actions/checkout" => OF_CHECKOUT.contains(&key),
                "actions/upload-artifact" => true,
                ours if is_ours(ours) => !OF_OURS.contains(&key),
                _ => false,
            };
            if cosmetic {
                self.dropped(path, pair, "an input that does not change what is in the store");
            } else {
                self.pair(path, pair);
            }
        }
    }
}

/// What a step uses, without the version.
fn action(uses: &str) -> &str {
    let uses = uses.trim();
    uses.split_once('@').map_or(uses, |(action, _)| action)
}
