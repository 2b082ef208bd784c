//! Searches for the cheapest set of choices that covers everything that can be covered.

use super::bit_set::Bits;
use std::collections::HashSet;

/// A choice of the set cover problem.
#[derive(Debug, Clone)]
pub struct CoverOption {
    pub covers: Bits,
    /// The false alarms that it causes.
    pub alarms: Bits,
    /// Preference among choices that are otherwise equal; lower is better.
    pub rank: usize,
    /// Number of changes; decides after the rank.
    pub changes: usize,
}

/// The chosen set.
#[derive(Debug, PartialEq, Eq)]
pub struct Cover {
    /// Indices of the choices, in ascending order.
    pub members: Vec<usize>,
    /// Whether the result is known to be optimal. If not, the search was aborted.
    pub is_best: bool,
}

/// Up to this number of choices, the search always runs to the end.
const ALWAYS_EXACT: usize = 20;

/// With more choices, the number of columns to visit before the search is aborted. Takes seconds at most.
const LOOKS: usize = 1 << 20;

/// Chooses a set that covers everything that any choice covers: with the fewest alarms, then the fewest
/// members, then the lowest sum of ranks, then the fewest changes.
pub fn smallest(choices: &[CoverOption]) -> Cover {
    let useful = undominated(choices);
    let Some(columns) = columns(choices, &useful) else {
        return Cover { members: Vec::new(), is_best: true };
    };
    let size = columns.len();
    let mut options: Vec<_> = useful
        .iter()
        .enumerate()
        .map(|(position, &at)| {
            let covers = Bits::of(size, |column| columns[column].holds(position));
            (at, CoverOption { covers, ..choices[at].clone() })
        })
        .collect();
    // Try promising choices first: good sets that are found early prune the rest.
    options.sort_by_key(|(at, choice)| {
        (choice.alarms.count(), size - choice.covers.count(), choice.rank, choice.changes, *at)
    });
    let (places, options): (Vec<_>, Vec<_>) = options.into_iter().unzip();
    let widest = options.iter().map(|choice| choice.covers.count()).max().unwrap_or(1).max(1);
    let limit = if options.len() <= ALWAYS_EXACT { usize::MAX } else { LOOKS };
    let first = greedy(&options, size);
    let mut search = Search {
        covered_by: (0..size)
            .map(|column| Bits::of(options.len(), |at| options[at].covers.holds(column)))
            .collect(),
        best_cost: cost(&options, &first),
        best: first,
        options: &options,
        widest,
        looks: 0,
        limit,
    };
    let nothing = search.options[0].alarms.without(&search.options[0].alarms);
    let free = Bits::of(options.len(), |_| true);
    search.descend(&mut Vec::new(), &Bits::of(size, |_| true), nothing, free);
    let is_best = search.looks < search.limit;
    let mut members: Vec<usize> = search.best.iter().map(|&at| places[at]).collect();
    members.sort_unstable();
    Cover { members, is_best }
}

/// Returns the choices that are not dominated by another choice: one that covers at least as much, adds no
/// alarms, and is at least as preferred. Also drops choices that cover nothing.
fn undominated(choices: &[CoverOption]) -> Vec<usize> {
    let better = |at: usize, than: usize| {
        let (a, b) = (&choices[at], &choices[than]);
        let no_worse = b.covers.is_within(&a.covers)
            && a.alarms.is_within(&b.alarms)
            && (a.rank, a.changes) <= (b.rank, b.changes);
        let equal = a.covers == b.covers
            && a.alarms == b.alarms
            && (a.rank, a.changes) == (b.rank, b.changes);
        no_worse && (!equal || at < than)
    };
    let covering = (0..choices.len()).filter(|&at| !choices[at].covers.is_empty());
    let covering: Vec<_> = covering.collect();
    let stays = |&than: &usize| !covering.iter().any(|&at| at != than && better(at, than));
    covering.iter().copied().filter(stays).collect()
}

/// Returns for each thing to cover the set of choices that cover it, by their position in `useful`. Things
/// that are covered by the same choices are merged. Returns `None` if there is nothing to cover.
fn columns(choices: &[CoverOption], useful: &[usize]) -> Option<Vec<Bits>> {
    let all = useful.iter().map(|&at| choices[at].covers.clone());
    let all = all.reduce(|all, covers| all.or(&covers))?;
    let mut seen = HashSet::new();
    let columns = all.iter().map(|thing| {
        Bits::of(useful.len(), |position| choices[useful[position]].covers.holds(thing))
    });
    Some(columns.filter(|column| seen.insert(column.clone())).collect())
}

/// Alarms, members, ranks, changes; compared in this order.
type Cost = (usize, usize, usize, usize);

fn cost(options: &[CoverOption], members: &[usize]) -> Cost {
    let alarms = members.iter().map(|&at| options[at].alarms.clone());
    let alarms = alarms.reduce(|all, more| all.or(&more)).map_or(0, |alarms| alarms.count());
    let sum = |of: fn(&CoverOption) -> usize| members.iter().map(|&at| of(&options[at])).sum();
    (alarms, members.len(), sum(|choice| choice.rank), sum(|choice| choice.changes))
}

