//! A requester names other directories for store, state and log.

use std::fs;

use serde_json::json;

use super::attacker::{confined, save_and_lose_an_item, write_as_root};
use crate::support::helper_requests::{RULE, RequestStream, store};
use crate::support::{PackageManager, Role, tree_digest, world_runs};

fn variables(package_manager: PackageManager) -> &'static [&'static str] {
    match package_manager {
        PackageManager::Nix => &["NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_CONF_DIR"],
        PackageManager::Guix => {
            &["NIX_STORE_DIR", "GUIX_STATE_DIRECTORY", "GUIX_DATABASE_DIRECTORY"]
        }
    }
}

/// The requester's environment does not decide where the helper reads and writes, even if sudo passes it on.
fn environment_names_no_directory(role: Role) {
    let world = confined(role);
    let lost = save_and_lose_an_item(&world);
    let lax = format!("{RULE}Defaults !env_reset, setenv\n");
    fs::write(world.host("/etc/sudoers.d/runner"), lax).unwrap();
    let elsewhere = "/home/runner/elsewhere";
    world.sh(&format!("mkdir -p {elsewhere}; chown runner {elsewhere}"));
    let kind = world.package_manager().name();
    let words = ["restore", "--store", kind, "--backend", "dir:/cache", "--key", "test", "--json"];
    let restore = world.storecache_as("runner", words);
    let named = variables(world.package_manager())
        .iter()
        .fold(restore, |restore, name| restore.env(name, format!("{elsewhere}/{name}")));
    let restored = world_runs::report(&named.ok());
    assert_eq!(restored["items"]["restored"], 1, "{restored}");
    assert!(world.valid_paths().contains(&lost));
    assert_eq!(tree_digest(world.host(elsewhere)).len(), 1, "something was written to it");
    world.verify_store();
}

#[test]
fn nix_environment_names_no_directory() {
    environment_names_no_directory(Role::Mid);
}

#[test]
fn guix_environment_names_no_directory() {
    environment_names_no_directory(Role::GuixRoot);
}

#[test]
fn store_request_with_other_directories_is_refused() {
    let world = confined(Role::Mid);
    write_as_root(&world, "/root/secret", "only root knows");
    for field in ["store_dir", "state_dir", "log_dir", "profiles", "real_store_dir", "socket"] {
        let about = store(json!({ field: "/root" }));
        let refused = RequestStream::hello().say(about).say(json!("Valid")).run(&world);
        assert!(refused.stdout.contains("\"Failed\""), "{field}: {refused}");
        assert!(!refused.stdout.contains("\"Valid\""), "{field}: {refused}");
    }
    let right = RequestStream::hello().say(store(json!({}))).say(json!("Valid")).run(&world);
    assert!(right.stdout.contains("\"Valid\""), "{right}");
}
