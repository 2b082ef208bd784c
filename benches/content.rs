//! The cost of `restore --verify content`, compared with a restore without it and with the time that Nix takes to
//! hash the same store.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench content
//! ```
//!
//! Prints medians of five restores of a full store of Debian packages into an empty store, and their ratio.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::world_runs::{run, save};
use support::{Fixture, Role, World};

const ROUNDS: usize = 5;

fn main() {
    let world = World::with_fixture(Role::Mid, Fixture::Full);
    world.start_daemon();
    save(&world);
    let (mut plain, mut checked, mut hashing) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        for (more, seconds) in [(&[][..], &mut plain), (&["--verify", "content"], &mut checked)] {
            world.wipe_store();
            let report = run(&world, "runner", "restore", more);
            seconds.push(report["seconds"]["total"].as_f64().unwrap());
            hashing.extend(report["seconds"]["content"].as_f64());
            bytes = report["bytes"]["unpacked"].as_u64().unwrap();
        }
    }
    let started = Instant::now();
    world.nix(["nix-store", "--verify", "--check-contents"]).ok();
    let theirs = started.elapsed().as_secs_f64();
    let (plain, checked, hashing) = (median(plain), median(checked), median(hashing));
    println!(
        "{} MB restored: {plain:.2} s, with --verify content {checked:.2} s",
        bytes / 1_000_000
    );
    println!("{:.2} times as long; hashing took {hashing:.2} s", checked / plain);
    println!("nix-store --verify --check-contents: {theirs:.2} s");
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
