//! `restore`: look up, plan, download, have the root helper stage and commit, report.

mod findings;
mod transfer;

use super::entry_fallback::{EntryFallback, FirstFailure, Verdict};
use super::job_state::State;
use super::open_entry::OpenEntry;
use super::resolve::find;
use super::run_error::RunError;
use super::session::{self, RunFacts, Session};
use super::{Conclusion, cancel, guix_profiles, require, summary_file};
use crate::config::Restore;
use crate::report::{self, Hit, Outcome};
use anyhow::Result;
use findings::{Findings, print};
use std::mem::take;
use std::sync::Arc;
use std::time::Instant;
use storecache_backend::{BackendError, EntryName};
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::protocol::{Phase, Reply, Request};
use storecache_root_helper::{FailureKind, HelperError};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, causes};
use tracing::debug;

/// Restores items that are missing from the store from the best entry that the ladder finds.
pub fn restore(context: &RunContext, options: &Restore) -> Result<Conclusion> {
    let (outcome, done) = attempt(context, options);
    done.map(|()| ending(&outcome, options.fail_on_miss))
}

/// The ending of a restore that did not fail.
pub(super) fn ending(outcome: &Outcome, fail_on_miss: bool) -> Conclusion {
    let missed = outcome.hit == Hit::Miss || !require::met(outcome);
    if missed && fail_on_miss { Conclusion::Miss } else { Conclusion::Done }
}

/// As [`restore`], with the report in any case.
pub(super) fn attempt(context: &RunContext, options: &Restore) -> (Outcome, Result<()>) {
    let started = Instant::now();
    let found =
        Findings { run: RunFacts::new(context, "restore", options.dry_run), ..Findings::default() };
    let mut run = RestoreRun { options, found };
    let clocks = cancel::start_clocks(context, &options.clocks);
    let done = clocks.map_err(RunError::from).and_then(|()| run.run());
    report::stopping(context);
    let mut found = run.found;
    let failure = done.err().map(|e| {
        let mut failure = found.run.failure(&e);
        let is_damaged = e.reported().is_some_and(|reported| reported.fault != FailureKind::Other);
        if let Some(name) = found.name.as_ref().filter(|_| is_damaged) {
            failure.cause = format!("{name}: {}", failure.cause);
        }
        failure
    });
    let start = take(&mut found.start);
    let is_unchanged = found.is_store_unchanged();
    let mut report = found.report(failure.as_ref());
    report.seconds.total = started.elapsed().as_secs_f64();
    let done = match failure {
        None => Ok(()),
        Some(mut failure) => {
            failure.advise(after_failure(&report, is_unchanged), &mut report);
            Err(failure.into_error())
        }
    };
    let words = session::words(&options.output);
    words.apply_to(&mut report);
    report.warnings.extend(State::leave(options, start, &report));
    report.warnings.extend(summary_file::append(options.summary.as_deref(), Some(&report), None));
    let is_error = options.fail_on_miss && !options.output.in_job;
    session::publish(&options.output, report, done, |report| print(report, words, is_error))
}

/// Describes the state after a restore that failed.
fn after_failure(report: &Outcome, is_store_unchanged: bool) -> Advice {
    let phase = report.phase;
    let failed = match &report.cut {
        // The timeout has named the phase.
        Some(_) => String::new(),
        None => format!("the restore failed in its phase {phase}; "),
    };
    if !is_store_unchanged {
        let note = format!("the restore failed in its phase {phase}, after its commit");
        return Advice { notes: vec![note], hint: None };
    }
    let mut notes = Vec::new();
    if let (Some(_), skipped @ 1..) = (&report.cut, report.passed_over.len()) {
        let skipped = report::plural(skipped as u64, "entry");
        notes.push(format!("{skipped} had been skipped by then"));
    }
    let store = if report.undoing {
        "and the root helper is still undoing its changes: after that, the store will be as it was"
    } else {
        "the store is as it was"
    };
    notes.push(format!("{failed}nothing was restored, {store}"));
    let quarantined = super::quarantine::advice(&report.quarantined).unwrap_or_default();
    Advice { notes, hint: None }.and(quarantined)
}

/// Whether the root helper failed only after the items had become valid.
fn committed(error: &RunError) -> bool {
    error.reported().is_some_and(|failure| failure.phase.is_after_commit())
}

/// An entry that a lookup found and that could be opened.
struct FoundEntry {
    name: EntryName,
    hit: Hit,
    entry: OpenEntry,
}

/// A restore, with what its steps have found so far: a restore that fails is reported too.
struct RestoreRun<'a> {
    options: &'a Restore,
    found: Findings,
}

