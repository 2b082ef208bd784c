//! Options for entries that fail their checks.

use std::time::Duration;
use storecache_backend::Denylist;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    /// How long such entries are kept in quarantine or listed as damaged; forever if `None`.
    pub keep: Option<Duration>,
    /// The list of damaged entries which cannot be moved. They are not listed if `None`.
    pub denylist: Option<Denylist>,
}
