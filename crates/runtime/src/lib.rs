//! What every process of storecache uses: timeouts on silence, memory limits, threads, and the escaping of text
//! from others.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod disclosure;
pub mod files;
pub mod liveness;
pub mod memory;
pub mod path_audit;
pub mod retry;
pub mod standard_error;
pub mod threads;
pub mod untrusted;
pub mod writeback;
