//! Tests of conditions that jobs with Guix meet: substitute servers that do not respond, clients that stay
//! connected, other schemas, owners with other numbers, containers that do not allow mounts.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::world_runs::{
    assert_same, attempt, flags, record_state, report, restore, save, staging,
};
use crate::support::{Fixture, Registration, Role, World, poll};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A job: it has the daemon download the given items, and builds a program with them.
const JOB: &str = r##"
(use-modules (guix store) (guix derivations) (ice-9 match))
(match (command-line)
  ((_ guile busybox libraries)
   (with-store store
     (build-things store (list guile busybox))
     (let* ((script "$busybox/bin/echo \"#!$busybox/bin/sh
exec $guile/bin/job -c '$libraries'\" >$out; $busybox/bin/chmod +x $out")
            (program (derivation store "program" (string-append busybox "/bin/sh")
                                 (list "-euc" script)
                                 #:sources (list guile busybox)
                                 #:env-vars `(("guile" . ,guile) ("busybox" . ,busybox)
                                              ("libraries" . ,libraries)))))
       (build-derivations store (list program))
       (display (derivation->output-path program))))))
"##;

/// The libraries that the job's program loads.
const LIBRARIES: &str = "(use-modules (fibers) (gnutls) (gcrypt hash) (web socket client))";

/// Starts a daemon whose substitute server does not exist, in a world without systemd.
fn start_daemon_with_dead_server(world: &World) {
    world.install_fake_systemctl();
    world
        .sh("sed -i s,--no-substitutes,--substitute-urls=http://127.0.0.1:9, /etc/bare-guix-daemon
         systemctl start guix-daemon.service");
}

#[test]
fn job_builds_offline_after_the_store_is_restored() {
    for container in [false, true] {
        let plan = World::build(Role::Guix).fixture(Fixture::Full);
        let world = if container { plan.container().start() } else { plan.start() };
        world.start_daemon();
        let guile = world.valid_paths().into_iter().find(|path| path.ends_with("-job")).unwrap();
        let shell = world.sh(&format!("head -1 {guile}/bin/job")).stdout;
        let busybox = shell.trim().strip_prefix("#!").unwrap().strip_suffix("/bin/sh").unwrap();
        fs::write(world.host("/tmp/job.scm"), JOB).unwrap();
        let build = || {
            let words = ["guix", "repl", "--", "/tmp/job.scm", &guile, busybox, LIBRARIES];
            world.command(words).user("nosudo").run()
        };
        let closure = || {
            let query = |about| world.ok(["guix", "gc", about, &guile]).lines();
            (query("--references"), query("--requisites"))
        };
        let before = closure();
        assert!(before.1.len() > 15);
        save(&world);
        world.stop_daemon();
        world.wait_until_idle();
        world.wipe_store();
        if container {
            world.start_daemon();
        } else {
            start_daemon_with_dead_server(&world);
        }

        let failed = build().fails();
        assert!(container || failed.stderr.contains("Connection refused"), "{failed}");
        restore(&world);
        assert_eq!(closure(), before);
        let program = build().ok().stdout;
        world.command([program]).user("nosudo").env("LC_ALL", "C").ok();
        world.verify_store();
    }
}

#[test]
fn restore_waits_for_a_client_with_the_daemon_running() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    let client = world.connected_client();

    let failed = attempt(&world, "runner", "restore", &["--lock-timeout", "1"]).fails();
    assert_eq!(failed.code(), 1);
    let report = report(&failed);
    assert_eq!(report["hit"], "miss");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("big-lock is still held after 1 s by process"), "{reason}");
    assert!(reason.contains("(guix-daemon "), "{reason}");
    assert!(world.daemon_answers());
    assert!(world.valid_paths().is_empty());
    assert_eq!(staging(&world), [""; 0]);

    let words = ["restore"].into_iter().chain(flags(&world));
    let restoring = world.storecache_as("runner", words).spawn();
    poll::until("the restore to wait for the client", TIMEOUT, || match restoring.stderr() {
        stderr if stderr.contains("big-lock is held by process") => Ok(()),
        stderr => Err(stderr),
    });
    assert!(world.daemon_answers());
    assert!(!client.stdout().contains("hung up"));
    drop(client);
    restoring.wait(TIMEOUT).ok();
    assert!(world.daemon_answers());
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

/// A process of the service that ends with the third SIGTERM. systemd sends two before it waits; a worker needs
/// two to end, but they may merge into one.
const SIGTERM_RESISTANT_WORKER: &str = "
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with open('/sys/fs/cgroup/system.slice/guix-daemon.service/cgroup.procs', 'w') as group:
    group.write(str(os.getpid()))
