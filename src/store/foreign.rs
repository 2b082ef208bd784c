//! Opening a database that somebody else has made: nothing in it runs, and reading it takes no more than its
//! size allows.
//!
//! What is in a database runs when SQLite has to evaluate it: views, triggers, generated columns, CHECK
//! constraints, indexes on expressions, virtual tables. None of that is asked for here: a few plain tables
//! are read from one end to the other, past all indexes, and joined by us; constraints are not even parsed
//! where nothing can be written. Whatever has to be looked at
//! before that is known runs under limits, and is counted.

use super::integrity::check_pages;
use anyhow::{Context, Result, bail};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;

/// The tables that are read, and of each the columns. Of the first one these are all that the live database
/// has too: whoever reads it names them.
const READ: [(&str, &[&str]); 4] = [
    ("ValidPaths", &[]),
    ("Refs", &["referrer", "reference"]),
    ("DerivationOutputs", &["drv", "id", "path"]),
    ("SchemaMigrations", &["migration"]),
];
/// What SQLite keeps of itself, as it calls that.
const OWN: [&str; 3] = ["sqlite_master", "pragma_table_xinfo", "pragma_table_info"];

/// A larger file is not opened.
const SIZE_LIMIT: u64 = 2 << 30;
/// Bytes that SQLite may take in this process.
const HEAP_LIMIT: u64 = 256 << 20;
/// Steps of SQLite's machine that any database may take, and besides that for each byte of it. A row takes
/// some ten in each pass, and twenty bytes.
const STEPS: u64 = 10_000_000;
const STEPS_PER_BYTE: u64 = 20;
/// How many steps lie between two looks.
const LOOK: u64 = 10_000;

/// Far from what any package manager needs.
const LIMITS: [(Limit, i32); 12] = [
    (Limit::SQLITE_LIMIT_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 64),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
    (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    // A long pattern takes time without end, in one step.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    (Limit::SQLITE_LIMIT_SCHEMA, 256),
];

/// Opens a database for reading the known tables, after checking it page by page.
///
/// # Errors
/// When it is damaged, or holds what no package manager makes.
pub fn open(path: &Path) -> Result<Connection> {
    let mut connection = locked_down(path)?;
    check_shape(&connection).map_err(told)?;
    check_pages(&connection, "quick_check").map_err(told)?;
    connection.authorizer(Some(allow))?;
    Ok(connection)
}

/// A connection on which nothing was asked yet.
fn locked_down(path: &Path) -> Result<Connection> {
    let context = || format!("open {}", path.display());
    let size = path.metadata().with_context(context)?.len();
    if size > SIZE_LIMIT {
        bail!("a database of {} MiB is too large", size >> 20);
    }
    // No log and no journal belongs to it, whatever its header says, and nobody else writes to it.
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
    // The limit of the heap is one for all connections, and never becomes larger by this.
    connection.execute_batch(&format!(
        "PRAGMA hard_heap_limit = {HEAP_LIMIT}; \
         PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(connection)
}

/// Refuses what would be evaluated where plain values should be read.
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
            bail!("the table {table:?} of the database has columns that are computed");
        }
    }
    Ok(())
}

/// What a statement of ours may touch; whatever else a schema would have it do is denied.
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

/// The error in words of ours, where SQLite's say little.
pub fn told(error: anyhow::Error) -> anyhow::Error {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    match code {
        Some(ErrorCode::OperationInterrupted) => {
            error.context("reading the database takes more steps than one of its size can need")
        }
        Some(ErrorCode::OutOfMemory) => {
            error.context("reading the database takes more memory than one of its size can need")
        }
        _ => error,
    }
}

/// A path in a URI.
fn escaped(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
