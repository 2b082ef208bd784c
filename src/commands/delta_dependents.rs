//! Entries that are, or may be, bases of deltas: a base has to stay as long as a delta on it stays.

use super::annotated_entries::{ListedEntry, Use};
use super::prune_plan::{Cause, RepositoryFacts};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use storecache_backend::EntryName;

/// Numbers of entries, each with the reason why it has to stay.
type Needed = Vec<(usize, String)>;

/// Returns the bases of all deltas that stay, as far as the heads can be read.
pub fn bases(all: &[ListedEntry], going: &HashMap<usize, Cause>) -> Needed {
    let numbers: HashMap<&EntryName, usize> = all
        .iter()
        .enumerate()
        .filter_map(|(at, held)| Some((held.record.name.as_ref()?, at)))
        .collect();
    let staying = all.iter().enumerate().filter(|(at, _)| !going.contains_key(at));
    let bases = staying.filter_map(|(_, held)| {
        let base = numbers.get(held.standing.as_ref()?.base()?)?;
        Some((*base, format!("{} is a delta on it", held.record.key)))
    });
    bases.collect()
}

/// Returns entries that may be the base of an entry that stays and whose head cannot be read. A base is older
/// and usually larger. Sizes do not allow a better answer, so this function errs on the side of keeping too
/// many entries.
///
/// A delta is on the last full snapshot of its key, see `base`, either of its own ref or of a ref that it can
/// read. The largest candidate always stays. If the delta is small compared to it, all candidates that are
/// nearly as large stay too. The first generation of a key may be a delta on an entry of another key, from
/// which its job started. So the rule also applies to all keys with the same stem; but if the delta's own key
/// has a likely base, only the largest candidate of the stem stays.
pub fn likely_bases(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    going: &HashMap<usize, Cause>,
) -> Needed {
    if going.is_empty() {
        return Vec::new();
    }
    let of_ref = |held: &ListedEntry| held.record.reference.clone();
    let stems: Vec<&str> = all.iter().map(ListedEntry::stem).collect();
    let mut by_ref = Groups::new(all, going, |at| (all[at].key(), of_ref(&all[at])));
    let mut by_key = Groups::new(all, going, |at| all[at].key());
    let mut by_stem = Groups::new(all, going, |at| stems[at]);
    let mut needed = Vec::new();
    for (at, delta) in all.iter().enumerate() {
        let hidden = may_be_delta(delta) && delta.standing.is_none() && !going.contains_key(&at);
        if !hidden {
            continue;
        }
        let look = DeltaQuery { all, scene, delta };
        let of_key = by_key.0.get_mut(delta.key());
        let of_key = of_key.map(|group| group.bases(look, false)).unwrap_or_default();
        let has_base = of_key.largest.is_some_and(|base| is_small_beside(delta, &all[base]));
        let of_ref = by_ref.0.get_mut(&(delta.key(), of_ref(delta)));
        let of_stem = by_stem.0.get_mut(stems[at]).filter(|group| !group.going.is_empty());
        let likely = [
            of_ref.map(|group| group.bases(look, false)).unwrap_or_default().going,
            of_key.going,
            of_stem.map(|group| group.bases(look, has_base)).unwrap_or_default().going,
        ];
        let why = || format!("{} may be a delta on it", delta.record.key);
        needed.extend(likely.concat().into_iter().map(|base| (base, why())));
    }
    needed
}

/// Entries grouped by something that they have in common.
struct Groups<K>(HashMap<K, Group>);

/// Numbers of entries, the largest entry first.
#[derive(Default)]
struct Group {
    all: Vec<usize>,
    /// The entries of the group that go and for which no delta was found yet.
    going: Vec<usize>,
}

/// An entry that may be a delta, and all entries.
#[derive(Clone, Copy)]
struct DeltaQuery<'a> {
    all: &'a [ListedEntry],
    scene: &'a RepositoryFacts,
    delta: &'a ListedEntry,
}

/// Possible bases of one entry.
#[derive(Default)]
struct Bases {
    largest: Option<usize>,
    /// The possible bases that would be deleted.
    going: Vec<usize>,
}

impl<K: Hash + Eq> Groups<K> {
    fn new(all: &[ListedEntry], going: &HashMap<usize, Cause>, mark: impl Fn(usize) -> K) -> Self {
        let mut groups: HashMap<K, Group> = HashMap::new();
        for at in (0..all.len()).filter(|at| may_be_delta(&all[*at])) {
            groups.entry(mark(at)).or_default().all.push(at);
        }
        for group in groups.values_mut() {
            group.all.sort_by_key(|at| Reverse(all[*at].record.size));
            group.going = group.all.iter().copied().filter(|at| going.contains_key(at)).collect();
        }
        Groups(groups)
    }
}

impl Group {
    /// Takes the possible bases of `look.delta` out of the group: the largest one and, unless
    /// `largest_alone`, those that are about as large.
    fn bases(&mut self, look: DeltaQuery<'_>, largest_alone: bool) -> Bases {
        let DeltaQuery { all, delta, .. } = look;
        let larger = |at: &usize| all[*at].record.size > delta.record.size;
        let mut candidates = self.all.iter().copied().take_while(larger);
        let Some(largest) = candidates.find(|at| look.may_be_on(*at)) else {
            return Bases::default();
        };
        let size = |at: usize| all[at].record.size;
        let most = size(largest);
        let enough = match largest_alone {
            true => most,
            // At least half as large as the largest, and at least twice as large as the delta.
            false => most.min((most / 2).max(delta.record.size.saturating_mul(2))),
        };
        let large = self.going.partition_point(|at| size(*at) >= enough);
        let (likely, mut rest): (Vec<_>, Vec<_>) =
            self.going.drain(..large).partition(|at| size(*at) <= most && look.may_be_on(*at));
        rest.append(&mut self.going);
        self.going = rest;
        Bases { largest: Some(largest), going: likely }
    }
}

impl DeltaQuery<'_> {
    /// Whether the entry with this number may be the base, as far as age, layout and ref show.
    fn may_be_on(&self, at: usize) -> bool {
        let (base, own) = (&self.all[at], &self.delta.record);
        base.record.created <= own.created
            && (own.version.is_none() || base.record.version == own.version)
            && self.scene.sees(self.delta, base)
    }
}

/// Whether `delta` is so small compared to `base` that it can hardly be anything but a delta on it.
fn is_small_beside(delta: &ListedEntry, base: &ListedEntry) -> bool {
    delta.record.size <= base.record.size / 2
}

/// Whether the entry is of a kind that has deltas.
fn may_be_delta(held: &ListedEntry) -> bool {
    let has_database = held.store.as_ref().is_none_or(|(kind, _)| kind.has_database());
    held.is_ours() && has_database && !matches!(held.use_of_it, Use::None(_))
}
