//! Worlds for the tests: small isolated machines with a real Nix or Guix of several generations, each with a
//! store of its own that the test may damage.
//!
//! ```ignore
//! let saver = World::with_fixture(Role::New, Fixture::Small);
//! saver.start_daemon();
//! saver.storecache(["save"]).ok();
//!
//! let restorer = World::build(Role::Old).backend(saver.backend()).start();
//! restorer.start_daemon();
//! restorer.storecache(["restore"]).ok();
//! restorer.verify_store();
//! ```
//!
//! A world ends when its value is dropped, and also when the test process is killed. All waits have timeouts.
//! Worlds need root and the output of `scripts/roots`.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports)]

pub mod act;
pub mod azurite;
pub mod background;
pub mod bad_snapshot_env;
pub mod cache_service;
pub mod campaign_record;
mod daemon;
mod daemon_client;
pub mod extract_dir;
pub mod fixture_cache;
pub mod fuzz_seeds;
pub mod git_history;
pub mod golden;
pub mod helper_requests;
pub mod html_text;
pub mod idle_machine;
pub mod invariants;
mod invocation;
pub mod job;
pub mod message_log;
pub mod missing_item;
pub mod object_server;
mod package_manager;
pub mod partial_store;
pub mod pause_at_open;
pub mod plain_env;
pub mod poll;
pub mod procfs;
pub mod programs;
pub mod resource_usage;
pub mod rest_service;
pub mod rng;
mod scratch;
pub mod snapshot_builder;
mod store_checks;
pub mod store_content;
pub mod strace;
pub mod syscall_injector;
pub mod syscalls;
mod tar_recipe;
pub mod terminal;
pub mod tls_proxy;
mod tree;
pub mod workflows;
mod world;
pub mod world_runs;

pub use fixture_cache::{Fixture, Role};
pub use invocation::{Invocation, Output, Running};
pub use package_manager::PackageManager;
pub use scratch::{Backend, Scratch};
pub use store_checks::Registration;
pub use tree::{Entry, tree_digest};
pub use world::{Plan, World};
