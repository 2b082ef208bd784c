//! Why a step of a save or of a restore failed.

use super::open_error::{OpenError, Unusable};
use storecache_backend::BackendError;
use storecache_root_helper::HelperError;
use storecache_root_helper::client::RootFailure;

/// Why a step failed, as far as later steps decide on it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An entry could not be opened.
    #[error(transparent)]
    Entry(#[from] OpenError),
    /// The root helper failed, or could not be reached.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// A restore has no time to try more entries after the failure of the first one.
    #[error("{tried}")]
    NoTime { tried: String, source: Box<RunError> },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<BackendError> for RunError {
    fn from(error: BackendError) -> Self {
        RunError::Other(error.into())
    }
}

impl RunError {
    /// The snapshot that cannot be used, if that is the cause.
    pub fn unusable(&self) -> Option<&Unusable> {
        match self {
            RunError::Entry(OpenError::Unusable(unusable)) => Some(unusable),
            RunError::Entry(OpenError::UnusableBase { source, .. }) => Some(source),
            _ => None,
        }
    }

    /// The failure that the root helper reported, if that is the cause.
    pub fn reported(&self) -> Option<&RootFailure> {
        match self {
            RunError::Helper(HelperError::Failed(failure)) => Some(failure),
            RunError::NoTime { source, .. } => source.reported(),
            RunError::Helper(_) | RunError::Entry(_) | RunError::Other(_) => None,
        }
    }
}
