//! Tests of the advice if sudo does not start the root helper: it solves the problem, and grants no other
//! rights of root.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::world_runs::{NIX_FLAGS, report};
use crate::support::{Fixture, Invocation, Output, Role, World};
use serde_json::Value;

const RULE: &str = "runner ALL=(root) NOPASSWD: /usr/local/bin/storecache privileged\n";

/// Runs its arguments in a new terminal, without any input.
const TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// Returns a world in which `sudoers` defines the rights of `runner`.
fn world(sudoers: &str) -> World {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    let file = world.host("/etc/sudoers.d/runner");
    fs::write(&file, sudoers).unwrap();
    // `visudo` accepts no other mode.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    world.start_daemon();
    world
}

/// Returns a command of `runner` without a terminal.
fn command<'w>(world: &'w World, words: &[&str]) -> Invocation<'w> {
    world.command([&["setsid", "--wait"][..], words].concat()).user("runner")
}

/// Saves as `runner` with this program.
fn save(world: &World, program: &str) -> Output {
    command(world, &[&[program, "save"][..], &NIX_FLAGS].concat()).run()
}

/// Returns doctor's row about sudo, as `runner` sees it: the finding and the proposed command.
#[track_caller]
fn doctor(world: &World, program: &str) -> (String, Option<String>) {
    let run = command(world, &[program, "doctor", "--store", "nix", "--json"]).run();
    let report: Value = report(&run);
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == "sudo").unwrap();
    assert_eq!(row["light"], "red", "{report}");
    (row["found"].as_str().unwrap().to_owned(), row["fix"].as_str().map(str::to_owned))
}

/// Asserts that a save fails with this text, and with this hint.
#[track_caller]
fn assert_refused(world: &World, text: &str, hint: &str) {
    let refused = save(world, "storecache").fails();
    assert_eq!(
        refused.messages().join("\n"),
        format!(
            "error: the store belongs to root, and {text}\n\
             note: the save failed in its phase start\n\
             hint: {hint}"
        )
    );
}

#[test]
fn password_at_a_terminal_leads_to_a_ticket() {
    let world = world("runner ALL=(ALL) ALL\n");
    world.command(["chpasswd"]).input("runner:word\n").ok();
    let save = format!("storecache save {}", NIX_FLAGS.join(" "));
    let in_terminal =
        |script: &str| command(&world, &["python3", "-c", TERMINAL, "sh", "-c", script]).run();
    let refused = in_terminal(&save).fails();
    let hint = "hint: run `sudo -v` and try again; or, to avoid the password prompt, add `runner ALL=(root) \
                NOPASSWD: /usr/local/bin/storecache privileged` to /etc/sudoers.d/storecache";
    assert!(refused.stdout.contains(hint), "{refused}");
    // The proposed command solves the problem.
    in_terminal(&format!("echo word | sudo -S -v && {save}")).ok();
}

#[test]
fn password_in_a_job_leads_to_the_rule() {
    let world = world("runner ALL=(ALL) ALL\n");
    assert_refused(
        &world,
        "sudo refused: a password is required",
        "add `runner ALL=(root) NOPASSWD: /usr/local/bin/storecache \
         privileged` to /etc/sudoers.d/storecache; or run storecache as root",
    );
    let (_, fix) = doctor(&world, "storecache");
    world.sh(&fix.unwrap());
    save(&world, "storecache").ok();
    world.sh("visudo --check");
}

#[test]
fn missing_terminal_leads_to_an_exception_from_requiretty() {
    let world = world(&format!("Defaults requiretty\n{RULE}"));
    assert_refused(
        &world,
        "sudo refused: it requires a terminal (requiretty)",
        "add `Defaults!/usr/local/bin/storecache !requiretty` to \
         /etc/sudoers.d/storecache, or run storecache as root",
    );
    let (_, fix) = doctor(&world, "storecache");
    // As an administrator, who has a terminal.
    let fix = fix.unwrap();
    world.command(["python3", "-c", TERMINAL, "sh", "-c", &fix]).ok();
    save(&world, "storecache").ok();
}

#[test]
fn command_that_is_not_allowed_leads_to_the_rule() {
    let world = world("Defaults !authenticate\nrunner ALL=(root) /bin/true\n");
    let (found, fix) = doctor(&world, "storecache");
    assert!(found.contains("runner is not allowed to execute"), "{found}");
    assert!(found.contains(RULE.trim()), "{found}");
    world.sh(&fix.unwrap());
    save(&world, "storecache").ok();
}

