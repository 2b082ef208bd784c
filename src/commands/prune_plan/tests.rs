use super::*;
use crate::commands::open_entry::EntryKind;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use storecache_backend::{EntryName, Record};
use storecache_entry::Digest;
use storecache_store::StoreKind;

const MAIN: &str = "refs/heads/main";
const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;

/// An entry of storecache on the default branch, made `hours` ago, whose content cannot be read.
fn entry(key: &str, hours: i64, size: u64) -> ListedEntry {
    let created = Timestamp::from_second(NOW - hours * 3600).unwrap();
    let generation = created.strftime("%Y%m%dT%H%M%S.000000Z");
    let name = EntryName::parse(&format!("{key}.{generation}")).unwrap();
    let record = Record {
        id: format!("{key}-{hours}-{size}"),
        key: name.to_string(),
        name: Some(name),
        reference: Some(MAIN.into()),
        version: Some("layout".into()),
        size,
        created: Some(created),
        used: Some(created),
        damage: None,
    };
    let store = Some((StoreKind::Nix, "x86_64-linux".into()));
    ListedEntry { record, use_of_it: Use::Some, standing: None, content: None, store }
}

fn on(reference: &str, mut held: ListedEntry) -> ListedEntry {
    held.record.reference = Some(reference.into());
    held
}

/// The entry with a head that can be read.
fn read(mut held: ListedEntry, standing: EntryKind) -> ListedEntry {
    held.standing = Some(standing);
    held.content = Some(Digest::hash(held.record.key.as_bytes()));
    held
}

/// The entry as if another tool had written it.
fn foreign(key: &str, mut held: ListedEntry) -> ListedEntry {
    held.record.key = key.into();
    held.record.name = None;
    held.use_of_it = Use::Unknown;
    held.store = None;
    held
}

