//! The attacker's rights and programs, and how the tests detect that an attacker's program ran as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::helper_requests::RULE;
use crate::support::{Fixture, PackageManager, Plan, Role, World, programs, world_runs};

pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Where the attacker's programs leave a file, which belongs to the user they run as.
const MARKS: &str = "/marks";
/// A shell command that leaves such a file too.
pub const LEAVE_MARK: &str = "touch /marks/shell-$(id -u)";
/// The directory with the attacker's programs.
pub const HOME: &str = "/tmp/attacker";

/// Returns a world without systemd but with a daemon, in which `runner` may run the root helper through sudo
/// and nothing else as root. Only root may write to the directory of the daemon's socket.
pub fn confined(role: Role) -> World {
    start(World::build(role).fixture(Fixture::Small))
}

/// As [`confined`], with a daemon that systemd runs.
pub fn confined_container(role: Role) -> World {
    start(World::build(role).fixture(Fixture::Small).container())
}

fn start(plan: Plan) -> World {
    let world = plan.start();
    fs::write(world.host("/etc/sudoers.d/runner"), RULE).unwrap();
    world.sh(&format!("mkdir -m 1777 {MARKS}"));
    socket_directory(&world, 0o755);
    if !world.is_container() {
        world.start_daemon();
    }
    world
}

/// Sets the mode of the directory of the daemon's socket. Its group is one that `runner` and `nosudo` are in.
pub fn socket_directory(world: &World, mode: u32) {
    let group = match world.package_manager() {
        PackageManager::Nix => "nix-users",
        PackageManager::Guix => "users",
    };
    let directory = format!("{}/daemon-socket", world.state());
    world.sh(&format!(
        "mkdir -p {directory}; chgrp {group} {directory}; chmod {mode:o} {directory}"
    ));
}

/// Adds an item that refers to nothing, saves, and removes the item again, so that a restore has something to
/// do. Returns the item's path.
pub fn save_and_lose_an_item(world: &World) -> String {
    let item = world.add_text("lost");
    world_runs::save(world);
    let delete: &[&str] = match world.package_manager() {
        PackageManager::Nix => &["nix-store", "--delete", &item],
        PackageManager::Guix => &["guix", "gc", "--delete", &item],
    };
    world.nix(delete).ok();
    assert!(!world.valid_paths().contains(&item));
    item
}

/// Adds a directory to the store as an ordinary user, through the daemon. Returns the item's path.
pub fn add_as(world: &World, user: &str, directory: &str) -> String {
    const ADD: &str = "
(use-modules (guix store))
(with-store store
  (let ((path (cadr (command-line))))
    (display (add-to-store store (basename path) #t \"sha256\" path))))";
    let words: Vec<&str> = match world.package_manager() {
        PackageManager::Nix => vec!["nix-store", "--add", directory],
        PackageManager::Guix => {
            fs::write(world.host("/tmp/add.scm"), ADD).unwrap();
            vec!["guix", "repl", "--", "/tmp/add.scm", directory]
        }
    };
    let added = world.command(words).user(user).through_daemon().ok();
    let item = added.stdout.trim().to_owned();
    assert!(world.valid_paths().contains(&item), "{added}");
    item
}

/// Gives a user the payload as a program and as a library for `LD_PRELOAD`: `HOME/program` and
/// `HOME/library.so`. Asserts that both work.
pub fn give_payload(world: &World, user: &str) {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worlds/privilege_escalation/payload.c");
    let built = tempfile::tempdir().unwrap();
    world.sh(&format!("mkdir -p {HOME}"));
    for (name, flags) in
        [("program", &["-static", "-DPROGRAM"][..]), ("library.so", &["-shared", "-fPIC"])]
    {
        let file = built.path().join(name);
        let status = Command::new("cc").args(flags).arg(&source).arg("-o").arg(&file).status();
        assert!(status.unwrap().success(), "cc {flags:?}");
        programs::copy(&file, &world.host(HOME).join(name));
    }
    world.sh(&format!("chmod 755 {HOME} {HOME}/*; chown -R {user} {HOME}"));
    let program = format!("{HOME}/program");
    let as_program = world.command([&program]).user(user);
    let as_library =
        world.command(["true"]).user(user).env("LD_PRELOAD", format!("{HOME}/library.so"));
    for works in [as_program, as_library] {
        works.ok();
        assert!(!marks(world).is_empty(), "the payload leaves no mark");
        world.sh(&format!("rm {MARKS}/*"));
    }
}

/// Returns the owners of all marks.
fn marks(world: &World) -> Vec<u32> {
    let files = fs::read_dir(world.host(MARKS)).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().uid()).collect()
}

/// Panics if a program of an attacker ran as root.
#[track_caller]
pub fn assert_nothing_ran_as_root(world: &World) {
    let marks = marks(world);
    assert!(!marks.contains(&0), "a program of the attacker ran as root");
}

/// Writes a file that only root can read.
pub fn write_as_root(world: &World, path: &str, content: &str) {
    fs::write(world.host(path), content).unwrap();
    fs::set_permissions(world.host(path), fs::Permissions::from_mode(0o600)).unwrap();
}
