//! Tests that need neither root nor a store.

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod cli;
mod comparison;
mod crates;
mod events;
mod executed_programs;
mod exhaustive_kinds;
mod failure_messages;
mod fuzz_corpus;
mod help;
mod html_pages;
mod key;
mod key_simulate;
mod lint;
mod lint_rules;
mod message_flags;
mod process_globals;
mod prose;
mod step_workflow;
mod threat_model;
mod unsafe_files;
mod workflow_hash;
mod workflow_hash_property;
mod workflow_limits;
