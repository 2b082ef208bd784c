//! Whether the snapshot is at fault in a failure: derived from typed errors, and reported to the user process.

use super::protocol::SnapshotRole;
use serde::{Deserialize, Serialize};
use storecache_snapshot::SnapshotError;
use storecache_store::BadDatabase;

/// Whether a failure is the fault of the snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// It is not, as far as is known.
    #[default]
    Other,
    /// The bytes of this file are at fault.
    Damaged {
        which: SnapshotRole,
        /// The frame whose bytes differ from those that the index describes, if that is the only damage.
        frame: Option<u32>,
    },
}

/// Marks an error as one of the base of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the base of the snapshot")]
pub struct OfBase;

impl FailureKind {
    pub fn from_error(error: &anyhow::Error) -> Self {
        let which = if error.is::<OfBase>() { SnapshotRole::Base } else { SnapshotRole::Entry };
        let typed = error.chain().find_map(|cause| cause.downcast_ref::<SnapshotError>());
        match typed.or_else(|| error.downcast_ref()) {
            Some(&SnapshotError::WrongFrame(frame)) => {
                FailureKind::Damaged { which, frame: Some(frame) }
            }
            Some(other) if other.is_damage() => FailureKind::Damaged { which, frame: None },
            Some(_) => FailureKind::Other,
            None if error.is::<BadDatabase>() => FailureKind::Damaged { which, frame: None },
            None => FailureKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, Error, anyhow};

    #[test]
    fn damage_is_classified_through_nested_contexts() {
        let damaged = |which, frame| FailureKind::Damaged { which, frame };
        let of = |error: Error| FailureKind::from_error(&error);
        let bad = || Error::from(SnapshotError::Damaged("x".into()));
        assert_eq!(of(bad()), damaged(SnapshotRole::Entry, None));
        assert_eq!(of(bad().context("a").context(OfBase)), damaged(SnapshotRole::Base, None));
        let frame = Error::from(SnapshotError::WrongFrame(7)).context("a").context("b");
        assert_eq!(of(frame), damaged(SnapshotRole::Entry, Some(7)));
        assert_eq!(of(anyhow!("x").context(BadDatabase)), damaged(SnapshotRole::Entry, None));
        let format = SnapshotError::NewerFormat { what: "head", found: 9 };
        assert_eq!(of(format.into()), FailureKind::Other);
        let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(of(SnapshotError::Io(broken).into()), FailureKind::Other);
        assert_eq!(of(anyhow!("damaged: x")), FailureKind::Other);
        let nested: Result<(), _> = Err(bad());
        assert_eq!(of(nested.context("outer").unwrap_err()), damaged(SnapshotRole::Entry, None));
    }
}
