//! The configuration of the network backends, which is parsed even if they are not built in.

mod address;
mod github;
mod object_store;
mod secret;

pub use address::{Address, Service};
pub use github::{CacheService, GitHubService, RepositoryOptions, RestApi, repository_name};
pub use object_store::{ObjectStore, SECRETS};
pub use secret::{Secret, host};

use std::time::Duration;

/// Timeouts and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkTimeouts {
    /// Time without a byte after which a connection counts as dead.
    pub stall: Duration,
    /// Time that a server may take before the first byte of its response, while its connection stands.
    pub answer: Duration,
    /// Pause before the second try; it doubles with each further one.
    pub pause: Duration,
    /// Age at which a signed URL is renewed, even if the server still accepts it.
    pub old: Duration,
}

/// Default for [`NetworkTimeouts::old`]. Signed URLs are reported to be valid for 10 minutes
/// (tonistiigi/go-actions-cache#40).
pub const OLD: Duration = Duration::from_secs(8 * 60);
