//! Entries that a restore passes over on its way to one that it can use.

use super::cancel;
use super::entry::{BadBase, BaseGone, OpenEntry, Unusable};
use super::quarantine;
use super::trust::{self, Untrusted};
use crate::backend::{Backend, EntryName, Gone};
use crate::key::Ladder;
use crate::options::Restore;
use crate::privileged::Fault;
use crate::privileged::client::RootFailure;
use crate::privileged::protocol::{FrameId, Which};
use crate::pulse;
use crate::report::{self, Hit, Outcome};
use crate::store::StoreKind;
use anyhow::{Context, Error, Result};
use std::time::{Duration, Instant};

/// For how long other entries are tried once one was found damaged, where the run has no deadline. Damage in head or
/// index costs two small reads, damage in a frame may cost a download.
const SEARCH: Duration = Duration::from_secs(120);

/// Counts damaged entries, and how long they have been skipped for.
struct Search {
    limit: Duration,
    /// When the first one was found damaged.
    since: Option<Instant>,
    damaged: u64,
}

impl Search {
    /// A deadline ends the run by itself, and is the only limit where there is one.
    fn new(deadline: Option<Duration>) -> Self {
        Search { limit: deadline.unwrap_or(SEARCH), since: None, damaged: 0 }
    }

    /// Counts one that was found damaged by `now`; says whether there is time for another.
    fn count(&mut self, now: Instant) -> bool {
        self.damaged += 1;
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < self.limit
    }
}

/// Why an entry is passed over, though nothing is wrong with the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// What it needs is gone: it is as good as absent.
    Incomplete,
    /// It went after it was found.
    Gone,
    /// It may be whole, and is not to be used.
    Untrusted,
    /// Its bytes failed their checks, or those of its base, which is named then.
    Damaged { base: Option<EntryName>, frame: Option<FrameId> },
}

impl Unfit {
    /// Nothing for an error that is no fault of the entry; `base` is what it is a delta on.
    pub fn of(error: &Error, base: Option<&EntryName>) -> Option<Self> {
        if error.is::<BaseGone>() {
            return Some(Unfit::Incomplete);
        }
        if error.is::<Gone>() {
            return Some(Unfit::Gone);
        }
        // Before anything else that may be wrong with what others can have put there.
        if error.is::<Untrusted>() {
            return Some(Unfit::Untrusted);
        }
        let told = error.downcast_ref::<RootFailure>();
        let fault = told.map_or_else(|| Fault::of(error), |failure| failure.fault);
        let Fault::Damaged { which, frame } = fault else { return None };
        let frame = frame.map(|number| FrameId { which, number });
        let named = error.downcast_ref::<BadBase>().map(|BadBase(base)| base);
        let base = named.or(base.filter(|_| which == Which::Base)).cloned();
        Some(Unfit::Damaged { base, frame })
    }
}

/// What to do about an error.
pub enum Verdict {
    /// The way here had damaged it: the same entry once more.
    Again,
    /// The next older entry.
    Over(Unfit),
}

/// What a run does not take, and why.
pub struct Passed<'a> {
    backend: &'a dyn Backend,
    options: &'a Restore,
    /// Of the store.
    kind: StoreKind,
    /// Not to be found again.
    names: Vec<EntryName>,
    /// Not to be taken for a base either.
    bad: Vec<EntryName>,
    search: Search,
    /// The entry that came damaged and was whole when it came anew.
    again: Option<EntryName>,
    /// What is told if nothing can be used; with its phase, and the key and name of the entry.
    first: Option<(Error, &'static str, EntryName)>,
    /// The newest entry that is not trusted, and why.
    untrusted: Option<String>,
}

impl<'a> Passed<'a> {
    /// Knows what was found bad before, and sweeps where what was kept long enough is.
    pub fn begin(
        backend: &'a dyn Backend,
        options: &'a Restore,
        kind: StoreKind,
        ladder: &Ladder,
        outcome: &mut Outcome,
    ) -> Self {
        if !is_dry(options) {
            quarantine::sweep(backend, &options.quarantine);
        }
        let known = quarantine::known(backend, &options.quarantine);
        outcome.passed_over = quarantine::met(&known, ladder);
        let bad: Vec<EntryName> = known.into_iter().map(|(name, _)| name).collect();
        let names = bad.clone();
        let search = Search::new(options.clocks.deadline);
        let (again, first, untrusted) = Default::default();
        Passed { backend, options, kind, names, bad, search, again, first, untrusted }
    }

    pub fn names(&self) -> &[EntryName] {
        &self.names
    }

    /// Opens an entry, and once more if what came of it is damaged: that may have been the way.
    pub fn open(
        &self,
        ladder: &Ladder,
        (name, hit): (&EntryName, Hit),
        downloaded: &mut u64,
    ) -> Result<OpenEntry> {
        trust::check_key(&self.options.trust, self.backend, ladder, (name, hit))?;
        let mut open = || {
            let checks = (&*self.bad, &self.options.trust);
            let entry = OpenEntry::open(self.backend, name, checks, downloaded)?;
            entry.check_parts(self.kind)?;
            Ok(entry)
        };
        match open() {
            Err(e) if matches!(Unfit::of(&e, None), Some(Unfit::Damaged { .. })) => open(),
            opened => opened,
        }
    }

