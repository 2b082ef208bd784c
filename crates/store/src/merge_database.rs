//! Adds rows of a snapshot to the live database, in one transaction.
//!
//! Only rows of items that are not valid yet are added, so existing rows do not change. Row IDs differ between
//! databases, so items are matched by path.

use super::db_error::{of_rows, of_snapshot};
use super::frozen_database::{BUSY, columns, open_read_write};
use super::row_validation::{NOT_CARRIED, check, check_output};
use super::{ItemName, Layout, LiveDatabase, Skipped, SnapshotDatabase, StoreKind, choose};
use anyhow::{Context, Result, bail};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params_from_iter};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};
use storecache_runtime::retry::insist;

/// How often to check for cancellation while another process writes to the database.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Columns that schema 10 of Nix has beyond schema 7 of Guix.
const NIX_COLUMNS: &str = ", ultimate INTEGER, sigs TEXT, ca TEXT";
/// The tables that contain rows; newer package managers add further tables at their first start.
const VALID_PATHS: &str = "
    CREATE TABLE IF NOT EXISTS ValidPaths (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT UNIQUE NOT NULL,
        hash TEXT NOT NULL, registrationTime INTEGER NOT NULL, deriver TEXT, narSize INTEGER";
const OTHER_TABLES: &str = ");
    CREATE TABLE IF NOT EXISTS Refs (
        referrer INTEGER NOT NULL, reference INTEGER NOT NULL, PRIMARY KEY (referrer, reference),
        FOREIGN KEY (referrer) REFERENCES ValidPaths(id) ON DELETE CASCADE,
        FOREIGN KEY (reference) REFERENCES ValidPaths(id) ON DELETE RESTRICT);
    CREATE INDEX IF NOT EXISTS IndexReferrer ON Refs(referrer);
    CREATE INDEX IF NOT EXISTS IndexReference ON Refs(reference);
    CREATE TRIGGER IF NOT EXISTS DeleteSelfRefs BEFORE DELETE ON ValidPaths
        BEGIN DELETE FROM Refs WHERE referrer = old.id AND reference = old.id; END;
    CREATE TABLE IF NOT EXISTS DerivationOutputs (
        drv INTEGER NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (drv, id),
        FOREIGN KEY (drv) REFERENCES ValidPaths(id) ON DELETE CASCADE);
    CREATE INDEX IF NOT EXISTS IndexDerivationOutputs ON DerivationOutputs(path);
";
/// Without this table, guix-daemon does not open a database. Source: guix 1.5 `guix/store/schema.sql`.
const GUIX_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS FailedPaths (path TEXT PRIMARY KEY NOT NULL, time INTEGER NOT NULL);
";

/// The rows of a snapshot that are to be added, read into memory before the daemon is stopped.
pub struct Rows {
    items: Vec<Row>,
}

struct Row {
    name: ItemName,
    /// Values by column name, for columns that both databases have.
    values: BTreeMap<String, Value>,
    references: Vec<ItemName>,
    /// Output name and path.
    outputs: Vec<(String, String)>,
}

impl Rows {
    /// Reads the rows of `wanted`, with the columns that `live` has. Without a live database, these are the
    /// columns of [`create_empty`].
    ///
    /// # Errors
    /// If the rows cannot be read or are not valid; [`BadDatabase`](super::BadDatabase) if that is the fault of
    /// the snapshot.
    pub fn read(
        snapshot: &SnapshotDatabase,
        wanted: &[ItemName],
        live: Option<&LiveDatabase>,
    ) -> Result<Self> {
        let live = match live {
            Some(live) => columns(&live.0, "ValidPaths")?,
            None => {
                let empty = Connection::open_in_memory()?;
                empty.execute_batch(&empty_database(snapshot.kind))?;
                columns(&empty, "ValidPaths")?
            }
        };
        Self::new(snapshot, wanted, &live).map_err(of_snapshot)
    }

    /// Reads the rows of `wanted`, with the columns of the live database.
    fn new(
        snapshot: &SnapshotDatabase,
        wanted: &[ItemName],
        live: &HashSet<String>,
    ) -> Result<Self> {
        let wanted: HashSet<&ItemName> = wanted.iter().collect();
        let theirs = columns(&snapshot.connection, "ValidPaths")?;
        let shared = theirs.intersection(live).filter(|c| !NOT_CARRIED.contains(&c.as_str()));
        let carried: Vec<&String> = shared.collect();
        let mut references = snapshot.references()?;
        let mut outputs = outputs(snapshot)?;

        let names: Vec<String> = carried.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT id, path, {} FROM ValidPaths NOT INDEXED", names.join(", "));
        let mut items: Vec<(i64, Row)> = Vec::with_capacity(wanted.len());
        snapshot.each(&sql, |row| {
            let name = snapshot.item_name(&row.get::<_, String>(1)?)?;
            if !wanted.contains(&name) {
                return Ok(());
            }
            let mut values = BTreeMap::new();
            for (column, at) in carried.iter().zip(2..) {
                let value: Value = row.get(at)?;
                check(&name, column, &value, snapshot.store_dir)?;
                values.insert((*column).clone(), value);
            }
            let references = references.remove(&name).unwrap_or_default();
            let outputs = outputs.remove(&name).unwrap_or_default();
            items.push((row.get(0)?, Row { values, references, outputs, name }));
            Ok(())
        })?;
        let names: HashSet<&ItemName> = items.iter().map(|(_, row)| &row.name).collect();
        if names.len() != wanted.len() || items.len() != wanted.len() {
            bail!("the snapshot's database does not have exactly one row for each of its items");
        }
        drop(names);
        // In the order in which they became valid.
        items.sort_unstable_by_key(|(id, _)| *id);
        let items = items.into_iter().map(|(_, row)| row).collect();
        Ok(Rows { items })
    }

    /// Returns each item with its references.
    pub fn references(&self) -> impl Iterator<Item = (ItemName, Vec<ItemName>)> {
        self.items.iter().map(|row| (row.name.clone(), row.references.clone()))
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Removes the rows of items that cannot become valid in a store whose valid items are `live`, because an item that
    /// they need is missing. Returns these items.
    pub fn drop_unrestorable(&mut self, live: &HashSet<ItemName>) -> Vec<Skipped> {
        let names: Vec<ItemName> = self.items.iter().map(|row| row.name.clone()).collect();
        let references = self.references().collect();
        let skipped = choose(&names, &references, live, &|_| true).skipped;
        let left_out: HashSet<&ItemName> = skipped.iter().map(|s| &s.name).collect();
        self.items.retain(|row| !left_out.contains(&row.name));
        skipped
    }

    /// Returns the items that no other of these rows refers to, so that GC roots for them keep all of these
    /// items. With `among`, only its items are considered.
    pub fn heads(&self, among: Option<&HashSet<ItemName>>) -> Vec<ItemName> {
        let is_chosen = |row: &&Row| among.is_none_or(|among| among.contains(&row.name));
        let chosen = || self.items.iter().filter(is_chosen);
        let referred: HashSet<&ItemName> = chosen()
            .flat_map(|row| row.references.iter().filter(|reference| **reference != row.name))
            .collect();
        chosen().map(|row| &row.name).filter(|name| !referred.contains(name)).cloned().collect()
    }
}

/// Quotes a column name as an SQL identifier.
pub(super) fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

/// Returns the outputs of each derivation.
///
/// # Errors
/// If an output is not valid, or listed twice.
pub(super) fn outputs(
    snapshot: &SnapshotDatabase,
) -> Result<HashMap<ItemName, Vec<(String, String)>>> {
    let ids = snapshot.ids()?;
    let mut outputs: HashMap<ItemName, Vec<(String, String)>> = HashMap::new();
    snapshot.each("SELECT drv, id, path FROM DerivationOutputs NOT INDEXED", |row| {
        let Some(name) = ids.get(&row.get(0)?) else { return Ok(()) };
        let (output, path): (String, String) = (row.get(1)?, row.get(2)?);
        check_output(name, &output, &path, snapshot.store_dir)?;
        outputs.entry(name.clone()).or_default().push((output, path));
        Ok(())
    })?;
    for (name, outputs) in &mut outputs {
        outputs.sort_unstable();
        if let Some(twice) = outputs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            bail!("the database contains the output {} of {name} twice", twice[0].0);
        }
    }
    Ok(outputs)
}

/// An open transaction on the live database. Dropped without [`Merge::commit`], it is rolled back.
pub struct Merge {
    connection: Connection,
    /// Items that this transaction makes valid.
    pub added: HashSet<ItemName>,
}

impl Merge {
    /// Opens the live database, which the caller must have locked, and begins a transaction. It will add those
    /// of `rows` whose items have not become valid since they were chosen. With `durable`, the commit waits
    /// until the rows are on the disk.
    ///
    /// # Errors
    /// If the database cannot be opened, or another process keeps writing to it; any error of `cancelled`,
    /// while another process writes.
    pub fn begin(
        layout: &Layout,
        rows: &Rows,
        durable: bool,
        cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let connection = open_read_write(&layout.database())?;
        // Every inserted reference leads to the ID of a row that was just inserted or looked up, so SQLite need
        // not look up both ends again.
        connection.execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768;",
        )?;
        if !durable {
            connection.pragma_update(None, "synchronous", "OFF")?;
        }
        begin_transaction(&connection, cancelled)?;
        let mut added = HashSet::with_capacity(rows.len());
        let mut find = connection.prepare("SELECT 1 FROM ValidPaths WHERE path = ?1")?;
        for Row { name, .. } in &rows.items {
            if !find.exists([layout.path_of(name)])? {
                added.insert(name.clone());
            }
        }
        drop(find);
        Ok(Merge { connection, added })
    }

    /// Inserts the rows of [`Merge::added`].
    ///
    /// # Errors
    /// If a row or a reference cannot be inserted.
    pub fn insert(&self, layout: &Layout, rows: &Rows) -> Result<()> {
        let inserted = self.insert_rows(layout, rows).map_err(of_rows);
        inserted.context("merge rows into the live database")
    }

    fn insert_rows(&self, layout: &Layout, rows: &Rows) -> Result<()> {
        let mut find = self.connection.prepare("SELECT id FROM ValidPaths WHERE path = ?1")?;
        let mut id_of = |name: &ItemName| -> Result<Option<i64>> {
            let mut rows = find.query([layout.path_of(name)])?;
            Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
        };
        let mut added: Vec<(&Row, i64)> = Vec::with_capacity(self.added.len());
        let Some(first) = rows.items.first() else { return Ok(()) };
        // All rows have the same columns.
        let names: Vec<String> = first.values.keys().map(|column| quoted(column)).collect();
        let holes = vec!["?"; names.len()].join(", ");
        let sql = format!("INSERT INTO ValidPaths ({}) VALUES ({holes})", names.join(", "));
        let mut insert = self.connection.prepare(&sql)?;
        for row in rows.items.iter().filter(|row| self.added.contains(&row.name)) {
            added.push((row, insert.insert(params_from_iter(row.values.values()))?));
        }

        let ids: HashMap<&ItemName, i64> = added.iter().map(|(row, id)| (&row.name, *id)).collect();
        let mut insert_reference =
            self.connection.prepare("INSERT INTO Refs (referrer, reference) VALUES (?1, ?2)")?;
        let mut insert_output = self
            .connection
            .prepare("INSERT INTO DerivationOutputs (drv, id, path) VALUES (?1, ?2, ?3)")?;
        for (row, id) in &added {
            for reference in &row.references {
                let target = match ids.get(reference) {
                    Some(id) => Some(*id),
                    None => id_of(reference)?,
                };
                let target = target.with_context(|| {
                    format!("{} needs {reference}, which is not valid", row.name)
                })?;
                insert_reference.execute((id, target))?;
            }
            for (output, path) in &row.outputs {
                insert_output.execute((id, output, path))?;
            }
        }
        Ok(())
    }

    /// Makes the added items valid.
    ///
    /// # Errors
    /// Only if the items did not become valid. The drop afterwards closes the database: a failure to close must
    /// not look like a failure to commit, after which the caller moves the items out of the store again.
    pub fn commit(self, layout: &Layout) -> Result<()> {
        let Merge { connection, added } = self;
        let Err(error) = connection.execute_batch("COMMIT") else { return Ok(()) };
        // COMMIT may have failed in its last step, or in the cleanup after it. The next program that opens the
        // database finds out, and rolls back if necessary. Do this here, while the items are still in the
        // store.
        drop(connection);
        let valid = insist(|| LiveDatabase::open(layout)?.valid(layout));
        match valid {
            Ok(valid) if added.is_subset(&valid) => Ok(()),
            _ => Err(error).context("commit to the live database"),
        }
    }
}

