//! Checks a snapshot's database against the index of the snapshot.

use super::frozen_database::columns;
use super::merge_database::{outputs, quoted};
use super::row_validation::{NOT_CARRIED, check};
use super::{ItemName, References, SnapshotDatabase, ValidItem};
use anyhow::{Result, bail};
use rusqlite::types::Value;
use std::collections::{HashMap, HashSet};

/// The items that an index lists.
pub struct Listing<'a> {
    /// Items whose files are in the snapshot or in its base.
    pub items: Vec<ListedItem<'a>>,
    /// Items that have a row and were left out on purpose. `None` for snapshots of older versions, which do not
    /// list them.
    pub rows_only: Option<&'a [String]>,
}

/// One item as an index lists it.
pub struct ListedItem<'a> {
    pub name: &'a str,
    pub nar_hash: Option<&'a str>,
    pub nar_size: NarSize,
}

/// The NAR size that an index lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NarSize {
    /// As in the row, in bytes.
    Listed(Option<u64>),
    /// Listed only by the base, which is missing.
    NotListed,
}

/// Rows that agree with their index.
pub struct SnapshotRows {
    /// Sorted by name.
    pub items: Vec<ValidItem>,
    pub references: References,
}

impl SnapshotDatabase {
    /// Reads all rows and checks them: each on its own, against each other, and against the index.
    ///
    /// This does not check whether references to items without files are satisfied, which depends on the store.
    ///
    /// # Errors
    /// If a row is not valid, refers to a missing row, or disagrees with the index.
    pub fn check(&self, listing: &Listing<'_>) -> Result<SnapshotRows> {
        let rows = SnapshotRows { items: self.items()?, references: self.references()? };
        outputs(self)?;
        let by_name: HashMap<&str, &ValidItem> =
            rows.items.iter().map(|row| (row.name.as_str(), row)).collect();
        for item in &listing.items {
            item.check(by_name.get(item.name).copied())?;
        }
        let mut listed: HashSet<&str> = listing.items.iter().map(|item| item.name).collect();
        self.check_values(&listed)?;
        let Some(rows_only) = listing.rows_only else { return Ok(rows) };
        for name in rows_only {
            if !by_name.contains_key(name.as_str()) {
                bail!("the index lists {name} as left out, but the database has no row for it");
            }
            listed.insert(name);
        }
        if let Some(row) = rows.items.iter().find(|row| !listed.contains(row.name.as_str())) {
            bail!(
                "the database has a row for {}, but the index neither has its files nor lists it \
                 as left out",
                row.name
            );
        }
        Ok(rows)
    }

    /// Checks the values in the rows of the items that a restore may insert.
    fn check_values(&self, listed: &HashSet<&str>) -> Result<()> {
        let columns = columns(&self.connection, "ValidPaths")?;
        let carried = columns.iter().filter(|column| !NOT_CARRIED.contains(&column.as_str()));
        let mut carried: Vec<&str> = carried.map(String::as_str).collect();
        carried.sort_unstable();
        let names: Vec<String> = carried.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT path, {} FROM ValidPaths NOT INDEXED", names.join(", "));
        self.each(&sql, |row| {
            let name: ItemName = self.item_name(&row.get::<_, String>(0)?)?;
            if listed.contains(name.as_str()) {
                for (column, at) in carried.iter().zip(1..) {
                    check(&name, column, &row.get::<_, Value>(at)?, self.store_dir)?;
                }
            }
            Ok(())
        })
    }
}

impl ListedItem<'_> {
    fn check(&self, row: Option<&ValidItem>) -> Result<()> {
        let name = self.name;
        let Some(row) = row else { bail!("the database has no row for {name}") };
        if self.nar_hash != Some(&row.nar_hash) {
            bail!(
                "{name} has the hash {:.100} in the database, and {:.100} in the index",
                row.nar_hash,
                self.nar_hash.unwrap_or("none")
            );
        }
        match self.nar_size {
            NarSize::Listed(size) if size != row.nar_size => bail!(
                "{name} has the NAR size {} in the database, and {} in the index",
                shown(row.nar_size),
                shown(size)
            ),
            _ => Ok(()),
        }
    }
}

fn shown(size: Option<u64>) -> String {
    size.map_or_else(|| "none".into(), |size| size.to_string())
}
