//! Tests with the programs of others at the other end: `act`, the official cache client, Azurite, an S3 server,
//! actionlint, a browser; and of the released binary.

#[path = "../support/mod.rs"]
mod support;

mod act;
mod act_nix_guix;
mod backend_fallback;
mod docs_examples;
mod doctor;
mod event_secrets;
mod github_cache_service;
mod github_retention;
mod key_suggest;
mod lint_corrections;
mod lint_output;
mod list_usage_prune;
mod memory;
mod object_store;
mod project_workflows;
mod readme_picture;
mod release;
