//! Records of stopped daemons in a store, where older versions of storecache left them.

use std::fs;

use super::attacker::{LEAVE_MARK, assert_nothing_ran_as_root, confined, save_and_lose_an_item};
use crate::support::{Role, world_runs};

/// Such a record is ignored and reported, although it belongs to root as those of older versions do.
fn record_in_the_store_is_ignored(role: Role, place: &str) {
    let world = confined(role);
    let lost = save_and_lose_an_item(&world);
    world.stop_daemon();
    world.wait_until_idle();
    let staging = format!("{place}/.storecache-1");
    fs::create_dir(world.host(&staging)).unwrap();
    let command = serde_json::json!({ "stop": "true", "start": LEAVE_MARK, "run_as": null });
    let record = serde_json::json!({ "daemon": { "command": command }, "mount": null }).to_string();
    fs::write(world.host(&staging).join(".stopped"), record).unwrap();

    let restored = world_runs::attempt(&world, "runner", "restore", &["--daemon-timeout", "3"]);
    assert_nothing_ran_as_root(&world);
    let restored = world_runs::report(&restored.ok());
    let warnings = restored["warnings"].to_string();
    assert!(warnings.contains(&staging), "the record is not reported: {restored}");
    world.start_daemon();
    assert!(world.valid_paths().contains(&lost), "{restored}");
}

#[test]
fn record_in_nix_store_is_ignored_and_reported() {
    record_in_the_store_is_ignored(Role::Mid, "/nix/store");
}

#[test]
fn record_beside_nix_store_is_ignored_and_reported() {
    record_in_the_store_is_ignored(Role::Mid, "/nix/var/nix");
}

#[test]
fn record_in_guix_store_is_ignored_and_reported() {
    record_in_the_store_is_ignored(Role::GuixRoot, "/gnu/store");
}
