//! `key simulate` on 10,000 commits with 200 edits of the workflow.
//!
//! ```text
//! cargo bench --bench simulate
//! ```
//!
//! Prints the median of five runs, and the time that git alone takes to list the same commits and their changes.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::git_history::history_of_ten_thousand_commits;

const ROUNDS: usize = 5;

fn main() {
    let repository = history_of_ten_thousand_commits().write();
    let commits = repository.simulate(&["--since", "2y"])["runs"]["total"].clone();
    let ours = median(|| drop(repository.attempt(&["--since", "2y", "--json"]).ok()));
    let git = median(|| drop(repository.git(&["log", "--raw", "--no-renames", "--format=%H"])));
    println!("key simulate, {commits} commits: {ours:.2} s");
    println!("git log --raw: {git:.2} s");
}

fn median(mut run: impl FnMut()) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        run();
        started.elapsed().as_secs_f64()
    });
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}
