//! What all backends at the other end of a network have in common: connections, clocks, and secrets.

mod engine;
mod secret;
mod wire;

pub use secret::{Secret, host, redacted};
pub use wire::{Fault, LONGEST_WAIT, OLD, Patience, TRIES, Whole, Wire, retry_after, told};
