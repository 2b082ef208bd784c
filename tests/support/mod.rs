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
pub mod browser;
pub mod cache;
pub mod cache_service;
mod client;
pub mod corpus;
mod daemon;
pub mod dice;
mod flavour;
pub mod forge;
pub mod gate;
pub mod golden;
pub mod history;
pub mod injector;
pub mod invariants;
mod invocation;
pub mod job;
mod judge;
pub mod lacking;
pub mod memory;
pub mod object_server;
pub mod patient;
pub mod place;
pub mod poll;
pub mod procfs;
pub mod programs;
mod recipe;
pub mod record;
pub mod requests;
pub mod rest_service;
pub mod runs;
mod scratch;
pub mod seeds;
pub mod site;
pub mod strace;
pub mod syscalls;
pub mod terminal;
pub mod tls_front;
mod tree;
pub mod workflows;
mod world;
pub mod yard;

pub use cache::{Fixture, Role};
pub use flavour::Flavour;
pub use invocation::{Invocation, Output, Running};
pub use judge::Registration;
pub use scratch::{Backend, Scratch};
pub use tree::{Entry, tree_digest};
pub use world::{Plan, World};
