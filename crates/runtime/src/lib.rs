//! Code that every process of storecache uses: stall timeouts, memory limits, threads, and the escaping of untrusted
//! text.

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
