//! Decides whether an error is the fault of the snapshot's database or of this machine.

use anyhow::Error;
use rusqlite::ErrorCode;
use rustix::io::Errno;

/// The error context for a failure that the snapshot's database caused, and not the machine that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot's database")]
pub struct BadDatabase;

/// Adds [`BadDatabase`] to an error from reading a snapshot's database, unless it is an I/O or memory error of this
/// machine and not bad data.
pub fn of_snapshot(error: Error) -> Error {
    let machine = error.chain().any(|cause| {
        let code = cause.downcast_ref::<rusqlite::Error>().and_then(|e| e.sqlite_error_code());
        cause.is::<std::io::Error>() || cause.is::<Errno>() || code.is_some_and(of_machine)
    });
    match machine {
        true => error.context("read the snapshot's database"),
        false => error.context(BadDatabase),
    }
}

/// Adds [`BadDatabase`] to an error from merging rows into the live database if the rows are certainly at
/// fault. Otherwise the live database may be damaged, or its disk full.
pub(super) fn of_rows(error: Error) -> Error {
    let rows = error.chain().any(|cause| {
        let code = cause.downcast_ref::<rusqlite::Error>().and_then(|e| e.sqlite_error_code());
        matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch))
    });
    if rows { error.context(BadDatabase) } else { error }
}

/// Whether SQLite failed for a reason that a retry or another machine may not meet. An interruption does not
/// count: storecache itself interrupts SQLite when a database takes more steps than its size can need.
fn of_machine(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PermissionDenied
            | ErrorCode::OperationAborted
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::NoLargeFileSupport
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi::{self, Error as Code};

    fn sqlite(code: i32) -> Error {
        Error::from(rusqlite::Error::SqliteFailure(Code::new(code), None)).context("look into it")
    }

    #[test]
    fn only_content_errors_count_as_database_damage() {
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR] {
            assert!(of_snapshot(sqlite(code)).is::<BadDatabase>(), "{code}");
            assert!(!of_rows(sqlite(code)).is::<BadDatabase>(), "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_PERM,
        ] {
            assert!(!of_snapshot(sqlite(code)).is::<BadDatabase>(), "{code}");
            assert!(!of_rows(sqlite(code)).is::<BadDatabase>(), "{code}");
        }
        assert!(of_snapshot(sqlite(ffi::SQLITE_INTERRUPT)).is::<BadDatabase>());
        assert!(of_rows(sqlite(ffi::SQLITE_CONSTRAINT)).is::<BadDatabase>());
        assert!(!of_snapshot(Error::from(Errno::MFILE)).is::<BadDatabase>());
    }
}
