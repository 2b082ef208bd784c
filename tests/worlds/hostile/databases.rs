//! Databases with malicious SQL, corrupt pages and values that no store has. They are read or refused; nothing
//! in them is evaluated, and the cost of reading them is bounded by their size.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use storecache_store::{ItemName, Layout, Rows, SnapshotDatabase, StoreKind};
use tempfile::TempDir;

/// An expression that fails wherever it is evaluated.
const FAILING_EXPRESSION: &str = "abs(-9223372036854775807 - 1)";

const SCHEMA: &str = "
    CREATE TABLE ValidPaths (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT UNIQUE NOT NULL,
        hash TEXT NOT NULL, registrationTime INTEGER NOT NULL, deriver TEXT, narSize INTEGER,
        ultimate INTEGER, sigs TEXT, ca TEXT);
    CREATE TABLE Refs (
        referrer INTEGER NOT NULL, reference INTEGER NOT NULL, PRIMARY KEY (referrer, reference));
    CREATE INDEX IndexReferrer ON Refs(referrer);
    CREATE TABLE DerivationOutputs (
        drv INTEGER NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (drv, id));
    CREATE TABLE SchemaMigrations (migration TEXT PRIMARY KEY NOT NULL);";

/// As [`SCHEMA`], without any constraints.
const SCHEMA_WITHOUT_CONSTRAINTS: &str = "
    CREATE TABLE ValidPaths (id, path, hash, registrationTime, deriver, narSize, sigs, ca);
    CREATE TABLE Refs (referrer, reference);
    CREATE TABLE DerivationOutputs (drv, id, path);";

/// The number of items in a good database.
const ITEMS: usize = 3;

fn name(number: usize) -> String {
    format!("{number:032}-item-{number}")
}

fn fill() -> String {
    let rows = (1..=ITEMS).map(|n| {
        let hash = format!("sha256:{}", format!("{n:x}").repeat(64));
        let (path, before) = (name(n), n.saturating_sub(1).max(1));
        format!(
            "INSERT INTO ValidPaths (id, path, hash, registrationTime, deriver, narSize) \
             VALUES ({n}, '/nix/store/{path}', '{hash}', {n}, NULL, 100);
             INSERT INTO Refs VALUES ({n}, {before});"
        )
    });
    rows.collect()
}

/// An SQLite file in a directory of its own.
struct DatabaseFile {
    directory: TempDir,
}

impl DatabaseFile {
    fn new(before: &str, schema: &str) -> DatabaseFile {
        let base = DatabaseFile { directory: tempfile::tempdir().unwrap() };
        base.run(&format!("{before}; {schema}; {}", fill()));
        base
    }

    fn good() -> DatabaseFile {
        DatabaseFile::new("", SCHEMA)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("db.sqlite")
    }

    fn run(&self, sql: &str) -> &DatabaseFile {
        let connection = Connection::open(self.path()).unwrap();
        connection.execute_batch(sql).unwrap_or_else(|e| panic!("{e}: {sql:.300}"));
        self
    }