    /// # Errors
    /// The error itself where it is no fault of the entry. So is one that the way here may have caused.
    pub fn judge(
        &mut self,
        name: &EntryName,
        entry: Option<&OpenEntry>,
        error: Error,
    ) -> Result<(Verdict, Error)> {
        let base = entry.and_then(|entry| EntryName::parse(&entry.base.as_ref()?.name));
        let unfit = match Unfit::of(&error, base.as_ref()) {
            // Whatever fails then may have done so for that.
            Some(unfit) if !cancel::called_off() => unfit,
            _ => return Err(error),
        };
        if let (Unfit::Damaged { frame: Some(frame), .. }, Some(entry)) = (&unfit, entry) {
            match entry.comes_whole(self.backend, *frame) {
                Ok(true) if self.again.as_ref() != Some(name) => {
                    self.again = Some(name.clone());
                    return Ok((Verdict::Again, error));
                }
                Ok(false) => {}
                // Another run has found out the same, and was faster.
                Err(e) if e.is::<Gone>() => {}
                // It comes and goes, or does not come any more: nothing is known of the entry.
                _ => return Err(error),
            }
        }
        Ok((Verdict::Over(unfit), error))
    }

    /// Books an entry as passed over, and what is bad of it as quarantined.
    ///
    /// # Errors
    /// The first one, when there is no time to try others.
    pub fn over(
        &mut self,
        name: &EntryName,
        (unfit, error): (Unfit, Error),
        outcome: &mut Outcome,
    ) -> Result<()> {
        let failure = error.downcast_ref::<RootFailure>();
        let phase = failure.map_or(outcome.phase, |failure| failure.phase.name());
        let reason = format!("{error:#}");
        let mut has_time = true;
        if let Unfit::Damaged { base, .. } = &unfit {
            let bad = base.as_ref().unwrap_or(name);
            if !is_dry(self.options) {
                let size = error.downcast_ref::<Unusable>();
                let size = size.filter(|it| it.name == bad.to_string()).map(|it| it.size);
                let found = (phase, &*reason, size);
                quarantine::condemn(self.backend, &self.options.quarantine, bad, found, outcome);
            }
            if bad != name {
                self.names.push(bad.clone());
            }
            self.bad.push(bad.clone());
            has_time = self.search.count(Instant::now());
        }
        self.names.push(name.clone());
        match unfit {
            Unfit::Incomplete => {}
            Unfit::Untrusted => {
                self.untrusted.get_or_insert_with(|| format!("{name}: {reason}"));
            }
            Unfit::Gone | Unfit::Damaged { .. } => {
                self.first.get_or_insert((error, phase, name.clone()));
            }
        }
        outcome.passed_over.push((name.to_string(), reason));
        if has_time {
            return Ok(());
        }
        let count = report::plural(self.search.damaged, "damaged entry");
        let limit = pulse::seconds(self.search.limit);
        self.nothing(outcome).with_context(|| {
            format!("{count} were skipped in {limit}, and no older one was tried; the newest")
        })
    }

    /// There is nothing else to try.
    ///
    /// # Errors
    /// What was wrong with the first entry that was there and could not be used.
    pub fn nothing(&mut self, outcome: &mut Outcome) -> Result<()> {
        let Some((error, phase, name)) = self.first.take() else { return Ok(()) };
        outcome.phase = phase;
        outcome.matched_key = Some(name.key.clone());
        outcome.entry = Some(name.to_string());
        Err(error)
    }

    /// Why nothing that is there can be used, where that is for want of trust.
    pub fn untrusted(&self) -> Option<&str> {
        self.untrusted.as_deref()
    }

    /// Warns once of what was bad, when another entry served, and says what to do.
    pub fn tell(&self, outcome: &mut Outcome) {
        let Some(kept) = quarantine::told(outcome) else { return };
        let Some((error, phase, name)) = &self.first else { return };
        let instead = outcome.entry.as_deref().unwrap_or_default();
        outcome.warnings.push(format!(
            "{phase}: {name} cannot be used, and {instead} was taken instead: {error:#}; {kept}"
        ));
    }
}

/// Whether a run leaves everything where it is.
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
        // The clock starts when the first one is found damaged, however long that took.
        assert!(search.count(after(1000)));
        assert!((0..10_000).all(|_| search.count(after(1119))));
        assert!(!search.count(after(1120)));
        assert_eq!(search.damaged, 10_002);
        let mut longer = Search::new(Some(Duration::from_secs(600)));
        assert!(longer.count(after(0)) && longer.count(after(599)) && !longer.count(after(600)));
    }
}
