//! Downtime of the daemon during a restore of 5,000 items.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench downtime
//! ```
//!
//! Prints medians of five restores into an empty store. `downtime` is the time from the stop of the daemon to its
//! first answer; `commit` is the part of it between the end of the daemon and its start. STORECACHE_TEST_BINARY
//! selects another build, for comparisons.

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::Value;
use support::world_runs::{restore, save};
use support::{Role, World, store_content};

const ROUNDS: usize = 5;
const ITEMS: usize = 5000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    for (name, role, container) in [
        ("Nix, bare", Role::Mid, false),
        ("Nix, systemd", Role::Old, true),
        ("Guix, bare", Role::Guix, false),
        ("Guix, systemd", Role::Guix, true),
    ] {
        if !wanted.is_empty() && !wanted.iter().any(|it| name.contains(it.as_str())) {
            continue;
        }
        let plan = World::build(role);
        let world = if container { plan.container().start() } else { plan.start() };
        world.start_daemon();
        store_content::add_registered_items(&world, ITEMS);
        save(&world);
        let reports: Vec<Value> = (0..ROUNDS)
            .map(|_| {
                world.wipe_store();
                assert!(world.daemon_answers());
                let restored = restore(&world);
                assert_eq!(restored["items"]["restored"], ITEMS, "{restored}");
                restored
            })
            .collect();
        let median = |name: &str| {
            let mut all: Vec<f64> =
                reports.iter().map(|it| it["seconds"][name].as_f64().unwrap() * 1000.0).collect();
            all.sort_by(f64::total_cmp);
            let (least, most) = (all[0], all[ROUNDS - 1]);
            format!("{name} {:.0} ms ({least:.0} to {most:.0})", all[ROUNDS / 2])
        };
        println!("{name}, {ITEMS} items: {}, {}", median("downtime"), median("commit"));
    }
}
