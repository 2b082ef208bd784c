//! What SQLite says of the pages of a database, and whether the bytes are at fault or the disk.

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::ffi;

/// Looks at each page; `check` is one of SQLite's pragmas that do.
///
/// # Errors
/// When the database is damaged, or could not be read: then as SQLite's own error of the disk.
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
        let text = format!("disk I/O error, code {code}, as SQLite looked at each page");
        bail!(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text)));
    }
    bail!("SQLite finds the database damaged: {}", verdict.replace('\n', "; "));
}

/// The code of an error of the disk in what a check has found: that is no damage.
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
    use crate::store::{BadDatabase, culprit::of_snapshot};

    #[test]
    fn a_page_that_the_disk_did_not_give_is_no_damage() {
        let found =
            "*** in database main ***\nTree 12 page 12: unable to get the page. error code=";
        let error = |code: i32| of_snapshot(judge(&format!("{found}{code}")).unwrap_err());
        assert!(!error(ffi::SQLITE_IOERR_CORRUPTFS).is::<BadDatabase>());
        assert!(format!("{:#}", error(ffi::SQLITE_IOERR_READ)).contains("disk I/O error"));
        assert!(error(ffi::SQLITE_CORRUPT).is::<BadDatabase>());
    }
}