#[test]
fn missing_sudo_leads_to_no_rule() {
    let world = world(RULE);
    world.sh("mv /usr/bin/sudo /usr/bin/sudo.away");
    let text = "sudo is not installed";
    let hint = "install sudo, or run storecache as root (with doas: `doas storecache …`)";
    assert_refused(&world, text, hint);
    let (found, fix) = doctor(&world, "storecache");
    assert_eq!(found, format!("the store belongs to root, and {text}; {hint}"));
    assert_eq!(fix, None);
}

#[test]
fn no_new_privileges_leads_to_no_rule() {
    let world = world(RULE);
    let words = [&["setpriv", "--no-new-privs", "storecache", "save"][..], &NIX_FLAGS].concat();
    let refused = command(&world, &words).run().fails();
    let text = "sudo refused: the \"no new privileges\" flag is set\n";
    assert!(refused.stderr.contains(text), "{refused}");
    let hint = "\nhint: sudo cannot work here: run storecache as root, or start the container without \
                `no-new-privileges`\n";
    assert!(refused.stderr.contains(hint), "{refused}");
    world.sh("chmod u-s /usr/bin/sudo");
    let (found, fix) = doctor(&world, "storecache");
    assert!(found.contains("; sudo cannot work here: run storecache as root"), "{found}");
    assert_eq!(fix, None);
}

#[test]
fn program_that_the_user_can_overwrite_is_installed_before_a_rule_names_it() {
    let world = world("runner ALL=(ALL) ALL\n");
    world.sh("mkdir -p /opt/own/bin && cp /usr/local/bin/storecache /opt/own/bin/storecache");
    let program = "/opt/own/bin/storecache";
    let acl = "import os, struct, sys
entries = [(1, 7, -1), (2, 7, 1001), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
value = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', a, b, c & 0xffffffff) for a, b, c in entries)
os.setxattr(sys.argv[1], 'system.posix_acl_access', value)";
    let acl = |path: &str| format!("python3 -c \"{acl}\" {path}");
    let removed = |path: &str| {
        let remove = format!("import os; os.removexattr('{path}', 'system.posix_acl_access')");
        format!("python3 -c \"{remove}\" && chmod 755 {path}")
    };
    let closed = "runner ALL=(root) NOPASSWD: /opt/own/bin/storecache privileged";
    for (open, close) in [
        (format!("chown runner {program}"), format!("chown root {program}")),
        (format!("chmod o+w {program}"), format!("chmod o-w {program}")),
        ("chmod g+w /opt/own/bin".into(), "chmod g-w /opt/own/bin".into()),
        ("chown runner /opt/own".into(), "chown root /opt/own".into()),
        ("chmod 777 /opt".into(), "chmod 1777 /opt".into()),
        (acl(program), removed(program)),
        (acl("/opt/own/bin"), removed("/opt/own/bin")),
    ] {
        let (found, _) = doctor(&world, program);
        assert!(found.contains(closed), "before {open}: {found}");
        world.sh(&open);
        for said in [doctor(&world, program).0, save(&world, program).stderr] {
            let hint = format!(
                "run `sudo install -m 755 {program} /usr/local/bin/storecache`, use /usr/local/bin/storecache \
                 from then on (input `binary` in a job), and add `{}` to /etc/sudoers.d/storecache",
                RULE.trim()
            );
            assert!(said.contains(&hint), "{open}: {said}");
            assert!(!said.contains(closed), "{open}: {said}");
        }
        world.sh(&close);
    }

    // The proposed command solves the problem.
    world.sh("umount /usr/local/bin/storecache && rm -f /usr/local/bin/storecache");
    world.sh(
        "mkdir -p /home/runner/.cargo/bin && mv /opt/own/bin/storecache /home/runner/.cargo/bin/",
    );
    world.sh("chown -R runner /home/runner/.cargo");
    let (_, fix) = doctor(&world, "/home/runner/.cargo/bin/storecache");
    world.sh(&fix.unwrap());
    assert_eq!(world.sh("stat -c '%U %a' /usr/local/bin/storecache").stdout, "root 755\n");
    save(&world, "/usr/local/bin/storecache").ok();
    let other =
        command(&world, &["sudo", "-n", "/home/runner/.cargo/bin/storecache", "privileged"]).run();
    assert_eq!(other.code(), 1, "{other}");
}
