//! Code that all network backends share: connections, timeouts, and secrets.

mod client;
mod retry_limits;
mod runtime;
mod secret;
mod upload_block;

pub use client::{
    CalledOff, OLD, Patience, RequestError, RetryingClient, Whole, retry_after, told,
};
pub use retry_limits::{LONGEST_WAIT, REST_TRIES, TRIES};
pub use secret::{Secret, host, redacted};
pub use upload_block::Block;
