//! storecache: snapshots of package stores for CI. ARCHITECTURE.md describes the modules.
//!
//! This is a library only so that fuzzers and benchmarks can use the modules; the product is the binary.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod action;
pub mod cli;
pub mod commands;
pub mod config;
pub mod report;
