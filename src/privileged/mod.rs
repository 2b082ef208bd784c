//! The half that runs as root, and how the other half talks to it.
//!
//! Only this half touches the store, its database and its daemon. It has no network ([`seccomp`]), gets no
//! secret, and takes orders on its standard input only; when that closes it undoes what it began
//! and ends. The room must not know backends: what is read or written elsewhere passes through the
//! other half as frames.
//!
//! - [`client`]: starting the root half and talking to it, for the user's half
//! - [`protocol`]: the messages
//! - [`serve`]: the root half's conversation
//! - [`mandate`]: on whose behalf, and where that is as root
//! - [`surroundings`], [`capabilities`], [`bounds`]: what it inherits, may do, and can be asked
//! - [`share`], [`machine`]: how much memory and how many threads it takes for whom
//! - [`judge`]: what head, index and database of a snapshot have to agree on, for both halves
//! - [`examine`]: how a store and its daemon are, in part for the user's half too
//! - [`guardian`]: the process that undoes a commit and starts the daemon again, whatever happens to the root
//!   half

mod access;
mod bounds;
mod capabilities;
mod check;
pub mod client;
mod commit;
mod content;
mod conversation;
pub mod examine;
mod fault;
mod files;
#[expect(
    clippy::disallowed_methods,
    reason = "both outputs are read by the root helper and the user process"
)]
mod guardian;
mod installed;
pub mod judge;
mod machine;
mod mandate;
mod narrow;
#[expect(
    clippy::disallowed_methods,
    reason = "standard output is the connection to the user process"
)]
mod output;
mod pipe;
pub mod protocol;
mod read_ahead;
mod restore_plain;
mod restore_store;
mod save;
mod seccomp;
#[expect(
    clippy::disallowed_methods,
    reason = "standard output is the connection to the user process"
)]
mod serve;
mod share;
pub mod sudo;
mod surroundings;
mod survey;
mod target;

pub use capabilities::Stage;
pub use fault::{Fault, OfBase};
pub use guardian::{Armed, Brief, Charge, Guardian, Ward, guard, serve_orders};
pub use mandate::{CONFINED_LIMIT, Mandate};
pub use serve::serve;
