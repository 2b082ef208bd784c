//! Why an entry cannot be opened.

use super::trust::Untrusted;
use storecache_backend::{BackendError, EntryName, Gone};
use storecache_snapshot::SnapshotError;

/// Why an entry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No entry has that name any more.
    #[error(transparent)]
    Gone(Gone),
    /// It is a delta whose base is missing or known to be bad, so it cannot be restored.
    #[error("its base {base} is {state}")]
    BaseGone { base: EntryName, state: String },
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("its base {base}")]
    UntrustedBase { base: EntryName, source: Untrusted },
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("its base")]
    UnusableBase { base: EntryName, source: Unusable },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Gone(gone) => OpenError::Gone(gone),
            other => OpenError::Other(other.into()),
        }
    }
}

/// A snapshot whose head or index cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot {name} cannot be used")]
pub struct Unusable {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub source: Defect,
}

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The transfer may have been truncated, so this does not prove that the entry is damaged.
    #[error("{0}, and it may be truncated, because its size is not known")]
    PossiblyTruncated(SnapshotError),
}

impl Unusable {
    /// Whether the file itself is at fault, so that every other reader would fail too.
    pub fn is_damaged(&self) -> bool {
        match &self.source {
            Defect::Snapshot(error) => error.is_damage(),
            Defect::PossiblyTruncated(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::entry_fallback::RejectReason;
    use crate::commands::run_error::RunError;
    use anyhow::anyhow;
    use storecache_runtime::advice::in_one_line;

    fn unusable(source: Defect) -> Unusable {
        Unusable { name: "snapshot".into(), size: 1, source }
    }

    #[test]
    fn damaged_entry_is_rejected_and_unreadable_entry_is_not() {
        let base = EntryName::parse("key.20261122T095500.000000Z").unwrap();
        let damaged = || SnapshotError::Damaged("no".into());
        let newer = SnapshotError::NewerFormat { what: "head", found: 9 };
        let reject = |error: OpenError| {
            let text = in_one_line(&error);
            (RejectReason::from_error(&RunError::from(error), None), text)
        };
        let at = |base| Some(RejectReason::Damaged { base, frame: None });
        assert_eq!(
            reject(unusable(damaged().into()).into()),
            (at(None), "the snapshot snapshot cannot be used: damaged: no".into())
        );
        let source = unusable(damaged().into());
        assert_eq!(
            reject(OpenError::UnusableBase { base: base.clone(), source }),
            (at(Some(base)), "its base: the snapshot snapshot cannot be used: damaged: no".into())
        );
        let truncated = unusable(Defect::PossiblyTruncated(damaged()));
        let text = "the snapshot snapshot cannot be used: damaged: no, and it may be truncated, \
                    because its size is not known";
        assert_eq!(reject(truncated.into()), (None, text.into()));
        assert_eq!(reject(unusable(newer.into()).into()).0, None);
        let failed = anyhow!("refused").context("open its base");
        assert_eq!(reject(failed.into()), (None, "open its base: refused".into()));
    }
}
