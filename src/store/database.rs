//! Reading the store's database: a consistent copy of the live one, and a snapshot's own.
//!
//! A live database is never copied as a file: its newest rows may lie in the write-ahead log alone.

use super::foreign::{self, told};
use super::integrity::check_pages;
use super::staging::Workshop;
use super::{ItemName, Layout, Owner, References, Refuge, StoreKind, ValidItem};
use anyhow::{Context, Result, anyhow, bail};
use rusqlite::{Connection, OpenFlags};
use std::collections::{HashMap, HashSet};
use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// How long SQLite waits for another writer.
pub(super) const BUSY: Duration = Duration::from_secs(60);

/// A consistent copy of a live database, in a place that goes with this value.
pub struct Frozen {
    place: Refuge,
    pub directory: OwnedFd,
    pub file_name: String,
    /// Rows of `ValidPaths`, sorted by name.
    pub items: Vec<ValidItem>,
    pub migrations: Vec<String>,
}

impl Frozen {
    /// What each item refers to.
    pub fn references(&self, layout: &Layout) -> Result<References> {
        SnapshotDatabase::open(&self.place.path().join(&self.file_name), layout)?.references()
    }

    /// Drops items from the copy, as if they had never been valid. Nothing that stays may refer to
    /// them.
    pub fn forget(&mut self, names: &HashSet<ItemName>, layout: &Layout) -> Result<()> {
        let copy = self.place.path().join(&self.file_name);
        let mut connection = open_read_write(&copy)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let transaction = connection.transaction()?;
        for sql in [
            "DELETE FROM Refs WHERE referrer IN (SELECT id FROM ValidPaths WHERE path = ?1)",
            "DELETE FROM ValidPaths WHERE path = ?1",
        ] {
            let mut statement = transaction.prepare(sql)?;
            for name in names {
                statement
                    .execute([layout.path_of(name)])
                    .with_context(|| format!("leave out {name}"))?;
            }
        }
        transaction.commit()?;
        // What was dropped shall not travel in free pages.
        connection.execute_batch("VACUUM")?;
        self.items.retain(|item| !names.contains(&item.name));
        Ok(())
    }
}

/// Copies the live database with `VACUUM INTO`: one read transaction that no writer waits for.
///
/// # Errors
/// When it cannot be read, or when the copy is not whole.
pub fn freeze(layout: &Layout) -> Result<Frozen> {
    let live = layout.database();
    let LiveDatabase(connection) = LiveDatabase::open(layout)?;
    let place = Refuge::create()?;
    let file_name = "db.sqlite".to_owned();
    let copy = place.path().join(&file_name);
    let target = copy.to_str().context("the temporary directory is not UTF-8")?;
    connection
        .execute("VACUUM INTO ?1", [target])
        .with_context(|| format!("freeze {}", live.display()))?;
    drop(connection);

    let frozen = SnapshotDatabase::open(&copy, layout)
        .with_context(|| format!("the copy of {} is not whole", live.display()))?;
    // Nobody could restore it; whoever can mend it is here.
    frozen.check_references().with_context(|| {
        format!("{} is damaged: let the package manager repair the store", live.display())
    })?;
    let items = frozen.items()?;
    let migrations = frozen.migrations()?;
    let directory = place.handle().try_clone()?;
    Ok(Frozen { place, directory, file_name, items, migrations })
}

/// Checks the live database page by page and reference by reference.
pub fn check_database(layout: &Layout) -> Result<()> {
    let live = LiveDatabase::open(layout)?;
    check_pages(&live.0, "integrity_check")?;
    live.check_references()
}

fn refers_nowhere(referrer: &ItemName) -> anyhow::Error {
    anyhow!("{referrer} refers to a row that is not there")
}

/// The database of the live store, for reading.
pub struct LiveDatabase(pub(super) Connection);

impl LiveDatabase {
    /// Makes an empty database where a store has none yet, as its daemon would at its first start.
    /// The caller holds `big-lock` exclusively.
    pub fn create_if_missing(layout: &Layout, owner: Owner) -> Result<()> {
        let path = layout.database();
        let context = || format!("make {}", path.display());
        if path.try_exists().with_context(context)? {
            return Ok(());
        }
        // Nobody shall find one that is half made, or that its owner cannot write to.
        let directory = layout.database_dir();
        let place = Workshop::create(&layout.state()).with_context(context)?;
        super::merge::create_empty(layout, place.path()).with_context(context)?;
        for file in ["db.sqlite", "schema"].map(|name| place.path().join(name)) {
            std::fs::set_permissions(&file, Permissions::from_mode(0o644)).with_context(context)?;
            owner.take(&file)?;
        }
        for name in ["schema", "db.sqlite"] {
            // The database last: without one, the number is of nothing, and as it will be.
            std::fs::rename(place.path().join(name), directory.join(name)).with_context(context)?;
        }
        Ok(())
    }

