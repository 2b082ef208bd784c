//! SQLite's checks of the pages of a database: they find damage, or an unreadable disk.

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::ffi;

/// Checks each page with the pragma `check`, such as `quick_check`.
///
/// # Errors
/// If the database is damaged. If the disk cannot be read, the error is SQLite's own I/O error instead.
pub(super) fn check_pages(connection: &Connection, check: &str) -> Result<()> {
    let sql = format!("PRAGMA {check}(1)");
    let verdict: String = connection.query_row(&sql, [], |row| row.get(0))?;
    judge(&verdict)
}

fn judge(verdict: &str) -> Result<()> {
    if verdict == "ok" {
        return Ok(());
    }
    if let Some(code) = unread(verdict) {
        let text = format!("disk I/O error, code {code}, while SQLite checked the pages");
        bail!(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text)));
    }
    bail!("SQLite reports a damaged database: {}", verdict.replace('\n', "; "));
}

/// Returns the I/O error code in the result of a check, if there is one: an unreadable page is not damage.
/// Source: SQLite `src/btree.c`, `checkTreePage`.
fn unread(verdict: &str) -> Option<i32> {
    let (_, code) = verdict.split_once("unable to get the page. error code=")?;
    let digits = code.split(|c: char| !c.is_ascii_digit()).next()?;
    // The lower byte is the kind of error (`https://sqlite.org/rescode.html`).
    digits.parse().ok().filter(|code| code & 0xff == ffi::SQLITE_IOERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BadDatabase;
    use crate::db_error::of_snapshot;

    #[test]
    fn page_read_error_is_not_damage() {
        let found =
            "*** in database main ***\nTree 12 page 12: unable to get the page. error code=";
        let error = |code: i32| of_snapshot(judge(&format!("{found}{code}")).unwrap_err());
        assert!(!error(ffi::SQLITE_IOERR_CORRUPTFS).is::<BadDatabase>());
        assert!(format!("{:#}", error(ffi::SQLITE_IOERR_READ)).contains("disk I/O error"));
        assert!(error(ffi::SQLITE_CORRUPT).is::<BadDatabase>());
    }
}
