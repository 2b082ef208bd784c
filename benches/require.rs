//! `restore --require` on a store of 5,000 items, compared with the time that Guix takes for the same closure.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench require
//! ```
//!
//! Prints medians of five runs in the same test world, and their ratios. `guix gc -R` lists the closure and does not
//! check the disk; `guix gc --verify` checks that every valid item exists.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::world_runs::{attempt, report};
use support::{Role, World, store_content};

const ROUNDS: usize = 5;
const ITEMS: usize = 5000;

fn main() {
    let world = World::new(Role::Guix);
    world.start_daemon();
    let last = store_content::add_registered_items(&world, ITEMS);
    let last = last.as_str();

    let ours = median(|| {
        let report = report(&attempt(&world, "runner", "restore", &["--require", last]));
        assert_eq!(report["required"][0]["complete"], true, "{report}");
        report["seconds"]["check"].as_f64().unwrap()
    });
    let timed = |words: &[&str]| {
        median(|| {
            let started = Instant::now();
            world.nix(words).ok();
            started.elapsed().as_secs_f64()
        })
    };
    println!("--require, {ITEMS} items: {:.0} ms", ours * 1000.0);
    for words in [["guix", "gc", "-R", last].as_slice(), &["guix", "gc", "--verify"]] {
        let theirs = timed(words);
        let words = words[..3].join(" ");
        println!("{words}: {:.0} ms, {:.1} times as long", theirs * 1000.0, theirs / ours);
    }
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS).map(|_| run()).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}
