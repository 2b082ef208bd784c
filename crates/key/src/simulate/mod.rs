//! Evaluates key policies: replays the runs that git records against a model of GitHub's cache.
//!
//! `github_cache_model.rs` implements GitHub's rules, `policy_keys.rs` computes keys from the files, `replay/`
//! simulates what a job does with both, and `metrics.rs` holds the results. Nothing here reads clocks, stores or
//! backends.

mod github_cache_model;
mod key_policy;
mod metrics;
mod policy_keys;
mod replay;
mod triggers;

pub use github_cache_model::Limits;
pub use key_policy::{KeyPart, KeyPolicy};
pub use metrics::{Best, Counts, Outcome, Point, Rates, Simulation, best};
pub use policy_keys::{KeysAndNeeds, LOCKS, MANIFESTS, PolicyInputs, Read, Workflow};
pub use replay::{Costs, Happening, replay};
pub use triggers::Triggers;
