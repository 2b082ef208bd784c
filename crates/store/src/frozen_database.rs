//! Reading the store's database: a consistent copy of the live one, and the database of a snapshot.
//!
//! storecache never copies a live database as a file, because its newest rows may be in the write-ahead log
//! only.

use super::integrity::check_pages;
use super::staging::StagedDir;
use super::untrusted_db::{self, told};
use super::{ItemName, Layout, Owner, References, StoreKind, TempDb, ValidItem};
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

/// A consistent copy of a live database, in a temporary directory that is removed when this is dropped.
pub struct Frozen {
    place: TempDb,
    pub directory: OwnedFd,
    pub file_name: String,
    /// Rows of `ValidPaths`, sorted by name.
    pub items: Vec<ValidItem>,
    pub migrations: Vec<String>,
}

impl Frozen {
    /// Returns the references of each item.
    pub fn references(&self, layout: &Layout) -> Result<References> {
        SnapshotDatabase::open(&self.place.path().join(&self.file_name), layout)?.references()
    }

    /// Deletes items from the copy, as if they had never been valid. None of the remaining items may refer to
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
                    .with_context(|| format!("delete the rows of {name}"))?;
            }
        }
        transaction.commit()?;
        // Deleted rows must not remain in free pages of the copy.
        connection.execute_batch("VACUUM")?;
        self.items.retain(|item| !names.contains(&item.name));
        Ok(())
    }
}

/// Copies the live database with `VACUUM INTO`, in one read transaction, which does not block writers.
///
/// # Errors
/// If the live database cannot be read, or the copy is damaged.
pub fn freeze(layout: &Layout) -> Result<Frozen> {
    let live = layout.database();
    let LiveDatabase(connection) = LiveDatabase::open(layout)?;
    let place = TempDb::create()?;
    let file_name = "db.sqlite".to_owned();
    let copy = place.path().join(&file_name);
    let target = copy.to_str().context("the temporary directory is not UTF-8")?;
    connection
        .execute("VACUUM INTO ?1", [target])
        .with_context(|| format!("copy {}", live.display()))?;
    drop(connection);

    let frozen = SnapshotDatabase::open(&copy, layout)
        .with_context(|| format!("check the copy of {}", live.display()))?;
    // Fail now: such a snapshot could not be restored, and only this machine can repair the source.
    frozen.check_references().with_context(|| {
        format!("{} is damaged (the package manager can repair it)", live.display())
    })?;
    let items = frozen.items()?;
    let migrations = frozen.migrations()?;
    let directory = place.handle().try_clone()?;
    Ok(Frozen { place, directory, file_name, items, migrations })
}

/// Checks the pages and the references of the live database.
///
/// # Errors
/// If it is damaged, or cannot be read.
pub fn check_database(layout: &Layout) -> Result<()> {
    let live = LiveDatabase::open(layout)?;
    check_pages(&live.0, "integrity_check")?;
    live.check_references()
}

fn refers_nowhere(referrer: &ItemName) -> anyhow::Error {
    anyhow!("{referrer} refers to a missing row")
}

/// The database of the live store, for reading.
pub struct LiveDatabase(pub(super) Connection);

impl LiveDatabase {
    /// Creates an empty database if the store does not have one, as its daemon would at its first start. The
    /// caller holds `big-lock` exclusively.
    pub fn create_if_missing(layout: &Layout, owner: Owner) -> Result<()> {
        let path = layout.database();
        let context = || format!("create {}", path.display());
        if path.try_exists().with_context(context)? {
            return Ok(());
        }
        // Build the database elsewhere, so that other processes see neither an incomplete one nor one that its
        // owner cannot write to.
        let directory = layout.database_dir();
        let place = StagedDir::create(&layout.state()).with_context(context)?;
        super::merge_database::create_empty(layout, place.path()).with_context(context)?;
        for file in ["db.sqlite", "schema"].map(|name| place.path().join(name)) {
            std::fs::set_permissions(&file, Permissions::from_mode(0o644)).with_context(context)?;
            owner.take(&file)?;
        }
        for name in ["schema", "db.sqlite"] {
            // Move `schema` first: a schema file without a database is ignored by the daemon.
            std::fs::rename(place.path().join(name), directory.join(name)).with_context(context)?;
        }
        Ok(())
    }

    /// Opens the database. If a writer was killed, or lost power, this rolls back its transaction, as every
    /// program does that opens the database.
    pub fn open(layout: &Layout) -> Result<Self> {
        let path = layout.database();
        match open_read_only(&path) {
            Err(e) if is_half_written(&e) => {
                let connection = open_read_write(&path)?;
                let look = connection.query_row("SELECT count(*) FROM ValidPaths", [], |_| Ok(()));
                look.with_context(|| {
                    format!("roll back the incomplete transaction in {}", path.display())
                })?;
                drop(connection);
                open_read_only(&path)
            }
            other => other,
        }
        .map(LiveDatabase)
    }

