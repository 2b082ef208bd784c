//! Why a request to the root helper failed.

use super::client::{Cancelled, Ended, RootFailure};
use super::sudo::{NoRoot, SudoRefusal};
use anyhow::anyhow;
use storecache_runtime::liveness::TimedOut;

/// Why the root helper could not be started, or did not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The root helper reported a failure.
    #[error(transparent)]
    Failed(#[from] RootFailure),
    /// The run was canceled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The root helper showed no activity for too long.
    #[error(transparent)]
    TimedOut(Box<TimedOut>),
    /// It ended without a reply.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// sudo did not start it.
    #[error(transparent)]
    SudoRefused(#[from] SudoRefusal),
    /// sudo did not start it, and the store belongs to root.
    #[error(transparent)]
    NoRoot(Box<NoRoot>),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl HelperError {
    /// The root helper sent another reply than the protocol allows here. `expected` is the name of the reply.
    pub fn unexpected_reply(expected: &str) -> Self {
        anyhow!("unexpected reply from the root helper (expected `{expected}`)").into()
    }
}

impl From<NoRoot> for HelperError {
    fn from(no_root: NoRoot) -> Self {
        HelperError::NoRoot(no_root.into())
    }
}

impl From<TimedOut> for HelperError {
    fn from(timed_out: TimedOut) -> Self {
        HelperError::TimedOut(timed_out.into())
    }
}
