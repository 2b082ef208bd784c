//! How often failed requests are repeated, and how long a run waits for that at most.

use std::time::Duration;

/// How often a request to the cache service, a blob server or an object store is made before its failure is final.
#[cfg(feature = "network")]
pub const REQUEST_TRIES: u32 = 5;

/// How often a request to GitHub's REST API is made before its failure is final. It is made less often than others: jobs
/// make it when their work is done, and should not be kept waiting.
#[cfg(feature = "github")]
pub const REST_REQUEST_TRIES: u32 = 3;

/// How often a range of an entry renews its URL because the server refuses it.
#[cfg(feature = "github")]
pub const URL_RENEWALS: u32 = 2;

/// How often a list of GitHub's REST API is read if it shows fewer entries than it states.
#[cfg(feature = "github")]
pub const LIST_READINGS: u32 = 2;

/// The longest `Retry-After` that a save or restore waits for: a job should rather run without its cache.
#[cfg(feature = "network")]
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How often `prune` tries to delete an entry if the backend asks to retry later.
pub const DELETION_TRIES: u32 = 3;

/// The longest `Retry-After` that `prune` waits for.
pub const LONGEST_DELETION_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Number of consecutive failures after which `prune` stops, because the next deletion would fail too.
pub const DELETION_FAILURES: usize = 3;
