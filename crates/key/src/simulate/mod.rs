//! Evaluates key policies: replays the runs that git records against a model of GitHub's cache.
//!
//! `cache.rs` implements GitHub's rules, `policy.rs` computes keys from the files, `replay.rs` simulates what
//! a job does with both, and `metrics.rs` holds the results. Nothing here reads clocks, stores or backends.

mod cache;
mod key_policy;
mod metrics;
mod policy;
mod replay;
mod triggers;

pub use cache::Limits;
pub use key_policy::{KeyPart, KeyPolicy};
pub use metrics::{Best, Counts, Outcome, Point, Rates, Simulation, best};
pub use policy::{KeysAndNeeds, LOCKS, MANIFESTS, PolicyInputs, Read, Workflow};
pub use replay::{Costs, Happening, replay};
pub use triggers::Triggers;
