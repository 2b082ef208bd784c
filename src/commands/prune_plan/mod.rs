//! Chooses the entries that can be deleted, with the reason for each, and the entries that must stay anyway.
//! Reads nothing and deletes nothing.
//!
//! Three kinds of entries always stay: the newest entry of a key on the default branch; the base of a delta
//! that stays; and, if entries cannot be read, any entry that may be such a base.

use super::annotated_entries::{ListedEntry, Use};
use super::delta_dependents::{bases, likely_bases};
use crate::config::{PruneReason, Pruning};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use storecache_backend::Generation;

/// Facts about the repository that its entries do not contain.
#[derive(Debug, Clone, Default)]
pub struct RepositoryFacts {
    /// Full ref of the default branch; `None` if every run can read every entry.
    pub default_branch: Option<String>,
    /// Closed pull requests.
    pub closed: HashSet<u64>,
}

/// Why an entry can be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: PruneReason,
    pub detail: String,
}

/// Numbers of entries, each with its reason.
#[derive(Debug)]
pub struct PruneChoice {
    pub going: Vec<(usize, Cause)>,
    /// Entries that stay although there was a reason to delete them, and why they stay.
    pub staying: Vec<(usize, String)>,
}

impl RepositoryFacts {
    /// Whether every run can read this entry.
    fn is_shared(&self, held: &ListedEntry) -> bool {
        match (&self.default_branch, &held.record.reference) {
            (Some(branch), Some(reference)) => branch == reference,
            _ => true,
        }
    }

    /// Whether a run on the ref of `from` can read `held`. A pull request can read the entries of its base
    /// branch, which is not known here, so any branch counts as its base branch.
    pub fn sees(&self, from: &ListedEntry, held: &ListedEntry) -> bool {
        let branch = |name: &str| name.starts_with("refs/heads/");
        self.is_shared(held)
            || from.record.reference == held.record.reference
            || from.pull().is_some() && held.record.reference.as_deref().is_some_and(branch)
    }
}

/// Chooses the entries to delete.
pub fn choose(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    wishes: &Pruning,
    now: Timestamp,
) -> PruneChoice {
    let mut going = HashMap::new();
    let mut staying = BTreeMap::new();
    for (at, cause) in causes(all, scene, wishes, now).into_iter().enumerate() {
        going.extend(cause.map(|cause| (at, cause)));
    }
    hold_back(all, scene, &mut going, &mut staying);
    if wishes.wants(PruneReason::Duplicate) {
        // One entry of each set of duplicates has to stay, so duplicates are chosen last.
        let copies = copies(all, scene, &going).into_iter();
        let copies: Vec<_> = copies.filter(|(at, _)| is_eligible(&all[*at], wishes)).collect();
        if !copies.is_empty() {
            let cause = |detail| Cause { reason: PruneReason::Duplicate, detail };
            going.extend(copies.into_iter().map(|(at, detail)| (at, cause(detail))));
            hold_back(all, scene, &mut going, &mut staying);
        }
    }
    let mut going: Vec<_> = going.into_iter().collect();
    going.sort_by_key(|(at, cause)| (cause.reason, Reverse(all[*at].record.created), *at));
    PruneChoice { going, staying: staying.into_iter().collect() }
}

/// Removes entries that have to stay from `going`.
fn hold_back(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    going: &mut HashMap<usize, Cause>,
    staying: &mut BTreeMap<usize, String>,
) {
    let newest = match scene.default_branch {
        Some(_) => "the newest of its key on the default branch",
        None => "the newest of its key",
    };
    for at in newest_of_keys(all, scene) {
        if going.remove(&at).is_some() {
            staying.insert(at, newest.to_owned());
        }
    }
    loop {
        let before = going.len();
        for (at, by) in [bases(all, going), likely_bases(all, scene, going)].concat() {
            if going.remove(&at).is_some() {
                staying.insert(at, by);
            }
        }
        // An entry that stays now may need a base itself.
        if going.len() == before {
            break;
        }
    }
}

