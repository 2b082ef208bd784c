//! Several backends in an order, combined into one.
//!
//! The ladder takes precedence over the order: an entry of a better rung in a later backend beats an entry of a worse
//! rung in an earlier backend. For the same rung, the earlier backend wins. So each backend is only asked for entries
//! that are better than the best one found so far, and no further backend is asked after an exact hit. If there is
//! another backend to ask, a backend has one stall timeout to answer a lookup. A backend that does not answer in time
//! causes one warning and is not asked again in this run.

use super::{
    Backend, Entry, EntryName, EntryWriter, Gone, Health, QuarantinedEntry, ReadAt, Refused,
    Skipped,
};
use anyhow::{Error, Result, anyhow};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::liveness::{is_canceled, run_blocking_for};

/// Several backends, combined.
pub struct FallbackBackend {
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
    warnings: Vec<String>,
}

/// A request to one member.
type Question<T> = Box<dyn FnOnce(&dyn Backend) -> Result<T> + Send>;

impl FallbackBackend {
    /// Combines the backends that could be opened. `warnings` describe the others.
    pub fn new(members: Vec<Arc<dyn Backend>>, limit: Duration, warnings: Vec<String>) -> Self {
        let state = State { warnings, ..State::default() };
        FallbackBackend { members, limit, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the members that are not known to be down, with their indexes.
    fn live(&self) -> Vec<(usize, &Arc<dyn Backend>)> {
        let down = self.state().down.clone();
        self.members.iter().enumerate().filter(|(at, _)| !down.contains(at)).collect()
    }

    /// Sends a request to one member, with a time limit if `others` could answer too.
    fn ask<T: Send + 'static>(
        &self,
        at: usize,
        others: bool,
        question: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let member = Arc::clone(&self.members[at]);
        if !others {
            return question(member.as_ref());
        }
        run_blocking_for(&member.describe(), self.limit, move || question(member.as_ref()))
    }

    /// Sends requests to the members in order, until `enough` accepts an answer or `question` returns `None`. A
    /// refusal is skipped without a warning, because it was known beforehand. If no member answers, returns the error
    /// of the first.
    fn each<T: Send + 'static>(
        &self,
        question: impl Fn() -> Option<Question<T>>,
        mut enough: impl FnMut(usize, T) -> bool,
    ) -> Result<()> {
        let mut first: Option<(Error, String)> = None;
        let mut silent = Vec::new();
        let mut answered = false;
        let live: Vec<usize> = self.live().into_iter().map(|(at, _)| at).collect();
        for (number, &at) in live.iter().enumerate() {
            let Some(question) = question() else { break };
            let others = answered || number + 1 < live.len();
            let error = match self.ask(at, others, question) {
                Ok(answer) => {
                    answered = true;
                    if enough(at, answer) {
                        break;
                    }
                    continue;
                }
                Err(error) if is_canceled() => return Err(error),
                Err(error) => error,
            };
            let name = self.members[at].describe();
            if !error.is::<Refused>() {
                silent.push((at, format!("{name} does not answer and is skipped: {error:#}")));
            }
            first.get_or_insert((error, name));
        }
        let mut state = self.state();
        state.down.extend(silent.iter().map(|(at, _)| *at));
        match first {
            Some((error, name)) if !answered => Err(match error.is::<Refused>() {
                true => error,
                false => error.context(match live.len() {
                    1 => name,
                    count => format!("none of {count} backends answers; {name}"),
                }),
            }),
            None if !answered => Err(anyhow!("no remaining backend answers")),
            _ => {
                state.warnings.extend(silent.into_iter().map(|(_, line)| line));
                Ok(())
            }
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

    fn can_read(&self) -> Result<(), Refused> {
        any(self.members.iter().map(|it| it.can_read()))
    }

    fn can_write(&self) -> Result<(), Refused> {
        any(self.members.iter().map(|it| it.can_write()))
    }

    fn find_besides(
        &self,
        rungs: &[Rung],
        passed: &[EntryName],
    ) -> Result<Option<(EntryName, usize)>> {
        let best: Mutex<Option<(EntryName, usize, usize)>> = Mutex::new(None);
        let held = || best.lock().unwrap_or_else(PoisonError::into_inner);
        let question = || {
            let better = held().as_ref().map_or(rungs.len(), |(_, rung, _)| *rung);
            if better == 0 {
                return None;
            }
            let (rungs, passed) = (rungs[..better].to_vec(), passed.to_vec());
            let ask = move |it: &dyn Backend| it.find_besides(&rungs, &passed);
            Some(Box::new(ask) as Question<_>)
        };
        let enough = |at, found: Option<(EntryName, usize)>| {
            if let Some((name, rung)) = found {
                *held() = Some((name, rung, at));
            }
            false
        };
        self.each(question, enough)?;
        let found = held().take();
        let mut state = self.state();
        state.last = found.as_ref().map(|(_, _, at)| *at);
        Ok(found.map(|(name, rung, at)| {
            state.holders.insert(name.clone(), at);
            (name, rung)
        }))
    }

    /// Returns the entries of all members that answer, each entry once, newest first.
    fn entries(&self, rung: &Rung) -> Result<Vec<Entry>> {
        let mut all: Vec<(usize, Entry)> = Vec::new();
        let question = || {
            let rung = rung.clone();
            let ask = move |it: &dyn Backend| it.entries(&rung);
            Some(Box::new(ask) as Question<_>)
        };
        let take = |at, entries: Vec<Entry>| {
            for entry in entries {
                if !all.iter().any(|(_, known)| known.name == entry.name) {
                    all.push((at, entry));
                }
            }
            false
        };
        self.each(question, take)?;
        all.sort_by(|(_, a), (_, b)| b.name.generation.cmp(&a.name.generation));
        let mut state = self.state();
        let held = all.iter().map(|(at, entry)| (entry.name.clone(), *at));
        state.holders.extend(held);
        Ok(all.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Opens an entry in the member in which it was found, or else in any other member that has it. That member
    /// counts as its holder from then on.
    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>> {
        let holder = self.state().holders.get(name).copied();
        let others = self.live().into_iter().map(|(at, _)| at).filter(|at| Some(*at) != holder);
        let mut first = None;
        for at in holder.into_iter().chain(others) {
            match self.members[at].open(name) {
                Ok(reader) => {
                    self.state().holders.insert(name.clone(), at);
                    return Ok(reader);
                }
                Err(e) if e.is::<Gone>() || e.is::<Refused>() => {}
                Err(e) => drop(first.get_or_insert(e)),
            }
        }
        Err(first.unwrap_or_else(|| Gone::new(name).into()))
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>> {
        match self.to_write()? {
            Some(member) => member.create(name),
            None => Err(anyhow!("no backend accepts entries")),
        }
    }

    fn examine(&self) -> Result<Health> {
        let live = self.live();
        let (_, member) = live.first().ok_or_else(|| anyhow!("no remaining backend answers"))?;
        member.examine()
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        match self.holder(&entry.name) {
            Some(member) => member.delete(entry),
            None => Err(Gone::new(&entry.name).into()),
        }
    }

    fn place(&self) -> String {
        let all: Vec<String> = self.members.iter().map(|it| it.place()).collect();
        all.join(" ")
    }

    fn identity(&self, name: &EntryName) -> String {
        self.holder(name).map_or_else(String::new, |member| member.identity(name))
    }

    fn set_aside(&self, name: &EntryName, note: &[u8]) -> Result<Option<PathBuf>> {
        self.holder(name).map_or(Ok(None), |member| member.set_aside(name, note))
    }

    fn asides(&self) -> Result<Vec<QuarantinedEntry>> {
        let mut all = Vec::new();
        for (_, member) in self.live() {
            all.extend(member.asides()?);
        }
        Ok(all)
    }

    fn members(&self) -> Vec<&dyn Backend> {
        self.live().into_iter().map(|(_, member)| member.as_ref()).collect()
    }

    fn holder(&self, name: &EntryName) -> Option<&dyn Backend> {
        let at = self.state().holders.get(name).copied()?;
        Some(self.members[at].as_ref())
    }

    /// Returns the first member that answers and accepts entries.
    fn to_write(&self) -> Result<Option<Arc<dyn Backend>>> {
        let mut chosen = None;
        let question = || {
            let ask = |it: &dyn Backend| it.try_writing();
            Some(Box::new(ask) as Question<_>)
        };
        let enough = |at: usize, ()| {
            chosen = Some(Arc::clone(&self.members[at]));
            true
        };
        self.each(question, enough)?;
        Ok(chosen)
    }

    fn skipped(&self) -> Vec<Skipped> {
        self.members.iter().flat_map(|member| member.skipped()).collect()
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }
}

/// Returns `Ok` if any of the results is `Ok`, and otherwise the first refusal.
fn any(all: impl Iterator<Item = Result<(), Refused>>) -> Result<(), Refused> {
    let mut first = Ok(());
    for one in all {
        match one {
            Ok(()) => return Ok(()),
            Err(why) if first.is_ok() => first = Err(why),
            Err(_) => {}
        }
    }
    first
}
