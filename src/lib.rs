//! storecache: snapshots of package stores for CI. ARCHITECTURE.md describes the modules.
//!
//! This is a library only so that fuzzers and benchmarks can use the modules; the product is the binary.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod action;
pub mod backend;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod disclosure;
pub mod files;
pub mod key;
pub mod liveness;
pub mod memory;
pub mod path_audit;
pub mod report;
pub mod retry;
pub mod root_helper;
pub mod snapshot;
pub mod standard_error;
pub mod store;
pub mod system;
pub mod threads;
pub mod untrusted;
pub mod writeback;