/// Returns for each entry the first reason to delete it, without regard to rules that keep it.
pub fn causes(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    wishes: &Pruning,
    now: Timestamp,
) -> Vec<Option<Cause>> {
    let superseded = superseded(all, wishes.keep.get());
    let mut usable: HashMap<&str, Vec<&ListedEntry>> = HashMap::new();
    for held in all.iter().filter(|held| held.use_of_it == Use::Some) {
        usable.entry(held.key()).or_default().push(held);
    }
    let cause = |(at, held): (usize, &ListedEntry)| {
        if !is_eligible(held, wishes) {
            return None;
        }
        let mut wanted = PruneReason::ALL.into_iter().filter(|reason| wishes.wants(*reason));
        wanted.find_map(|reason| {
            let detail = match reason {
                PruneReason::Closed => {
                    let closed = held.pull().filter(|number| scene.closed.contains(number));
                    closed.map(|number| format!("pull request {number} is closed"))
                }
                PruneReason::Unreadable => unreadable(scene, held, &usable),
                PruneReason::Superseded => superseded.get(&at).cloned(),
                PruneReason::Unused => unused(held, wishes.unused_for, now),
                // This reason depends on several entries.
                PruneReason::Duplicate => None,
            };
            detail.map(|detail| Cause { reason, detail })
        })
    };
    all.iter().enumerate().map(cause).collect()
}

/// Whether the entry may be deleted at all: storecache wrote it, or its key has the requested prefix.
fn is_eligible(held: &ListedEntry, wishes: &Pruning) -> bool {
    // A foreign file in a directory is not a cache entry.
    let foreign_file = !held.is_ours() && held.record.damage.is_some();
    match &wishes.prefix {
        Some(prefix) => held.record.key.starts_with(prefix) && !foreign_file,
        None => held.is_ours(),
    }
}

/// Returns the newest entries of each key that every run can read, by every definition of "newest": by the
/// backend's creation time, which lookups on GitHub use, and by generation, which storecache uses; among all
/// entries, among usable ones, and among those of one layout.
fn newest_of_keys(all: &[ListedEntry], scene: &RepositoryFacts) -> HashSet<usize> {
    let mut by_time = HashMap::new();
    let mut by_generation = HashMap::new();
    for (at, held) in all.iter().enumerate().filter(|(_, held)| scene.is_shared(held)) {
        let usable = !matches!(held.use_of_it, Use::None(_));
        let version = held.record.version.as_deref().unwrap_or_default();
        let without_ref = held.record.reference.is_none();
        let groups = [
            Some("all"),
            usable.then_some("usable"),
            usable.then_some(version),
            without_ref.then_some("without a ref"),
        ];
        for group in groups.into_iter().flatten().map(|group| (held.key(), group)) {
            newer(&mut by_time, group, at, (held.record.created, generation(held)));
            newer(&mut by_generation, group, at, (generation(held), held.record.created));
        }
    }
    by_time
        .into_values()
        .map(|(at, _)| at)
        .chain(by_generation.into_values().map(|(at, _)| at))
        .collect()
}

fn newer<G: std::hash::Hash + Eq, A: Ord>(
    newest: &mut HashMap<G, (usize, A)>,
    group: G,
    at: usize,
    age: A,
) {
    match newest.get(&group) {
        Some((_, known)) if *known >= age => {}
        _ => drop(newest.insert(group, (at, age))),
    }
}

fn generation(held: &ListedEntry) -> Option<&Generation> {
    held.record.name.as_ref().map(|name| &name.generation)
}

