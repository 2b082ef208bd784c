//! How long the daemon is away while a restore brings 5,000 items.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench downtime
//! ```
//!
//! Prints medians of five restores into an empty store: `downtime` is from the stop of the daemon to its
//! first answer, `commit` what of that lies between its end and its start. STORECACHE_TEST_BINARY puts
//! another build in the place of this one, to compare them.

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::Value;
use support::runs::{restore, save};
use support::{Role, World};

const ROUNDS: usize = 5;
const ITEMS: usize = 5000;

/// Makes items with a file and up to eight references each, straight in the database. A fifth of them
/// nobody refers to.
const FILL: &str = r#"
import os, random, sqlite3
random.seed(1)
digits = "0123456789abcdfghijklmnpqrsvwxyz"
owner = os.stat("STORE")
db = sqlite3.connect("STATE/db/db.sqlite")
for i in range(1, ITEMS + 1):
    path = "STORE/" + "".join(random.choices(digits, k=32)) + f"-item-{i}"
    os.mkdir(path)
    open(path + "/file", "w").write(str(i))
    os.chmod(path + "/file", 0o444)
    os.chmod(path, 0o555)
    for name in [path, path + "/file"]:
        os.chown(name, owner.st_uid, owner.st_gid)
    row = (i, path, "sha256:" + "0" * 64, 1, 400)
    db.execute("insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?, ?, ?, ?, ?)", row)
    for reference in {random.randint(max(1, i - 200), i) for _ in range(8)}:
        if reference % 5 or reference == i:
            db.execute("insert into Refs values (?, ?)", (i, reference))
db.commit()
"#;

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
        // The daemon makes the database for the first client.
        assert!(world.daemon_answers());
        fill(&world);
        save(&world);
        let told: Vec<Value> = (0..ROUNDS)
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
                told.iter().map(|it| it["seconds"][name].as_f64().unwrap() * 1000.0).collect();
            all.sort_by(f64::total_cmp);
            let (least, most) = (all[0], all[ROUNDS - 1]);
            format!("{name} {:.0} ms ({least:.0} to {most:.0})", all[ROUNDS / 2])
        };
        println!("{name}, {ITEMS} items: {}, {}", median("downtime"), median("commit"));
    }
}

fn fill(world: &World) {
    let script = FILL
        .replace("ITEMS", &ITEMS.to_string())
        .replace("STORE", world.store())
        .replace("STATE", world.state());
    // Where the store is mounted read-only, in a namespace of its own.
    let writable =
        format!("mount -o remount,bind,rw {0} 2>/dev/null; exec python3 -", world.store());
    std::fs::write(world.host("/tmp/fill.py"), script).unwrap();
    world.ok(["unshare", "--mount", "bash", "-c", &format!("{writable} </tmp/fill.py")]);
}