impl RestoreRun<'_> {
    fn run(&mut self) -> Result<(), RunError> {
        let Restore { store, key, backends, output, memory, .. } = self.options;
        self.found.run.enter(Phase::Start);
        guix_profiles::check(self.options.profiles, store)?;
        let run = &mut self.found.run;
        let mut session = run.begin_session(store, key, backends, output, memory.traffic)?;
        debug!(?memory, "divided the memory");
        self.found.start.ingredients = session.key.digests();
        if self.options.state.is_some() {
            self.found.start.baseline = Some(valid_items(&mut session.root)?);
        }
        let backend = Arc::clone(&session.backend);
        let (kind, ladder) = (session.request.kind, &session.key.ladder);
        let mut fallback = EntryFallback::begin(
            &self.found.run.context,
            backend.as_ref(),
            self.options,
            kind,
            ladder,
        );
        let restored = self.restore_best(&mut session, &mut fallback);
        self.found.rejected = fallback.into_findings();
        restored?;
        self.found.required = require::check(&mut session.root, &self.options.require)?;
        Ok(())
    }

    /// Restores from the best entry, or from the next older one if an entry turns out to be bad.
    fn restore_best(
        &mut self,
        session: &mut Session,
        fallback: &mut EntryFallback<'_>,
    ) -> Result<(), RunError> {
        loop {
            let Some(mut best) = self.look_up(session, fallback)? else { return Ok(()) };
            let error = match self.restore_entry(session, &mut best.entry, best.hit) {
                Ok(()) => {
                    fallback.warn(&best.name);
                    return Ok(());
                }
                Err(error) if committed(&error) => return Err(error),
                Err(error) => error,
            };
            let (verdict, error) = fallback.judge(&best.name, Some(&best.entry), error)?;
            session.progress.detail(|| format!("{} cannot be used: {}", best.name, causes(&error)));
            // This entry restored nothing; only what it cost stays in the report.
            self.found.entry = Default::default();
            if let Verdict::Over(unfit) = verdict {
                let phase = self.found.run.phase;
                fallback.over(&best.name, (unfit, error), phase).map_err(|e| self.first(*e))?;
            }
            // The root helper undoes its changes before the next attempt.
            session.root.again(&session.request)?;
        }
    }

    /// Returns the best entry that can be opened and was not skipped. Otherwise records the reason.
    fn look_up(
        &mut self,
        session: &mut Session,
        fallback: &mut EntryFallback<'_>,
    ) -> Result<Option<FoundEntry>, RunError> {
        self.found.run.phase = Phase::Lookup;
        session.progress.fold("restore: look for an entry");
        let looking = Instant::now();
        let best = self.find_best(session, fallback);
        // The cache service may have turned out to use another version of the protocol than expected.
        self.found.run.backend = session.backend.describe();
        self.found.lookup_seconds += looking.elapsed().as_secs_f64();
        best
    }

    fn find_best(
        &mut self,
        session: &Session,
        fallback: &mut EntryFallback<'_>,
    ) -> Result<Option<FoundEntry>, RunError> {
        let (backend, ladder) = (session.backend.as_ref(), &session.key.ladder);
        loop {
            let (found, notes) = match find(backend, ladder, fallback.names()) {
                Err(BackendError::Refused(refused)) => {
                    self.found.reason = Some(refused.to_string());
                    return Ok(None);
                }
                found => found?,
            };
            self.found.run.warnings.extend(fallback.add_skipped(&notes));
            let Some((name, hit)) = found else {
                if let Some(first) = fallback.take_first() {
                    return Err(self.first(first));
                }
                self.found.name = None;
                let backend = &self.found.run.backend;
                let nothing = format!("no entry for the key or its prefixes in {backend}");
                self.found.reason = Some(match fallback.untrusted() {
                    None => nothing,
                    Some(why) => format!("{nothing} can be used: {why}"),
                });
                return Ok(None);
            };
            self.found.name = Some(name.clone());
            let opened = fallback.open(ladder, (&name, hit), &mut self.found.downloaded);
            let error = match opened {
                Ok(entry) => {
                    let (items, delta) = (entry.opened.head.items, entry.base.is_some());
                    debug!(entry = %name, hit = hit.name(), items, delta, "use an entry");
                    return Ok(Some(FoundEntry { name, hit, entry }));
                }
                Err(error) => error.into(),
            };
            if let (Verdict::Over(unfit), error) = fallback.judge(&name, None, error)? {
                let phase = self.found.run.phase;
                fallback.over(&name, (unfit, error), phase).map_err(|e| self.first(*e))?;
            }
        }
    }

    /// Makes the failure of the first bad entry the failure of the run.
    fn first(&mut self, FirstFailure { error, phase, name }: FirstFailure) -> RunError {
        self.found.run.phase = phase;
        self.found.name = Some(name);
        error
    }
}

/// The items that are valid now: the baseline of this job.
fn valid_items(root: &mut RootHelperProcess) -> Result<Vec<String>, RunError> {
    root.send(&Request::Valid, &[])?;
    match root.receive()?.0 {
        Reply::Valid(names) => Ok(names),
        _ => Err(HelperError::unexpected_reply("Valid").into()),
    }
}
