//! Which ingredients would have changed exactly when the store did.
//!
//! Past snapshots in the order of time are the observations. Between two of them the store has changed
//! or not, and so has each candidate. A candidate that changes without the store makes new entries for
//! nothing (a false alarm); a store that changes without it is found under an old key (missed). The
//! module owns this comparison and the search for the smallest set. It knows digests and names, and
//! not where they come from: that is `candidates.rs`.

mod bits;
mod candidates;
mod cover;
mod flags;

pub use candidates::{InCommits, Ingredient, of_commits, of_heads};
pub use flags::Flags;

use self::bits::Bits;
use self::cover::{Choice, smallest};
use crate::snapshot::Digest;
use std::collections::BTreeMap;

/// A past snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Identity of what the store held.
    pub store: Digest,
    /// What is in every key anyway. Where it changes nothing is asked of other ingredients.
    pub given: String,
}

/// Something that could go into the key.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub ingredient: Ingredient,
    pub trace: Trace,
}

/// Between which observations something changed: number N is from observation N to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    changed: Bits,
    unknown: Bits,
}

impl Trace {
    /// From what it was at each observation; nothing where that is not known.
    pub fn of<T: PartialEq>(values: &[Option<T>]) -> Self {
        let size = values.len().saturating_sub(1);
        let unknown = Bits::of(size, |at| values[at].is_none() || values[at + 1].is_none());
        let changed = Bits::of(size, |at| !unknown.holds(at) && values[at] != values[at + 1]);
        Trace { changed, unknown }
    }

    /// Of what is always known, and has not changed yet between any of so many observations.
    pub fn still(observations: usize) -> Self {
        let none = Bits::none(observations.saturating_sub(1));
        Trace { changed: none.clone(), unknown: none }
    }

    /// How often it changed.
    pub fn changes(&self) -> usize {
        self.changed.count()
    }

    pub fn changed_at(&self, number: usize) -> bool {
        self.changed.holds(number)
    }

    /// It changed between observation `number` and the next.
    pub fn change(&mut self, number: usize) {
        self.changed.insert(number);
    }
}

/// How a candidate did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Changed with the store.
    pub with: usize,
    /// Changed without it: false alarms.
    pub without: usize,
    /// The store changed, and it did not.
    pub missed: usize,
    /// The store changed, and whether it did is not known.
    pub unknown: usize,
}

/// A set of candidates and how it would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Positions in the list of candidates: each with others that always changed when it did, and
    /// would do as well. The preferred one comes first.
    pub members: Vec<Vec<usize>>,
    /// For each member how many changes of the store no other one explains.
    pub alone: Vec<usize>,
    /// Changes of the store without any change of the set.
    pub missed: Vec<usize>,
    pub false_alarms: Vec<usize>,
    /// No set is better. Otherwise there were too many to look at all.
    pub is_best: bool,
}

impl Set {
    /// It would have changed exactly when the store did.
    pub fn is_exact(&self) -> bool {
        self.missed.is_empty() && self.false_alarms.is_empty()
    }
}

/// What the observations say.
#[derive(Debug, Clone)]
pub struct Suggestion {
    /// How often the store changed, and how often it did not.
    pub changes: usize,
    pub unchanged: usize,
    /// How often what is in every key changed. Those times are in neither of the other two numbers.
    pub given: usize,
    /// For each candidate.
    pub tallies: Vec<Tally>,
    pub set: Set,
    /// The best set without any false alarm, where the other one has some.
    pub quiet: Option<Set>,
}

/// Finds the set that misses the fewest changes of the store, then has the fewest false alarms, then
/// the fewest members; then the one of preferred, then of more stable candidates.
pub fn suggest(observations: &[Observation], candidates: &[Candidate]) -> Suggestion {
    let size = observations.len().saturating_sub(1);
    let differ = |at: usize, of: fn(&Observation, &Observation) -> bool| {
        observations.get(at..at + 2).is_some_and(|pair| of(&pair[0], &pair[1]))
    };
    let given = Bits::of(size, |at| differ(at, |a, b| a.given != b.given));
    let store = Bits::of(size, |at| differ(at, |a, b| a.store != b.store));
    let changed = store.without(&given);
    let unchanged = Bits::of(size, |_| true).without(&given).without(&store);
    let tallies = candidates.iter().map(|candidate| {
        let with = candidate.trace.changed.count_shared(&changed);
        let unknown = candidate.trace.unknown.count_shared(&changed);
        Tally {
            with,
            without: candidate.trace.changed.count_shared(&unchanged),
            missed: changed.count() - with - unknown,
            unknown,
        }
    });
    let groups = groups(candidates, &changed, &unchanged);
    let set = search(&groups, &changed, |_| true);
    let quiet = (!set.false_alarms.is_empty())
        .then(|| search(&groups, &changed, |choice| choice.alarms.is_empty()))
        .filter(|quiet| !quiet.members.is_empty());
    Suggestion {
        tallies: tallies.collect(),
        changes: changed.count(),
        unchanged: unchanged.count(),
        given: given.count(),
        set,
        quiet,
    }
}

/// Candidates that did the same every time, the preferred one first.
struct Group {
    choice: Choice,
    members: Vec<usize>,
}

fn groups(candidates: &[Candidate], changed: &Bits, unchanged: &Bits) -> Vec<Group> {
    let mut alike: BTreeMap<(Bits, Bits), Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let trace = &candidate.trace;
        let (covers, alarms) = (trace.changed.and(changed), trace.changed.and(unchanged));
        if !covers.is_empty() {
            alike.entry((covers, alarms)).or_default().push(at);
        }
    }
    let groups = alike.into_iter().map(|((covers, alarms), mut members)| {
        members.sort_by_key(|&at| candidates[at].ingredient.preference());
        let rank = candidates[members[0]].ingredient.rank();
        let changes = covers.count() + alarms.count();
        Group { choice: Choice { covers, alarms, rank, changes }, members }
    });
    let mut groups: Vec<_> = groups.collect();
    // The same question has the same answer, whatever the order of the candidates.
    groups.sort_by_key(|group| candidates[group.members[0]].ingredient.preference());
    groups
}

fn search(groups: &[Group], changed: &Bits, allowed: impl Fn(&Choice) -> bool) -> Set {
    let groups: Vec<_> = groups.iter().filter(|group| allowed(&group.choice)).collect();
    let choices: Vec<_> = groups.iter().map(|group| group.choice.clone()).collect();
    let cover = smallest(&choices);
    let mut missed = changed.clone();
    let mut alarms = changed.without(changed);
    for &at in &cover.members {
        missed = missed.without(&choices[at].covers);
        alarms = alarms.or(&choices[at].alarms);
    }
    let alone = cover.members.iter().map(|&at| {
        let others = cover.members.iter().filter(|&&other| other != at);
        others.fold(choices[at].covers.clone(), |left, &o| left.without(&choices[o].covers)).count()
    });
    Set {
        alone: alone.collect(),
        members: cover.members.iter().map(|&at| groups[at].members.clone()).collect(),
        missed: missed.iter().collect(),
        false_alarms: alarms.iter().collect(),
        is_best: cover.is_best,
    }
}

#[cfg(test)]
mod tests;