    /// Writes SQL into the schema that SQLite would have refused.
    fn rewrite(&self, name: &str, sql: &str) -> &DatabaseFile {
        let connection = Connection::open(self.path()).unwrap();
        let script = "PRAGMA writable_schema = ON";
        connection.execute_batch(script).unwrap();
        let changed = connection
            .execute("UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1", [name, sql])
            .unwrap();
        assert_eq!(changed, 1);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

/// Reads all that a restore reads and returns the number of items.
fn read(path: &Path) -> anyhow::Result<usize> {
    let layout = Layout::new(StoreKind::Nix, Path::new("/"))?;
    let database = SnapshotDatabase::open(path, &layout)?;
    let items = database.items()?;
    database.references()?;
    database.migrations()?;
    let names: Vec<ItemName> = items.into_iter().map(|item| item.name).collect();
    let rows = Rows::read(&database, &names, None)?;
    assert_eq!(rows.len(), names.len());
    Ok(names.len())
}

#[track_caller]
fn harmless(what: &str, base: &DatabaseFile) {
    let before = (base.bytes(), names_in(base));
    let items = read(&base.path()).unwrap_or_else(|e| panic!("{what}: {e:#}"));
    assert_eq!(items, ITEMS, "{what}");
    assert_eq!((base.bytes(), names_in(base)), before, "{what}: something was written");
}

#[track_caller]
fn refused(what: &str, base: &DatabaseFile, words: &str) {
    let before = (base.bytes(), names_in(base));
    let error = match read(&base.path()) {
        Ok(_) => panic!("{what}: it was read"),
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains(words), "{what}: {error}");
    assert_eq!((base.bytes(), names_in(base)), before, "{what}: something was written");
}

fn names_in(base: &DatabaseFile) -> Vec<String> {
    let names = fs::read_dir(base.directory.path()).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn extra_triggers_views_and_functions_never_run() {
    let base = DatabaseFile::good();
    harmless("nothing", &base);
    base.run(&format!(
        "CREATE TRIGGER evil AFTER INSERT ON ValidPaths BEGIN SELECT {FAILING_EXPRESSION}; DELETE FROM Refs; END;
         CREATE TRIGGER gone BEFORE DELETE ON ValidPaths BEGIN SELECT {FAILING_EXPRESSION}; END;
         CREATE TRIGGER other AFTER UPDATE OF hash ON ValidPaths BEGIN
             INSERT INTO ValidPaths (path, hash, registrationTime) VALUES ('/etc', 'x', 1); END;
         CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT count(*) FROM n;
         CREATE VIEW loader AS SELECT load_extension('/tmp/evil.so'), readfile('/etc/passwd');
         CREATE TABLE more (x DEFAULT ({FAILING_EXPRESSION}), y);
         INSERT INTO more VALUES (1, zeroblob(30000000));"
    ));
    harmless("triggers and views", &base);
    // Nix has a table of realisations, and newer versions may have more tables.
    base.run("CREATE TABLE Realisations (id INTEGER PRIMARY KEY, outputPath INTEGER NOT NULL)");
    harmless("another table", &base);
}

#[test]
fn checks_indexes_and_defaults_are_not_evaluated() {
    let table = SCHEMA.trim().split(';').next().unwrap();
    for (what, sql) in [
        (
            "a check",
            table.replace("ca TEXT)", &format!("ca TEXT, CHECK ({FAILING_EXPRESSION} = 1))")),
        ),
        (
            "a check that no row fulfils",
            table.replace("ca TEXT)", "ca TEXT, CHECK (narSize = -5))"),
        ),
        (
            "a check that is slow",
            table.replace("ca TEXT)", "ca TEXT, CHECK (hex(zeroblob(400000)) LIKE '%0%1%'))"),
        ),
    ] {
        let base = DatabaseFile::good();
        base.rewrite("ValidPaths", &sql);
        harmless(what, &base);
    }
    // SQLite evaluates the default for rows with fewer columns than the table.
    let base = DatabaseFile::good();
    base.rewrite(
        "ValidPaths",
        &table.replace("ca TEXT)", &format!("ca TEXT DEFAULT ({FAILING_EXPRESSION}))")),
    );
    refused("a default", &base, "not authorized to use function: abs");
    let base = DatabaseFile::good();
    base.rewrite(
        "IndexReferrer",
        &format!("CREATE INDEX IndexReferrer ON Refs({FAILING_EXPRESSION})"),
    );
    harmless("an index on an expression", &base);
    let base = DatabaseFile::good();
    let partial = format!(
        "CREATE INDEX IndexReferrer ON Refs(referrer) WHERE {FAILING_EXPRESSION} IS NOT NULL"
    );
    base.rewrite("IndexReferrer", &partial);
    harmless("an index on some rows", &base);
    // Rows of an index that are not in the table are ignored.
    let base = DatabaseFile::good();
    base.run("CREATE INDEX wrong ON ValidPaths(path, id)");
    base.rewrite("wrong", "CREATE INDEX wrong ON ValidPaths(hash, narSize)");
    harmless("an index of other columns", &base);
}

#[test]
fn computed_columns_views_and_virtual_tables_are_refused() {
    let table = SCHEMA.trim().split(';').next().unwrap();
    for kind in ["VIRTUAL", "STORED"] {
        let base = DatabaseFile::good();
        base.rewrite(
            "ValidPaths",
            &table.replace("ca TEXT", &format!("ca TEXT AS ({FAILING_EXPRESSION}) {kind}")),
        );
        refused(kind, &base, "computed");
    }
    let base = DatabaseFile::good();
    base.run(&format!("CREATE TABLE beside (x, y NOT NULL AS ({FAILING_EXPRESSION}))"));
    refused("a computed column beside", &base, "computed");
    for (what, sql, words) in [
        (
            "a view",
            "ALTER TABLE Refs RENAME TO r; CREATE VIEW Refs AS SELECT * FROM r",
            "no table Refs",
        ),
        (
            "an endless view",
            "DROP TABLE Refs; CREATE VIEW Refs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 \
             FROM n) SELECT i AS referrer, i AS reference FROM n",
            "no table Refs",
        ),
        (
            "a virtual table",
            "DROP TABLE Refs; CREATE VIRTUAL TABLE Refs USING fts5(referrer, reference)",
            "virtual table \"Refs\"",
        ),
        (
            "a virtual table beside",
            "CREATE VIRTUAL TABLE beside USING rtree(id, a, b)",
            "virtual table",
        ),
        (
            "the database as a table",
            "CREATE VIRTUAL TABLE beside USING dbstat(main)",
            "virtual table",
        ),
        ("no table", "DROP TABLE DerivationOutputs", "no table DerivationOutputs"),
        ("another column", "ALTER TABLE ValidPaths RENAME COLUMN narSize TO n", "narSize"),
        ("no column", "DROP TABLE Refs; CREATE TABLE Refs (a, b)", "referrer"),
    ] {
        let base = DatabaseFile::good();
        base.run(sql);
        refused(what, &base, words);
    }
    let base = DatabaseFile::good();
    base.rewrite("ValidPaths", "CREATE VIRTUAL TABLE ValidPaths USING fts5(path)");
    refused("a virtual table over a real one", &base, "");
    let base = DatabaseFile::good();
    base.rewrite(
        "IndexReferrer",
        "CREATE INDEX IndexReferrer ON Refs(load_extension('/tmp/evil.so'))",
    );
    refused("an index that loads a library", &base, "");
}

#[test]
fn inconsistent_schema_is_refused() {
    for (what, sql) in [
        (
            "a table twice",
            "INSERT INTO sqlite_schema SELECT * FROM sqlite_schema WHERE name = 'Refs'",
        ),
        ("text for SQL", "UPDATE sqlite_schema SET sql = 'CREATE TABLE (((' WHERE name = 'Refs'"),
        (
            "two tables on one page",
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema \
            WHERE name = 'ValidPaths') WHERE name = 'Refs'",
        ),
        (
            "a table on the page of the schema",
            "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'Refs'",
        ),
        ("a table beyond the end", "UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'Refs'"),
        ("a table on no page", "UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'Refs'"),
        ("a table below zero", "UPDATE sqlite_schema SET rootpage = -7 WHERE name = 'Refs'"),
        (
            "a statement that runs",
            "UPDATE sqlite_schema SET sql = 'ATTACH ''/tmp/storecache-canary'' AS x' WHERE name = 'Refs'",
        ),
        (
            "two statements",
            "UPDATE sqlite_schema SET sql = sql || '; DROP TABLE ValidPaths' WHERE name = 'Refs'",
        ),
        (
            "SQL of 100 KiB",
            "UPDATE sqlite_schema SET sql = sql || ' --' || hex(zeroblob(50000)) WHERE name = 'Refs'",
        ),
        (
            "a name that is a blob",
            "UPDATE sqlite_schema SET name = x'ff' WHERE name = 'IndexReferrer'",
        ),
    ] {
        let base = DatabaseFile::good();
        base.run(&format!("PRAGMA writable_schema = ON; {sql}"));
        refused(what, &base, "");
    }
    assert!(!Path::new("/tmp/storecache-canary").exists());
    let base = DatabaseFile::good();
    let tables: String = (0..300).map(|n| format!("CREATE TABLE t{n} (x);")).collect();
    base.run(&tables);
    refused("300 tables", &base, "");
    let base = DatabaseFile::good();
    let columns: Vec<String> = (0..200).map(|n| format!("c{n}")).collect();
    base.run(&format!("CREATE TABLE wide ({})", columns.join(",")));
    refused("200 columns", &base, "");
}

#[test]
fn invalid_column_values_are_refused() {
    let one = "WHERE id = 2";
    for (set, words) in [
        ("hash = 'sha256:xyz'", "hash"),
        ("hash = ''", "hash"),
        ("hash = x'00'", ""),
        ("hash = 'md5:00000000000000000000000000000000'", "hash"),
        ("registrationTime = 'yesterday'", ""),
        ("registrationTime = -5", "registrationTime"),
        ("registrationTime = 1e300", ""),
        ("narSize = 'large'", ""),
        ("narSize = -1", "narSize"),
        ("narSize = 9e18 * 9", ""),
        ("deriver = '/etc/passwd'", "deriver"),
        ("deriver = x'ff'", "deriver"),
        ("deriver = '/nix/store/../../etc'", "deriver"),
        ("sigs = char(10) || 'x'", "sigs"),
        ("sigs = x'17'", "sigs"),
        ("ca = x'00'", "ca"),
        ("ca = hex(zeroblob(40000))", "ca"),
        ("path = CAST(x'2f6e69782f73746f72652fff' AS TEXT)", ""),
        ("path = path || char(0)", "not an item path"),
        ("path = '/nix/store/' || hex(zeroblob(2000000))", ""),
        ("path = path || '/below'", "not an item path"),
    ] {
        let base = DatabaseFile::good();
        base.run(&format!("UPDATE ValidPaths SET {set} {one}"));
        refused(set, &base, words);
    }
    for (row, words) in [
        ("2, 'out', '/etc/passwd'", "output"),
        ("2, 'out', '/nix/store/..'", "output"),
        ("2, '../out', '/nix/store/00000000000000000000000000000001-item-1'", "output"),
        ("2, '', '/nix/store/00000000000000000000000000000001-item-1'", "output"),
        ("2, x'ff', '/nix/store/00000000000000000000000000000001-item-1'", ""),
    ] {
        let base = DatabaseFile::good();
        base.run(&format!("INSERT INTO DerivationOutputs VALUES ({row})"));
        refused(row, &base, words);
    }
    let base = DatabaseFile::good();
    base.run("INSERT INTO Refs VALUES (2, 99)");
    refused("a reference to nothing", &base, "missing row");
    let base = DatabaseFile::good();
    base.run(
        "INSERT INTO Refs VALUES (99, 2); INSERT INTO DerivationOutputs VALUES (99, 'x', 'y')",
    );
    harmless("rows that refer to a missing item", &base);
}

#[test]
fn duplicate_rows_are_refused_without_constraints() {
    harmless(
        "no keys",
        &DatabaseFile::new(
            "",
            &format!("{SCHEMA_WITHOUT_CONSTRAINTS}; CREATE TABLE SchemaMigrations (migration)"),
        ),
    );
    for (what, sql, words) in [
        ("an id twice", "UPDATE ValidPaths SET id = 1", "two items"),
        ("an id that is not a number", "UPDATE ValidPaths SET id = 'one' WHERE id = 1", ""),
        ("no id", "UPDATE ValidPaths SET id = NULL", ""),
        ("a path twice", "UPDATE ValidPaths SET path = (SELECT min(path) FROM ValidPaths)", "twice"),
        ("a reference twice", "INSERT INTO Refs SELECT * FROM Refs", "twice"),
        ("a reference in words", "UPDATE Refs SET reference = 'two'", ""),
        (
            "a million rows out of two thousand",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO Refs SELECT 1, 1 FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO ValidPaths SELECT 1, path, hash, 1, NULL, 1, NULL, NULL FROM ValidPaths, n LIMIT 2000",
            "twice",
        ),
    ] {
        let base = DatabaseFile::new("", SCHEMA_WITHOUT_CONSTRAINTS);
        base.run(sql);
        refused(what, &base, words);
    }
}

#[test]
fn every_page_size_and_encoding_is_read() {
    for pragma in [
        "page_size = 512",
        "page_size = 65536",
        "encoding = 'UTF-16le'",
        "encoding = 'UTF-16be'",
        "auto_vacuum = FULL",
        "auto_vacuum = INCREMENTAL",
        "secure_delete = ON",
    ] {
        harmless(pragma, &DatabaseFile::new(&format!("PRAGMA {pragma}"), SCHEMA));
    }
    for size in [0u16, 3, 256, 513, 0xFFFF] {
        let base = DatabaseFile::good();
        let mut bytes = base.bytes();
        bytes[16..18].copy_from_slice(&size.to_be_bytes());
        fs::write(base.path(), bytes).unwrap();
        refused(&format!("pages of {size}"), &base, "");
    }
}

#[test]
fn wal_and_journal_files_beside_a_database_are_ignored() {
    // The log alone has the deletion of all rows.
    let live = DatabaseFile::good();
    live.run("PRAGMA journal_mode = WAL");
    let keeps_open = Connection::open(live.path()).unwrap();
    keeps_open
        .execute_batch("PRAGMA wal_autocheckpoint = 0; DELETE FROM Refs; DELETE FROM ValidPaths")
        .unwrap();
    let base = DatabaseFile::good();
    for file in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
        fs::copy(live.directory.path().join(file), base.directory.path().join(file)).unwrap();
    }
    assert!(
        base.bytes()[18] == 2
            && fs::metadata(base.directory.path().join("db.sqlite-wal")).unwrap().len() > 0
    );
    harmless("a log", &base);
    drop(keeps_open);
    // A journal of a transaction that was never finished: SQLite would roll it back.
    let live = DatabaseFile::good();
    let writer = Connection::open(live.path()).unwrap();
    writer
        .execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; UPDATE ValidPaths SET hash = 'x'; \
             CREATE TABLE large (x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
             INSERT INTO large SELECT zeroblob(9000) FROM n")
        .unwrap();
    let base = DatabaseFile::good();
    let journal = "db.sqlite-journal";
    fs::copy(live.directory.path().join(journal), base.directory.path().join(journal)).unwrap();
    harmless("a journal", &base);
    // A header that refers to a log which does not exist.
    let base = DatabaseFile::good();
    let mut bytes = base.bytes();
    (bytes[18], bytes[19]) = (2, 2);
    fs::write(base.path(), bytes).unwrap();
    harmless("a log that is not there", &base);
    let link = DatabaseFile::good();
    fs::rename(link.path(), link.directory.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", link.path()).unwrap();
    assert!(read(&link.path()).is_err(), "a link in its place");
}

/// Returns an inner page of a table with these children.
fn inner_page(size: usize, at: usize, children: &[u32]) -> Vec<u8> {
    let mut page = vec![0; size];
    page[at] = 5;
    page[at + 3..at + 5].copy_from_slice(&(children.len() as u16 - 1).to_be_bytes());
    let (last, rest) = children.split_last().unwrap();
    page[at + 8..at + 12].copy_from_slice(&last.to_be_bytes());
    let mut end = size;
    for (number, child) in rest.iter().enumerate() {
        end -= 5;
        page[end..end + 4].copy_from_slice(&child.to_be_bytes());
        page[end + 4] = number as u8 % 128;
        let pointer = at + 12 + 2 * number;
        page[pointer..pointer + 2].copy_from_slice(&(end as u16).to_be_bytes());
    }
    page[at + 5..at + 7].copy_from_slice(&(end as u16).to_be_bytes());
    page
}

#[test]
fn cyclic_pages_are_refused_in_bounded_time() {
    // The list of free pages is a cycle.
    let base = DatabaseFile::new("PRAGMA page_size = 512", SCHEMA);
    base.run(
        "CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(300000)); DROP TABLE large",
    );
    let mut bytes = base.bytes();
    let trunk = u32::from_be_bytes(bytes[32..36].try_into().unwrap());
    assert!(trunk > 0);
    let at = (trunk as usize - 1) * 512;
    bytes[at..at + 4].copy_from_slice(&trunk.to_be_bytes());
    fs::write(base.path(), bytes).unwrap();
    refused("free pages", &base, "damaged");
    // A table is its own child.
    for table in ["ValidPaths", "Refs"] {
        let base = DatabaseFile::new("PRAGMA page_size = 512", SCHEMA);
        let root = root_of(&base, table);
        let mut bytes = base.bytes();
        let at = (root as usize - 1) * 512;
        bytes[at..at + 512].copy_from_slice(&inner_page(512, 0, &[root; 40]));
        fs::write(base.path(), bytes).unwrap();
        refused(table, &base, "");
    }
}

/// Returns a page of the schema with one row, which may occur more than once: an index that SQLite creates
/// itself.
fn leaf_of_schema(size: usize, root: u32) -> Vec<u8> {
    let texts = ["index", "sqlite_autoindex_ValidPaths_1", "ValidPaths"];
    let types = texts.map(|text| 13 + 2 * text.len() as u8);
    let mut record = vec![6, types[0], types[1], types[2], 1, 13];
    record.extend(texts.concat().bytes());
    record.push(root as u8);
    let cell = [&[record.len() as u8, 99][..], &record].concat();
    let start = size - cell.len();
    let mut page = vec![0; size];
    page[..8].copy_from_slice(&[13, 0, 0, 0, 1, (start >> 8) as u8, start as u8, 0]);
    page[8..10].copy_from_slice(&(start as u16).to_be_bytes());
    page[start..].copy_from_slice(&cell);
    page
}

/// Sixteen levels of pages with a hundred links each to the next level: 100^16 paths through seventy kilobytes.
/// SQLite reads the schema before anything can be checked, so only a count of steps can end it.
#[test]
fn schema_with_exponential_paths_is_refused_in_bounded_time() {
    const SIZE: usize = 4096;
    let base = DatabaseFile::good();
    let root = root_of(&base, "sqlite_autoindex_ValidPaths_1");
    let mut bytes = base.bytes();
    let pages = (bytes.len() / SIZE) as u32;
    // The real schema moves to a page of its own, with its header at the offset that other pages use.
    let mut real = bytes[..SIZE].to_vec();
    let rows = u16::from_be_bytes([real[103], real[104]]) as usize;
    real.copy_within(100..108 + 2 * rows, 0);
    bytes.extend(real);
    let mut children = vec![pages + 2; 100];
    children[0] = pages + 1;
    let top = inner_page(SIZE, 100, &children);
    bytes[100..SIZE].copy_from_slice(&top[100..]);
    for level in 0..16 {
        bytes.extend(inner_page(SIZE, 0, &[pages + 3 + level; 100]));
    }
    bytes.extend(leaf_of_schema(SIZE, root));
    let count = (bytes.len() / SIZE) as u32;
    bytes[28..32].copy_from_slice(&count.to_be_bytes());
    fs::write(base.path(), bytes).unwrap();
    refused("a schema", &base, "more steps than its size allows");
}

fn root_of(base: &DatabaseFile, table: &str) -> u32 {
    let connection = Connection::open(base.path()).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    connection.query_row(sql, [table], |row| row.get(0)).unwrap()
}

#[test]
fn corrupted_databases_never_panic() {
    let good = DatabaseFile::new("PRAGMA page_size = 512", SCHEMA).bytes();
    let base = DatabaseFile::good();
    let mut state = 99_991u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=round % 8 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        if round % 5 == 0 {
            bytes.truncate(random() % bytes.len());
        }
        fs::write(base.path(), &bytes).unwrap();
        let _ = read(&base.path());
        assert_eq!(names_in(&base), ["db.sqlite"]);
    }
}

#[test]
fn too_large_database_is_not_opened() {
    let base = DatabaseFile::good();
    fs::File::options().write(true).open(base.path()).unwrap().set_len(3 << 30).unwrap();
    let error = format!("{:#}", read(&base.path()).unwrap_err());
    assert!(error.contains("3072 MiB"), "{error}");
}
