//! The demo, as a new user would run it: twice, and beside a store of the machine's own.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::{Fixture, Role, World};

#[test]
fn the_demo_works_twice_and_leaves_the_machines_own_store_alone() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    world.start_daemon();
    let own = (world.store_listing(), world.registrations(), world.daemon_pid());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo");
    let inside = world.host("/tmp/demo");
    fs::copy(script, &inside).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
    for user in ["runner", "root"] {
        let demo = world
            .command(["/tmp/demo", "10"])
            .user(user)
            .env("STORECACHE", "/usr/local/bin/storecache")
            .patience(Duration::from_secs(120))
            .ok();
        for line in ["installs on this machine through apt: nothing", "all is well"] {
            assert!(demo.stdout.contains(line), "{demo}");
        }
        for row in ["filled", "saved", "wiped", "restored", "verified", "used", "again"] {
            assert!(demo.lines().iter().any(|line| line.starts_with(row)), "{demo}");
        }
        assert_eq!(world.sh("ls -A /var/tmp").stdout, "", "it cleans up after itself");
    }
    assert_eq!((world.store_listing(), world.registrations(), world.daemon_pid()), own);
    world.verify_store();
}
