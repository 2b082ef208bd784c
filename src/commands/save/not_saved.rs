//! Why a save writes no entry.

use crate::commands::run_error::RunError;
use crate::config::Policy;
use anyhow::Error;
use storecache_backend::{BackendError, Refused};
use storecache_root_helper::HelperError;
use storecache_runtime::advice::Advice;

/// Why a save writes no entry.
pub enum NotSaved {
    /// The policy finds it not worthwhile.
    Unneeded(String, Advice),
    /// The backend does not accept it.
    Refused(Refused),
    /// A step failed.
    Failed(RunError),
}

impl NotSaved {
    /// Returns the reason for the report, with advice, if that is not a failure of the save. A refusal is a failure if the policy
    /// requires a save, unless another run writes the same entry.
    pub fn reason(self, policy: Policy) -> Result<(String, Advice), RunError> {
        match self {
            NotSaved::Unneeded(reason, advice) => Ok((reason, advice)),
            NotSaved::Refused(refused @ Refused::Taken(_)) => Ok(without_advice(&refused)),
            NotSaved::Refused(refused) if policy == Policy::Auto => Ok(without_advice(&refused)),
            NotSaved::Refused(refused) => Err(RunError::Other(refused.into())),
            NotSaved::Failed(error) => Err(error),
        }
    }
}

fn without_advice(refused: &Refused) -> (String, Advice) {
    (refused.to_string(), Advice::default())
}

impl From<RunError> for NotSaved {
    fn from(error: RunError) -> Self {
        NotSaved::Failed(error)
    }
}

impl From<Error> for NotSaved {
    fn from(error: Error) -> Self {
        NotSaved::Failed(error.into())
    }
}

impl From<HelperError> for NotSaved {
    fn from(error: HelperError) -> Self {
        NotSaved::Failed(error.into())
    }
}

impl From<BackendError> for NotSaved {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Refused(refused) => NotSaved::Refused(refused),
            other => NotSaved::Failed(other.into()),
        }
    }
}
