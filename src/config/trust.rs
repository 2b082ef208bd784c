//! Which snapshots are trusted, and which keys sign new snapshots.

use storecache_snapshot::{PublicKey, SecretKey};

/// Which snapshots may be used. The default trusts all snapshots.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A snapshot must be signed with one of these keys; if empty, signatures are not checked.
    pub keys: Vec<PublicKey>,
    pub origin: OriginTrust,
}

/// Accepted origins of snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OriginTrust {
    #[default]
    Any,
    /// Jobs of this repository, `owner/name`.
    SameRepository { repository: String },
    /// Jobs of this repository on this branch, started by events that only users with write access can cause.
    DefaultBranchOnly { repository: String, branch: String },
}

/// Keys that sign new snapshots, and which snapshots they may be based on.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// New snapshots are not signed if empty.
    pub keys: Vec<SecretKey>,
    /// Another snapshot counts as existing, and as a possible base, only if it is trusted.
    pub trust: Trust,
}