    /// Where somebody who wrote to it was killed, or lost the power, this rolls back what that one began, as
    /// whoever opens it would.
    pub fn open(layout: &Layout) -> Result<Self> {
        let path = layout.database();
        match open_read_only(&path) {
            Err(e) if is_half_written(&e) => {
                let connection = open_read_write(&path)?;
                let look = connection.query_row("SELECT count(*) FROM ValidPaths", [], |_| Ok(()));
                look.with_context(|| {
                    format!("roll back what was half written to {}", path.display())
                })?;
                drop(connection);
                open_read_only(&path)
            }
            other => other,
        }
        .map(LiveDatabase)
    }

    /// # Errors
    /// When a row refers to one that is not there.
    pub fn check_references(&self) -> Result<()> {
        let mut statement = self.0.prepare("PRAGMA foreign_key_check")?;
        if let Some(row) = statement.query([])?.next()? {
            let table: String = row.get(0)?;
            bail!("the database breaks a foreign key of {table}");
        }
        Ok(())
    }

    /// Names of all valid items.
    pub fn valid(&self, layout: &Layout) -> Result<HashSet<ItemName>> {
        let mut statement = self.0.prepare("SELECT path FROM ValidPaths")?;
        let paths = statement.query_map([], |row| row.get::<_, String>(0))?;
        // Whatever is not an item's path cannot be in a snapshot either.
        let names = paths.map(|path| path.map(|p| ItemName::from_path(&p, layout.store_dir)));
        names.filter_map(Result::transpose).collect::<Result<_, _>>().context("read ValidPaths")
    }

    /// What each valid item refers to.
    pub fn references(&self, layout: &Layout) -> Result<HashMap<ItemName, Vec<ItemName>>> {
        let mut references: HashMap<ItemName, Vec<ItemName>> =
            self.valid(layout)?.into_iter().map(|item| (item, Vec::new())).collect();
        let mut statement = self.0.prepare(
            "SELECT a.path, b.path FROM Refs r JOIN ValidPaths a ON a.id = r.referrer \
             JOIN ValidPaths b ON b.id = r.reference",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = |at| -> Result<Option<ItemName>> {
                Ok(ItemName::from_path(&row.get::<_, String>(at)?, layout.store_dir))
            };
            if let (Some(referrer), Some(reference)) = (name(0)?, name(1)?) {
                references.entry(referrer).or_default().push(reference);
            }
        }
        Ok(references)
    }
}

/// References beyond this many are not read. A store of 100,000 items has a million.
const REFERENCES_LIMIT: usize = 1 << 24;
/// The same for items.
const ITEMS_LIMIT: usize = 1 << 20;

/// The frozen database of a snapshot: not trusted. Only known tables and columns are read, each from one
/// end to the other (see [`super::foreign`]).
pub struct SnapshotDatabase {
    pub(super) connection: Connection,
    pub(super) kind: StoreKind,
    pub(super) store_dir: &'static str,
}

impl SnapshotDatabase {
    /// Opens a copy and checks it page by page.
    pub fn open(path: &Path, layout: &Layout) -> Result<Self> {
        let connection = foreign::open(path)?;
        Ok(SnapshotDatabase { connection, kind: layout.kind, store_dir: layout.store_dir })
    }

    /// All valid items, sorted by name.
    pub fn items(&self) -> Result<Vec<ValidItem>> {
        let mut items = Vec::new();
        self.each(
            "SELECT path, hash, narSize, registrationTime FROM ValidPaths NOT INDEXED",
            |row| {
                let nar_size = row.get::<_, Option<i64>>(2)?.and_then(|n| u64::try_from(n).ok());
                items.push(ValidItem {
                    name: self.item_name(&row.get::<_, String>(0)?)?,
                    nar_hash: row.get(1)?,
                    nar_size,
                    registered: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                });
                bounded(items.len(), ITEMS_LIMIT, "items")
            },
        )?;
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = items.windows(2).find(|pair| pair[0].name == pair[1].name) {
            bail!("the database has {} twice", twice[0].name);
        }
        Ok(items)
    }

    /// Names of the valid items, by their id.
    pub(super) fn ids(&self) -> Result<HashMap<i64, ItemName>> {
        let mut names = HashMap::new();
        self.each("SELECT id, path FROM ValidPaths NOT INDEXED", |row| {
            let (id, name) = (row.get(0)?, self.item_name(&row.get::<_, String>(1)?)?);
            if names.insert(id, name).is_some() {
                bail!("the database has two items of the number {id}");
            }
            bounded(names.len(), ITEMS_LIMIT, "items")
        })?;
        Ok(names)
    }

