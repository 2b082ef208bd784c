//! Several backends in an order, combined into one.
//!
//! The ladder takes precedence over the order: an entry of a better rung in a later backend beats an entry of a worse
//! rung in an earlier backend. For the same rung, the earlier backend wins. So each backend is only asked for entries
//! that are better than the best one found so far, and no further backend is asked after an exact hit. If there is
//! another backend to ask, a backend has one stall timeout to answer a lookup. A backend that does not answer in time
//! causes one warning and is not asked again in this run.

use super::{
    Backend, BackendError, Entry, EntryIdentity, EntryList, EntryName, EntryWriter, FoundEntry,
    Gone, Health, Notes, Quarantine, QuarantineList, Quarantined, ReadAt,
};
use anyhow::{Result, anyhow};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use storecache_runtime::liveness::run_blocking_for;
use tracing::debug;

/// Several backends, combined.
pub struct FallbackBackend {
    run: RunContext,
    /// In order of preference.
    members: Vec<Arc<dyn Backend>>,
    /// How long to wait for one member if there is another.
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Indexes of members that did not answer.
    down: Vec<usize>,
    /// Index of the member in which each entry was found.
    holders: HashMap<EntryName, usize>,
    /// Index of the member that returned the last entry found.
    last: Option<usize>,
}

/// A request to one member.
type Request<T> = Box<dyn FnOnce(&dyn Backend) -> Result<T, BackendError> + Send>;

impl FallbackBackend {
    /// Combines backends for `run`.
    pub fn new(run: &RunContext, members: Vec<Arc<dyn Backend>>, limit: Duration) -> Self {
        FallbackBackend { run: run.clone(), members, limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the members that are not known to be down, with their indexes.
    fn live(&self) -> Vec<(usize, &Arc<dyn Backend>)> {
        let down = self.state().down.clone();
        self.members.iter().enumerate().filter(|(at, _)| !down.contains(at)).collect()
    }

    /// Returns the member in which an entry was found.
    fn holder(&self, name: &EntryName) -> Option<&dyn Backend> {
        let at = self.state().holders.get(name).copied()?;
        Some(self.members[at].as_ref())
    }

    /// Sends a request to one member, with a time limit if `others` could answer too.
    fn ask<T: Send + 'static>(
        &self,
        at: usize,
        others: bool,
        request: Request<T>,
    ) -> Result<T, BackendError> {
        let member = Arc::clone(&self.members[at]);
        if !others {
            return request(member.as_ref());
        }
        run_blocking_for(&self.run, &member.describe(), self.limit, move || {
            Ok(request(member.as_ref()))
        })?
    }

    /// Sends requests to the members in order, until `enough` accepts an answer or `request` returns `None`. A
    /// refusal causes no warning, because the member has answered. Returns one warning for each member that did not.
    ///
    /// # Errors
    /// If no member answers: the error of the first.
    fn each<T: Send + 'static>(
        &self,
        request: impl Fn() -> Option<Request<T>>,
        mut enough: impl FnMut(usize, T) -> bool,
    ) -> Result<Vec<String>, BackendError> {
        let mut first: Option<(BackendError, String)> = None;
        let mut warnings = Vec::new();
        let mut answered = false;
        let live: Vec<usize> = self.live().into_iter().map(|(at, _)| at).collect();
        for (number, &at) in live.iter().enumerate() {
            let Some(request) = request() else { break };
            let others = answered || number + 1 < live.len();
            let error = match self.ask(at, others, request) {
                Ok(answer) => {
                    answered = true;
                    if enough(at, answer) {
                        break;
                    }
                    continue;
                }
                Err(error) if self.run.is_canceled() => return Err(error),
                Err(error) => error,
            };
            let name = self.members[at].describe();
            debug!(backend = name, reason = %format_args!("{error:#}"), "a backend is skipped");
            if !matches!(error, BackendError::Refused(_)) {
                self.state().down.push(at);
                warnings.push(format!(
                    "{name} does not answer and is skipped: {}",
                    in_one_line(&error)
                ));
            }
            first.get_or_insert((error, name));
        }
        match first {
            Some((error, name)) if !answered => Err(error.context(|| match live.len() {
                1 => name,
                count => format!("none of {count} backends answers; {name}"),
            })),
            None if !answered => Err(anyhow!("no remaining backend answers").into()),
            _ => Ok(warnings),
        }
    }
}

impl Backend for FallbackBackend {
    /// Returns the description of the member that returned the last entry, or of all members.
    fn describe(&self) -> String {
        if let Some(last) = self.state().last {
            return self.members[last].describe();
        }
        let all: Vec<String> = self.members.iter().map(|it| it.describe()).collect();
        all.join(", then ")
    }

