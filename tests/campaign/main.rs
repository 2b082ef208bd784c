//! The fault campaign: injects faults at random instants of restores and saves, and asserts that no state is
//! lost.
//!
//! Each part has a fixed seed, which is printed; `STORECACHE_CAMPAIGN_SEED` sets another one.
//! `STORECACHE_CAMPAIGN=long` injects many more faults. `scripts/campaign` runs the long campaign and keeps
//! its results in `record.json`, from which the figures in `docs/faults.md` and the README are made.

#[path = "../support/mod.rs"]
mod support;

mod clock_jumps;
mod contention;
mod kill_target;
mod killed_restores;
mod killed_saves;
mod known_kill_points;
mod power_cuts;
mod ptrace;
mod record;
mod store;
mod syscall_faults;
mod trigger;
