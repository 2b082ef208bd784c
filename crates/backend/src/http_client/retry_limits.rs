//! How often requests are retried, and how long a retry waits at most.

use std::time::Duration;

/// How often a request to the cache service, a blob server or an object store is made before its failure is final.
pub const TRIES: u32 = 5;

/// How often a request to GitHub's REST API is made before its failure is final. It is tried less often than others,
/// because a job that waits for it has done all its work.
pub const REST_TRIES: u32 = 3;

/// The longest `Retry-After` to wait for: a job should rather run without its cache.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
