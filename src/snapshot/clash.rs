//! Whose fault it is that the kernel refuses a member.
//!
//! A staging directory is ours alone and empty at first: names that clash there, and ways that lead through
//! links or out of it, are the snapshot's doing. A full disk is not.

use super::SnapshotError;
use rustix::io::Errno;

/// The error as damage of the snapshot where only its members can have caused it; else as it was.
pub fn blamed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Errno>() {
        Some(&Errno::EXIST) => SnapshotError::damaged("it appears twice").into(),
        Some(&(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::XDEV)) => {
            SnapshotError::damaged(format!("{error:#}")).into()
        }
        _ => error,
    }
}

/// The same of a hard link, whose target has to be among the members.
pub fn blamed_link(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Errno>() {
        Some(&Errno::NOENT) => SnapshotError::damaged("a hard link to nothing").into(),
        _ => blamed(error),
    }
}
