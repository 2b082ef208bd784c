//! The fault campaign: what is broken on purpose at random instants of restores and saves, and that no state is
//! lost by it.
//!
//! Each part has a fixed seed, which is printed, and `STORECACHE_CAMPAIGN_SEED` is another one.
//! `STORECACHE_CAMPAIGN=long` makes many more faults. `scripts/campaign` runs that and keeps what came of it in
//! `record.json`, of which the table in the README is made.

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod kills;
mod moment;
mod named;
mod power;
mod readme;
mod saves;
mod scene;
mod trace;
mod victim;
