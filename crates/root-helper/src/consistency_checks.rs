//! Consistency checks between head, index and database of a snapshot. `verify` and `restore` both use them. The
//! checks of frames are in [`storecache_snapshot`], where both commands read frames through one check.

use anyhow::Result;
use std::collections::HashMap;
use std::path::Path;
use storecache_snapshot::{Index, SnapshotError};
use storecache_store::{
    Layout, ListedItem, Listing, NarSize, SnapshotDatabase, SnapshotRows, StoreKind,
};

/// Checks that an index belongs to a store of this kind.
///
/// # Errors
/// [`SnapshotError::Damaged`] if the index has parts that such a store does not have, or does not have parts that
/// such a store has.
pub fn check_kind(kind: StoreKind, index: &Index) -> Result<()> {
    let refuse = |what: String| Err(SnapshotError::Damaged(what).into());
    let database = index.database.as_ref().map(|database| database.path.as_str());
    if !kind.has_database() {
        let rows = index.rows_only.as_ref().is_some_and(|rows| !rows.is_empty());
        if index.base.is_some() {
            return refuse("a snapshot of plain directories has a base".into());
        }
        if database.is_some() || rows || !index.items_under.is_empty() {
            return refuse("a snapshot of plain directories has parts of a store".into());
        }
        return Ok(());
    }
    let layout = Layout::new(kind, Path::new("/"))?;
    if index.items_under != layout.items_under() {
        return refuse(format!(
            "its items are under {:?}, but those of a {} store are under {:?}",
            index.items_under,
            kind.name(),
            layout.items_under()
        ));
    }
    let path = layout.database_archive_path();
    match database {
        Some(found) if found == path => Ok(()),
        Some(found) => refuse(format!("its database is {found:?}, but it must be {path:?}")),
        None => refuse("the snapshot has no database".into()),
    }
}

/// Checks a database against its index. `base` is the index of the base, if there is one and it is known.
///
/// # Errors
/// If they do not agree; the message names the item.
pub fn check_database(
    database: &SnapshotDatabase,
    index: &Index,
    base: Option<&Index>,
) -> Result<SnapshotRows> {
    database.check(&listing(index, base))
}

fn listing<'a>(index: &'a Index, base: Option<&'a Index>) -> Listing<'a> {
    let own = index.items.iter().map(|item| ListedItem {
        name: &item.name,
        nar_hash: item.nar_hash.as_deref(),
        nar_size: NarSize::Listed(item.nar_size),
    });
    let sizes = base.iter().flat_map(|base| &base.items);
    let sizes: HashMap<&str, Option<u64>> =
        sizes.map(|item| (item.name.as_str(), item.nar_size)).collect();
    let inherited = index.base.iter().flat_map(|base| &base.items).map(|item| ListedItem {
        name: &item.name,
        nar_hash: Some(&item.nar_hash),
        nar_size: match sizes.get(item.name.as_str()) {
            Some(&size) => NarSize::Listed(size),
            None => NarSize::NotListed,
        },
    });
    Listing { items: own.chain(inherited).collect(), rows_only: index.rows_only.as_deref() }
}