fn scene(closed: &[u64]) -> RepositoryFacts {
    RepositoryFacts { default_branch: Some(MAIN.into()), closed: closed.iter().copied().collect() }
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn all_reasons() -> Pruning {
    Pruning { unused_for: Some(0), ..Pruning::default() }
}

/// Numbers and reasons of the entries to delete, by number.
fn goes(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    wishes: &Pruning,
) -> Vec<(usize, &'static str)> {
    let choice = choose(all, scene, wishes, now());
    let mut going: Vec<_> =
        choice.going.iter().map(|(at, cause)| (*at, cause.reason.name())).collect();
    going.sort();
    going
}

#[test]
fn superseded_generations_are_counted_per_ref_and_layout() {
    let mut all = vec![entry("k", 1, 9), entry("k", 2, 8), entry("k", 3, 7), entry("l", 4, 9)];
    all.push(on("refs/heads/side", entry("k", 5, 19)));
    all.push(on("refs/heads/side", entry("k", 6, 18)));
    all.push(entry("k", 7, 6));
    all[6].record.version = Some("another".into());
    let nothing = Pruning::default();
    let superseded = |at: &[usize]| at.iter().map(|at| (*at, "superseded")).collect::<Vec<_>>();
    assert_eq!(goes(&all, &scene(&[]), &nothing), superseded(&[1, 2, 5]));
    let two = Pruning { keep: NonZeroUsize::new(2).unwrap(), ..nothing };
    assert_eq!(goes(&all, &scene(&[]), &two), superseded(&[2]));
}

#[test]
fn newest_entry_on_the_default_branch_always_stays() {
    let mut all = vec![
        entry("k", 900, 1),
        on("refs/heads/side", entry("k", 1, 1)),
        on("refs/heads/side", entry("k", 800, 1)),
    ];
    all[0].use_of_it = Use::None("damaged".into());
    let wishes = all_reasons();
    assert_eq!(goes(&all, &scene(&[]), &wishes), [(1, "unused"), (2, "superseded")]);
    // With another branch as the default branch.
    let side = RepositoryFacts {
        default_branch: Some("refs/heads/side".into()),
        ..RepositoryFacts::default()
    };
    assert_eq!(goes(&all, &side, &wishes), [(0, "unreadable"), (2, "superseded")]);
    // Every run can read every entry.
    assert_eq!(
        goes(&all, &RepositoryFacts::default(), &wishes),
        [(0, "unreadable"), (2, "superseded")]
    );
}

#[test]
fn entries_of_closed_pull_requests_are_deleted() {
    let all = vec![
        on("refs/pull/7/merge", entry("k", 1, 99)),
        on("refs/pull/7/merge", entry("k", 2, 5)),
        on("refs/pull/70/merge", entry("k", 3, 5)),
        on("refs/pull/7/merge", foreign("node-1", entry("x", 4, 5))),
        on("refs/heads/pull/7", entry("k", 5, 5)),
    ];
    let going = goes(&all, &scene(&[7]), &Pruning::default());
    assert_eq!(going, [(0, "closed"), (1, "closed")]);
    let named = Pruning { prefix: Some("node-".into()), ..Pruning::default() };
    assert_eq!(goes(&all, &scene(&[7]), &named), [(3, "closed")]);
}

#[test]
fn entry_of_another_version_stays_until_it_is_replaced() {
    let elsewhere = |hours, version: &str| {
        let mut held = entry("k", hours, 5);
        held.record.version = Some(version.into());
        held.use_of_it = Use::Elsewhere("another layout".into());
        on("refs/heads/side", held)
    };
    let mut all = vec![elsewhere(3, "next")];
    assert_eq!(goes(&all, &scene(&[]), &Pruning::default()), []);
    all.push(on("refs/heads/side", entry("k", 4, 5)));
    assert_eq!(goes(&all, &scene(&[]), &Pruning::default()), []);
    all.push(on("refs/heads/side", entry("k", 2, 5)));
    let going = goes(&all, &scene(&[]), &Pruning::default());
    assert_eq!(going, [(0, "unreadable"), (1, "superseded")]);
}

#[test]
fn duplicate_is_deleted_if_its_readers_see_the_other_copy() {
    let same = |reference, key, hours| {
        let mut held = on(reference, read(entry(key, hours, 5), EntryKind::Full));
        held.content = Some(Digest::hash(b"same"));
        held
    };
    let all = vec![
        same(MAIN, "k", 9),
        same("refs/pull/7/merge", "l", 1),
        same("refs/heads/side", "m", 2),
        same("refs/heads/side", "m2", 3),
    ];
    let going = goes(&all, &scene(&[]), &Pruning::default());
    assert_eq!(going, [(1, "duplicate"), (2, "duplicate"), (3, "duplicate")]);
    // Runs on one branch cannot read the entries of another branch.
    let apart = vec![same("refs/heads/a", "k", 1), same("refs/heads/b", "k", 2)];
    assert_eq!(goes(&apart, &scene(&[]), &Pruning::default()), []);
    // If the content cannot be read, key and size are compared.
    let guess = vec![
        entry("k", 9, 5),
        on("refs/pull/7/merge", entry("k", 1, 5)),
        on("refs/pull/7/merge", entry("l", 1, 5)),
        on("refs/pull/8/merge", entry("k", 1, 6)),
    ];
    let choice = choose(&guess, &scene(&[]), &Pruning::default(), now());
    assert_eq!(choice.going.len(), 1);
    assert_eq!(choice.going[0].0, 1);
    assert!(choice.going[0].1.detail.ends_with("a guess"), "{:?}", choice.going);
}

#[test]
fn foreign_entries_stay_unless_a_prefix_selects_them() {
    let all = vec![
        on("refs/heads/side", foreign("node-1", entry("x", 24 * 30, 5))),
        foreign("node-1", entry("x", 24 * 30, 5)),
        on("refs/heads/side", entry("k", 24 * 30, 5)),
    ];
    let unused = Pruning { unused_for: Some(30), ..Pruning::default() };
    assert_eq!(goes(&all, &scene(&[]), &unused), [(2, "unused")]);
    let named = Pruning { prefix: Some("node".into()), ..unused.clone() };
    assert_eq!(goes(&all, &scene(&[]), &named), [(0, "unused")]);
    let longer = Pruning { unused_for: Some(31), ..unused };
    assert_eq!(goes(&all, &scene(&[]), &longer), []);
}

#[test]
fn only_the_requested_reasons_apply() {
    let all = vec![entry("k", 1, 9), entry("k", 2, 8), on("refs/pull/7/merge", entry("k", 3, 8))];
    let only = |reason| Pruning { only: vec![reason], ..all_reasons() };
    assert_eq!(goes(&all, &scene(&[7]), &only(PruneReason::Closed)), [(2, "closed")]);
    assert_eq!(goes(&all, &scene(&[7]), &only(PruneReason::Superseded)), [(1, "superseded")]);
    assert_eq!(goes(&all, &scene(&[7]), &only(PruneReason::Unreadable)), []);
}

#[test]
fn base_stays_as_long_as_its_delta() {
    let base = read(entry("k", 9, 100), EntryKind::Full);
    let other = read(entry("k", 8, 100), EntryKind::Full);
    let delta = |key: &str, hours| {
        let on = base.record.name.clone().unwrap();
        read(entry(key, hours, 5), EntryKind::DeltaOn(on))
    };
    // The base has another key, as after a prefix hit.
    let all = vec![base.clone(), other, delta("k", 3), delta("k", 2), delta("l", 1)];
    let choice = choose(&all, &scene(&[]), &Pruning::default(), now());
    let going: Vec<_> = choice.going.iter().map(|(at, _)| *at).collect();
    assert_eq!(going, [2, 1], "the other full one, and the older delta");
    assert_eq!(choice.staying[0].0, 0);
    assert!(choice.staying[0].1.ends_with("is a delta on it"), "{:?}", choice.staying);
    // The base is deleted together with its deltas.
    let pull = |held| on("refs/pull/7/merge", held);
    let all = vec![pull(base.clone()), pull(delta("k", 3))];
    assert_eq!(goes(&all, &scene(&[7]), &Pruning::default()), [(0, "closed"), (1, "closed")]);
}

#[test]
fn possible_bases_stay_if_entries_cannot_be_read() {
    let kept = |all: &[ListedEntry]| {
        let going = goes(all, &scene(&[]), &Pruning::default());
        let going: Vec<_> = going.into_iter().map(|(at, _)| at).collect();
        (0..all.len()).filter(|at| !going.contains(at)).collect::<Vec<_>>()
    };
    // The newest entry is small, so it may be a delta on the large one.
    let all = [entry("k", 1, 10), entry("k", 2, 12), entry("k", 3, 100), entry("k", 4, 11)];
    assert_eq!(kept(&all), [0, 2]);
    // Two full entries, the newer of which is smaller.
    let all = [entry("k", 1, 10), entry("k", 2, 80), entry("k", 3, 30), entry("k", 4, 100)];
    assert_eq!(kept(&all), [0, 1, 3]);
    // All entries are full: only the largest may be needed.
    let all = [entry("k", 1, 98), entry("k", 2, 99), entry("k", 3, 100), entry("k", 4, 97)];
    assert_eq!(kept(&all), [0, 2]);
    // The newest entry is the largest, so no older entry can be its base.
    let all = [entry("k", 1, 101), entry("k", 2, 99), entry("k", 3, 100)];
    assert_eq!(kept(&all), [0]);
    // Plain directories have no deltas.
    let mut all = [entry("k", 1, 10), entry("k", 2, 100)];
    for held in &mut all {
        held.store = Some((StoreKind::Plain, "x86_64-linux".into()));
    }
    assert_eq!(kept(&all), [0]);
    // The key has a likely base of its own, so only the largest entry of the other keys must stay.
    let all = [
        entry("k", 1, 10),
        entry("k", 2, 100),
        entry("k-1", 3, 70),
        entry("k-1", 4, 60),
        entry("k-1", 5, 120),
    ];
    assert_eq!(kept(&all), [0, 1, 2, 4]);
    // After a prefix hit, the first generation of a key is a delta on an entry of another key.
    let key = |end: char| format!("p-nix-x86_64-linux-2-{}", end.to_string().repeat(32));
    let all = [
        on("refs/pull/7/merge", entry(&key('a'), 1, 10)),
        entry(&key('b'), 2, 11),
        entry(&key('b'), 3, 100),
    ];
    assert_eq!(kept(&all), [0, 1, 2]);
}

/// Arbitrary entries with few keys, refs and times, so that they interact.
fn any_entry() -> impl Strategy<Value = ListedEntry> {
    let key = prop_oneof![Just("k"), Just("l"), Just("l-1234567")];
    let reference = prop_oneof![
        4 => Just(Some(MAIN)),
        1 => Just(Some("refs/heads/side")),
        2 => Just(Some("refs/pull/7/merge")),
        2 => Just(Some("refs/pull/8/merge")),
        1 => Just(None),
    ];
    let version = prop_oneof![4 => Just("layout"), 1 => Just("other")];
    let kind = prop_oneof![3 => Just(StoreKind::Nix), 1 => Just(StoreKind::Plain)];
    let state = 0..8u8;
    let (hours, skew, size) = (0..40i64, prop_oneof![9 => Just(0), 1 => -5..5i64], 1..12u64);
    (key, reference, version, kind, state, hours, skew, size).prop_map(
        |(key, reference, version, kind, state, hours, skew, size)| {
            let mut held = entry(key, hours, size);
            held.record.created = Timestamp::from_second(NOW - (hours + skew) * 3600).ok();
            held.record.used = held.record.created;
            held.record.reference = reference.map(str::to_owned);
            held.record.version = Some(version.into());
            held.store = Some((kind, "x86_64-linux".into()));
            match state {
                0 => held.use_of_it = Use::None("damaged".into()),
                1 => held.use_of_it = Use::Elsewhere("newer".into()),
                2 => held = foreign(key, held),
                _ => {}
            }
            held
        },
    )
}

/// Entries that cannot be read, or entries that can, with deltas among them.
fn any_entries() -> impl Strategy<Value = Vec<ListedEntry>> {
    let bases =
        prop::collection::vec(prop::option::weighted(0.5, any::<prop::sample::Index>()), 30);
    (prop::collection::vec(any_entry(), 0..30), any::<bool>(), bases).prop_map(
        |(mut all, readable, bases)| {
            if !readable {
                return all;
            }
            let names: Vec<_> = all.iter().map(|held| held.record.name.clone()).collect();
            for (held, base) in all.iter_mut().zip(bases) {
                let base = base.and_then(|base| names[base.index(names.len())].clone());
                let standing = base.map_or(EntryKind::Full, EntryKind::DeltaOn);
                if held.is_ours() {
                    held.standing = Some(standing);
                    held.content = Some(Digest::hash(&held.record.size.to_le_bytes()));
                }
            }
            all
        },
    )
}

fn any_wishes() -> impl Strategy<Value = Pruning> {
    let reasons = prop::sample::subsequence(PruneReason::ALL.to_vec(), 0..=2);
    let prefix = prop_oneof![2 => Just(None), 1 => Just(Some("")), 1 => Just(Some("l"))];
    (1..4usize, prop::option::of(0..2u32), prefix, reasons).prop_map(
        |(keep, unused_for, prefix, only)| Pruning {
            keep: NonZeroUsize::new(keep).unwrap(),
            unused_for,
            prefix: prefix.map(str::to_owned),
            only,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn prune_never_deletes_a_needed_entry(
        all in any_entries(),
        wishes in any_wishes(),
        branch in prop::option::weighted(0.8, Just(MAIN)),
        closed in prop::collection::hash_set(7..9u64, 0..3),
    ) {
        let scene = RepositoryFacts { default_branch: branch.map(str::to_owned), closed };
        let choice = choose(&all, &scene, &wishes, now());
        let going: HashSet<usize> = choice.going.iter().map(|(at, _)| *at).collect();
        prop_assert_eq!(going.len(), choice.going.len(), "each once");
        let stays = |at: usize| !going.contains(&at);
        let everybody_reads = |held: &ListedEntry| match (branch, held.record.reference.as_deref()) {
            (Some(branch), Some(reference)) => branch == reference,
            _ => true,
        };

        for key in ["k", "l", "l-1234567"] {
            // The newest entry of each key on the default branch stays, by creation time and by generation.
            let shared = || (0..all.len()).filter(|at| all[*at].key() == key && everybody_reads(&all[*at]));
            if let Some(newest) = shared().map(|at| all[at].record.created).max() {
                prop_assert!(shared().any(|at| stays(at) && all[at].record.created == newest));
            }
            if let Some(newest) = shared().map(|at| generation(&all[at])).max() {
                prop_assert!(shared().any(|at| stays(at) && generation(&all[at]) == newest));
            }
        }

        for (at, held) in all.iter().enumerate().filter(|(at, _)| stays(*at)) {
            // A base that a delta needs stays.
            if let Some(base) = held.standing.as_ref().and_then(EntryKind::base) {
                let mut bases = (0..all.len()).filter(|at| all[*at].record.name.as_ref() == Some(base));
                prop_assert!(bases.any(stays), "{:?} needs {}", held.record.id, base);
            }
            // A likely base stays: the largest older entry of the same key, ref and layout.
            if held.standing.is_none() && held.is_ours() && held.use_of_it == Use::Some
                && held.store.as_ref().is_some_and(|(kind, _)| *kind == StoreKind::Nix)
            {
                let older = |one: &usize| {
                    let (a, b) = (&all[*one].record, &held.record);
                    *one != at && all[*one].is_ours() && all[*one].key() == held.key()
                        && !matches!(all[*one].use_of_it, Use::None(_))
                        && all[*one].store == held.store
                        && (&a.reference, &a.version) == (&b.reference, &b.version)
                        && a.created <= b.created && a.size > b.size
                };
                let largest = (0..all.len()).filter(older).map(|at| all[at].record.size).max();
                if let Some(largest) = largest {
                    for one in (0..all.len()).filter(older) {
                        prop_assert!(stays(one) || all[one].record.size < largest);
                    }
                }
            }
        }

        for (at, Cause { reason, .. }) in &choice.going {
            let held = &all[*at];
            match &wishes.prefix {
                Some(prefix) => prop_assert!(held.record.key.starts_with(prefix.as_str())),
                None => prop_assert!(held.is_ours()),
            }
            prop_assert!(wishes.only.is_empty() || wishes.only.contains(reason));
            match reason {
                PruneReason::Closed => {
                    prop_assert!(scene.closed.contains(&held.pull().unwrap()));
                }
                PruneReason::Unreadable => prop_assert!(held.unreadable().is_some()),
                PruneReason::Superseded => {
                    // The wanted number of entries with the same key, ref and layout stays.
                    let newer = (0..all.len()).filter(|one| {
                        let (a, b) = (&all[*one].record, &held.record);
                        stays(*one) && all[*one].key() == held.key()
                            && (&a.reference, &a.version) == (&b.reference, &b.version)
                            && a.created >= b.created
                    });
                    let other = choice.going.iter().filter(|(_, cause)| cause.reason != PruneReason::Superseded);
                    // Others of these entries may be deleted for other reasons.
                    prop_assert!(newer.count() + other.count() >= wishes.keep.get());
                }
                PruneReason::Duplicate => {
                    let same = |one: usize| match (&held.content, &all[one].content) {
                        (Some(a), Some(b)) => a == b,
                        (None, None) => {
                            let size = |held: &ListedEntry| held.record.size;
                            all[one].key() == held.key() && size(&all[one]) == size(held)
                        }
                        _ => false,
                    };
                    let read = |one: usize| scene.sees(held, &all[one]) && all[one].use_of_it == Use::Some;
                    prop_assert!((0..all.len()).any(|one| stays(one) && same(one) && read(one)));
                }
                PruneReason::Unused => {
                    let days = i64::from(wishes.unused_for.unwrap());
                    prop_assert!(NOW - held.used().unwrap().as_second() >= days * DAY);
                }
            }
        }
    }
}