/// Returns the generations older than the newest `keep` of their key, ref and layout. An unusable entry does
/// not supersede anything.
fn superseded(all: &[ListedEntry], keep: usize) -> HashMap<usize, String> {
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, held) in all.iter().enumerate().filter(|(_, held)| held.is_ours()) {
        if !matches!(held.use_of_it, Use::None(_)) {
            let of = (held.key(), &held.record.reference, &held.record.version);
            groups.entry(of).or_default().push(at);
        }
    }
    let mut found = HashMap::new();
    for mut group in groups.into_values() {
        let age = |at: &usize| (all[*at].record.created, generation(&all[*at]));
        group.sort_by_key(|at| Reverse(age(at)));
        let latest = group.iter().copied().max_by_key(|at| generation(&all[*at]));
        let newest = group.first().and_then(|at| generation(&all[*at])).cloned();
        for at in group.into_iter().skip(keep).filter(|at| Some(*at) != latest) {
            found.extend(newest.iter().map(|newest| (at, format!("{newest} is newer"))));
        }
    }
    found
}

/// An entry that cannot be used at all is deleted. An entry that another version of storecache may be able to
/// use is deleted only if this version can read a later entry with the same key: otherwise the other version
/// may be a newer one that is in use. `usable` has the usable entries by key.
fn unreadable(
    scene: &RepositoryFacts,
    held: &ListedEntry,
    usable: &HashMap<&str, Vec<&ListedEntry>>,
) -> Option<String> {
    match &held.use_of_it {
        Use::None(why) => Some(why.clone()),
        Use::Elsewhere(why) => {
            let others = usable.get(held.key()).map(Vec::as_slice).unwrap_or_default();
            let replaces = |other: &&ListedEntry| {
                other.record.created > held.record.created && scene.sees(held, other)
            };
            others.iter().any(replaces).then(|| why.clone())
        }
        Use::Some | Use::Unknown => None,
    }
}

/// Returns entries with the same content as another entry that stays and that all readers of the first entry
/// can read. If entries cannot be opened, compares key, layout and size instead.
fn copies(
    all: &[ListedEntry],
    scene: &RepositoryFacts,
    going: &HashMap<usize, Cause>,
) -> HashMap<usize, String> {
    let mut found = HashMap::new();
    for Alike { mut entries, guess } in alike(all, ListedEntry::key) {
        entries.retain(|at| all[*at].use_of_it == Use::Some && !going.contains_key(at));
        entries.sort_by_key(|at| {
            let held = &all[*at];
            Reverse((scene.is_shared(held), held.record.created, generation(held)))
        });
        let mut kept: Vec<usize> = Vec::new();
        for at in entries {
            let other = kept.iter().find(|one| scene.sees(&all[at], &all[**one]));
            let Some(other) = other.map(|other| &all[*other].record.key) else {
                kept.push(at);
                continue;
            };
            let same = match guess {
                true => format!("same size and key as {other}: a guess"),
                false => format!("same content as {other}"),
            };
            found.insert(at, same);
        }
    }
    found
}

/// Numbers of entries with the same content.
pub struct Alike {
    pub entries: Vec<usize>,
    /// Only sizes and keys were compared.
    pub guess: bool,
}

/// Finds entries with the same content. If the content cannot be read, compares size and layout among entries
/// with the same `mark`.
pub fn alike(all: &[ListedEntry], mark: fn(&ListedEntry) -> &str) -> Vec<Alike> {
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, held) in all.iter().enumerate() {
        let same = match (&held.content, &held.standing, &held.record.version) {
            (Some(content), ..) => (Some(content), "", "", 0),
            (None, None, Some(version)) => (None, mark(held), version.as_str(), held.record.size),
            _ => continue,
        };
        groups.entry(same).or_default().push(at);
    }
    let groups = groups.into_iter().filter(|(_, entries)| entries.len() > 1);
    groups.map(|((content, ..), entries)| Alike { entries, guess: content.is_none() }).collect()
}

fn unused(held: &ListedEntry, days: Option<u32>, now: Timestamp) -> Option<String> {
    let seconds = now.as_second() - held.used()?.as_second();
    let whole = seconds.div_euclid(24 * 60 * 60);
    (whole >= i64::from(days?)).then(|| format!("unused for {whole} days"))
}

#[cfg(test)]
mod tests;
