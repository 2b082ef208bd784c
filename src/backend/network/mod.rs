//! Code that all network backends share: connections, timeouts, and secrets.

mod block;
mod engine;
mod secret;
mod wire;

pub use block::Block;
pub use secret::{Secret, host, redacted};
pub use wire::{Fault, LONGEST_WAIT, OLD, Patience, TRIES, Whole, Wire, retry_after, told};
