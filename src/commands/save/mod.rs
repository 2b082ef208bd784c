//! `save`: decide, freeze, pack, write, delete superseded entries, report.

mod findings;
mod lookup;
mod not_saved;
mod pack;

use super::job_state::State;
use super::retention::{self, Retained};
use super::run_error::RunError;
use super::session::{self, RunFacts, Session};
use super::{Conclusion, cancel, guix_profiles, save_policy, summary_file, trust};
use crate::action;
use crate::config::{Baseline, JobStatus, Save};
use crate::report::{self, Growth, Outcome};
use anyhow::Result;
use findings::{Findings, print};
use lookup::Existing;
use not_saved::NotSaved;
use std::io::sink;
use std::sync::Arc;
use std::time::Instant;
use storecache_backend::{Backend, Entry, EntryName, EntryWriter, Refused};
use storecache_root_helper::HelperError;
use storecache_root_helper::protocol::{FreezeReport, Phase, Reply, Request, SaveRequest};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, in_one_line};
use storecache_snapshot::{Origin, ProfileFacts};
use tracing::debug;

/// Saves the store that the options name, if the policy finds it worthwhile.
pub fn save(context: &RunContext, options: &Save) -> Result<Conclusion> {
    attempt(context, options).1.map(|()| Conclusion::Done)
}

/// As [`save`], with the report in any case.
pub(super) fn attempt(context: &RunContext, options: &Save) -> (Outcome, Result<()>) {
    let started = Instant::now();
    let clocks = cancel::start_clocks(context, &options.clocks);
    let mut found =
        Findings { run: RunFacts::new(context, "save", options.dry_run), ..Findings::default() };
    let state = State::find(options).unwrap_or_else(|e| {
        found.run.warnings.push(in_one_line(e.as_ref()));
        None
    });
    let mut run = SaveRun { options, state: state.as_ref(), origin: action::origin(), found };
    let done = clocks.map_err(NotSaved::from).and_then(|()| run.run());
    report::stopping(context);
    let mut found = run.found;
    let (reason, failure) = match done.map_err(|e| e.reason(options.policy.policy)) {
        Ok(()) => (None, None),
        Err(Ok(reason)) => (Some(reason), None),
        Err(Err(error)) => (None, Some(found.run.failure(&error))),
    };
    let mut report = found.report(reason, failure.as_ref());
    report.seconds.total = started.elapsed().as_secs_f64();
    let done = match failure {
        None => Ok(()),
        Some(mut failure) => {
            let note = format!("the save failed in its phase {}", report.phase);
            failure.advise(Advice { notes: vec![note], hint: None }, &mut report);
            Err(failure.into_error())
        }
    };
    let words = session::words(&options.output);
    words.apply_to(&mut report);
    let restore = state.as_ref().map(|state| &state.restore);
    let summary = summary_file::append(options.summary.as_deref(), restore, Some(&report));
    report.warnings.extend(summary);
    session::publish(&options.output, report, done, |report| print(report, words))
}

/// A save, with what its steps have found so far: a save that fails is reported too.
struct SaveRun<'a> {
    options: &'a Save,
    /// The state that the restore of this job left.
    state: Option<&'a State>,
    origin: Origin,
    found: Findings,
}

