//! A file-system root that root owns and whose content a user chose. An item of a store is such a root: it
//! belongs to root, users cannot write to it, and users decide what it contains.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::attacker::{LEAVE_MARK, add_as, assert_nothing_ran_as_root, confined, socket_directory};
use crate::support::{Entry, Output, PackageManager, Role, World, tree_digest, world_runs};

/// Returns a record as older versions of storecache left it in staging. It names a command.
fn record() -> String {
    let command = serde_json::json!({ "stop": "true", "start": LEAVE_MARK, "run_as": null });
    serde_json::json!({ "daemon": { "command": command }, "mount": null }).to_string()
}

/// Returns a script that makes a directory that looks like a root with a store of this kind, in which a restore
/// was killed.
fn fill(directory: &str, package_manager: PackageManager) -> String {
    let (store, state, record) = (package_manager.store(), package_manager.state(), record());
    format!(
        "mkdir -p {directory}{store}/.storecache-1 {directory}{state}/db {directory}{state}/gcroots
         cat >{directory}{store}/.storecache-1/.stopped <<'END'\n{record}\nEND"
    )
}

/// Runs a script as `runner` in their home.
fn as_runner(world: &World, script: &str) -> Output {
    world.command(["bash", "-euc", script]).user("runner").cd("/home/runner").ok()
}

/// Adds an item that looks like such a root.
fn item_like_a_root(world: &World) -> String {
    as_runner(world, &fill("evil", world.package_manager()));
    let item = add_as(world, "runner", "/home/runner/evil");
    assert_is_a_root(world, &item);
    item
}

/// Panics unless `directory` has what the attack needs, and `runner` cannot write there.
#[track_caller]
fn assert_is_a_root(world: &World, directory: &str) {
    let stopped = format!("{directory}{}/.storecache-1/.stopped", world.store());
    assert_eq!(world.ok(["cat", &stopped]).stdout.trim(), record());
    let writable = world.run_as("runner", ["find", directory, "-writable"]);
    assert_eq!(writable.stdout, "", "{writable}");
}

/// Runs a restore with this `--root`, and panics unless it is refused and `directory` is unchanged.
#[track_caller]
fn assert_refused(world: &World, user: &str, root: &str, directory: &str) {
    let before = tree_at(world, directory);
    let refused = restore(world, user, root);
    assert_nothing_ran_as_root(world);
    assert!(tree_at(world, directory) == before, "{directory} has changed: {refused}");
    refused.fails();
}

fn restore(world: &World, user: &str, root: &str) -> Output {
    world_runs::attempt(world, user, "restore", &["--root", root, "--daemon-timeout", "3"])
}

fn tree_at(world: &World, directory: &str) -> BTreeMap<PathBuf, Entry> {
    tree_digest(world.host(directory))
}

fn record_in_item_is_not_run(role: Role) {
    let world = confined(role);
    let item = item_like_a_root(&world);
    world_runs::save(&world);
    assert_refused(&world, "runner", &item, &item);
    world.sh(&format!("ln -s {item} /home/runner/link; chown -h runner /home/runner/link"));
    for root in ["/home/runner/link".to_owned(), format!("/proc/self/root{item}")] {
        assert_refused(&world, "runner", &root, &item);
    }
    world.verify_store();
}

/// Exploit A of the review.
#[test]
fn nix_item_as_root_runs_no_record() {
    record_in_item_is_not_run(Role::Mid);
}

#[test]
fn guix_item_as_root_runs_no_record() {
    record_in_item_is_not_run(Role::GuixRoot);
}

#[test]
fn unprivileged_guix_item_as_root_runs_no_record() {
    record_in_item_is_not_run(Role::Guix);
}

/// Exploit B: the store of that root is a link to a directory of this machine, and another item is a file for
/// that directory.
fn store_link_in_item_is_not_followed(role: Role) {
    let world = confined(role);
    let (store, state) = (world.store(), world.state());
    as_runner(
        &world,
        &format!(
            "mkdir -p evil{store} evil{state}/db evil{state}/gcroots
             rmdir evil{store}; ln -s /etc/sudoers.d evil{store}
             echo 'runner ALL=(ALL) NOPASSWD: ALL' >rule"
        ),
    );
    let item = add_as(&world, "runner", "/home/runner/evil");
    let rule = add_as(&world, "runner", "/home/runner/rule");
    assert!(world.ok(["cat", &rule]).stdout.contains("NOPASSWD: ALL"));
    world_runs::save(&world);
    let becomes_root = || world.run_as("runner", ["sudo", "-n", "id", "-u"]);
    becomes_root().fails();

    let before = tree_at(&world, "/etc");
    let refused = restore(&world, "runner", &item);
    let became = becomes_root();
    assert!(!became.status.success(), "sudo lets the user run everything: {became}");
    assert!(tree_at(&world, "/etc") == before, "/etc has changed: {refused}");
    refused.fails();
    world.verify_store();
}