    fn find(
        &self,
        rungs: &[Rung],
        passed: &[EntryName],
    ) -> Result<(Option<FoundEntry>, Notes), BackendError> {
        let best: Mutex<Option<(FoundEntry, usize)>> = Mutex::new(None);
        let held = || best.lock().unwrap_or_else(PoisonError::into_inner);
        let request = || {
            let better = held().as_ref().map_or(rungs.len(), |(found, _)| found.rung);
            if better == 0 {
                return None;
            }
            let (rungs, passed) = (rungs[..better].to_vec(), passed.to_vec());
            let ask = move |it: &dyn Backend| it.find(&rungs, &passed);
            Some(Box::new(ask) as Request<_>)
        };
        let mut notes = Notes::default();
        let enough = |at, (found, more): (Option<FoundEntry>, Notes)| {
            notes.add(more);
            if let Some(found) = found {
                *held() = Some((found, at));
            }
            false
        };
        let warnings = self.each(request, enough)?;
        notes.warnings.extend(warnings);
        let found = held().take();
        let mut state = self.state();
        state.last = found.as_ref().map(|(_, at)| *at);
        let found = found.map(|(found, at)| {
            state.holders.insert(found.name.clone(), at);
            found
        });
        Ok((found, notes))
    }

    /// Opens an entry in the member in which it was found, or else in any other member that has it. That member
    /// counts as its holder from then on.
    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError> {
        let holder = self.state().holders.get(name).copied();
        let others = self.live().into_iter().map(|(at, _)| at).filter(|at| Some(*at) != holder);
        let mut first = None;
        for at in holder.into_iter().chain(others) {
            match self.members[at].open(name) {
                Ok(reader) => {
                    debug!(entry = %name, backend = self.members[at].describe(), "opened an entry");
                    self.state().holders.insert(name.clone(), at);
                    return Ok(reader);
                }
                Err(BackendError::Gone(_) | BackendError::Refused(_)) => {}
                Err(e) => drop(first.get_or_insert(e)),
            }
        }
        Err(first.unwrap_or_else(|| Gone::new(name).into()))
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError> {
        self.first_writable()?.0.create(name)
    }

    /// Returns the first member that answers and accepts entries.
    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        self.first_writable()
    }

    fn try_writing(&self) -> Result<(), BackendError> {
        self.first_writable().map(drop)
    }

    fn examine(&self) -> Result<Health> {
        let live = self.live();
        let (_, member) = live.first().ok_or_else(|| anyhow!("no remaining backend answers"))?;
        member.examine()
    }

    fn lowers_case(&self, name: &EntryName) -> bool {
        self.holder(name).is_some_and(|member| member.lowers_case(name))
    }
}

impl FallbackBackend {
    fn first_writable(&self) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        let mut chosen = None;
        let request = || {
            let ask = |it: &dyn Backend| it.try_writing();
            Some(Box::new(ask) as Request<_>)
        };
        let enough = |at: usize, ()| {
            chosen = Some(Arc::clone(&self.members[at]));
            true
        };
        let warnings = self.each(request, enough)?;
        let chosen = chosen.ok_or_else(|| anyhow!("no backend accepts entries"))?;
        debug!(backend = chosen.describe(), "chose the backend to write to");
        Ok((chosen, warnings))
    }
}

impl EntryList for FallbackBackend {
    /// Returns the entries of all members that answer, each entry once, newest first.
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError> {
        let mut all: Vec<(usize, Entry)> = Vec::new();
        let mut notes = Notes::default();
        let request = || {
            let rung = rung.clone();
            let ask = move |it: &dyn Backend| it.entries(&rung);
            Some(Box::new(ask) as Request<_>)
        };
        let take = |at, (entries, more): (Vec<Entry>, Notes)| {
            notes.add(more);
            for entry in entries {
                if !all.iter().any(|(_, known)| known.name == entry.name) {
                    all.push((at, entry));
                }
            }
            false
        };
        let warnings = self.each(request, take)?;
        notes.warnings.extend(warnings);
        all.sort_by(|(_, a), (_, b)| b.name.generation.cmp(&a.name.generation));
        let held = all.iter().map(|(at, entry)| (entry.name.clone(), *at));
        self.state().holders.extend(held);
        Ok((all.into_iter().map(|(_, entry)| entry).collect(), notes))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        match self.holder(&entry.name) {
            Some(member) => member.delete(entry),
            None => Err(Gone::new(&entry.name).into()),
        }
    }
}

impl QuarantineList for FallbackBackend {
    fn is_at(&self, place: &str) -> bool {
        self.live().into_iter().any(|(_, member)| member.is_at(place))
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let mut all = Vec::new();
        for (_, member) in self.live() {
            all.extend(member.quarantined()?);
        }
        Ok(all)
    }
}

impl Quarantine for FallbackBackend {
    /// An entry that was not found yet has an identity that no backend recognizes.
    fn identify(&self, name: &EntryName) -> EntryIdentity {
        let nowhere = EntryIdentity { place: String::new(), version: String::new() };
        self.holder(name).map_or(nowhere, |member| member.identify(name))
    }

    fn recognizes(&self, name: &EntryName, identity: &EntryIdentity) -> bool {
        self.live().into_iter().any(|(_, member)| member.recognizes(name, identity))
    }

    fn set_aside(&self, name: &EntryName, note: &Quarantined) -> Result<Option<PathBuf>> {
        self.holder(name).map_or(Ok(None), |member| member.set_aside(name, note))
    }

    /// Does nothing: a save sweeps the backend that it writes to, and a restore must not wait for each member.
    fn sweep(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}
