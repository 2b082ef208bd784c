//! What a way to make keys would have come to: the runs that git remembers, replayed against a model of
//! GitHub's cache.
//!
//! `cache.rs` has GitHub's rules, `policy.rs` makes keys of what the files were, `replay.rs` is what a job
//! does with both, and `outcome.rs` what is told of it. Nothing here reads clocks, stores or backends.

mod cache;
mod outcome;
mod policy;
mod replay;
mod triggers;

pub use cache::Limits;
pub use outcome::{Best, Counts, Outcome, Point, Rates, Simulation, best};
pub use policy::{LOCKS, MANIFESTS, Meaning, Read, Recipe, Workflow};
pub use replay::{Costs, Happening, replay};
pub use triggers::Triggers;
