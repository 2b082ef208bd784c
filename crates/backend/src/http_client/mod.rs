//! Code that all network backends share: connections, timeouts, and secrets.

mod client;
mod runtime;
mod secret;
mod upload_block;

pub use client::{
    LONGEST_WAIT, OLD, Patience, RequestError, RetryingClient, TRIES, Whole, retry_after, told,
};
pub use secret::{Secret, host, redacted};
pub use upload_block::Block;
