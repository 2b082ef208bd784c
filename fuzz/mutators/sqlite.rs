//! Mutates SQLite files: through SQLite, so that they remain valid, and bytes of a page.

use crate::random::Random;
use libfuzzer_sys::fuzzer_mutate;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Statements that an attacker could have run on a file that a restore reads. `?` is replaced by a number.
const STATEMENTS: &[&str] = &[
    "UPDATE ValidPaths SET path = path || 'x' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET path = '/etc/passwd' WHERE id % 7 = ?",
    "UPDATE ValidPaths SET path = substr(path, 1, 44) || '..' WHERE id % 7 = ?",
    "UPDATE ValidPaths SET path = path || char(0) || 'x' WHERE id % 5 = ?",
    "UPDATE ValidPaths SET path = CAST(path AS BLOB) WHERE id % 5 = ?",
    "UPDATE ValidPaths SET path = CAST(x'2f6e69782f73746f72652fff' AS TEXT) WHERE id % 5 = ?",
    "UPDATE ValidPaths SET hash = NULL WHERE id % 5 = ?",
    "UPDATE ValidPaths SET hash = x'00ff' WHERE id % 5 = ?",
    "UPDATE ValidPaths SET hash = ? WHERE id % 2 = 1",
    "UPDATE ValidPaths SET hash = hash || char(0) || 'x' WHERE id % 2 = ?",
    "UPDATE ValidPaths SET registrationTime = 'yesterday' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET registrationTime = x'61' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET registrationTime = -9223372036854775808 WHERE id % 3 = ?",
    "UPDATE ValidPaths SET registrationTime = 1e300 WHERE id % 3 = ?",
    "UPDATE ValidPaths SET registrationTime = NULL WHERE id % 3 = ?",
    "UPDATE ValidPaths SET narSize = -1 WHERE id % 3 = ?",
    "UPDATE ValidPaths SET narSize = 'large' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET narSize = zeroblob(?) WHERE id % 3 = 1",
    "UPDATE ValidPaths SET deriver = x'00' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET deriver = zeroblob(9000) WHERE id % 3 = ?",
    "UPDATE ValidPaths SET deriver = ? WHERE id % 3 = 1",
    "UPDATE ValidPaths SET sigs = x'ff' WHERE id % 3 = ?",
    "UPDATE ValidPaths SET ca = ? WHERE id % 3 = 1",
    "UPDATE ValidPaths SET id = -id WHERE id % 3 = ?",
    "UPDATE ValidPaths SET id = 9223372036854775807 WHERE id % 11 = ?",
    "INSERT INTO ValidPaths (path, hash, registrationTime) SELECT path || ?, hash, 1 FROM ValidPaths",
    "INSERT INTO ValidPaths (path, hash, registrationTime) SELECT path, hash, ? FROM ValidPaths",
    "INSERT OR IGNORE INTO ValidPaths SELECT * FROM ValidPaths WHERE id > ?",
    "DELETE FROM ValidPaths WHERE id % 3 = ?",
    "DELETE FROM ValidPaths WHERE id > ?",
    "DELETE FROM Refs WHERE referrer % 3 = ?",
    "UPDATE Refs SET reference = referrer WHERE referrer % 3 = ?",
    "UPDATE Refs SET reference = ?",
    "UPDATE Refs SET reference = 'x' WHERE referrer % 3 = ?",
    "UPDATE Refs SET referrer = NULL WHERE referrer % 3 = ?",
    "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.id % 5 = ?",
    "INSERT INTO Refs SELECT * FROM Refs WHERE referrer > ?",
    "INSERT INTO DerivationOutputs SELECT id, 'out' || ?, path FROM ValidPaths",
    "INSERT INTO DerivationOutputs SELECT id, 'out', '/etc/passwd' FROM ValidPaths WHERE id % 3 = ?",
    "INSERT INTO DerivationOutputs SELECT id, 'out', path FROM ValidPaths WHERE id % 3 = ?",
    "INSERT INTO DerivationOutputs SELECT id, x'ff', path FROM ValidPaths WHERE id % 3 = ?",
    "UPDATE DerivationOutputs SET path = x'ff' WHERE drv % 3 = ?",
    "UPDATE DerivationOutputs SET id = NULL WHERE drv % 3 = ?",
    "CREATE TRIGGER tr? AFTER INSERT ON ValidPaths BEGIN DELETE FROM Refs; END",
    "CREATE VIEW v? AS SELECT * FROM ValidPaths",
    "CREATE INDEX ix? ON ValidPaths(length(hash || randomblob(1000)))",
    "CREATE INDEX iy? ON ValidPaths(hash, narSize)",
    "CREATE INDEX iz? ON ValidPaths(path) WHERE narSize > 5",
    "CREATE UNIQUE INDEX iu? ON Refs(referrer, reference)",
    "CREATE TABLE SchemaMigrations (migration)",
    "INSERT INTO SchemaMigrations VALUES (x'ff00')",
    "INSERT INTO SchemaMigrations VALUES (zeroblob(?))",
    "DROP TABLE Refs",
    "DROP TABLE DerivationOutputs",
    "CREATE VIEW Refs AS SELECT id AS referrer, id AS reference FROM ValidPaths",
    "CREATE TABLE Refs (referrer, reference)",
    "CREATE TABLE DerivationOutputs (drv, id, path)",
    "CREATE TABLE t? AS SELECT * FROM ValidPaths",
    "DROP TABLE ValidPaths",
    "DROP TABLE t?",
    "ALTER TABLE t? RENAME TO ValidPaths",
    "ALTER TABLE ValidPaths RENAME TO t?",
    "ALTER TABLE ValidPaths ADD COLUMN extra? TEXT",
    "ALTER TABLE ValidPaths ADD COLUMN \"od\"\"d?\" TEXT",
    "ALTER TABLE ValidPaths ADD COLUMN g? AS (hash || path)",
    "ALTER TABLE ValidPaths ADD COLUMN ca AS (CAST(x'ff' AS TEXT))",
    "ALTER TABLE ValidPaths ADD COLUMN ca TEXT DEFAULT (zeroblob(?))",
    "ALTER TABLE ValidPaths DROP COLUMN narSize",
    "ALTER TABLE ValidPaths DROP COLUMN sigs",
    "ALTER TABLE ValidPaths RENAME COLUMN ca TO registrationtime?",
    "PRAGMA user_version = ?",
    "PRAGMA application_id = ?",
    "PRAGMA auto_vacuum = ?; VACUUM",
    "PRAGMA journal_mode = wal",
    "PRAGMA encoding = 'UTF-16le'; VACUUM",
    "PRAGMA page_size = 1024; VACUUM",
    "VACUUM",
    "ANALYZE",
    "UPDATE sqlite_schema SET sql = replace(sql, 'UNIQUE', '') WHERE name LIKE 'ValidPaths'",
    "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET sql = replace(sql, 'INTEGER', 'BLOB') WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET sql = replace(sql, 'PRIMARY KEY', '') WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET sql = replace(sql, 'hash ', 'hash COLLATE nowhere ') WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET sql = replace(sql, ')', ', CHECK (randomblob(99) > 0))') WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE ValidPaths USING fts5(path)', rootpage = 0 WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET rootpage = ? WHERE rowid % 5 = 2",
    "UPDATE sqlite_schema SET type = 'view', rootpage = 0 WHERE rowid % 5 = ?",
    "UPDATE sqlite_schema SET name = 'ValidPaths' WHERE rowid % 5 = ?",
    "DELETE FROM sqlite_schema WHERE rowid % 5 = ?",
    "DELETE FROM sqlite_schema WHERE name LIKE '%autoindex%' AND rowid % 3 = ?",
];

