//! The root helper, and the client with which the user process talks to it.
//!
//! Only the root helper accesses the store, its database and its daemon. It has no network ([`seccomp`]), receives no
//! secrets, and accepts requests only on its standard input; when that is closed, it undoes its changes and ends.
//! This crate must not depend on backends: data that is read from or written to a backend passes through the user
//! process as frames.
//!
//! - [`client`]: starts the root helper and talks to it, for the user process
//! - [`protocol`]: the messages
//! - [`mod@serve`]: the main function of the root helper
//! - [`requester_rights`]: on whose behalf the root helper acts, and where it may use root's rights
//! - [`sanitize`], [`capabilities`], [`seccomp`]: the inherited state that it resets, and the rights that it gives up
//! - [`request_limits`]: limits on what a message may request
//! - [`resource_share`], [`machine_limits`]: how much memory and how many threads it uses for a requester
//! - [`save`], [`restore_store`], [`restore_plain`], [`commit`]: the work itself
//! - [`consistency_checks`]: consistency checks of head, index and database of a snapshot, for both processes
//! - `events`: sends the decisions of the root helper and their reasons to the user process
//! - [`doctor`]: checks of a store and its daemon, partly for the user process too
//! - [`guardian`]: the process that undoes a commit and starts the daemon again, whatever happens to the root helper

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod capabilities;
pub mod client;
mod closure_query;
mod commit;
mod connection;
pub mod consistency_checks;
pub mod doctor;
mod events;
mod failure_kind;
#[expect(
    clippy::disallowed_methods,
    reason = "both outputs are read by the root helper and the user process"
)]
mod guardian;
mod helper_error;
mod installed_path;
mod machine_limits;
mod nonblocking_pipe;
#[expect(
    clippy::disallowed_methods,
    reason = "standard output is the connection to the user process"
)]
mod output;
pub mod protocol;
mod read_ahead;
mod request_limits;
mod requester_rights;
mod resource_share;
mod restore_plain;
mod restore_store;
mod sanitize;
mod save;
mod seccomp;
mod select_items;
#[expect(
    clippy::disallowed_methods,
    reason = "standard output is the connection to the user process"
)]
mod serve;
mod snapshot_files;
mod store_context;
mod store_facts;
pub mod sudo;
mod verify_nar;
mod write_access;

pub use capabilities::Stage;
pub use failure_kind::{FailureKind, OfBase};
pub use guardian::{ArmRequest, Armed, DaemonFound, Guardian, GuardianSetup, guard, serve_orders};
pub use helper_error::HelperError;
pub use requester_rights::{CONFINED_LIMIT, Caller};
pub use serve::serve;
