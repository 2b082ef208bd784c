//! Entries that a restore skips while it looks for one that it can use.

use super::open_entry::OpenEntry;
use super::open_error::OpenError;
use super::resolve::LookupNotes;
use super::run_error::RunError;
use super::{quarantine, trust};
use crate::config::Restore;
use crate::report::{self, Hit};
use std::time::{Duration, Instant};
use storecache_backend::{Backend, BackendError, EntryName, Notes, Quarantined};
use storecache_entry::Ladder;
use storecache_root_helper::client::RootFailure;
use storecache_root_helper::protocol::{FrameId, Phase, SnapshotRole};
use storecache_root_helper::{FailureKind, HelperError};
use storecache_runtime::RunContext;
use storecache_runtime::advice::causes;
use storecache_runtime::liveness::seconds;
use storecache_store::StoreKind;
use tracing::debug;

/// Time limit for trying other entries after the first damaged one, if the run has no deadline. Damage in
/// head or index costs two small reads, but damage in a frame may cost a download.
const SEARCH: Duration = Duration::from_secs(120);

/// Counts damaged entries, and measures how long they have been skipped for.
struct Search {
    limit: Duration,
    /// When the first damaged entry was found.
    since: Option<Instant>,
    damaged: u64,
}

impl Search {
    /// A deadline ends the run anyway, and is the only limit if there is one.
    fn new(deadline: Option<Duration>) -> Self {
        Search { limit: deadline.unwrap_or(SEARCH), since: None, damaged: 0 }
    }

    /// Counts an entry that was found damaged at `now`. Returns whether there is time for another one.
    fn count(&mut self, now: Instant) -> bool {
        self.damaged += 1;
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < self.limit
    }
}

/// Why an entry is skipped although nothing is wrong with the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectReason {
    /// Its base is missing or known to be bad, so the entry counts as absent.
    Incomplete,
    /// It was deleted after it was found.
    Gone,
    /// It may be intact, but is not trusted.
    Untrusted,
    /// Its bytes failed their checks, or the bytes of its base did; then `base` is the name of the base.
    Damaged { base: Option<EntryName>, frame: Option<FrameId> },
}

impl RejectReason {
    /// Returns `None` for an error that the entry did not cause. `base` is the base of the entry, if it is a
    /// delta.
    pub fn from_error(error: &RunError, base: Option<&EntryName>) -> Option<Self> {
        match error {
            RunError::Entry(error) => Self::of_opening(error),
            RunError::Helper(HelperError::Failed(RootFailure { fault, .. })) => match *fault {
                FailureKind::Damaged { which, frame } => {
                    let base = base.filter(|_| which == SnapshotRole::Base).cloned();
                    let frame = frame.map(|number| FrameId { which, number });
                    Some(RejectReason::Damaged { base, frame })
                }
                FailureKind::Other => None,
            },
            RunError::Helper(_) | RunError::NoTime { .. } | RunError::Other(_) => None,
        }
    }

    fn of_opening(error: &OpenError) -> Option<Self> {
        match error {
            OpenError::BaseGone { .. } => Some(RejectReason::Incomplete),
            OpenError::Gone(_) => Some(RejectReason::Gone),
            OpenError::Untrusted(_) | OpenError::UntrustedBase { .. } => {
                Some(RejectReason::Untrusted)
            }
            OpenError::Unusable(unusable) if unusable.is_damaged() => {
                Some(RejectReason::Damaged { base: None, frame: None })
            }
            OpenError::UnusableBase { base, source } if source.is_damaged() => {
                Some(RejectReason::Damaged { base: Some(base.clone()), frame: None })
            }
            OpenError::Unusable(_) | OpenError::UnusableBase { .. } | OpenError::Other(_) => None,
        }
    }
}

/// The reaction to an error.
pub enum Verdict {
    /// The transfer had damaged the entry: try the same entry once more.
    Again,
    /// Skip to the next older entry.
    Over(RejectReason),
}

/// The failure of the first entry that could not be used, which is reported if no other entry can be used.
pub struct FirstFailure {
    pub error: RunError,
    /// The phase in which the entry turned out to be bad.
    pub phase: Phase,
    pub name: EntryName,
}

