//! Errors on which callers decide.

use super::EntryName;
use std::time::Duration;
use storecache_runtime::advice::Advice;
use storecache_runtime::files::FileKind;

/// Why a backend did not carry out an operation.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It does not carry out the operation, although nothing failed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The entry does not exist.
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl BackendError {
    /// Adds `context` to a failure. The other errors are complete sentences.
    pub(crate) fn context(self, context: impl FnOnce() -> String) -> Self {
        match self {
            BackendError::Failed(error) => BackendError::Failed(error.context(context())),
            other => other,
        }
    }
}

/// An operation that a backend does not carry out, although nothing failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this run cannot read: {0}")]
    Read(String),
    #[error("this run cannot write: {0}")]
    Write(String),
    #[error("entry {0} already exists or is being written by another run")]
    Taken(String),
}

/// No entry has this name, or it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no entry {name} (any more){}", self.instead())]
pub struct Gone {
    pub name: String,
    /// The kind of the file that has the name of the entry in a directory instead.
    pub found: Option<FileKind>,
}

impl Gone {
    pub fn new(name: &EntryName) -> Self {
        Gone { name: name.to_string(), found: None }
    }

    fn instead(&self) -> String {
        self.found.map(|found| format!(": {found} has its name")).unwrap_or_default()
    }
}

/// Why an inventory could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A refusal that the next call would receive as well.
    #[error("{text}")]
    Forbidden {
        text: String,
        #[source]
        advice: Advice,
        /// How long the backend asks the client to wait, if the refusal ends after that.
        wait: Option<Duration>,
    },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}
