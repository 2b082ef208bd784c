//! The account that owns a store and runs its daemon, such as `guix-daemon`. It exists so that a daemon that an
//! attacker took over is not root. This account can change everything in the store and in its state directory.

use std::path::Path;

use super::attacker::{confined, save_and_lose_an_item};
use crate::support::{Role, World, tree_digest, world_runs};

/// Runs a script as the owner of the store.
fn as_owner(world: &World, script: &str) {
    world.command(["bash", "-euc", script]).user("guix-daemon").ok();
}

/// Replaces a directory of the state directory by a link to a directory of root, restores as `restorer`, and
/// asserts that the restore fails and creates nothing there.
fn link_is_not_followed(link: &str, target: &str, restorer: &str) {
    let world = confined(Role::Guix);
    save_and_lose_an_item(&world);
    world.sh(&format!("mkdir -p -m 755 {target}"));
    let link = format!("{}/{link}", world.state());
    let parent = Path::new(&link).parent().unwrap().display().to_string();
    as_owner(
        &world,
        &format!(
            "mkdir -p {parent}; if [ -e {link} ]; then mv {link} {link}.old; fi; ln -s {target} {link}"
        ),
    );
    // If no daemon runs, the helper creates a missing database.
    world.stop_daemon();
    world.wait_until_idle();
    let before = tree_digest(world.host("/etc"));
    let restored = world_runs::attempt(&world, restorer, "restore", &["--daemon-timeout", "5"]);
    let after = tree_digest(world.host("/etc"));
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(new.is_empty(), "{new:?}: {restored}");
    assert!(restored.fails().stderr.contains(&format!("leads to {target}")));
}

#[test]
fn gc_roots_linked_elsewhere_stay_empty_for_root() {
    link_is_not_followed("gcroots/storecache", "/etc/profile.d", "root");
}

#[test]
fn gc_roots_linked_elsewhere_stay_empty_for_user() {
    link_is_not_followed("gcroots/storecache", "/etc/profile.d", "runner");
}

#[test]
fn database_linked_elsewhere_is_not_made() {
    link_is_not_followed("db", "/etc/attacked", "root");
}
