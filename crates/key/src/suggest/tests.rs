use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

/// Returns observations from the states of the store, one letter each.
fn observations(states: &str) -> Vec<Observation> {
    let of = |state: u8| Observation { store: Digest::hash(&[state]), given: String::new() };
    states.bytes().map(of).collect()
}

/// Returns a file from its contents, one letter each; `?` means unknown.
fn file(path: &str, contents: &str) -> Candidate {
    let values: Vec<_> = contents.bytes().map(|byte| (byte != b'?').then_some(byte)).collect();
    Candidate { ingredient: Ingredient::File(PathBuf::from(path)), trace: Trace::new(&values) }
}

/// Returns the name of the first candidate of each member.
fn chosen(set: &Set, candidates: &[Candidate]) -> Vec<String> {
    set.members.iter().map(|member| candidates[member[0]].ingredient.name()).collect()
}

fn tally(with: usize, without: usize, missed: usize, unknown: usize) -> Tally {
    Tally { with, without, missed, unknown }
}

#[test]
fn suggest_finds_the_file_that_drives_the_store() {
    let candidates =
        [file("README.md", "abcdef"), file("flake.lock", "aabbcc"), file("shell.nix", "aaabbb")];
    let found = suggest(&observations("aabbcc"), &candidates);
    assert_eq!(chosen(&found.set, &candidates), ["flake.lock"]);
    assert!(found.set.is_exact() && found.set.is_best);
    assert_eq!(found.quiet, None);
    assert_eq!((found.changes, found.unchanged), (2, 3));
    assert_eq!(found.tallies, [tally(2, 3, 0, 0), tally(2, 0, 0, 0), tally(0, 1, 2, 0)]);
}

#[test]
fn suggest_prefers_two_exact_files_over_one_noisy_file() {
    let candidates =
        [file("a.nix", "abbb"), file("b.nix", "aabb"), file("log", "abcd"), file("c.nix", "aaaa")];
    let found = suggest(&observations("abcc"), &candidates);
    assert_eq!(chosen(&found.set, &candidates), ["a.nix", "b.nix"]);
    assert!(found.set.is_exact());
}

#[test]
fn set_counts_the_changes_only_one_member_explains() {
    let candidates = [file("a.nix", "abcc"), file("b.nix", "aabc")];
    let found = suggest(&observations("abcd"), &candidates);
    assert_eq!(found.set.members, [[0], [1]]);
    assert_eq!(found.set.alone, [1, 1]);
}

#[test]
fn equivalent_files_are_alternatives_in_preferred_order() {
    let candidates = [file("notes", "aab"), file("deep/flake.lock", "aab"), file("x.nix", "aab")];
    let found = suggest(&observations("aab"), &candidates);
    assert_eq!(found.set.members, [[2, 1, 0]]);
}

#[test]
fn unexplained_change_is_listed_as_missed() {
    let candidates = [file("flake.lock", "aabb")];
    let found = suggest(&observations("abcc"), &candidates);
    assert_eq!(chosen(&found.set, &candidates), ["flake.lock"]);
    assert_eq!(found.set.missed, [0]);
    assert_eq!(found.set.false_alarms, [0; 0]);
}

#[test]
fn noisy_set_comes_with_a_quiet_alternative() {
    let candidates = [file("flake.lock", "aaabb"), file("log", "abcde")];
    let found = suggest(&observations("abbcc"), &candidates);
    assert_eq!(chosen(&found.set, &candidates), ["log"]);
    assert_eq!((found.set.missed.len(), found.set.false_alarms.as_slice()), (0, &[1, 3][..]));
    let quiet = found.quiet.unwrap();
    assert_eq!(chosen(&quiet, &candidates), ["flake.lock"]);
    assert_eq!(quiet.missed, [0]);
}

#[test]
fn package_manager_change_needs_no_other_explanation() {
    let mut observations = observations("abbc");
    for observation in &mut observations[1..] {
        observation.given = "2.19".into();
    }
    // Changes at the same step as the version count neither for nor against a candidate.
    let candidates = [file("flake.lock", "abbc"), file("flake.nix", "aaab")];
    let found = suggest(&observations, &candidates);
    assert_eq!((found.changes, found.unchanged, found.given), (1, 1, 1));
    assert_eq!(found.set.members, [[1, 0]]);
    assert!(found.set.is_exact());
}

#[test]
fn unknown_values_count_as_unchanged_and_are_tallied() {
    let candidates = [file("a", "?ab"), file("b", "abb")];
    let found = suggest(&observations("abc"), &candidates);
    assert_eq!(found.tallies, [tally(1, 0, 0, 1), tally(1, 0, 1, 0)]);
    assert_eq!(found.set.members, [[0], [1]]);
}

#[test]
fn suggest_returns_no_set_without_changes() {
    for states in ["", "a", "aaa"] {
        let contents = "abc".get(..states.len()).unwrap();
        let found = suggest(&observations(states), &[file("a", contents)]);
        assert_eq!(found.set.members.len(), 0);
        assert_eq!(found.quiet, None);
    }
}

/// Counts misses, false alarms and members of any set, one observation after another.
fn judged(observations: &[Observation], candidates: &[&Vec<Option<u8>>]) -> (usize, usize, usize) {
    let (mut missed, mut alarms) = (0, 0);
    for at in 1..observations.len() {
        let store = observations[at - 1].store != observations[at].store;
        let moved = candidates.iter().any(|values| match (values[at - 1], values[at]) {
            (Some(before), Some(after)) => before != after,
            _ => false,
        });
        missed += usize::from(store && !moved);
        alarms += usize::from(!store && moved);
    }
    (missed, alarms, candidates.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn suggested_set_misses_least_and_is_best_if_it_says_so(
        states in proptest::collection::vec(0u8..3, 0..9),
        columns in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![9 => (0u8..2).prop_map(Some), 1 => Just(None)], 8),
            0..7),
    ) {
        let observations: Vec<_> = states.iter()
            .map(|&state| Observation { store: Digest::hash(&[state]), given: String::new() })
            .collect();
        let columns: Vec<_> =
            columns.into_iter().map(|column| column[..states.len()].to_vec()).collect();
        let candidates: Vec<_> = columns.iter().enumerate()
            .map(|(at, column)| Candidate {
                ingredient: Ingredient::File(format!("{at}").into()),
                trace: Trace::new(column),
            })
            .collect();
        let sets = (0..1usize << columns.len()).map(|set| {
            let members = columns.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            judged(&observations, &members.map(|(_, column)| column).collect::<Vec<_>>())
        });
        let set = suggest(&observations, &candidates).set;
        let members: Vec<_> = set.members.iter().map(|member| &columns[member[0]]).collect();
        let found = judged(&observations, &members);
        let best = sets.min().unwrap();
        prop_assert_eq!(found.0, best.0);
        if set.is_best {
            prop_assert_eq!(found, best);
        }
        prop_assert_eq!((set.missed.len(), set.false_alarms.len()), (found.0, found.1));
    }
}
