//! The savings of a delta and of a restore onto most of a store, compared with a full save and a full restore.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench delta
//! ```
//!
//! Uses a Nix store of 2,000 items, with entries in a directory on the same disk. Prints medians of five rounds; each
//! round runs everything once.

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::Value;
use support::world_runs::{restore, run, save};
use support::{Role, World, store_content};

const ROUNDS: usize = 5;
const ITEMS: usize = 2000;
/// 3 % of them.
const NEW: usize = 60;

fn main() {
    let world = World::new(Role::Mid);
    world.start_daemon();
    store_content::add_random_items(&world, 1, ITEMS, 4);
    let base = save(&world);
    store_content::add_random_items(&world, 2, NEW, 4);
    let mut reports = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        // In this order, each delta is on the base that was saved before the items were added.
        let full = run(&world, "runner", "save", &["--full"]);
        let file = format!("{}.tar.zst", full["entry"].as_str().unwrap());
        std::fs::remove_file(world.backend().host_path().join(file)).unwrap();
        let delta = save(&world);
        assert_eq!(delta["base"]["entry"], base["entry"], "{delta}");
        world.wipe_store();
        let whole = restore(&world);
        assert_eq!(whole["items"]["restored"], ITEMS + NEW);
        let gone = store_content::keep_percent_of_leaves(&world, 90);
        let rest = restore(&world);
        assert_eq!(rest["items"]["restored"], gone.len());
        for (all, one) in reports.iter_mut().zip([full, delta, whole, rest]) {
            all.push(one);
        }
    }
    let [full, delta, whole, rest] = reports;
    line("save", "full", &full, "3 % new", &delta, "snapshot");
    line("restore", "all", &whole, "90 % present", &rest, "downloaded");
}

/// Prints medians of seconds and of a number of bytes, and their ratios.
fn line(verb: &str, a: &str, all: &[Value], b: &str, some: &[Value], bytes: &str) {
    let number = |reports: &[Value], group: &str, name: &str| {
        let mut numbers: Vec<f64> =
            reports.iter().map(|report| report[group][name].as_f64().unwrap()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    let seconds = [all, some].map(|reports| number(reports, "seconds", "total"));
    let sizes = [all, some].map(|reports| number(reports, "bytes", bytes) / 1e6);
    println!(
        "{verb}: {a} {:.2} s, {:.1} MB; {b} {:.2} s, {:.2} MB; {:.1} times as fast, 1/{:.1} of the bytes",
        seconds[0],
        sizes[0],
        seconds[1],
        sizes[1],
        seconds[0] / seconds[1],
        sizes[0] / sizes[1],
    );
    let phases = ["lookup", "download", "unpack", "commit", "downtime", "verify", "pack", "upload"];
    for (what, reports) in [(a, all), (b, some)] {
        let parts = phases.map(|phase| format!("{phase} {:.3}", number(reports, "seconds", phase)));
        println!("  {what}: {}", parts.join(", "));
    }
}
