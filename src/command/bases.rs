//! Which entries others are deltas on, or may be: whoever keeps a delta keeps its base.

use super::choice::{Cause, Scene};
use super::inventory::{Held, Use};
use crate::backend::EntryName;
use crate::store::StoreKind;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

/// Numbers of entries with the reason why they have to stay.
type Needed = Vec<(usize, String)>;

/// Entries that one which stays is a delta on, as far as the heads say.
pub fn bases(all: &[Held], going: &HashMap<usize, Cause>) -> Needed {
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

/// Entries that one which stays may be a delta on, where its head cannot be read: a base is older and, as
/// a rule, larger. Sizes do not tell more, so rather too many are taken for one.
///
/// A delta is on the last full snapshot of its key, see `base`, of its own ref or of one that it can read.
/// The largest of them stays in any case. Where the delta is small beside them, so do all that are nearly
/// as large. The first generation of a key may be on an entry of another one, from which its job had
/// started: so the same holds for all keys of a stem, unless the own key has a base as it should be; then it
/// is the largest that stays.
pub fn likely_bases(all: &[Held], scene: &Scene, going: &HashMap<usize, Cause>) -> Needed {
    if going.is_empty() {
        return Vec::new();
    }
    let of_ref = |held: &Held| held.record.reference.clone();
    let stems: Vec<&str> = all.iter().map(Held::stem).collect();
    let mut by_ref = Groups::of(all, going, |at| (all[at].key(), of_ref(&all[at])));
    let mut by_key = Groups::of(all, going, |at| all[at].key());
    let mut by_stem = Groups::of(all, going, |at| stems[at]);
    let mut needed = Vec::new();
    for (at, delta) in all.iter().enumerate() {
        let hidden = may_be_delta(delta) && delta.standing.is_none() && !going.contains_key(&at);
        if !hidden {
            continue;
        }
        let look = Look { all, scene, delta };
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

/// Entries with something in common.
struct Groups<K>(HashMap<K, Group>);

/// Numbers of entries, the largest first.
#[derive(Default)]
struct Group {
    all: Vec<usize>,
    /// Those of them that go, and that no delta was found for yet.
    going: Vec<usize>,
}

/// An entry that may be a delta, among all.
#[derive(Clone, Copy)]
struct Look<'a> {
    all: &'a [Held],
    scene: &'a Scene,
    delta: &'a Held,
}

/// What an entry may be a delta on.
#[derive(Default)]
struct Bases {
    largest: Option<usize>,
    /// What goes of it.
    going: Vec<usize>,
}

impl<K: Hash + Eq> Groups<K> {
    fn of(all: &[Held], going: &HashMap<usize, Cause>, mark: impl Fn(usize) -> K) -> Self {
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
    /// Takes out what `look.delta` may be on: the largest, and, unless that will do, what is about as large.
    fn bases(&mut self, look: Look<'_>, largest_alone: bool) -> Bases {
        let Look { all, delta, .. } = look;
        let larger = |at: &usize| all[*at].record.size > delta.record.size;
        let mut candidates = self.all.iter().copied().take_while(larger);
        let Some(largest) = candidates.find(|at| look.may_be_on(*at)) else {
            return Bases::default();
        };
        let size = |at: usize| all[at].record.size;
        let most = size(largest);
        let enough = match largest_alone {
            true => most,
            // At least half as large, and the delta small beside it.
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

impl Look<'_> {
    /// Whether the base may be the entry of this number, as far as age, layout and ref tell.
    fn may_be_on(&self, at: usize) -> bool {
        let (base, own) = (&self.all[at], &self.delta.record);
        base.record.created <= own.created
            && (own.version.is_none() || base.record.version == own.version)
            && self.scene.sees(self.delta, base)
    }
}

/// Whether one is so small that it can hardly be anything but a delta on the other.
fn is_small_beside(delta: &Held, base: &Held) -> bool {
    delta.record.size <= base.record.size / 2
}

/// Whether there are deltas of its kind.
fn may_be_delta(held: &Held) -> bool {
    let plain = held.store.as_ref().is_some_and(|(kind, _)| *kind == StoreKind::Plain);
    held.is_ours() && !plain && !matches!(held.use_of_it, Use::None(_))
}
