//! Fuzzes the database of a snapshot and its merge into a live database. An input is the database file; it is
//! one of a Guix store if `/gnu/store` occurs in it, and of a Nix store otherwise. [`is_packed`] decides
//! which items the archive has.

use super::yard::Yard;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use storecache_store::{
    ItemName, Layout, LiveDatabase, Merge, Owner, Rows, SnapshotDatabase, StoreKind, choose,
};

thread_local! {
    static NIX: Live = Live::new(StoreKind::Nix);
    static GUIX: Live = Live::new(StoreKind::Guix);
}

pub fn run(input: &[u8]) -> bool {
    let guix = input.windows(10).any(|bytes| bytes == b"/gnu/store");
    if guix { &GUIX } else { &NIX }.with(|live| live.merge(input))
}

/// Returns whether the archive has the files of an item: true for most names.
pub fn is_packed(name: &ItemName) -> bool {
    !name.as_str().starts_with(['0', '1', '2'])
}

/// A store with a few items.
struct Live {
    layout: Layout,
    yard: Yard,
    /// The content of its database.
    file: Vec<u8>,
    before: Dump,
}

/// The complete content of a database.
#[derive(Debug, PartialEq)]
struct Dump {
    /// Types, names and SQL of all objects in the schema.
    schema: BTreeSet<String>,
    /// Table and values.
    rows: BTreeSet<(String, Vec<String>)>,
}

impl Live {
    fn new(kind: StoreKind) -> Live {
        let yard = Yard::new();
        let layout = Layout::new(kind, &yard.target()).unwrap();
        fs::create_dir_all(layout.database_dir()).unwrap();
        let owner = Owner::find(&layout).unwrap();
        LiveDatabase::create_if_missing(&layout, owner).unwrap();
        let connection = Connection::open(layout.database()).unwrap();
        for (name, reference) in [("libc", "libc"), ("tool", "libc")] {
            let sql = "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?1, ?2, 1)";
            connection.execute(sql, (path(&layout, name), "sha256:00")).unwrap();
            let sql = "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b \
                 WHERE a.path = ?1 AND b.path = ?2";
            connection.execute(sql, (path(&layout, name), path(&layout, reference))).unwrap();
        }
        connection.execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
        drop(connection);
        let file = fs::read(layout.database()).unwrap();
        let before = Dump::new(&layout.database());
        Live { layout, yard, file, before }
    }

    fn snapshot(&self) -> PathBuf {
        self.layout.root.join("snapshot.sqlite")
    }

    fn merge(&self, input: &[u8]) -> bool {
        fs::write(self.layout.database(), &self.file).unwrap();
        fs::write(self.snapshot(), input).unwrap();
        let merged = self.try_merge();
        self.yard.assert_untouched();
        assert_eq!(fs::read(self.snapshot()).unwrap(), input, "it is only read");
        let after = Dump::new(&self.layout.database());
        let Ok(added) = merged else {
            assert_eq!(after, self.before, "a merge that failed left something");
            return false;
        };
        assert_eq!(after.schema, self.before.schema);
        assert!(after.rows.is_superset(&self.before.rows));
        self.assert_whole(&added);
        true
    }

    /// Performs the steps of a restore with the file. Returns the items that became valid.
    fn try_merge(&self) -> anyhow::Result<HashSet<ItemName>> {
        let layout = &self.layout;
        let snapshot = SnapshotDatabase::open(&self.snapshot(), layout)?;
        snapshot.migrations()?;
        let live = LiveDatabase::open(layout)?;
        let items: Vec<ItemName> = snapshot.items()?.into_iter().map(|item| item.name).collect();
        let valid = live.valid(layout)?;
        let choice = choose(&items, &snapshot.references()?, &valid, &is_packed);
        let mut rows = Rows::read(&snapshot, &choice.wanted, Some(&live))?;
        live.check_references()?;
        drop(live);
        rows.drop_unrestorable(&valid);
        rows.heads(None);
        let merge = Merge::begin(layout, &rows, false, &|| Ok(()))?;
        merge.insert(layout, &rows)?;
        let added = merge.added.clone();
        assert!(added.iter().all(|name| is_packed(name) && choice.wanted.contains(name)));
        merge.commit(layout)?;
        Ok(added)
    }

    /// Checks that the daemon could have written the live database.
    fn assert_whole(&self, added: &HashSet<ItemName>) {
        let connection = open(&self.layout.database());
        let text = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(text("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(text("SELECT \"table\" FROM pragma_foreign_key_check"), [""; 0]);
        let paths = text("SELECT path FROM ValidPaths");
        let names = paths.iter().map(|path| ItemName::from_path(path, self.layout.store_dir));
        let names: HashSet<ItemName> = names.map(|name| name.expect("an item")).collect();
        let old = ["libc", "tool"].map(|name| path(&self.layout, name));
        assert_eq!(names.len(), added.len() + old.len());
        assert!(added.is_subset(&names));
        let odd = "SELECT path FROM ValidPaths WHERE typeof(path) != 'text' \
             OR typeof(hash) != 'text' OR typeof(registrationTime) != 'integer' \
             OR typeof(deriver) NOT IN ('text', 'null') OR typeof(narSize) NOT IN ('integer', 'null') \
             UNION SELECT id FROM DerivationOutputs WHERE typeof(id) != 'text' OR typeof(path) != 'text'";
        assert_eq!(text(odd), [""; 0], "values of types that no daemon writes");
    }
}

impl Dump {
    fn new(database: &Path) -> Dump {
        let connection = open(database);
        let rows = |sql: &str| -> Vec<Vec<String>> {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let read = |row: &rusqlite::Row<'_>| {
                (0..columns).map(|at| Ok(format!("{:?}", row.get::<_, Value>(at)?))).collect()
            };
            statement.query_map([], read).unwrap().map(Result::unwrap).collect()
        };
        let schema = rows("SELECT type, name, tbl_name, sql FROM sqlite_schema");
        let mut all = BTreeSet::new();
        // Other tables, such as the counter of AUTOINCREMENT, are ignored.
        for table in ["ValidPaths", "Refs", "DerivationOutputs"] {
            let of_table = rows(&format!("SELECT * FROM {table}"));
            all.extend(of_table.into_iter().map(|values| (table.to_owned(), values)));
        }
        Dump { schema: schema.into_iter().map(|values| values.join(" ")).collect(), rows: all }
    }
}

fn open(database: &Path) -> Connection {
    Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn path(layout: &Layout, name: &str) -> String {
    format!("{}/{}-{name}", layout.store_dir, "b".repeat(32))
}
