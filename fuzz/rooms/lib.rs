//! The modules of storecache that read untrusted data, compiled from the source files of the product.
//!
//! Fuzz targets are built with instrumentation and an address sanitizer, including all dependencies. This
//! crate leaves out the modules for networks and user interfaces, and with them nine tenths of the build.

#[path = "../../src/memory/mod.rs"]
pub mod memory;
#[path = "../../src/daemon/mod.rs"]
pub mod daemon;
#[path = "../../src/disclosure.rs"]
pub mod disclosure;
#[path = "../../src/path_audit.rs"]
pub mod path_audit;
#[path = "../../src/liveness/mod.rs"]
pub mod liveness;
#[path = "../../src/snapshot/mod.rs"]
pub mod snapshot;
#[path = "../../src/store/mod.rs"]
pub mod store;
#[path = "../../src/threads.rs"]
pub mod threads;
#[path = "../../src/retry.rs"]
pub mod retry;
#[path = "../../src/untrusted.rs"]
pub mod untrusted;
#[path = "../../src/writeback.rs"]
pub mod writeback;

/// The programs that may be executed. This crate executes none of them, but records each: see `fake_run`.
#[path = "."]
pub mod system {
    #[path = "../../src/system/child_context.rs"]
    mod child_context;
    #[path = "fake_run.rs"]
    mod fake_run;
    #[path = "../../src/system/programs.rs"]
    mod programs;

    pub use child_context::{Exec, ProcessContext};
    pub use fake_run::{
        Answer, Execution, Kind, answer_with, await_output, await_status, executed, has_herd_stopped,
        output, spawn, start,
    };
    pub use programs::{HerdOrder, OpenProgram, Program, ROOT_PATH, UnitOrder};
}

/// The parts of the module `privileged` for the messages, the decision on rights, and the guardian.
#[path = "."]
// Some items are used only by files of that module that are left out here.
#[allow(dead_code, unused_imports)]
pub mod root_helper {
    #[path = "../../src/root_helper/validate.rs"]
    mod validate;
    #[path = "../../src/root_helper/capabilities.rs"]
    mod capabilities;
    #[path = "../../src/root_helper/connection.rs"]
    mod connection;
    #[path = "../../src/root_helper/failure_kind.rs"]
    mod failure_kind;
    #[path = "../../src/root_helper/snapshot_files.rs"]
    mod snapshot_files;
    #[path = "../../src/root_helper/guardian/mod.rs"]
    mod guardian;
    #[path = "../../src/root_helper/caller.rs"]
    mod caller;
    #[path = "../../src/root_helper/output.rs"]
    mod output;
    #[path = "../../src/root_helper/protocol.rs"]
    pub mod protocol;
    #[path = "../../src/root_helper/sanitize.rs"]
    mod sanitize;
    #[path = "../../src/root_helper/store_context.rs"]
    mod store_context;

    pub use guardian::serve_orders;
    pub use caller::Caller;
}
