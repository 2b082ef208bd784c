//! Closures, and which items of a snapshot can become valid.

use super::ItemName;
use std::collections::{HashMap, HashSet};

/// The items that each item refers to.
pub type References = HashMap<ItemName, Vec<ItemName>>;

/// Returns `items` and everything that they refer to, directly or indirectly.
pub(super) fn closure<'a>(
    items: impl IntoIterator<Item = &'a ItemName>,
    references: &'a References,
) -> HashSet<&'a ItemName> {
    let mut closure: HashSet<&ItemName> = items.into_iter().collect();
    let mut pending: Vec<&ItemName> = closure.iter().copied().collect();
    while let Some(item) = pending.pop() {
        let below = references.get(item).into_iter().flatten();
        pending.extend(below.filter(|reference| closure.insert(reference)));
    }
    closure
}

/// An item that is not restored, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub name: ItemName,
    pub reason: String,
}

/// The decision for each item of a snapshot: restore it, leave it untouched, or skip it.
#[derive(Debug, Default)]
pub struct RestoreSelection {
    /// Items to restore.
    pub wanted: Vec<ItemName>,
    /// Items that are valid already and stay untouched.
    pub present: Vec<ItemName>,
    pub skipped: Vec<Skipped>,
}

/// Decides which of `items` a restore takes. An item is wanted if it is not in `live`, its files are in the
/// archive (`packed`), and each of its `references` is wanted or in `live`.
pub fn choose(
    items: &[ItemName],
    references: &HashMap<ItemName, Vec<ItemName>>,
    live: &HashSet<ItemName>,
    packed: &dyn Fn(&ItemName) -> bool,
) -> RestoreSelection {
    let mut choice = RestoreSelection::default();
    let mut wanted: HashSet<&ItemName> = HashSet::new();
    let mut skipped: HashMap<&ItemName, String> = HashMap::new();
    for item in items {
        if live.contains(item) {
            choice.present.push(item.clone());
        } else if packed(item) {
            wanted.insert(item);
        } else {
            skipped.insert(item, "the snapshot does not contain its files".into());
        }
    }
    // Skip every item that refers to a skipped item, until nothing changes.
    let mut referrers: HashMap<&ItemName, Vec<&ItemName>> = HashMap::new();
    for item in items {
        for reference in references.get(item).into_iter().flatten() {
            referrers.entry(reference).or_default().push(item);
        }
    }
    let available =
        |wanted: &HashSet<&ItemName>, name| wanted.contains(name) || live.contains(name);
    let mut lost: Vec<&ItemName> =
        referrers.keys().copied().filter(|name| !available(&wanted, name)).collect();
    while let Some(name) = lost.pop() {
        for referrer in referrers.get(name).into_iter().flatten() {
            if wanted.remove(referrer) {
                let reason =
                    format!("it needs {name}, which is not in the store and cannot be restored");
                skipped.insert(referrer, reason);
                lost.push(referrer);
            }
        }
    }
    for item in items {
        if wanted.contains(item) {
            choice.wanted.push(item.clone());
        } else if let Some(reason) = skipped.remove(item) {
            choice.skipped.push(Skipped { name: item.clone(), reason });
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(letter: &str) -> ItemName {
        ItemName::parse(&format!("{}-{letter}", "0".repeat(32))).unwrap()
    }

    fn names(items: &[ItemName]) -> Vec<&str> {
        items.iter().map(|i| &i.as_str()[33..]).collect()
    }

    #[test]
    fn item_with_missing_references_is_skipped_with_referrers() {
        let items: Vec<_> = ["a", "b", "c", "d", "e"].map(item).into();
        // a -> b -> gone, c -> d (live), e -> itself
        let references = HashMap::from([
            (item("a"), vec![item("b")]),
            (item("b"), vec![item("gone")]),
            (item("c"), vec![item("d")]),
            (item("e"), vec![item("e")]),
        ]);
        let live = HashSet::from([item("d")]);
        let choice = choose(&items, &references, &live, &|_| true);
        assert_eq!(names(&choice.wanted), ["c", "e"]);
        assert_eq!(names(&choice.present), ["d"]);
        let skipped: Vec<_> = choice.skipped.iter().map(|s| s.name.clone()).collect();
        assert_eq!(names(&skipped), ["a", "b"]);
        assert!(choice.skipped[1].reason.contains("-gone"));
    }

    #[test]
    fn an_item_without_files_in_the_archive_is_never_registered() {
        let items = [item("a"), item("b")];
        let references = HashMap::from([(item("a"), vec![item("b")])]);
        let choice = choose(&items, &references, &HashSet::new(), &|i| *i != item("b"));
        assert!(choice.wanted.is_empty());
        assert_eq!(choice.skipped.len(), 2);
    }
}