/// Begins a write transaction. Waits for up to [`BUSY`] while another process writes to the database, although
/// the lock says that no process has it open.
fn begin_transaction(connection: &Connection, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    connection.busy_timeout(ASK_AGAIN)?;
    loop {
        cancelled()?;
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Err(e) if is_busy(&e) && started.elapsed() < BUSY => {}
            other => break other.context("begin a transaction in the live database")?,
        }
    }
    connection.busy_timeout(BUSY)?;
    Ok(())
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn empty_database(kind: StoreKind) -> String {
    let (columns, tables) = match kind {
        StoreKind::Nix => (NIX_COLUMNS, ""),
        StoreKind::Guix => ("", GUIX_TABLES),
        StoreKind::Plain => ("", ""),
    };
    [VALID_PATHS, columns, OTHER_TABLES, tables].concat()
}

/// Creates an empty database in `directory`, with the `schema` file that belongs to it.
pub(super) fn create_empty(layout: &Layout, directory: &Path) -> Result<()> {
    let connection = Connection::open(directory.join("db.sqlite"))?;
    connection.execute_batch(&empty_database(layout.kind))?;
    connection.close().map_err(|(_, e)| e)?;
    // Without a newline: the daemon refuses "10\n" as damaged.
    std::fs::write(directory.join("schema"), layout.schema.to_string())?;
    Ok(())
}