/// Report of the entries that a restore has skipped.
#[derive(Default)]
pub struct RejectedEntries {
    /// Full names, each with the reason.
    pub passed_over: Vec<(String, String)>,
    pub quarantined: Vec<Quarantined>,
    /// About bad entries, if another entry could be used.
    pub warning: Option<String>,
}

/// The entries that a run does not use, with the reasons.
pub struct EntryFallback<'a> {
    context: RunContext,
    backend: &'a dyn Backend,
    options: &'a Restore,
    /// Kind of the store.
    kind: StoreKind,
    /// Entries that a lookup must not find again.
    names: Vec<EntryName>,
    /// Entries that must not be used as a base either.
    bad: Vec<EntryName>,
    search: Search,
    /// The entry that was received damaged and was intact when it was read again.
    again: Option<EntryName>,
    first: Option<FirstFailure>,
    /// The newest entry that is not trusted, and the reason.
    untrusted: Option<String>,
    rejected: RejectedEntries,
}

impl<'a> EntryFallback<'a> {
    /// Reads the known bad entries, and sweeps the quarantine.
    pub fn begin(
        context: &RunContext,
        backend: &'a dyn Backend,
        options: &'a Restore,
        kind: StoreKind,
        ladder: &Ladder,
    ) -> Self {
        if !is_dry(options) {
            quarantine::sweep(backend, &options.quarantine);
        }
        let known = quarantine::known(backend, &options.quarantine);
        for (name, bad) in &known {
            debug!(entry = %name, since = bad.when, reason = bad.reason, "skip a known bad entry");
        }
        let passed_over = quarantine::met(&known, ladder);
        let bad: Vec<EntryName> = known.into_iter().map(|(name, _)| name).collect();
        let names = bad.clone();
        let search = Search::new(options.clocks.deadline);
        EntryFallback {
            context: context.clone(),
            backend,
            options,
            kind,
            names,
            bad,
            search,
            again: None,
            first: None,
            untrusted: None,
            rejected: RejectedEntries { passed_over, ..RejectedEntries::default() },
        }
    }

    pub fn names(&self) -> &[EntryName] {
        &self.names
    }

    /// Opens an entry. Tries once more if it is damaged, because the transfer may have damaged it.
    pub fn open(
        &self,
        ladder: &Ladder,
        (name, hit): (&EntryName, Hit),
        downloaded: &mut u64,
    ) -> Result<OpenEntry, OpenError> {
        trust::check_key(&self.options.trust, self.backend, ladder, (name, hit))?;
        let mut open = || {
            let checks = (&*self.bad, &self.options.trust);
            let entry = OpenEntry::open(self.backend, name, checks, downloaded)?;
            entry.check_parts(self.kind)?;
            Ok(entry)
        };
        match open() {
            Err(OpenError::Unusable(it) | OpenError::UnusableBase { source: it, .. })
                if it.is_damaged() =>
            {
                open()
            }
            opened => opened,
        }
    }

    /// Decides what to do about an error.
    ///
    /// # Errors
    /// If the entry did not cause `error`, or the transfer may have caused it: `error` itself.
    pub fn judge(
        &mut self,
        name: &EntryName,
        entry: Option<&OpenEntry>,
        error: RunError,
    ) -> Result<(Verdict, RunError), RunError> {
        let base = entry.and_then(|entry| EntryName::parse(&entry.base.as_ref()?.name));
        let unfit = match RejectReason::from_error(&error, base.as_ref()) {
            // After a cancellation, any error may be a consequence of it.
            Some(unfit) if !self.context.is_canceled() => unfit,
            _ => return Err(error),
        };
        if let (RejectReason::Damaged { frame: Some(frame), .. }, Some(entry)) = (&unfit, entry) {
            match entry.comes_whole(self.backend, *frame) {
                Ok(true) if self.again.as_ref() != Some(name) => {
                    debug!(entry = %name, "try an entry again that was damaged on its way");
                    self.again = Some(name.clone());
                    return Ok((Verdict::Again, error));
                }
                Ok(false) => {}
                // Another run has found the damage too and has moved the entry aside first.
                Err(BackendError::Gone(_)) => {}
                // The damage is intermittent, or the frame cannot be read any more: nothing is known about
                // the entry.
                _ => return Err(error),
            }
        }
        Ok((Verdict::Over(unfit), error))
    }

