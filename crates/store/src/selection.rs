//! Selects the valid items that a save includes: the closures of some items, or the items that were used last.
//!
//! Both selections are closed: a save also includes everything that an included item refers to, if it could be
//! saved.

use super::closure::closure;
use super::{ItemName, ItemPattern, Layout, References};
use anyhow::{Result, anyhow, bail};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use storecache_runtime::advice::WithAdvice;

/// Returns the closures of all items that match one of the patterns.
///
/// # Errors
/// If a pattern is not valid, or does not match any item.
pub fn closures_of(
    patterns: &[String],
    items: &[ItemName],
    references: &References,
    layout: &Layout,
) -> Result<HashSet<ItemName>> {
    let mut wanted = Vec::new();
    for text in patterns {
        let pattern = ItemPattern::parse(text)?;
        let matching: Vec<_> = items.iter().filter(|item| pattern.matches(item, layout)).collect();
        if matching.is_empty() {
            bail!(anyhow!("no valid item matches {text}").hint("name valid items with --roots"));
        }
        wanted.extend(matching);
    }
    Ok(closure(wanted, references).into_iter().cloned().collect())
}

/// An item that a save may have to leave out.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: ItemName,
    /// NAR size in bytes.
    pub size: u64,
    /// When it was used last, in seconds since 1970.
    pub used: u64,
}

/// Returns the items to leave out so that the others have at most `limit` bytes: the least recently used first,
/// and large items before small ones. Use of an item also counts as use of everything that it refers to,
/// directly or indirectly, so an item is left out only after all its referrers.
pub fn beyond(limit: u64, candidates: &[Candidate], references: &References) -> Vec<ItemName> {
    let mut total: u64 = candidates.iter().map(|item| item.size).sum();
    let position: HashMap<&ItemName, usize> =
        candidates.iter().enumerate().map(|(at, item)| (&item.name, at)).collect();
    let below = |at: usize| {
        let names = references.get(&candidates[at].name).into_iter().flatten();
        names.filter_map(|name| position.get(name).copied()).filter(move |&other| other != at)
    };

    // From the most recently used item on, so that each item is reached by its latest user first.
    let mut used = vec![None; candidates.len()];
    let mut by_use: Vec<usize> = (0..candidates.len()).collect();
    by_use.sort_by_key(|&at| Reverse(candidates[at].used));
    for start in by_use {
        let mut pending = vec![start];
        while let Some(at) = pending.pop() {
            if used[at].is_none() {
                used[at] = Some(candidates[start].used);
                pending.extend(below(at));
            }
        }
    }

    let mut referrers = vec![0usize; candidates.len()];
    for at in 0..candidates.len() {
        below(at).for_each(|other| referrers[other] += 1);
    }
    let order = |at: usize| Reverse((used[at], Reverse(candidates[at].size), at));
    let mut free: BinaryHeap<_> =
        (0..candidates.len()).filter(|&at| referrers[at] == 0).map(order).collect();
    let mut behind = Vec::new();
    while total > limit {
        let Some(Reverse((_, _, at))) = free.pop() else { break };
        total -= candidates[at].size;
        behind.push(candidates[at].name.clone());
        for other in below(at) {
            referrers[other] -= 1;
            if referrers[other] == 0 {
                free.push(order(other));
            }
        }
    }
    behind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreKind;
    use proptest::prelude::*;
    use std::path::Path;

    fn item(name: &str) -> ItemName {
        ItemName::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
    }

    fn candidate(name: &str, size: u64, used: u64) -> Candidate {
        Candidate { name: item(name), size, used }
    }

    #[test]
    fn least_recently_used_items_are_dropped_unless_needed() {
        let items = [
            candidate("old", 10, 1),
            candidate("library", 50, 1),
            candidate("program", 5, 9),
            candidate("large", 30, 2),
            candidate("small", 3, 2),
            candidate("itself", 1, 3),
        ];
        let references = References::from([
            (item("program"), vec![item("library"), item("elsewhere")]),
            (item("old"), vec![item("library")]),
            (item("itself"), vec![item("itself")]),
        ]);
        let behind = |limit| beyond(limit, &items, &references);
        assert_eq!(behind(99), []);
        assert_eq!(behind(98), [item("old")]);
        assert_eq!(behind(88), [item("old"), item("large")]);
        assert_eq!(behind(55), ["old", "large", "small", "itself"].map(item));
        assert_eq!(behind(54), ["old", "large", "small", "itself", "program"].map(item));
        assert_eq!(behind(0).len(), 6);
    }

    #[test]
    fn patterns_select_the_closures_of_matching_items() {
        let layout = Layout::new(StoreKind::Nix, Path::new("/")).unwrap();
        let items = ["hello-1", "glibc", "other", "hello-2"].map(item);
        let references = References::from([(item("hello-1"), vec![item("glibc")])]);
        let closure = |patterns: &[&str]| {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            closures_of(&patterns, &items, &references, &layout)
        };
        assert_eq!(closure(&["hello-1"]).unwrap(), HashSet::from(["hello-1", "glibc"].map(item)));
        assert_eq!(closure(&["hello-*", "other"]).unwrap().len(), 4);
        let failed = closure(&["hello-*", "nothing"]).unwrap_err();
        assert!(failed.to_string().contains("no valid item matches nothing"), "{failed}");
    }

    proptest! {
        /// References lead from larger to smaller numbers, so they form no cycles.
        #[test]
        fn selection_keeps_whole_closures_within_the_limit(
            sizes in proptest::collection::vec((0u64..100, 0u64..10), 1..40),
            edges in proptest::collection::vec((0usize..40, 0usize..40), 0..120),
            limit in 0u64..3000,
        ) {
            let name = |at: usize| item(&format!("i{at}"));
            let items: Vec<_> = sizes.iter().enumerate()
                .map(|(at, &(size, used))| Candidate { name: name(at), size, used }).collect();
            let mut references = References::new();
            for (from, to) in edges {
                if to <= from && from < items.len() {
                    references.entry(name(from)).or_default().push(name(to));
                }
            }
            let behind: HashSet<_> = beyond(limit, &items, &references).into_iter().collect();
            let kept: Vec<_> = items.iter().filter(|i| !behind.contains(&i.name)).collect();
            prop_assert!(kept.iter().map(|i| i.size).sum::<u64>() <= limit);
            for item in kept {
                for reference in references.get(&item.name).into_iter().flatten() {
                    prop_assert!(!behind.contains(reference));
                }
            }
        }
    }
}