print('there', flush=True)
for _ in range(3):
    signal.sigwait([signal.SIGTERM])
";

#[test]
fn worker_that_survives_sigterm_is_signaled_again() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let before = world.references_of_all();
    save(&world);
    world.sh("mkdir -p /run/systemd/system/guix-daemon.service.d
         printf '[Service]\nTimeoutStopSec=infinity\n' >/run/systemd/system/guix-daemon.service.d/patient.conf
         systemctl daemon-reload");
    world.wipe_store();
    let added = world.add_texts("mine", 1).remove(0);
    let worker = world.spawn(["python3", "-c", SIGTERM_RESISTANT_WORKER]);
    poll::until("the worker to be there", TIMEOUT, || {
        if worker.stdout().contains("there") { Ok(()) } else { Err(worker.stderr()) }
    });

    restore(&world);
    worker.wait(TIMEOUT).ok();
    assert!(world.daemon_answers());
    let mut expected = before;
    expected.insert(added, [].into());
    assert_eq!(world.references_of_all(), expected);
    world.verify_store();
}

/// Returns all state that a refused restore must not change.
fn full_state(world: &World) -> (Option<u32>, BTreeMap<String, Registration>, String) {
    let files = "find /gnu/store /var/guix -printf '%p %i %U %G %m %s %T@ %C@\n' | sort";
    (world.daemon_pid(), world.registrations(), world.sh(files).stdout)
}

#[test]
fn snapshot_with_a_newer_schema_is_refused_without_changes() {
    let newer = World::with_fixture(Role::Guix, Fixture::Small);
    newer.sh("printf 8 >/var/guix/db/schema");
    save(&newer);
    let world = World::build(Role::Guix).backend(newer.backend()).start();
    world.start_daemon();
    world.add_texts("mine", 1);
    world.wait_until_idle();
    let before = full_state(&world);
    let refused = attempt(&world, "runner", "restore", &[]).fails();
    assert_eq!(refused.code(), 1);
    let report = report(&refused);
    assert_eq!(report["hit"], "miss");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("schema 8, the live one has schema 7"), "{reason}");
    assert_eq!(full_state(&world), before);
    assert!(world.daemon_answers());
}

#[test]
fn owners_are_mapped_by_role_and_not_by_user_id() {
    let saver = World::with_fixture(Role::GuixRoot, Fixture::Small);
    saver.start_daemon();
    let before = record_state(&saver);
    let mut saved = save(&saver)["entry"].clone();
    // Restore into a store of the user `guix-daemon`, who has another number on this machine, and back.
    for (role, number) in [(Role::Guix, 4321), (Role::GuixRoot, 0)] {
        let world = World::build(role).backend(saver.backend()).start();
        if number != 0 {
            world.renumber_owner(number);
        }
        world.start_daemon();
        assert_eq!(restore(&world)["entry"], saved);
        let after = record_state(&world);
        assert_eq!((&after.references, &after.outputs), (&before.references, &before.outputs));
        for (path, tree) in &after.trees {
            assert!(tree.values().all(|entry| entry.uid == number), "{path}");
        }
        let others = format!("find /var/guix/db /var/guix/gcroots/storecache ! -uid {number}");
        assert_eq!(world.sh(&others).stdout, "");
        world.verify_store();
        saved = save(&world)["entry"].clone();

        world.sh("rm -r /var/guix/gcroots/storecache");
        world.nix(["guix", "gc"]).ok();
        assert!(world.valid_paths().is_empty());
        assert_eq!(world.sh("ls /gnu/store").stdout, "", "{role:?}: nothing stays on the disk");
    }
}

#[test]
fn read_only_store_is_refused_without_cap_sys_admin() {
    // A daemon that runs as root writes through such a mount itself.
    let world = World::with_fixture(Role::GuixRoot, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world.wait_until_idle();
    world.sh("mount --bind /gnu/store /gnu/store && mount -o remount,bind,ro /gnu/store
         ! touch /gnu/store/mine 2>/dev/null");
    let before = full_state(&world);
    let words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let words = words.into_iter().chain(["storecache", "restore", "--json"]).chain(flags(&world));
    let refused = world.command(words).run().fails();
    assert_eq!(refused.code(), 1);
    let report = report(&refused);
    assert_eq!(report["hit"], "miss");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("mounted read-only"), "{reason}");
    assert!(report["hint"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{report}");
    assert_eq!(full_state(&world), before);
    assert!(world.daemon_answers());
}
