//! Whose snapshots are used, and who signs new ones.

use crate::snapshot::{PublicKey, SecretKey};

/// Which snapshots may be used. The default trusts all.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// One of these has to have signed it; without any, signatures do not matter.
    pub keys: Vec<PublicKey>,
    pub origin: OriginTrust,
}

/// Where a snapshot has to come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OriginTrust {
    #[default]
    Any,
    /// Jobs of this repository, `owner/name`.
    SameRepository { repository: String },
    /// The same on this branch, for events that only who may write to the repository can cause.
    DefaultBranchOnly { repository: String, branch: String },
}

/// Who signs what is saved, and what it may build on.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// Nobody without any.
    pub keys: Vec<SecretKey>,
    /// Another snapshot counts as there, and is built on, if this trusts it.
    pub trust: Trust,
}