    /// Checks that all foreign keys lead to rows.
    ///
    /// # Errors
    /// If a row refers to a missing row.
    pub fn check_references(&self) -> Result<()> {
        let mut statement = self.0.prepare("PRAGMA foreign_key_check")?;
        if let Some(row) = statement.query([])?.next()? {
            let table: String = row.get(0)?;
            bail!("the table {table} of the database violates a foreign key");
        }
        Ok(())
    }

    /// Returns the names of all valid items.
    pub fn valid(&self, layout: &Layout) -> Result<HashSet<ItemName>> {
        let mut statement = self.0.prepare("SELECT path FROM ValidPaths")?;
        let paths = statement.query_map([], |row| row.get::<_, String>(0))?;
        // A path that is not an item's path cannot be in a snapshot either.
        let names = paths.map(|path| path.map(|p| ItemName::from_path(&p, layout.store_dir)));
        names.filter_map(Result::transpose).collect::<Result<_, _>>().context("read ValidPaths")
    }

    /// Returns the references of each valid item.
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

/// More references than this are refused. A store of 100,000 items has a million.
const REFERENCES_LIMIT: usize = 1 << 24;
/// More items than this are refused.
const ITEMS_LIMIT: usize = 1 << 20;

/// The frozen database of a snapshot, which is not trusted. storecache reads only known tables and columns,
/// each with a full scan (see [`super::untrusted_db`]).
pub struct SnapshotDatabase {
    pub(super) connection: Connection,
    pub(super) kind: StoreKind,
    pub(super) store_dir: &'static str,
}

impl SnapshotDatabase {
    /// Opens a copy of the database and checks its pages.
    pub fn open(path: &Path, layout: &Layout) -> Result<Self> {
        let connection = untrusted_db::open(path)?;
        Ok(SnapshotDatabase { connection, kind: layout.kind, store_dir: layout.store_dir })
    }

    /// Returns all valid items, sorted by name.
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
            bail!("the database contains {} twice", twice[0].name);
        }
        Ok(items)
    }

    /// Returns the names of the valid items, by row ID.
    pub(super) fn ids(&self) -> Result<HashMap<i64, ItemName>> {
        let mut names = HashMap::new();
        self.each("SELECT id, path FROM ValidPaths NOT INDEXED", |row| {
            let (id, name) = (row.get(0)?, self.item_name(&row.get::<_, String>(1)?)?);
            if names.insert(id, name).is_some() {
                bail!("the database contains two items with the ID {id}");
            }
            bounded(names.len(), ITEMS_LIMIT, "items")
        })?;
        Ok(names)
    }

    /// Checks that all references lead to rows.
    ///
    /// # Errors
    /// If an item refers to a missing row.
    fn check_references(&self) -> Result<()> {
        self.each_reference(|_, _| ())
    }

    /// Returns the references of each item.
    ///
    /// # Errors
    /// If an item refers to a missing row, since such a reference has no name and makes its referrer unusable.
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
                bail!("the database contains a reference of {referrer} twice");
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
            // Rows without a referrer belong to no item and are ignored.
            if let Some(referrer) = ids.get(&row.get(0)?) {
                take(referrer, ids.get(&row.get(1)?).ok_or_else(|| refers_nowhere(referrer))?);
            }
            Ok(())
        })
    }

    /// Calls `take` with each row of a statement.
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

    /// Returns the names in `SchemaMigrations`; empty if the table does not exist (Nix before 2.26).
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
            .with_context(|| format!("the database contains {path:?}, which is not an item path"))
    }
}

fn bounded(count: usize, limit: usize, what: &str) -> Result<()> {
    if count > limit {
        bail!("the database has more than {limit} {what}");
    }
    Ok(())
}

/// Whether reading failed only because a journal has to be rolled back first
/// (`https://sqlite.org/rescode.html#readonly_rollback`).
fn is_half_written(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<rusqlite::Error>().and_then(|e| e.sqlite_error());
    error.is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

fn open_read_only(path: &Path) -> Result<Connection> {
    let context = || format!("open {}", path.display());
    if !path.symlink_metadata().with_context(context)?.is_file() {
        // A link could lead out of the store, and opening a FIFO would block.
        bail!("{} is not a regular file", path.display());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).with_context(context)?;
    connection.busy_timeout(BUSY)?;
    // SQLite opens files lazily; this is the first access to the file.
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

/// Returns the column names of a table.
pub(super) fn columns(connection: &Connection, table: &str) -> Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge_database::create_empty;

    /// A database that no daemon has used yet, as a run leaves it that is killed during its commit.
    #[test]
    fn open_rolls_back_an_unfinished_transaction() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(StoreKind::Nix, root.path()).unwrap();
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
