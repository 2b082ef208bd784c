//! Checks whether the closures that a job will need are complete: valid in the database, and on the disk.

use super::closure::closure;
use super::{ItemName, Layout, LiveDatabase};
use anyhow::{Context, Result};
use globset::{Glob, GlobMatcher};
use std::collections::{HashMap, HashSet};

/// A glob pattern that matches the path of an item, its name, or its name without the hash.
pub struct ItemPattern(GlobMatcher);

impl ItemPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If `text` is not a valid glob pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let glob =
            Glob::new(text).with_context(|| format!("not a valid item pattern: {text:?}"))?;
        Ok(ItemPattern(glob.compile_matcher()))
    }

    pub(super) fn matches(&self, item: &ItemName, layout: &Layout) -> bool {
        let Self(glob) = self;
        let name = item.as_str();
        glob.is_match(name)
            || glob.is_match(item.without_hash())
            || glob.is_match(format!("{}/{name}", layout.store_dir))
    }
}

/// How complete the closures of all items that match a pattern are.
#[derive(Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Number of valid items that match. If it is 0, the required items are not in the store.
    pub items: u64,
    /// Number of valid items in their closures, including themselves.
    pub closure: u64,
    /// Items of the closures that are not on the disk, sorted.
    pub missing: Vec<ItemName>,
}

/// The items of a store: the references of each, and which are on the disk.
pub struct Contents<'a> {
    layout: &'a Layout,
    /// References of every valid item.
    references: HashMap<ItemName, Vec<ItemName>>,
    on_disk: HashSet<ItemName>,
}

impl<'a> Contents<'a> {
    /// Reads the live store as it is now. A store without a database is empty.
    pub fn read(layout: &'a Layout) -> Result<Self> {
        let database = layout.database();
        let there = database.try_exists().with_context(|| database.display().to_string())?;
        let references = match there {
            true => LiveDatabase::open(layout)?.references(layout)?,
            false => HashMap::new(),
        };
        let mut on_disk = HashSet::new();
        if layout.store().exists() {
            let store = layout.store();
            let listed = || store.display().to_string();
            for entry in std::fs::read_dir(&store).with_context(listed)? {
                let name = entry.with_context(listed)?.file_name();
                on_disk.extend(name.to_str().and_then(ItemName::parse));
            }
        }
        Ok(Contents { layout, references, on_disk })
    }

    /// Adds items that will become valid, as if they were valid and on the disk already.
    pub fn add(&mut self, items: impl IntoIterator<Item = (ItemName, Vec<ItemName>)>) {
        for (name, references) in items {
            self.on_disk.insert(name.clone());
            self.references.insert(name, references);
        }
    }

    /// Returns the number of valid items.
    pub fn valid(&self) -> usize {
        self.references.len()
    }

    /// Returns the valid items that are not on the disk, sorted.
    pub fn missing(&self) -> Vec<ItemName> {
        let gone = self.references.keys().filter(|item| !self.on_disk.contains(*item));
        let mut missing: Vec<ItemName> = gone.cloned().collect();
        missing.sort_unstable();
        missing
    }

    /// Checks the closures of all items that match `pattern`.
    pub fn completeness(&self, pattern: &ItemPattern) -> Completeness {
        let matching = self.references.keys().filter(|item| pattern.matches(item, self.layout));
        let matching: Vec<&ItemName> = matching.collect();
        let items = matching.len() as u64;
        let closure = closure(matching, &self.references);
        let gone = closure.iter().filter(|item| !self.on_disk.contains(**item));
        let mut missing: Vec<ItemName> = gone.map(|item| (*item).clone()).collect();
        missing.sort_unstable();
        Completeness { items, closure: closure.len() as u64, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreKind;
    use std::path::Path;

    fn item(name: &str) -> ItemName {
        ItemName::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
    }

    #[test]
    fn a_closure_is_complete_when_all_of_it_is_on_the_disk() {
        let layout = Layout::new(StoreKind::Guix, Path::new("/")).unwrap();
        let mut contents =
            Contents { layout: &layout, references: HashMap::new(), on_disk: HashSet::new() };
        contents.add([
            (item("guile-3.0"), vec![item("glibc"), item("guile-3.0")]),
            (item("guile-fibers"), vec![item("guile-3.0")]),
            (item("glibc"), vec![]),
        ]);
        let of = |text: &str| contents.completeness(&ItemPattern::parse(text).unwrap());
        let whole = |items, closure| Completeness { items, closure, missing: vec![] };
        assert_eq!(of("guile-fibers"), whole(1, 3));
        assert_eq!(of("guile-*"), whole(2, 3));
        assert_eq!(of(&format!("/gnu/store/{}", item("glibc"))), whole(1, 1));
        assert_eq!(of(item("guile-3.0").as_str()), whole(1, 2));
        assert_eq!(of("hello*"), whole(0, 0));
        assert!(ItemPattern::parse("[").is_err());

        contents.on_disk.remove(&item("glibc"));
        let missing = vec![item("glibc")];
        let found = contents.completeness(&ItemPattern::parse("guile-fibers").unwrap());
        assert_eq!(found, Completeness { items: 1, closure: 3, missing });
    }
}
