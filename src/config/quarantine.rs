//! What becomes of entries that fail their checks.

use crate::files::DirPath;
use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    /// How long they are kept aside, and remembered; for ever when not given.
    pub keep: Option<Duration>,
    /// Directory of the file that remembers those which cannot be moved; nothing is remembered without one.
    pub memory: Option<DirPath>,
}