#[test]
fn store_link_in_nix_item_as_root_is_not_followed() {
    store_link_in_item_is_not_followed(Role::Mid);
}

#[test]
fn store_link_in_guix_item_as_root_is_not_followed() {
    store_link_in_item_is_not_followed(Role::GuixRoot);
}

#[test]
fn store_link_in_unprivileged_guix_item_is_not_followed() {
    store_link_in_item_is_not_followed(Role::Guix);
}

/// Exploit C: the user may not talk to the daemon. One restore brings the item, a second one names it as the
/// root.
#[test]
fn restored_item_as_root_runs_no_record() {
    let world = confined(Role::Mid);
    // As on a machine that the attacker controls.
    let item = item_like_a_root(&world);
    world_runs::save(&world);
    world.wipe_store();
    world.sh("usermod --groups '' runner");
    socket_directory(&world, 0o700);
    let nix =
        world.command(["nix-store", "--check-validity", &item]).user("runner").through_daemon();
    nix.run().fails();

    world_runs::restore(&world);
    assert!(world.valid_paths().contains(&item));
    assert_is_a_root(&world, &item);
    assert_refused(&world, "runner", &item, &item);
}

/// Finding 3: a disk that the user brought, mounted as udisks does it.
#[test]
fn removable_disk_as_root_runs_no_record() {
    let world = confined(Role::Mid);
    world_runs::save(&world);
    let disk = "/media/runner/DISK";
    world.sh(&format!("mkdir -p {disk}; mount -t tmpfs -o nosuid,nodev,mode=755 disk {disk}"));
    world.sh(&fill(disk, PackageManager::Nix));
    assert_is_a_root(&world, disk);
    assert_refused(&world, "runner", disk, disk);
}

/// As [`removable_disk_as_root_runs_no_record`], for Guix.
#[test]
fn removable_disk_as_guix_root_runs_no_record() {
    let world = confined(Role::GuixRoot);
    world_runs::save(&world);
    let disk = "/media/runner/DISK";
    world.sh(&format!("mkdir -p {disk}; mount -t tmpfs -o nosuid,nodev,mode=755 disk {disk}"));
    world.sh(&fill(disk, PackageManager::Guix));
    assert_is_a_root(&world, disk);
    assert_refused(&world, "runner", disk, disk);
}

#[test]
fn item_mounted_elsewhere_as_root_runs_no_record() {
    let world = confined(Role::Mid);
    let item = item_like_a_root(&world);
    world_runs::save(&world);
    world.sh(&format!("mkdir /srv/image; mount --bind {item} /srv/image"));
    assert_is_a_root(&world, "/srv/image");
    assert_refused(&world, "runner", "/srv/image", "/srv/image");
}

/// Root has no reason to name a root inside a store either, and would run commands that users put there.
fn root_in_store_is_refused_for_root(role: Role) {
    let world = confined(role);
    let item = item_like_a_root(&world);
    world_runs::save(&world);
    world.sh(&format!("ln -s {item} /srv/link"));
    let before = tree_at(&world, &item);
    let kind = world.package_manager().name();
    for root in [&item, "/srv/link"] {
        for verb in ["restore", "save"] {
            let refused = world_runs::attempt(
                &world,
                "root",
                verb,
                &["--root", root, "--daemon-timeout", "3"],
            );
            assert_nothing_ran_as_root(&world);
            refused.fails();
        }
        let refused = world.storecache(["doctor", "--store", kind, "--root", root]).run();
        assert_nothing_ran_as_root(&world);
        refused.fails();
    }
    assert!(tree_at(&world, &item) == before, "{item} has changed");
    world.verify_store();
}

#[test]
fn root_in_nix_store_is_refused_for_root_too() {
    root_in_store_is_refused_for_root(Role::Mid);
}

#[test]
fn root_in_guix_store_is_refused_for_root_too() {
    root_in_store_is_refused_for_root(Role::GuixRoot);
}