impl SaveRun<'_> {
    fn run(&mut self) -> Result<(), NotSaved> {
        self.check_options()?;
        let mut session = self.begin_session()?;
        let backend = self.choose_backend(&session.backend)?;
        let existing = self.look_up(backend.as_ref(), &mut session)?;
        let (frozen, profiles) = self.freeze(&mut session, &existing)?;
        let plan = self.plan(&mut session, &existing, frozen, profiles);
        if self.options.dry_run {
            self.pack(&mut session, &plan, sink())?;
            return Ok(());
        }
        let name = EntryName::after(&session.key.text, &existing.seen);
        let writer = backend.create(&name)?;
        let writer = self.pack(&mut session, &plan, writer)?;
        self.check_others(backend.as_ref(), &existing, plan.head.items)?;
        let written = self.publish(writer)?;
        self.delete_superseded(backend.as_ref(), &written, &existing.bad);
        Ok(())
    }

    /// Decides what can be decided before anything is read.
    fn check_options(&mut self) -> Result<(), NotSaved> {
        let Save { store, policy, signing, .. } = self.options;
        self.found.run.enter(Phase::Start);
        guix_profiles::check(self.options.profiles, store)?;
        self.found.job_seconds = self.state.and_then(State::job_seconds);
        self.found.job_status = policy.job_status.map(|status| status.name().to_owned());
        // A job that ended early does not show how long a whole job takes.
        let whole = matches!(policy.job_status, None | Some(JobStatus::Success));
        self.found.cold_seconds = self.state.filter(|_| whole).and_then(State::cold_seconds);
        let unneeded = save_policy::before_all(policy).or_else(|| {
            let reason = trust::before_all(policy.policy, signing, &self.origin)?;
            Some((reason, Advice::default()))
        });
        let Some((reason, advice)) = unneeded else { return Ok(()) };
        debug!(reason, "nothing is to be saved");
        let key = self.state.map(|state| state.restore.key.clone());
        self.found.run.key = key.unwrap_or_default();
        Err(NotSaved::Unneeded(reason, advice))
    }

    fn begin_session(&mut self) -> Result<Session, RunError> {
        let Save { store, key, backends, output, memory, .. } = self.options;
        let key = self.state.map_or_else(|| key.clone(), |state| state.key(key));
        let run = &mut self.found.run;
        let session = run.begin_session(store, &key, backends, output, memory.traffic)?;
        debug!(?memory, state = self.state.is_some(), "divided the memory");
        Ok(session)
    }

    /// Returns the single backend to write to: a delta is stored beside its base.
    fn choose_backend(&mut self, backend: &Arc<dyn Backend>) -> Result<Arc<dyn Backend>, NotSaved> {
        let (backend, warnings) = Arc::clone(backend).for_save()?;
        self.found.run.warnings.extend(warnings);
        self.found.run.backend = backend.describe();
        debug!(backend = self.found.run.backend, "chose the backend to write to");
        Ok(backend)
    }

    /// Has the root helper freeze the store and choose items. Decides again, now that the growth is known.
    fn freeze(
        &mut self,
        session: &mut Session,
        existing: &Existing,
    ) -> Result<(FreezeReport, Vec<ProfileFacts>), NotSaved> {
        self.found.run.enter(Phase::Pack);
        session.progress.fold("save: freeze, pack and write");
        // The frozen database contains the items of profiles that are found before.
        let (profiles, warnings) = guix_profiles::find(self.options);
        self.found.run.warnings.extend(warnings);
        let Save { level, long, memory, roots, max_size, .. } = self.options;
        let request = SaveRequest {
            level: *level,
            long: *long,
            memory: memory.packing,
            leave_out: self.baseline(),
            known: existing.newest.as_ref().map(|newest| newest.holds.clone()).unwrap_or_default(),
            restored: self.state.map(|state| state.restored.clone()).unwrap_or_default(),
            roots: roots.clone(),
            max_size: *max_size,
            base: existing.base.as_ref().map(|base| base.items.clone()),
        };
        session.root.holds(memory.frames);
        session.root.send(&Request::Save(request), &[])?;
        let Reply::Frozen(frozen) = session.root.receive()?.0 else {
            return Err(HelperError::unexpected_reply("Frozen").into());
        };
        // The root helper has reported its phase; from here on it waits for this process.
        self.found.run.context.begin_phase(Phase::Pack.name());
        let newest = existing.newest.as_ref();
        let FreezeReport { items, growth, .. } = frozen;
        self.found.growth = newest.map(|_| Growth { items: growth.items, bytes: growth.nar_bytes });
        self.found.frozen = Some(frozen.clone());
        let unneeded = save_policy::after_freeze(&self.options.policy, newest, items, growth);
        debug!(
            items,
            new_items = growth.items,
            new_bytes = growth.nar_bytes,
            reason = unneeded,
            "decided whether to save"
        );
        match unneeded {
            Some(reason) => Err(NotSaved::Unneeded(reason, Advice::default())),
            None => Ok((frozen, profiles)),
        }
    }

    /// Names of the items from before the restore, if they are to be left out. The list is empty for plain
    /// directories, which are never left out because a restore may have changed them.
    fn baseline(&self) -> Vec<String> {
        match self.options.baseline {
            Baseline::Include => Vec::new(),
            Baseline::Exclude => {
                self.state.and_then(|state| state.baseline.clone()).unwrap_or_default()
            }
        }
    }

    /// Checks that no other job has saved the same since the entries were looked up.
    fn check_others(
        &self,
        backend: &dyn Backend,
        existing: &Existing,
        items: u64,
    ) -> Result<(), NotSaved> {
        let Save { policy, signing, .. } = self.options;
        let Existing { exact, seen, .. } = existing;
        match save_policy::overtaken(policy, backend, exact, seen, &signing.trust, items) {
            Some(name) => Err(NotSaved::Refused(Refused::Taken(name.to_string()))),
            None => Ok(()),
        }
    }

    /// Makes the entry appear.
    fn publish(&mut self, writer: Box<dyn EntryWriter>) -> Result<Entry> {
        let uploading = Instant::now();
        let written = writer.finish()?;
        let entry = written.entry.clone();
        debug!(entry = %entry.name, bytes = entry.size, "wrote an entry");
        let keys = self.options.signing.keys.iter();
        self.found.signed_by = keys.map(|key| key.name().to_owned()).collect();
        self.found.written = Some((written, uploading.elapsed()));
        Ok(entry)
    }

    fn delete_superseded(&mut self, backend: &dyn Backend, written: &Entry, bad: &[EntryName]) {
        let Some(keep) = self.options.keep else { return };
        let Retained { deleted, warning } =
            retention::retain(&self.found.run.context, backend, written, keep, bad);
        self.found.deleted = deleted;
        self.found.run.warnings.extend(warning);
    }
}
