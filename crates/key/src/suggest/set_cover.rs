//! Chooses a small set of choices that covers everything that can be covered. The search is greedy.

use fixedbitset::FixedBitSet;
use std::cmp::Reverse;

/// A choice of the set cover problem.
#[derive(Debug, Clone)]
pub struct CoverOption {
    pub covers: FixedBitSet,
    /// The false alarms that it causes.
    pub alarms: FixedBitSet,
    /// Preference among choices that are otherwise equal; lower is better.
    pub rank: usize,
    /// Number of changes; decides after the rank.
    pub changes: usize,
}

/// Chooses a set that covers everything that any choice covers. Returns the indices of the choices, in ascending order.
///
/// The search repeatedly takes the choice with the fewest additional alarms for each thing that it newly covers. Among
/// equal ones, it takes the choice that covers most, then the lowest rank, then the fewest changes. At the end it drops
/// members that the others make redundant. The result can be larger than the smallest set: if a set of K choices covers
/// everything without alarms, it has no alarms and at most K (1 + 1/2 + … + 1/N) members, where N is the most that one
/// choice covers. See Chvátal, "A Greedy Heuristic for the Set-Covering Problem" (1979).
pub fn greedy_cover(choices: &[&CoverOption]) -> Vec<usize> {
    let mut left = union(choices.iter().map(|choice| &choice.covers));
    let mut alarms = FixedBitSet::new();
    let mut members = Vec::new();
    while !left.is_clear() {
        let gain = |at: usize| choices[at].covers.intersection_count(&left);
        let added = |at: usize| choices[at].alarms.difference_count(&alarms);
        let preference = |at: usize| (Reverse(gain(at)), choices[at].rank, choices[at].changes);
        let next = (0..choices.len()).filter(|&at| gain(at) > 0).min_by(|&a, &b| {
            let alarms_per_gain = (added(a) * gain(b)).cmp(&(added(b) * gain(a)));
            alarms_per_gain.then_with(|| preference(a).cmp(&preference(b)))
        });
        let Some(next) = next else { break };
        left.difference_with(&choices[next].covers);
        alarms.union_with(&choices[next].alarms);
        members.push(next);
    }
    for position in (0..members.len()).rev() {
        let others = members.iter().enumerate().filter(|&(other, _)| other != position);
        let covered = union(others.map(|(_, &at)| &choices[at].covers));
        if choices[members[position]].covers.is_subset(&covered) {
            members.remove(position);
        }
    }
    members.sort_unstable();
    members
}

fn union<'a>(sets: impl Iterator<Item = &'a FixedBitSet>) -> FixedBitSet {
    sets.fold(FixedBitSet::new(), |mut all, set| {
        all.union_with(set);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THINGS: usize = 7;

    fn set(bits: u8) -> FixedBitSet {
        FixedBitSet::with_capacity_and_blocks(THINGS, [usize::from(bits & 0x7F)])
    }

    fn choice(covers: u8, alarms: u8, rank: usize) -> CoverOption {
        let (covers, alarms) = (set(covers), set(alarms));
        let changes = covers.count_ones(..) + alarms.count_ones(..);
        CoverOption { covers, alarms, rank, changes }
    }

    fn covered(choices: &[&CoverOption], members: &[usize]) -> usize {
        union(members.iter().map(|&at| &choices[at].covers)).count_ones(..)
    }

    fn alarms(choices: &[&CoverOption], members: &[usize]) -> usize {
        union(members.iter().map(|&at| &choices[at].alarms)).count_ones(..)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn greedy_cover_is_complete_and_within_the_bound_of_the_optimum(
            choices in proptest::collection::vec(
                // Few alarms, so that some instances can be covered without any.
                (any::<u8>(), prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0usize..3), 0..9)
        ) {
            let choices: Vec<_> =
                choices.into_iter().map(|(covers, alarms, rank)| choice(covers, alarms, rank)).collect();
            let choices: Vec<_> = choices.iter().collect();
            let all: Vec<_> = (0..choices.len()).collect();
            let found = greedy_cover(&choices);
            prop_assert_eq!(covered(&choices, &found), covered(&choices, &all));
            for &member in &found {
                let others: Vec<_> = found.iter().copied().filter(|&at| at != member).collect();
                prop_assert!(covered(&choices, &others) < covered(&choices, &found), "no member is redundant");
            }

            let widest = choices.iter().map(|choice| choice.covers.count_ones(..)).max().unwrap_or(0);
            let harmonic: f64 = (1..=widest).map(|n| 1.0 / n as f64).sum();
            let complete = (0..1u32 << choices.len())
                .map(|set| all.iter().copied().filter(|at| set >> at & 1 == 1).collect::<Vec<_>>())
                .filter(|members| covered(&choices, members) == covered(&choices, &all));
            for members in complete {
                // The alarms of each member of any complete set, added up.
                let alarm_sum: usize = members.iter().map(|&at| choices[at].alarms.count_ones(..)).sum();
                prop_assert!(alarms(&choices, &found) as f64 <= alarm_sum as f64 * harmonic + 1e-9);
                if alarm_sum == 0 {
                    prop_assert!(found.len() as f64 <= members.len() as f64 * harmonic + 1e-9);
                }
            }
        }
    }

    #[test]
    fn greedy_cover_of_many_choices_is_complete() {
        let pairs = (0..40).flat_map(|a| (0..a).map(move |b| (a, b)));
        let choices: Vec<_> = pairs
            .map(|(a, b)| CoverOption {
                covers: [a, b].into_iter().collect(),
                alarms: (0..400).filter(|thing| thing % 37 == (a * b) % 37).collect(),
                rank: 0,
                changes: 2,
            })
            .collect();
        let choices: Vec<_> = choices.iter().collect();
        let found = greedy_cover(&choices);
        assert_eq!(covered(&choices, &found), 40);
        assert!(found.len() < 40);
    }
}