    /// Skips an entry that turned out to be bad in a phase of the run, and quarantines its damaged file.
    ///
    /// # Errors
    /// If there is no time to try other entries: the failure of the first one.
    pub fn over(
        &mut self,
        name: &EntryName,
        (unfit, error): (RejectReason, RunError),
        phase: Phase,
    ) -> Result<(), Box<FirstFailure>> {
        let phase = error.reported().map_or(phase, |failure| failure.phase);
        let reason = causes(&error);
        debug!(entry = %name, ?unfit, phase = phase.name(), reason, "skip an entry");
        let mut has_time = true;
        if let RejectReason::Damaged { base, .. } = &unfit {
            let bad = base.as_ref().unwrap_or(name);
            if !is_dry(self.options) {
                let size = error.unusable().filter(|it| it.name == bad.to_string());
                let size = size.map(|it| it.size);
                let found = (phase.name(), &*reason, size);
                let done = quarantine::condemn(self.backend, &self.options.quarantine, bad, found);
                self.rejected.quarantined.push(done);
            }
            if bad != name {
                self.names.push(bad.clone());
            }
            self.bad.push(bad.clone());
            has_time = self.search.count(Instant::now());
        }
        self.names.push(name.clone());
        match unfit {
            RejectReason::Incomplete => {}
            RejectReason::Untrusted => {
                self.untrusted.get_or_insert_with(|| format!("{name}: {reason}"));
            }
            RejectReason::Gone | RejectReason::Damaged { .. } => {
                self.first.get_or_insert(FirstFailure { error, phase, name: name.clone() });
            }
        }
        self.rejected.passed_over.push((name.to_string(), reason));
        let Some(first) = self.first.take_if(|_| !has_time) else { return Ok(()) };
        let count = report::plural(self.search.damaged, "damaged entry");
        let limit = seconds(self.search.limit);
        let tried = format!("gave up after {count} in {limit}; the newest");
        let source = Box::new(first.error);
        Err(Box::new(FirstFailure { error: RunError::NoTime { tried, source }, ..first }))
    }

    /// Returns the failure of the first entry that exists but could not be used.
    pub fn take_first(&mut self) -> Option<FirstFailure> {
        self.first.take()
    }

    /// Adds entries that the backend skipped. Returns the warnings of the lookup.
    pub fn add_skipped(&mut self, notes: &Notes) -> Vec<String> {
        let notes = LookupNotes::new(notes, &self.rejected.passed_over);
        self.rejected.passed_over.extend(notes.skipped);
        notes.warnings
    }

    /// Why no existing entry can be used, if they are not trusted.
    pub fn untrusted(&self) -> Option<&str> {
        self.untrusted.as_deref()
    }

    /// Makes the warning about bad entries when another entry could be used, with advice.
    pub fn warn(&mut self, used: &EntryName) {
        let Some(kept) = quarantine::advice(&self.rejected.quarantined) else { return };
        let Some(FirstFailure { error, phase, name }) = &self.first else { return };
        let (phase, error) = (phase.name(), causes(error));
        self.rejected.warning = Some(format!(
            "{phase}: {name} cannot be used, and {used} was used instead: {error}; {kept}"
        ));
    }

    pub fn into_findings(self) -> RejectedEntries {
        self.rejected
    }
}

/// Whether the run must not change anything.
fn is_dry(options: &Restore) -> bool {
    options.dry_run || options.lookup_only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_for_a_usable_entry_ends_by_time_and_not_by_count() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut search = Search::new(None);
        // The time starts when the first damaged entry is found, however long that took.
        assert!(search.count(after(1000)));
        assert!((0..10_000).all(|_| search.count(after(1119))));
        assert!(!search.count(after(1120)));
        assert_eq!(search.damaged, 10_002);
        let mut longer = Search::new(Some(Duration::from_secs(600)));
        assert!(longer.count(after(0)) && longer.count(after(599)) && !longer.count(after(600)));
    }
}
