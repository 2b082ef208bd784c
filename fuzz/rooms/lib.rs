//! The modules of storecache that read untrusted data, compiled from the source files of the product.
//!
//! Fuzz targets are built with instrumentation and an address sanitizer, including all dependencies. This
//! crate leaves out the modules for networks and user interfaces, and with them nine tenths of the build.

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
#[path = "../../src/writeback.rs"]
pub mod writeback;

/// The programs that may be executed. This crate executes none of them, but records each: see `fake_run`.
#[path = "."]
pub mod system {
    #[path = "../../src/system/context.rs"]
    mod context;
    #[path = "fake_run.rs"]
    mod fake_run;
    #[path = "../../src/system/programs.rs"]
    mod programs;

    pub use context::{Exec, ProcessContext};
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
pub mod privileged {
    #[path = "../../src/privileged/bounds.rs"]
    mod bounds;
    #[path = "../../src/privileged/capabilities.rs"]
    mod capabilities;
    #[path = "../../src/privileged/conversation.rs"]
    mod conversation;
    #[path = "../../src/privileged/fault.rs"]
    mod fault;
    #[path = "../../src/privileged/files.rs"]
    mod files;
    #[path = "../../src/privileged/guardian/mod.rs"]
    mod guardian;
    #[path = "../../src/privileged/mandate.rs"]
    mod mandate;
    #[path = "../../src/privileged/output.rs"]
    mod output;
    #[path = "../../src/privileged/protocol.rs"]
    pub mod protocol;
    #[path = "../../src/privileged/surroundings.rs"]
    mod surroundings;
    #[path = "../../src/privileged/target.rs"]
    mod target;

    pub use guardian::serve_orders;
    pub use mandate::Mandate;
}
