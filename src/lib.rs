//! storecache: snapshots of package stores for CI. ARCHITECTURE.md is a map of the crates and folders.
//!
//! This is a library only so that tests can use its modules; the product is the binary.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod action;
pub mod cli;
pub mod commands;
pub mod config;
pub mod report;
