//! Common parts of save and restore: the start, and the end of the report.

use super::run_error::RunError;
use super::{cancel, resolve, run_history};
use crate::action;
use crate::config::{BackendOptions, OutputOptions, StoreOptions};
use crate::report::{self, Cut, Outcome, Progress, Words};
use anyhow::{Error, Result, anyhow};
use std::sync::Arc;
use storecache_backend::Backend;
use storecache_key::{Ingredient, Key, KeyOptions};
use storecache_root_helper::HelperError;
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::protocol::{Phase, StoreRequest};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, WithAdvice, causes};
use storecache_runtime::memory::Traffic;
use tracing::{debug, info};

/// A run with its root helper and its key.
pub struct Session {
    pub root: RootHelperProcess,
    pub key: Key,
    pub backend: Arc<dyn Backend>,
    pub progress: Progress,
    /// The store of this run.
    pub request: StoreRequest,
}

/// Store, backend and key of a run, as far as they are known, and its phase.
#[derive(Default)]
pub struct RunFacts {
    pub context: RunContext,
    pub command: &'static str,
    pub dry_run: bool,
    pub phase: Phase,
    pub store: String,
    pub backend: String,
    pub key: String,
    pub warnings: Vec<String>,
}

impl RunFacts {
    pub fn new(context: &RunContext, command: &'static str, dry_run: bool) -> Self {
        info!(dry_run, "begin a {command}");
        RunFacts { context: context.clone(), command, dry_run, ..RunFacts::default() }
    }

    /// Records that a phase begins.
    pub fn enter(&mut self, phase: Phase) {
        if phase != self.phase {
            info!(phase = phase.name(), "begin a phase");
        }
        self.phase = phase;
        self.context.begin_phase(phase.name());
    }

    /// Determines store and key, and starts the root helper for the store.
    pub fn begin_session(
        &mut self,
        store: &StoreOptions,
        key: &KeyOptions,
        backends: &[BackendOptions],
        output: &OutputOptions,
        traffic: Traffic,
    ) -> Result<Session, RunError> {
        let mut progress = Progress::new(output.quiet);
        if output.in_job {
            progress = progress.in_job();
        }
        self.enter(Phase::Start);
        report::tell_signs(&self.context, self.command, &progress);
        progress.fold(&format!("{}: find the store and the key", self.command));
        let kind = resolve::kind(store)?;
        self.store = kind.to_string();
        let (backend, warnings) = resolve::backend(&self.context, backends, kind, traffic)?;
        self.warnings.extend(warnings);
        self.backend = backend.describe();
        cancel::on_signals(&self.context)?;
        if output.in_job {
            cancel::when_input_closes(&self.context)?;
        }
        let mut request = resolve::store_request(&self.context, store, kind);
        let mut root = RootHelperProcess::start(&self.context, &request)?;
        report::ready();
        request.asks_version = key.key.is_none() && key.version.is_none();
        let facts = root.survey(&request)?;
        let key = resolve::key(store, key, kind, Some(facts.version.raw()))?;
        self.key.clone_from(&key.text);
        debug!(
            store = self.store,
            backend = self.backend,
            system = %facts.system,
            version = %facts.version,
            block = traffic.block,
            range = traffic.range,
            ahead = traffic.ahead,
            "opened store and backend"
        );
        for ingredient in &key.ingredients {
            let Ingredient { name, files, digest, .. } = ingredient;
            debug!(name, files = files.len(), %digest, "found an ingredient of the key");
        }
        debug!(key = key.text, "made the key");
        progress.detail(|| format!("store {}, entries in {}", self.store, self.backend));
        progress.detail(|| format!("key {}", key.text));
        self.enter(Phase::Lookup);
        Ok(Session { root, key, backend, progress, request })
    }

    /// Completes a report with what is known of every run.
    pub fn complete(self, report: Outcome, failure: Option<&Failure>) -> Outcome {
        Outcome {
            command: self.command,
            dry_run: self.dry_run,
            phase: self.phase.name(),
            store: self.store,
            backend: self.backend,
            key: self.key,
            warnings: self.warnings,
            failed: failure.is_some(),
            reason: failure.map(|failure| failure.reason.clone()).or(report.reason),
            notes: failure.map_or(report.notes, |failure| failure.advice.notes.clone()),
            hint: failure.map_or(report.hint, |failure| failure.advice.hint.clone()),
            cut: failure.and_then(|failure| failure.cut.clone()),
            cancelled: failure.is_some_and(|failure| failure.cancelled),
            ..report
        }
    }

    /// Describes a failure. If the root helper failed, the phase is the phase of the root helper.
    pub fn failure(&mut self, error: &RunError) -> Failure {
        let by_helper = error.reported();
        if let Some(failure) = by_helper {
            self.phase = failure.phase;
        }
        let command = self.command;
        match self.context.first_timeout() {
            // Failures after a timeout are consequences of it. An error that the root helper reports is
            // independent of it.
            Some(cut) if by_helper.is_none() => Failure {
                reason: format!("{command}: {}: {cut}", cut.state.phase),
                cause: cut.what.clone(),
                advice: cut.advice(),
                cut: Some(cut.into()),
                cancelled: false,
            },
            _ => {
                let (phase, cause) = (self.phase.name(), causes(error));
                let advice = Advice::find(error).cloned().unwrap_or_default();
                Failure {
                    reason: format!("{command}: {phase}: {cause}"),
                    cause,
                    advice,
                    cut: None,
                    cancelled: self.context.is_canceled() && by_helper.is_none()
                        || matches!(error, RunError::Helper(HelperError::Cancelled(_))),
                }
            }
        }
    }
}

/// The failure of a run, as it is reported.
pub struct Failure {
    /// For programs: command, phase and cause.
    pub reason: String,
    /// For people.
    pub cause: String,
    pub advice: Advice,
    /// The timeout that caused it.
    pub cut: Option<Cut>,
    pub cancelled: bool,
}

impl Failure {
    /// Adds advice, to the report too.
    pub fn advise(&mut self, advice: Advice, report: &mut Outcome) {
        self.advice = std::mem::take(&mut self.advice).and(advice);
        report.notes.clone_from(&self.advice.notes);
        report.hint.clone_from(&self.advice.hint);
    }

    /// Returns the error for people.
    pub fn into_error(self) -> Error {
        anyhow!(self.cause).advise(self.advice)
    }
}

/// Returns the words of the interface that the run was started from.
pub fn words(output: &OutputOptions) -> Words {
    if output.in_job { action::words() } else { Words::command_line() }
}

/// Prints the report of a run that has ended as JSON, or with `print` if the run succeeded. Returns the report, and the
/// error if there was one.
pub fn publish(
    output: &OutputOptions,
    mut report: Outcome,
    mut done: Result<()>,
    print: impl FnOnce(&Outcome),
) -> (Outcome, Result<()>) {
    report.warnings.extend(run_history::record(&report));
    if output.json {
        done = done.and(report::answer_json(&report));
    } else if done.is_ok() && !output.quiet {
        print(&report);
    }
    if !output.quiet && !output.in_job {
        report.warnings.iter().for_each(report::print_warning);
    }
    (report, done)
}

/// Prints the items that were left out; the JSON report names all of them.
pub fn print_skipped(outcome: &Outcome) {
    const SHOWN: usize = 10;
    for (name, reason) in outcome.skipped.iter().take(SHOWN) {
        report::status(format!("left out {name}: {reason}"));
    }
    if let Some(more @ 1..) = outcome.skipped.len().checked_sub(SHOWN) {
        report::status(format!("left out {more} more; --json lists them"));
    }
}
