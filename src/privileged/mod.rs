//! The half that runs as root, and how the other half talks to it.
//!
//! Only this half touches the store, its database and its daemon. It knows no network, gets no
//! secret, and takes orders on its standard input only; when that closes it undoes what it began
//! and ends. The room must not know backends: what is read or written elsewhere passes through the
//! other half as frames.
//!
//! - [`client`]: starting the root half and talking to it, for the user's half
//! - [`protocol`]: the messages
//! - [`serve`]: the root half's conversation
//! - [`examine`]: how a store and its daemon are, in part for the user's half too
//! - [`guardian`]: the process that starts the daemon again, whatever happens to the root half

mod access;
mod check;
pub mod client;
mod commit;
mod content;
mod conversation;
pub mod examine;
mod files;
mod guardian;
mod narrow;
pub mod protocol;
mod restore_plain;
mod restore_store;
mod save;
mod serve;
mod survey;
mod target;

pub use guardian::{Brief, Guardian, guard};
pub use serve::serve;
