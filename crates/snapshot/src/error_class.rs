//! Classifying errors of the kernel during an extraction: whether the snapshot caused them.
//!
//! A staging directory is private to storecache and empty at first. So only the snapshot can cause name clashes
//! there, or paths that lead through links or out of the directory. A full disk is not the fault of the
//! snapshot.

use super::SnapshotError;
use rustix::io::Errno;

/// Converts the error to damage of the snapshot if only its members can have caused it; returns it unchanged
/// otherwise.
pub fn blamed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Errno>() {
        Some(&Errno::EXIST) => SnapshotError::damaged("it appears twice").into(),
        Some(&(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::XDEV)) => {
            SnapshotError::damaged(format!("{error:#}")).into()
        }
        _ => error,
    }
}

/// As [`blamed`], for a hard link, whose target has to be a member too.
pub fn blamed_link(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Errno>() {
        Some(&Errno::NOENT) => SnapshotError::damaged("a hard link to a missing file").into(),
        _ => blamed(error),
    }
}
