//! Opens an untrusted database: nothing in it is executed, and reading it takes no more time and memory than
//! its size allows.
//!
//! SQLite executes parts of a database when it has to evaluate them: views, triggers, generated columns, CHECK
//! constraints, indexes on expressions, virtual tables. storecache uses none of these. It reads a few plain
//! tables with full scans, without indexes, and joins them itself; SQLite ignores CHECK constraints of a
//! database that it cannot write to. Everything that has to be read before the shape of the database is known
//! runs under limits and a count of steps.

use super::integrity::check_pages;
use anyhow::{Context, Result, bail};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;

/// The tables that storecache reads, and their columns. The empty list of `ValidPaths` allows all columns: its
/// readers name those that the live database has too.
const READ: [(&str, &[&str]); 4] = [
    ("ValidPaths", &[]),
    ("Refs", &["referrer", "reference"]),
    ("DerivationOutputs", &["drv", "id", "path"]),
    ("SchemaMigrations", &["migration"]),
];
/// SQLite's own tables, by the names that it passes to the authorizer.
const OWN: [&str; 3] = ["sqlite_master", "pragma_table_xinfo", "pragma_table_info"];

/// Larger files are not opened.
const SIZE_LIMIT: u64 = 2 << 30;
/// Bytes of heap that SQLite may use in this process.
const HEAP_LIMIT: u64 = 256 << 20;
/// Steps of SQLite's virtual machine that reading any database may take, plus [`STEPS_PER_BYTE`] for each byte
/// of the file. A row takes about ten steps in each pass, and about twenty bytes.
const STEPS: u64 = 10_000_000;
const STEPS_PER_BYTE: u64 = 20;
/// Number of steps between two calls of the progress handler.
const LOOK: u64 = 10_000;

/// Limits far beyond the needs of any package manager.
const LIMITS: [(Limit, i32); 12] = [
    (Limit::SQLITE_LIMIT_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 64),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
    (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    // Matching a long pattern can take arbitrarily long in a single step, which the progress handler does not
    // see.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    (Limit::SQLITE_LIMIT_SCHEMA, 256),
];

/// Opens a database for reading the known tables, after checking its pages.
///
/// # Errors
/// If it is damaged, or has content that no package manager creates.
pub fn open(path: &Path) -> Result<Connection> {
    let mut connection = locked_down(path)?;
    check_shape(&connection).map_err(told)?;
    check_pages(&connection, "quick_check").map_err(told)?;
    connection.authorizer(Some(allow))?;
    Ok(connection)
}

/// Opens a connection with all limits set, before the first statement.
fn locked_down(path: &Path) -> Result<Connection> {
    let context = || format!("open {}", path.display());
    let size = path.metadata().with_context(context)?.len();
    if size > SIZE_LIMIT {
        bail!("a database of {} MiB is too large", size >> 20);
    }
    // `immutable`: no log and no journal belongs to it, whatever its header claims, and no other process writes
    // to it.
    let uri = format!("file:{}?immutable=1", escaped(path.to_str().with_context(context)?));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(uri, flags).with_context(context)?;
    for (limit, value) in LIMITS {
        connection.set_limit(limit, value)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for off in [
        DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW,
        DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER,
        DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA,
        DbConfig::SQLITE_DBCONFIG_DQS_DDL,
        DbConfig::SQLITE_DBCONFIG_DQS_DML,
    ] {
        connection.set_db_config(off, false)?;
    }
    let mut left = STEPS.saturating_add(size.saturating_mul(STEPS_PER_BYTE)) / LOOK;
    let look = move || {
        left = left.saturating_sub(1);
        left == 0
    };
    connection.progress_handler(LOOK as i32, Some(look))?;
    // The heap limit applies to all connections of the process, and this pragma can only lower it.
    connection.execute_batch(&format!(
        "PRAGMA hard_heap_limit = {HEAP_LIMIT}; \
         PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(connection)
}

/// Refuses a database in which SQLite would have to evaluate code instead of reading plain values.
fn check_shape(connection: &Connection) -> Result<()> {
    let mut statement =
        connection.prepare("SELECT type, name, rootpage, sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    let mut tables: Vec<String> = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, String>(0)? != "table" {
            continue;
        }
        let name: String = row.get(1)?;
        if row.get::<_, Option<i64>>(2)?.unwrap_or(0) <= 0 {
            bail!("the database has the virtual table {name:?}");
        }
        tables.push(name);
    }
    for (table, _) in READ.iter().take(3) {
        if !tables.iter().any(|name| name == table) {
            bail!("the database has no table {table}");
        }
    }
    let mut hidden =
        connection.prepare("SELECT count(*) FROM pragma_table_xinfo(?1) WHERE hidden <> 0")?;
    for table in &tables {
        if hidden.query_row([table], |row| row.get::<_, i64>(0))? > 0 {
            bail!("the table {table:?} of the database has computed columns");
        }
    }
    Ok(())
}

/// Allows what storecache's own statements need. Everything else that a schema could make SQLite do is denied.
fn allow(context: AuthContext<'_>) -> Authorization {
    let known = match context.action {
        AuthAction::Select => true,
        AuthAction::Read { table_name, column_name } => {
            OWN.contains(&table_name)
                || READ.iter().any(|(table, columns)| {
                    *table == table_name
                        && (columns.is_empty()
                            || column_name.is_empty()
                            || columns.contains(&column_name))
                })
        }
        AuthAction::Function { function_name } => function_name == "count",
        AuthAction::Pragma { pragma_name, .. } => pragma_name.starts_with("table_"),
        _ => false,
    };
    if known { Authorization::Allow } else { Authorization::Deny }
}

/// Adds an explanation to an error where SQLite's text says little.
pub fn told(error: anyhow::Error) -> anyhow::Error {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    match code {
        Some(ErrorCode::OperationInterrupted) => {
            error.context("reading the database takes more steps than its size allows")
        }
        Some(ErrorCode::OutOfMemory) => {
            error.context("reading the database takes more memory than its size allows")
        }
        _ => error,
    }
}

/// Escapes a path for use in a URI.
fn escaped(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
