//! Suggests ingredients that would have changed exactly when the store did.
//!
//! The observations are past snapshots in chronological order. Between two of them the store has changed or
//! not, and so has each candidate. A candidate that changes without the store causes new entries without need
//! (a false alarm); a store that changes without the candidate is found under an old key (missed). This
//! module compares them and searches for a small set. It knows digests and names, but not where they
//! come from: that is `candidates.rs`.

mod candidates;
mod render;
mod set_cover;

pub use candidates::{InCommits, Ingredient, of_commits, of_heads};
pub use render::Flags;

use self::set_cover::{CoverOption, greedy_cover};
use fixedbitset::FixedBitSet;
use std::collections::BTreeMap;
use storecache_entry::Digest;

/// A past snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Digest that identifies the content of the store.
    pub store: Digest,
    /// The part that is in every key anyway. A change of the store together with this part needs no other
    /// explanation.
    pub given: String,
}

/// A candidate for the key.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub ingredient: Ingredient,
    pub trace: Trace,
}

/// The changes of a candidate: number N is the step from observation N to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    changed: FixedBitSet,
    unknown: FixedBitSet,
}

impl Trace {
    /// Builds the trace from the value at each observation; `None` means unknown.
    pub fn new<T: PartialEq>(values: &[Option<T>]) -> Self {
        let size = values.len().saturating_sub(1);
        let unknown = positions(size, |at| values[at].is_none() || values[at + 1].is_none());
        let changed = positions(size, |at| !unknown[at] && values[at] != values[at + 1]);
        Trace { changed, unknown }
    }

    /// Returns the trace of a candidate that is always known and never changes.
    pub fn still(observations: usize) -> Self {
        let none = FixedBitSet::with_capacity(observations.saturating_sub(1));
        Trace { changed: none.clone(), unknown: none }
    }

    /// Returns the number of changes.
    pub fn changes(&self) -> usize {
        self.changed.count_ones(..)
    }

    pub fn changed_at(&self, number: usize) -> bool {
        self.changed.contains(number)
    }

    /// Records a change between observation `number` and the next.
    pub fn change(&mut self, number: usize) {
        self.changed.grow_and_insert(number);
    }
}

/// Returns the set of the numbers below `size` for which `holds` is true.
fn positions(size: usize, holds: impl Fn(usize) -> bool) -> FixedBitSet {
    let mut set = FixedBitSet::with_capacity(size);
    set.extend((0..size).filter(|&at| holds(at)));
    set
}

/// How well a candidate matches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Number of changes together with the store.
    pub with: usize,
    /// Number of changes without the store: false alarms.
    pub without: usize,
    /// Number of changes of the store without the candidate.
    pub missed: usize,
    /// Number of changes of the store at which the candidate is unknown.
    pub unknown: usize,
}

/// A set of candidates, and how well it matches the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Indices into the list of candidates: each member with its alternatives, which always changed at the same
    /// steps. The preferred candidate comes first.
    pub members: Vec<Vec<usize>>,
    /// For each member, the number of changes of the store that only this member explains.
    pub alone: Vec<usize>,
    /// Steps at which the store changed without any change of the set.
    pub missed: Vec<usize>,
    pub false_alarms: Vec<usize>,
    /// Whether no set that misses as few changes has fewer false alarms or fewer members. `false` if that is not
    /// known, because the search is greedy.
    pub is_best: bool,
}

impl Set {
    /// Returns whether the set changed exactly when the store did.
    pub fn is_exact(&self) -> bool {
        self.missed.is_empty() && self.false_alarms.is_empty()
    }
}

/// The result of the analysis.
#[derive(Debug, Clone)]
pub struct Suggestion {
    /// Number of steps at which the store changed.
    pub changes: usize,
    /// Number of steps at which the store did not change.
    pub unchanged: usize,
    /// Number of steps at which the part that is in every key changed. The other two numbers do not include them.
    pub given: usize,
    /// The tally of each candidate.
    pub tallies: Vec<Tally>,
    pub set: Set,
    /// The set that a search without false alarms finds, if `set` has some.
    pub quiet: Option<Set>,
}