/// Changes an input of the target `database`, and returns its new size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    match random.below(4) {
        0 => fuzzer_mutate(data, size, max_size),
        1 => {
            // Mutate bytes of one page without moving the others.
            let page = page_size(&data[..size]);
            let pages = (size / page).max(1);
            let at = random.below(pages) * page;
            let end = (at + page).min(size);
            fuzzer_mutate(&mut data[at..end], end - at, end - at);
            size
        }
        _ => match through_sqlite(&data[..size], &mut random) {
            Some(file) if file.len() <= max_size => {
                data[..file.len()].copy_from_slice(&file);
                file.len()
            }
            _ => fuzzer_mutate(data, size, max_size),
        },
    }
}

fn page_size(file: &[u8]) -> usize {
    match file {
        [..] if file.len() > 18 => {
            usize::from(u16::from_be_bytes([file[16], file[17]])).clamp(512, 4096)
        }
        _ => file.len().max(1),
    }
}

fn through_sqlite(file: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    thread_local! {
        static PLACE: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    }
    PLACE.with(|place| {
        let path = place.path().join("mutated.sqlite");
        std::fs::write(&path, file).ok()?;
        let connection = Connection::open(&path).ok()?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).ok()?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = memory; PRAGMA synchronous = off; PRAGMA foreign_keys = off",
            )
            .ok()?;
        let mut changed = false;
        for _ in 0..=random.below(3) {
            let number = random.one_of(&["0", "1", "2", "3", "4", "7", "65536", "-1"]);
            let sql = random.one_of(STATEMENTS).replace('?', number);
            // With `writable_schema`, SQLite accepts changes of the schema table and does not report a
            // malformed schema.
            let writable = "PRAGMA writable_schema = on";
            changed |= connection.execute_batch(&format!("{writable}; {sql}")).is_ok();
        }
        let _ = connection.execute_batch("PRAGMA journal_mode = delete");
        drop(connection);
        for ending in ["-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(format!("{}{ending}", path.display()));
        }
        changed.then(|| std::fs::read(&path).ok())?
    })
}
