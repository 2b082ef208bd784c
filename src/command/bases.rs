//! Which entries others are deltas on, or may be: whoever keeps a delta keeps its base.

use super::choice::{Cause, Scene};
use super::inventory::{Held, Use};
use crate::backend::EntryName;
use crate::store::StoreKind;
use std::cmp::Reverse;
use std::collections::HashMap;

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
    let by_ref = Group::of(all, |held| (held.key(), of_ref(held)));
    let by_key = Group::of(all, |held| held.key());
    let by_stem = Group::of(all, |held| held.stem());
    let mut needed = Vec::new();
    for (at, delta) in all.iter().enumerate() {
        let hidden = may_be_delta(delta) && delta.standing.is_none() && !going.contains_key(&at);
        if !hidden {
            continue;
        }
        let of_key = by_key.bases(delta.key(), all, scene, delta);
        let has_base = of_key.first().is_some_and(|&base| is_small_beside(delta, &all[base]));
        let of_stem = by_stem.bases(delta.stem(), all, scene, delta);
        let of_stem = if has_base { largest(&of_stem, all) } else { &of_stem[..] };
        let of_ref = by_ref.bases((delta.key(), of_ref(delta)), all, scene, delta);
        let likely = of_ref.iter().chain(&of_key).chain(of_stem);
        let why = || format!("{} may be a delta on it", delta.record.key);
        needed.extend(likely.filter(|base| going.contains_key(base)).map(|base| (*base, why())));
    }
    needed
}

/// Entries with something in common, the largest first.
struct Group<K>(HashMap<K, Vec<usize>>);

impl<'a, K: std::hash::Hash + Eq> Group<K> {
    fn of(all: &'a [Held], mark: impl Fn(&'a Held) -> K) -> Self {
        let mut groups: HashMap<K, Vec<usize>> = HashMap::new();
        for (at, held) in all.iter().enumerate().filter(|(_, held)| may_be_delta(held)) {
            groups.entry(mark(held)).or_default().push(at);
        }
        for group in groups.values_mut() {
            group.sort_by_key(|at| Reverse(all[*at].record.size));
        }
        Group(groups)
    }

    /// Which of those with this mark `delta` may be on.
    fn bases(&self, mark: K, all: &[Held], scene: &Scene, delta: &Held) -> Vec<usize> {
        let own = &delta.record;
        let group = self.0.get(&mark).map(Vec::as_slice).unwrap_or_default();
        let mut larger = group
            .iter()
            .copied()
            .take_while(|at| all[*at].record.size > own.size)
            .filter(|at| all[*at].record.created <= own.created)
            .filter(|at| own.version.is_none() || all[*at].record.version == own.version)
            .filter(|at| scene.sees(delta, &all[*at]))
            .peekable();
        let largest = larger.peek().map_or(0, |at| all[*at].record.size);
        let about_as_large = |at: &usize| {
            let size = all[*at].record.size;
            size == largest || (size >= largest / 2 && is_small_beside(delta, &all[*at]))
        };
        larger.take_while(about_as_large).collect()
    }
}

/// The first ones of the same size.
fn largest<'a>(bases: &'a [usize], all: &[Held]) -> &'a [usize] {
    let sizes = || bases.iter().map(|at| all[*at].record.size);
    let count = sizes().take_while(|size| sizes().next() == Some(*size)).count();
    &bases[..count]
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
