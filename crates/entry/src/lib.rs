//! Types that snapshots, keys and backends share.
//!
//! - `digest`: the SHA-256 digests of frames, items and ingredients
//! - `key_ladder`: the exact key and the prefixes that a lookup tries, in order

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod digest;
mod key_ladder;

pub use digest::{Digest, Digester};
pub use key_ladder::{Ladder, Rung};