/// Finds a set that misses the fewest changes of the store. Among these sets it prefers few false alarms, then few
/// members, then preferred candidates, then stable ones, but the search is greedy: see [`greedy_cover`].
pub fn suggest(observations: &[Observation], candidates: &[Candidate]) -> Suggestion {
    let size = observations.len().saturating_sub(1);
    let differ = |at: usize, of: fn(&Observation, &Observation) -> bool| {
        observations.get(at..at + 2).is_some_and(|pair| of(&pair[0], &pair[1]))
    };
    let given = positions(size, |at| differ(at, |a, b| a.given != b.given));
    let store = positions(size, |at| differ(at, |a, b| a.store != b.store));
    let changed = positions(size, |at| store[at] && !given[at]);
    let unchanged = positions(size, |at| !given[at] && !store[at]);
    let tallies = candidates.iter().map(|candidate| {
        let with = candidate.trace.changed.intersection_count(&changed);
        let unknown = candidate.trace.unknown.intersection_count(&changed);
        Tally {
            with,
            without: candidate.trace.changed.intersection_count(&unchanged),
            missed: changed.count_ones(..) - with - unknown,
            unknown,
        }
    });
    let groups = groups(candidates, &changed, &unchanged);
    let set = search(&groups, &changed, |_| true);
    let quiet = (!set.false_alarms.is_empty())
        .then(|| search(&groups, &changed, |choice| choice.alarms.is_clear()))
        .filter(|quiet| !quiet.members.is_empty());
    Suggestion {
        tallies: tallies.collect(),
        changes: changed.count_ones(..),
        unchanged: unchanged.count_ones(..),
        given: given.count_ones(..),
        set,
        quiet,
    }
}

/// Candidates that changed at the same steps, the preferred one first.
struct Group {
    choice: CoverOption,
    members: Vec<usize>,
}

fn groups(candidates: &[Candidate], changed: &FixedBitSet, unchanged: &FixedBitSet) -> Vec<Group> {
    let mut alike: BTreeMap<(FixedBitSet, FixedBitSet), Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let trace = &candidate.trace;
        let (covers, alarms) = (&trace.changed & changed, &trace.changed & unchanged);
        if !covers.is_clear() {
            alike.entry((covers, alarms)).or_default().push(at);
        }
    }
    let groups = alike.into_iter().map(|((covers, alarms), mut members)| {
        members.sort_by_key(|&at| candidates[at].ingredient.preference());
        let rank = candidates[members[0]].ingredient.rank();
        let changes = covers.count_ones(..) + alarms.count_ones(..);
        Group { choice: CoverOption { covers, alarms, rank, changes }, members }
    });
    let mut groups: Vec<_> = groups.collect();
    // Make the result independent of the order of the candidates.
    groups.sort_by_key(|group| candidates[group.members[0]].ingredient.preference());
    groups
}

fn search(groups: &[Group], changed: &FixedBitSet, allowed: impl Fn(&CoverOption) -> bool) -> Set {
    let groups: Vec<_> = groups.iter().filter(|group| allowed(&group.choice)).collect();
    let choices: Vec<_> = groups.iter().map(|group| &group.choice).collect();
    let cover = greedy_cover(&choices);
    let mut missed = changed.clone();
    let mut alarms = FixedBitSet::with_capacity(changed.len());
    for &at in &cover {
        missed.difference_with(&choices[at].covers);
        alarms.union_with(&choices[at].alarms);
    }
    let alone = cover.iter().map(|&at| {
        let mut left = choices[at].covers.clone();
        let others = cover.iter().filter(|&&other| other != at);
        others.for_each(|&other| left.difference_with(&choices[other].covers));
        left.count_ones(..)
    });
    Set {
        alone: alone.collect(),
        members: cover.iter().map(|&at| groups[at].members.clone()).collect(),
        missed: missed.ones().collect(),
        // The search takes a single choice without false alarms if that explains as much.
        is_best: alarms.is_clear() && cover.len() <= 2,
        false_alarms: alarms.ones().collect(),
    }
}

#[cfg(test)]
mod tests;
