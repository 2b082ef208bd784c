//! GitHub workflow files with positions, and what of a job can change a store.
//!
//! - `yaml`: YAML documents with the position of every node
//! - `workflow`: triggers, jobs and steps
//! - `file_source`: the files that a workflow and a key are read from
//! - `find_store_workflow`: the workflow of a project that caches a store
//! - `cache_steps`: the steps that cache a store
//! - `semantic`: the parts of a job that can change the store, in canonical form

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

pub mod cache_steps;
pub mod file_source;
mod find_store_workflow;
pub mod semantic;
pub mod workflow;
pub mod yaml;

pub use file_source::{Pattern, Tree, WorkTree};
pub use find_store_workflow::store_workflow;
pub use semantic::{Canonical, CanonicalLine, Dropped, Unreadable};