/// Returns a good set: repeatedly takes the choice that adds the fewest alarms for what it covers.
fn greedy(options: &[CoverOption], size: usize) -> Vec<usize> {
    let mut left = Bits::of(size, |_| true);
    let mut members: Vec<usize> = Vec::new();
    while let Some(next) = (0..options.len())
        .filter(|&at| options[at].covers.count_shared(&left) > 0)
        .min_by_key(|&at| {
            let with: Vec<_> = members.iter().copied().chain([at]).collect();
            let (alarms, _, rank, changes) = cost(options, &with);
            let added = alarms - cost(options, &members).0;
            let covers = options[at].covers.count_shared(&left);
            (added * 1000 / covers, size - covers, rank, changes)
        })
    {
        left = left.without(&options[next].covers);
        members.push(next);
    }
    // Early members may be redundant now.
    for at in (0..members.len()).rev() {
        let others = members.iter().enumerate().filter(|&(other, _)| other != at);
        let covered = others.fold(Bits::none(size), |all, (_, &m)| all.or(&options[m].covers));
        if covered.count() == size {
            members.remove(at);
        }
    }
    members
}

struct Search<'a> {
    options: &'a [CoverOption],
    /// The options that cover each column.
    covered_by: Vec<Bits>,
    /// Maximum number of columns that one option covers.
    widest: usize,
    best: Vec<usize>,
    best_cost: Cost,
    looks: usize,
    limit: usize,
}

impl Search<'_> {
    /// Tries all ways to cover `left` with options that are `free`. Branches on the column with the fewest
    /// free options; an option that was tried is not free in later branches, so that no set is visited twice.
    fn descend(&mut self, chosen: &mut Vec<usize>, left: &Bits, alarms: Bits, mut free: Bits) {
        if self.looks >= self.limit {
            return;
        }
        self.looks += 1 + left.count();
        let (_, _, ranks, changes) = cost(self.options, chosen);
        let at_least = chosen.len() + left.count().div_ceil(self.widest);
        let bound = (alarms.count(), at_least, ranks, changes);
        if bound >= self.best_cost {
            return;
        }
        let rarest = left.iter().min_by_key(|&column| self.covered_by[column].count_shared(&free));
        let Some(column) = rarest else {
            self.best = chosen.clone();
            self.best_cost = bound;
            return;
        };
        for at in self.covered_by[column].and(&free).iter() {
            free.remove(at);
            let option = &self.options[at];
            chosen.push(at);
            let left = left.without(&option.covers);
            self.descend(chosen, &left, alarms.or(&option.alarms), free.clone());
            chosen.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THINGS: usize = 7;

    fn choice(covers: u8, alarms: u8, rank: usize) -> CoverOption {
        let bits = |of: u8| Bits::of(THINGS, |bit| of >> bit & 1 == 1);
        let changes = (covers & 0x7F).count_ones() + (alarms & 0x7F).count_ones();
        let (covers, alarms) = (bits(covers), bits(alarms));
        CoverOption { covers, alarms, rank, changes: changes as usize }
    }

    /// Tries all sets.
    fn brute_force(choices: &[CoverOption]) -> Cost {
        let union = |members: &[usize]| {
            members.iter().fold(Bits::none(THINGS), |all, &at| all.or(&choices[at].covers))
        };
        let all: Vec<_> = (0..choices.len()).collect();
        let sets = (0..1u32 << choices.len())
            .map(|set| all.iter().copied().filter(|at| set >> at & 1 == 1).collect::<Vec<_>>());
        let whole = sets.filter(|members| union(members) == union(&all));
        whole.map(|members| cost(choices, &members)).min().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn smallest_finds_an_optimal_cover(
            // Few alarms, so that they decide only in some cases.
            choices in proptest::collection::vec(
                (any::<u8>(), prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0usize..3), 0..9)
        ) {
            let choices: Vec<_> =
                choices.into_iter().map(|(covers, alarms, rank)| choice(covers, alarms, rank)).collect();
            let found = smallest(&choices);
            prop_assert!(found.is_best);
            prop_assert_eq!(cost(&choices, &found.members), brute_force(&choices));
            let covered = |members: &[usize]| members.iter()
                .fold(Bits::none(THINGS), |all, &at| all.or(&choices[at].covers));
            let all: Vec<_> = (0..choices.len()).collect();
            prop_assert_eq!(covered(&found.members), covered(&all));
        }
    }

    #[test]
    fn large_search_is_bounded_and_still_covers_all() {
        // All pairs of 40 things: far too many sets, and no dominated choice.
        let pairs = (0..40).flat_map(|a| (0..a).map(move |b| (a, b)));
        let choices: Vec<_> = pairs
            .map(|(a, b)| CoverOption {
                covers: Bits::of(40, |thing| thing == a || thing == b),
                alarms: Bits::of(400, |thing| thing % 37 == (a * b) % 37),
                rank: 0,
                changes: 2,
            })
            .collect();
        let found = smallest(&choices);
        let covered =
            found.members.iter().fold(Bits::none(40), |all, &at| all.or(&choices[at].covers));
        assert_eq!(covered.count(), 40);
        assert!(!found.is_best);
    }
}
