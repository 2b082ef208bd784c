//! Code that all network backends share: connections, timeouts, and secrets.

mod block_buffer;
mod redact;
mod retrying_client;
mod runtime;

pub use block_buffer::Block;
pub use redact::redacted;
pub use retrying_client::{CalledOff, RequestError, RetryingClient, Whole, retry_after, told};
