//! Common parts of all processes of storecache.
//!
//! - [`RunContext`]: phase, last activity, timeouts and cancellation of one run
//! - [`liveness`]: timeouts on silence
//! - [`advice`]: notes and hints that go with an error
//! - [`memory`]: the memory limit of a run, and accounting for bytes
//! - [`untrusted_text`]: escaping of text from snapshots, servers and file names
//! - [`files`], [`path_audit`]: directories that other users may write to, and which accounts can change a path
//! - [`disclosure`]: limits on what is disclosed about other processes
//! - [`process_stat`]: processes and their states, from `/proc`
//! - [`events`]: decisions of a process and their reasons, for diagnosis
//! - [`writeback`]: flushes written data to the disk while more is written
//! - [`retry`], [`threads`], [`standard_error`]: retries, threads, and lines for people
//!
//! This crate depends on no other crate of the workspace.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod advice;
pub mod disclosure;
pub mod events;
pub mod files;
pub mod liveness;
pub mod memory;
pub mod path_audit;
pub mod process_stat;
pub mod retry;
mod run_context;
pub mod standard_error;
pub mod threads;
pub mod untrusted_text;
pub mod writeback;

pub use run_context::RunContext;
