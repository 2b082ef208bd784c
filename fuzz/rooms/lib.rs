//! The rooms of storecache that read what others wrote, from the same files as the product.
//!
//! Fuzz targets are built with instrumentation and an address sanitizer, together with everything that
//! they depend on. This leaves out the rooms that talk to networks and people, and with them nine tenths of
//! the build.

#[path = "../../src/budget/mod.rs"]
pub mod budget;
#[path = "../../src/daemon/mod.rs"]
pub mod daemon;
#[path = "../../src/disclosure.rs"]
pub mod disclosure;
#[path = "../../src/path_audit.rs"]
pub mod path_audit;
#[path = "../../src/pulse/mod.rs"]
pub mod pulse;
#[path = "../../src/snapshot/mod.rs"]
pub mod snapshot;
#[path = "../../src/store/mod.rs"]
pub mod store;
#[path = "../../src/threads.rs"]
pub mod threads;
#[path = "../../src/undo.rs"]
pub mod undo;
#[path = "../../src/untrusted.rs"]
pub mod untrusted;

/// Of the privileged room, the messages and what they are made of.
#[path = "."]
// What only the rest of that room uses.
#[allow(dead_code)]
pub mod privileged {
    #[path = "../../src/privileged/fault.rs"]
    mod fault;
    #[path = "../../src/privileged/mandate.rs"]
    mod mandate;
    #[path = "../../src/privileged/protocol.rs"]
    pub mod protocol;
    #[path = "../../src/privileged/surroundings.rs"]
    mod surroundings;
}
