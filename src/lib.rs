//! storecache: snapshots of package stores for CI. ARCHITECTURE.md describes the modules.
//!
//! This is a library only so that fuzzers and benchmarks can use the modules; the product is the binary.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod action;
pub mod backend;
pub mod budget;
pub mod cli;
pub mod command;
pub mod daemon;
pub mod disclosure;
pub mod files;
pub mod key;
pub mod options;
pub mod path_audit;
pub mod privileged;
pub mod pulse;
pub mod report;
pub mod snapshot;
pub mod store;
pub mod system;
pub mod threads;
pub mod undo;
pub mod untrusted;
pub mod writeback;
