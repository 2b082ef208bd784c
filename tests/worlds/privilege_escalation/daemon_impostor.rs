//! A process that is not the store's daemon listens on the daemon's socket. Packages let a group write to the
//! directory of the socket, so each member can unlink the socket, bind another one, and then become a setuid
//! program: by its IDs in `/proc` the listener is a process of root.

use serde_json::{Value, json};

use super::attacker::{
    HOME, TIMEOUT, assert_nothing_ran_as_root, confined, confined_container, give_payload,
    save_and_lose_an_item, socket_directory,
};
use crate::support::{PackageManager, Role, Running, World, poll, procfs, world_runs};

const IMPOSTOR: &str = include_str!("impostor.py");

/// The program that the listener becomes.
#[derive(Clone, Copy, Debug)]
enum Disguise {
    /// Exploit D: `su`, under the name of a program of the attacker.
    OwnName,
    /// Exploit E: `su`, with a library of the attacker in its environment.
    OwnLibrary,
    /// Exploit F: sudo with the root helper, whose real user is root too.
    Helper,
}

impl Disguise {
    fn program(self) -> Value {
        let program = format!("{HOME}/program");
        let library = json!({ "LD_PRELOAD": format!("{HOME}/library.so") });
        match self {
            Disguise::OwnName => json!({
                "program": "/usr/bin/su", "arguments": [program, "root"], "environment": {},
            }),
            Disguise::OwnLibrary => json!({
                "program": "/usr/bin/su", "arguments": ["su", "root"], "environment": library,
            }),
            Disguise::Helper => json!({
                "program": "/usr/bin/sudo",
                "arguments": [program, "-n", "/usr/local/bin/storecache", "privileged"],
                // sudo crashes in an empty environment.
                "environment": { "PATH": "/usr/bin" },
            }),
        }
    }

    /// Starts the impostor as `user`, and waits until the kernel reports a process with the effective user 0 as
    /// the listener.
    fn listen<'w>(self, world: &'w World, user: &str) -> Running<'w> {
        let socket = format!("{}/daemon-socket/socket", world.state());
        let mut order = self.program();
        order["socket"] = json!(socket);
        let words = ["python3", "-c", IMPOSTOR, &order.to_string()];
        let impostor = world.command(words).user(user).spawn();
        poll::until("the impostor to have the effective user 0", TIMEOUT, || {
            let ids = impostor.outer_pid().map(|pid| procfs::status(pid, "Uid"));
            let effective = ids.as_deref().and_then(|ids| ids.split_whitespace().nth(1));
            let listens = impostor.stdout().contains("listening");
            let said = || format!("{ids:?} {}{}", impostor.stdout(), impostor.stderr());
            if listens && effective == Some("0") { Ok(()) } else { Err(said()) }
        });
        let said = format!("{}{}", impostor.stdout(), impostor.stderr());
        assert_eq!(world.listener(&socket), impostor.pid(), "{self:?} is not the listener: {said}");
        impostor
    }
}

/// Restores as `restorer` while a process that `attacker` started listens on the socket, and asserts that the
/// restore leaves the listener alone.
fn assert_left_alone(world: &World, disguise: Disguise, attacker: &str, restorer: &str) {
    let lost = save_and_lose_an_item(world);
    give_payload(world, attacker);
    socket_directory(world, 0o770);
    let mut impostor = disguise.listen(world, attacker);
    let restored = world_runs::attempt(world, restorer, "restore", &["--daemon-timeout", "5"]);
    assert_nothing_ran_as_root(world);
    assert!(impostor.is_running(), "the restore ended the listener: {restored}");
    let is_valid = world.valid_paths().contains(&lost);
    if world.is_container() {
        // A restore through the systemd units may succeed nevertheless.
        assert_eq!(is_valid, restored.status.success(), "{restored}");
    } else {
        let restored = restored.fails();
        assert!(!is_valid, "{restored}");
    }
    assert_eq!(world_runs::staging(world), [""; 0]);
}

#[test]
fn listener_renamed_su_is_left_alone_by_user() {
    assert_left_alone(&confined(Role::Mid), Disguise::OwnName, "runner", "runner");
}

#[test]
fn listener_renamed_su_is_left_alone_by_root() {
    assert_left_alone(&confined(Role::Mid), Disguise::OwnName, "nosudo", "root");
}

#[test]
fn listener_preloaded_su_is_left_alone_by_user() {
    assert_left_alone(&confined(Role::Mid), Disguise::OwnLibrary, "runner", "runner");
}

#[test]
fn listener_preloaded_su_is_left_alone_by_root() {
    assert_left_alone(&confined(Role::Mid), Disguise::OwnLibrary, "nosudo", "root");
}

#[test]
fn listener_root_helper_is_left_alone_by_user() {
    assert_left_alone(&confined(Role::Mid), Disguise::Helper, "runner", "runner");
}

#[test]
fn listener_root_helper_is_left_alone_by_root() {
    assert_left_alone(&confined(Role::Mid), Disguise::Helper, "runner", "root");
}

#[test]
fn guix_listener_is_left_alone_by_user() {
    assert_left_alone(&confined(Role::GuixRoot), Disguise::OwnName, "runner", "runner");
}

#[test]
fn guix_listener_is_left_alone_by_root() {
    assert_left_alone(&confined(Role::GuixRoot), Disguise::OwnName, "nosudo", "root");
}

#[test]
fn unprivileged_guix_listener_is_left_alone() {
    assert_left_alone(&confined(Role::Guix), Disguise::OwnName, "nosudo", "root");
}

#[test]
fn nix_listener_beside_systemd_is_left_alone_by_user() {
    assert_left_alone(&confined_container(Role::Mid), Disguise::OwnName, "runner", "runner");
}

#[test]
fn nix_listener_beside_systemd_is_left_alone_by_root() {
    assert_left_alone(&confined_container(Role::Mid), Disguise::OwnLibrary, "nosudo", "root");
}

#[test]
fn guix_listener_beside_systemd_is_left_alone() {
    assert_left_alone(&confined_container(Role::Guix), Disguise::OwnName, "nosudo", "root");
}

/// The account that owns the store may listen on its socket: it is the account of the daemon. It exists so that
/// a daemon that an attacker took over is not root.
fn store_owner_does_not_become_root(disguise: Disguise) {
    let world = confined(Role::Guix);
    save_and_lose_an_item(&world);
    give_payload(&world, "guix-daemon");
    let owner = world.sh("stat -c %U /var/guix/daemon-socket").stdout;
    assert_eq!(owner.trim(), "guix-daemon");
    let _impostor = disguise.listen(&world, "guix-daemon");
    world_runs::attempt(&world, "root", "restore", &["--daemon-timeout", "5"]);
    assert_nothing_ran_as_root(&world);
}

#[test]
fn store_owner_as_renamed_su_does_not_become_root() {
    store_owner_does_not_become_root(Disguise::OwnName);
}

#[test]
fn store_owner_as_preloaded_su_does_not_become_root() {
    store_owner_does_not_become_root(Disguise::OwnLibrary);
}

/// A save and `doctor` meet a socket that an attacker took over, too.
#[test]
fn doctor_and_save_leave_an_impostor_alone() {
    let world = confined(Role::Mid);
    give_payload(&world, "nosudo");
    socket_directory(&world, 0o770);
    let mut impostor = Disguise::OwnName.listen(&world, "nosudo");
    world_runs::attempt(&world, "root", "save", &[]);
    let doctor = world.storecache(["doctor", "--store", PackageManager::Nix.name()]).run();
    assert_nothing_ran_as_root(&world);
    assert!(impostor.is_running(), "{doctor}");
}