    /// # Errors
    /// When an item refers to a row that is not there.
    fn check_references(&self) -> Result<()> {
        self.each_reference(|_, _| ())
    }

    /// What each item refers to. A reference to a row that is not there has no name, and makes its
    /// referrer unusable.
    pub fn references(&self) -> Result<References> {
        let mut references: HashMap<ItemName, Vec<ItemName>> = HashMap::new();
        self.each_reference(|referrer, reference| match references.get_mut(referrer) {
            Some(known) => known.push(reference.clone()),
            None => drop(references.insert(referrer.clone(), vec![reference.clone()])),
        })?;
        for (referrer, references) in &mut references {
            let rows = references.len();
            references.sort_unstable();
            references.dedup();
            if references.len() < rows {
                bail!("the database has a reference of {referrer} twice");
            }
        }
        Ok(references)
    }

    fn each_reference(&self, mut take: impl FnMut(&ItemName, &ItemName)) -> Result<()> {
        let ids = self.ids()?;
        let mut rows = 0;
        self.each("SELECT referrer, reference FROM Refs NOT INDEXED", |row| {
            rows += 1;
            bounded(rows, REFERENCES_LIMIT, "references")?;
            // What refers from nowhere is nobody's.
            if let Some(referrer) = ids.get(&row.get(0)?) {
                take(referrer, ids.get(&row.get(1)?).ok_or_else(|| refers_nowhere(referrer))?);
            }
            Ok(())
        })
    }

    /// Hands over all rows of a statement.
    pub(super) fn each(
        &self,
        sql: &str,
        mut take: impl FnMut(&rusqlite::Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next().map_err(|e| told(e.into()))? {
            take(row)?;
        }
        Ok(())
    }

    /// Names in `SchemaMigrations`; none where the table does not exist (Nix before 2.26).
    pub fn migrations(&self) -> Result<Vec<String>> {
        if !is_table(&self.connection, "SchemaMigrations")? {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        self.each("SELECT migration FROM SchemaMigrations NOT INDEXED", |row| {
            names.push(row.get(0)?);
            bounded(names.len(), ITEMS_LIMIT, "migrations")
        })?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn item_name(&self, path: &str) -> Result<ItemName> {
        ItemName::from_path(path, self.store_dir)
            .with_context(|| format!("the database has the path {path:?}, which is no item's"))
    }
}

fn bounded(count: usize, limit: usize, what: &str) -> Result<()> {
    if count > limit {
        bail!("the database has over {limit} {what}");
    }
    Ok(())
}

/// Whether all that is in the way of reading is a journal that has to be rolled back first
/// (`https://sqlite.org/rescode.html#readonly_rollback`).
fn is_half_written(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<rusqlite::Error>().and_then(|e| e.sqlite_error());
    error.is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

fn open_read_only(path: &Path) -> Result<Connection> {
    let context = || format!("open {}", path.display());
    if !path.symlink_metadata().with_context(context)?.is_file() {
        // A link could lead out of the store, and a fifo would keep us waiting.
        bail!("{} is no file", path.display());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).with_context(context)?;
    connection.busy_timeout(BUSY)?;
    // SQLite opens lazily; this is the first look into the file.
    connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .with_context(context)?;
    Ok(connection)
}

pub(super) fn open_read_write(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn is_table(connection: &Connection, name: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(connection.query_row(sql, [name], |row| row.get::<_, i64>(0))? == 1)
}

/// Names of a table's columns.
pub(super) fn columns(connection: &Connection, table: &str) -> Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::merge::create_empty;

    /// As a run leaves it that is killed in its commit, in a database that no daemon has ever used.
    #[test]
    fn what_was_half_written_is_rolled_back_by_whoever_looks() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(StoreKind::Nix, root.path()).unwrap();
        std::fs::create_dir_all(layout.database_dir()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        create_empty(&layout, elsewhere.path()).unwrap();
        let writer = Connection::open(elsewhere.path().join("db.sqlite")).unwrap();
        writer.execute_batch("PRAGMA cache_size = 1; BEGIN").unwrap();
        for number in 0..200 {
            let path = format!("/nix/store/{number:032}-a");
            let sql = "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?1, 'h', 1)";
            writer.execute(sql, [path]).unwrap();
        }
        writer.cache_flush().unwrap();
        for name in ["db.sqlite", "db.sqlite-journal"] {
            std::fs::copy(elsewhere.path().join(name), layout.database_dir().join(name)).unwrap();
        }
        drop(writer);

        let live = LiveDatabase::open(&layout).unwrap();
        assert_eq!(live.valid(&layout).unwrap(), HashSet::new());
        assert!(!layout.database_dir().join("db.sqlite-journal").exists());
    }
}
