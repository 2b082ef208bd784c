//! Common parts of save and restore: the start, and the report.

use super::{cancel, resolve, run_history};
use crate::config::{BackendOptions, OutputOptions, StoreOptions};
use crate::report::{self, Outcome, Progress};
use anyhow::{Result, anyhow};
use std::sync::Arc;
use std::time::Instant;
use storecache_backend::Backend;
use storecache_key::{Key, KeyOptions};
use storecache_root_helper::client::{Cancelled, RootFailure, RootHelperProcess};
use storecache_root_helper::protocol::{Phase, StoreRequest};
use storecache_runtime::liveness;
use storecache_runtime::memory::Traffic;

/// A run with its root helper and its key.
pub struct Session {
    pub root: RootHelperProcess,
    pub key: Key,
    pub backend: Arc<dyn Backend>,
    pub progress: Progress,
    /// The store of this run.
    pub request: StoreRequest,
}

impl Session {
    /// Determines store and key, and starts the root helper for the store.
    pub fn begin(
        store: &StoreOptions,
        key: &KeyOptions,
        backends: &[BackendOptions],
        output: &OutputOptions,
        traffic: Traffic,
        outcome: &mut Outcome,
    ) -> Result<Self> {
        let mut progress = Progress::new(output.quiet);
        if output.in_job {
            progress = progress.in_job();
        }
        enter(&mut outcome.phase, Phase::Start);
        report::tell_signs(outcome.command, &progress);
        progress.fold(&format!("{}: find the store and the key", outcome.command));
        let kind = resolve::kind(store)?;
        outcome.store = kind.to_string();
        let backend = resolve::backend(backends, kind, traffic)?;
        outcome.backend = backend.describe();
        let cancelled = cancel::on_signals()?;
        if output.in_job {
            cancel::when_input_closes(&cancelled)?;
        }
        let mut request = resolve::store_request(store, kind);
        let mut root = RootHelperProcess::start(&cancelled, &request)?;
        report::ready();
        request.asks_version = key.key.is_none() && key.version.is_none();
        let facts = root.survey(&request)?;
        let key = resolve::key(store, key, kind, Some(facts.version.raw()))?;
        outcome.key.clone_from(&key.text);
        progress.detail(|| format!("store {}, entries in {}", outcome.store, outcome.backend));
        progress.detail(|| format!("key {}", key.text));
        enter(&mut outcome.phase, Phase::Lookup);
        Ok(Session { root, key, backend, progress, request })
    }
}

/// Records that a phase begins.
pub fn enter(booked: &mut &'static str, phase: Phase) {
    *booked = phase.name();
    liveness::enter(phase.name());
}

/// Runs a command that fills in a report. Prints the report as JSON, or with `tell` if the command succeeded.
/// Before that, `leave` may write the report elsewhere and add warnings. Returns the report, and the error if
/// there was one.
pub fn reported(
    output: &OutputOptions,
    mut outcome: Outcome,
    run: impl FnOnce(&mut Outcome) -> Result<()>,
    leave: impl FnOnce(&mut Outcome),
    tell: fn(&Outcome),
) -> (Outcome, Result<()>) {
    let started = Instant::now();
    let mut done = run(&mut outcome);
    report::stopping();
    outcome.seconds.total = started.elapsed().as_secs_f64();
    outcome.failed = done.is_err();
    leave(&mut outcome);
    outcome.warnings.extend(run_history::record(&outcome));
    if output.json {
        done = done.and(report::answer_json(&outcome));
    } else if done.is_ok() && !output.quiet {
        tell(&outcome);
    }
    if !output.quiet && !output.in_job {
        let warn = |warning| report::note(format!("storecache: warning: {warning}"));
        outcome.warnings.iter().for_each(warn);
    }
    (outcome, done)
}

/// Records a failure in the report. Returns an error of one line with phase and cause. If the root helper
/// failed, the phase is the phase of the root helper.
pub fn failure(outcome: &mut Outcome, error: anyhow::Error) -> anyhow::Error {
    if let Some(failure) = error.downcast_ref::<RootFailure>() {
        outcome.phase = failure.phase.name();
    }
    let line = match liveness::first_timeout() {
        // Failures after a timeout are consequences of it. An error that the root helper reports is
        // independent of it.
        Some(cut) if !error.is::<RootFailure>() => {
            outcome.cut = Some(cut.into());
            format!("{}: {}: {cut}", outcome.command, cut.seen.phase)
        }
        _ => {
            let by_user = cancel::called_off() && !error.is::<RootFailure>();
            outcome.cancelled = by_user || error.is::<Cancelled>();
            format!("{}: {}: {error:#}", outcome.command, outcome.phase)
        }
    };
    outcome.reason = Some(line.clone());
    anyhow!(line)
}

/// Prints the items that were left out; the JSON report names all of them.
pub fn tell_skipped(outcome: &Outcome) {
    const SHOWN: usize = 10;
    for (name, reason) in outcome.skipped.iter().take(SHOWN) {
        report::note(format!("storecache: left out {name}: {reason}"));
    }
    if let Some(more @ 1..) = outcome.skipped.len().checked_sub(SHOWN) {
        report::note(format!("storecache: left out {more} more; --json lists them"));
    }
}
