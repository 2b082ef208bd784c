//! Code that all network backends share: connections, timeouts, and secrets.

mod client;
mod redact;
mod runtime;
mod upload_block;

pub use client::{CalledOff, RequestError, RetryingClient, Whole, retry_after, told};
pub use redact::redacted;
pub use upload_block::Block;
