//! The errors of backends that a command decides on.

use storecache_backend::{Forbidden, Gone, Refused};

/// Why a backend did not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No entry has that name any more.
    #[error(transparent)]
    Gone(Gone),
    /// The backend does not allow it, although nothing failed.
    #[error(transparent)]
    Refused(Refused),
    /// The service refuses further requests.
    #[error(transparent)]
    Forbidden(Forbidden),
    #[error(transparent)]
    Other(anyhow::Error),
}

impl From<anyhow::Error> for BackendError {
    fn from(error: anyhow::Error) -> Self {
        let other = match error.downcast() {
            Ok(gone) => return BackendError::Gone(gone),
            Err(other) => other,
        };
        let other = match other.downcast() {
            Ok(refused) => return BackendError::Refused(refused),
            Err(other) => other,
        };
        other.downcast().map_or_else(BackendError::Other, BackendError::Forbidden)
    }
}
