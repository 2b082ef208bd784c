//! Other activity on the store during a run: writers, collectors, a second restore, a full disk.

use std::fs::File;
use std::time::Duration;

use crate::support::snapshot_builder::open_bytes;
use crate::support::world_runs::{
    NIX_FLAGS, assert_same, attempt, record_state, report, restore, save, staging,
};
use crate::support::{Fixture, Role, Running, World, poll, store_content};
use rustix::process::Signal;
use storecache_daemon::DaemonChoice;
use storecache_root_helper::Caller;
use storecache_root_helper::protocol::{
    FrameId, PROTOCOL, Request, RestoreRequest, SnapshotRole, StoreRequest, write_message,
};
use storecache_runtime::memory::Unpacking;
use storecache_snapshot::Opened;
use storecache_store::StoreKind;

const TIMEOUT: Duration = Duration::from_secs(120);

fn start<'w>(world: &'w World, verb: &'w str) -> Running<'w> {
    world.storecache_as("runner", [verb].into_iter().chain(NIX_FLAGS)).spawn()
}

/// Stops the user process once `reached` holds. The root helper continues until the pipe between them is
/// full.
fn pause_user_process_when(running: &mut Running<'_>, what: &str, reached: impl Fn() -> bool) {
    poll::until(what, TIMEOUT, || {
        assert!(running.is_running(), "the run ended before {what}: {}", running.stderr());
        if reached() { Ok(()) } else { Err("not yet") }
    });
    running.signal(Signal::STOP);
}

fn gc_lock_is_held(world: &World) -> bool {
    File::open(world.host("/nix/var/nix/gc.lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

#[test]
fn gc_during_a_save_waits_until_all_is_packed() {
    for role in [Role::Old, Role::New] {
        let world = World::with_fixture(role, Fixture::Full);
        world.start_daemon();
        let before = record_state(&world);
        // From now on, only the save protects these items from the collector.
        world.sh("rm /nix/var/nix/gcroots/fixture");
        let mut saving = start(&world, "save");
        pause_user_process_when(&mut saving, "the save to hold the lock", || {
            gc_lock_is_held(&world)
        });
        let collector = world.blocked_collector();
        saving.signal(Signal::CONT);
        saving.wait(TIMEOUT).ok();
        collector.wait(TIMEOUT).ok();
        assert!(world.valid_paths().len() < before.references.len());

        world.wipe_store();
        restore(&world);
        assert_same(&before, &record_state(&world));
        world.verify_store();
    }
}

#[test]
fn gc_during_staging_removes_neither_staging_nor_items() {
    for role in [Role::Old, Role::New] {
        let world = World::with_fixture(role, Fixture::Full);
        world.start_daemon();
        let before = record_state(&world);
        save(&world);
        world.wipe_store();
        let mut restoring = start(&world, "restore");
        pause_user_process_when(&mut restoring, "staging", || !staging(&world).is_empty());
        let collector = world.blocked_collector();
        restoring.signal(Signal::CONT);
        // The collector has the database open and waits for the restore's lock, while the restore waits until
        // no process has the database open. Both must finish.
        restoring.wait(TIMEOUT).ok();
        collector.wait(TIMEOUT).ok();
        world.nix(["nix-store", "--gc"]).ok();
        assert_same(&before, &record_state(&world));
        assert_eq!(staging(&world), [""; 0]);
        world.verify_store();
    }
}

#[test]
fn restore_skips_items_whose_references_gc_removed() {
    let world = World::with_fixture(Role::Mid, Fixture::Full);
    world.start_daemon();
    let before = world.references_of_all();
    save(&world);
    // Only the leaf stays, and it has no root when the collector comes.
    let leaf = before.keys().find(|path| path.ends_with("-leaf")).unwrap();
    world.sh(&format!("ln -sfn {leaf} /nix/var/nix/gcroots/fixture"));
    world.nix(["nix-store", "--gc"]).ok();
    let mut restoring = start(&world, "restore");
    pause_user_process_when(&mut restoring, "staging", || !staging(&world).is_empty());
    world.sh("rm /nix/var/nix/gcroots/fixture");
    let collector = world.blocked_collector();
    restoring.signal(Signal::CONT);
    let restored = restoring.wait(TIMEOUT).ok();
    collector.wait(TIMEOUT).ok();
    assert!(restored.stderr.contains("not in the store and cannot be restored"), "{restored}");
    let after = world.references_of_all();
    assert!(!after.contains_key(leaf) && !after.is_empty());
    assert_eq!(staging(&world), [""; 0]);
    world.verify_store();
}

#[test]
fn second_restore_waits_for_the_first_or_names_it() {
    let world = World::with_fixture(Role::Old, Fixture::Full);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    let mut first = start(&world, "restore");
    pause_user_process_when(&mut first, "staging", || !staging(&world).is_empty());
    let refused = attempt(&world, "runner", "restore", &["--lock-timeout", "1"]).fails();
    let reason = report(&refused)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("another restore"), "{reason}");
    assert!(reason.contains("storecache privileged"), "{reason}");

    let second = start(&world, "restore");
    first.signal(Signal::CONT);
    first.wait(TIMEOUT).ok();
    let second = second.wait(TIMEOUT).ok();
    assert!(second.stderr.contains("nothing to do"), "{second}");
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

#[test]
fn restore_removes_the_staging_of_a_dead_run() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world.sh(
        "mkdir -p /nix/store/.storecache-4711/half; chmod 0555 /nix/store/.storecache-4711/half",
    );
    restore(&world);
    assert_eq!(staging(&world), [""; 0]);
}

#[test]
fn restore_refuses_a_too_small_disk_before_staging() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    world.wipe_store();
    world.sh("mount -t tmpfs -o size=20m,mode=1775 tmpfs /nix/store");
    let refused = attempt(&world, "runner", "restore", &[]).fails();
    assert!(refused.stderr.contains("not enough space"), "{refused}");
    assert!(world.valid_paths().is_empty());
    assert_eq!(world.sh("ls -A /nix/store | grep -v '^.links$' || true").stdout, "");

    world.sh("umount /nix/store; mount -t tmpfs -o size=900m,nr_inodes=100 tmpfs /nix/store");
    let refused = attempt(&world, "runner", "restore", &[]).fails();
    assert!(refused.stderr.contains("not enough inodes"), "{refused}");
}

#[test]
fn disk_full_during_staging_leaves_the_store_unchanged() {
    let world = World::with_fixture(Role::Old, Fixture::Full);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    world.sh("mount -t tmpfs -o size=700m,mode=1775 tmpfs /nix/store");
    let pid = world.daemon_pid();
    let mut restoring = start(&world, "restore");
    let inside = |path: &str| {
        world.run(["sh", "-c", &format!("ls -A {path} | grep ^.storecache")]).status.success()
    };
    pause_user_process_when(&mut restoring, "staging", || inside("/nix/store"));
    world.run(["sh", "-c", "dd if=/dev/zero of=/nix/store/ballast bs=1M count=900 2>/dev/null"]);
    restoring.signal(Signal::CONT);
    let failed = restoring.wait(TIMEOUT).fails();
    assert!(failed.stderr.contains("No space left on device"), "{failed}");
    assert!(failed.stderr.contains("the store is as it was"), "{failed}");
    assert_eq!(world.daemon_pid(), pid, "the daemon was not stopped for this");
    assert!(world.valid_paths().is_empty());
    assert_eq!(world.sh("ls -A /nix/store | grep -v '^.links$' | cat").stdout, "ballast\n");

    world.sh("rm /nix/store/ballast");
    restore(&world);
    assert_eq!(world.references_of_all(), before.references);
    world.verify_store();
}

/// Each item refers to the previous one, so that a snapshot without one of them is detected.
const CHAIN: &str = r#"
let
  bb = builtins.path { path = /srv/w/bb; name = "bb"; };
  link = n: derivation {
    name = "link-${toString n}";
    system = builtins.currentSystem;
    builder = "${bb}/bin/sh";
    args = [ "-c" "echo ${toString n} ${if n == 0 then "" else link (n - 1)} >$out" ];
  };
in link
"#;

#[test]
fn hundred_saves_during_builds_are_each_complete() {
    let world = World::new(Role::New);
    world.start_daemon();
    world.sh("mkdir -p /srv/w/bb/bin && cp $(command -v busybox) /srv/w/bb/bin/sh");
    std::fs::write(world.host("/srv/w/chain.nix"), CHAIN).unwrap();
    let writer = world
        .command([
            "bash",
            "-c",
            "for n in $(seq 0 100000); do
                 nix-build --no-out-link -E \
                     \"(import /srv/w/chain.nix) $n\" --option substitute false >/dev/null || exit 1
                 echo $n
             done",
        ])
        .through_daemon()
        .timeout(Duration::from_secs(600))
        .spawn();
    poll::until("the writer to write", TIMEOUT, || {
        if writer.stdout().lines().count() > 2 { Ok(()) } else { Err(writer.stderr()) }
    });
    let key = |n: usize| format!("save-{n:03}");
    for n in 0..100 {
        let key = key(n);
        let words = ["save", "--store", "nix", "--backend", "dir:/cache", "--key", &key, "--quiet"];
        world.storecache_as("runner", words).ok();
    }
    let written = writer.stdout().lines().count();
    drop(writer);
    assert!(written > 20, "the writer wrote only {written} items: {}", world.daemon_log());

    let judge = World::build(Role::Mid).backend(world.backend()).start();
    judge.start_daemon();
    let mut sizes = Vec::new();
    for n in 0..100 {
        let key = key(n);
        let words =
            ["restore", "--store", "nix", "--backend", "dir:/cache", "--key", &key, "--json"];
        let restored = report(&judge.storecache_as("runner", words).ok());
        assert_eq!(restored["items"]["skipped"], 0, "snapshot {n}");
        sizes.push(judge.valid_paths().len());
        judge.verify_store();
        judge.wipe_store();
    }
    assert!(sizes.is_sorted(), "later snapshots hold more: {sizes:?}");
    assert!(sizes.first() < sizes.last());
}

#[test]
fn root_helper_takes_frames_while_its_replies_are_unread() {
    const ITEMS: usize = 1500;
    let world = World::new(Role::Mid);
    world.start_daemon();
    store_content::add_random_items(&world, 9, ITEMS, 1);
    let saved = save(&world);
    world.wipe_store();

    let name = format!("{}.tar.zst", saved["entry"].as_str().unwrap());
    let content = std::fs::read(world.backend().host_path().join(name)).unwrap();
    let Opened { head, index, index_bytes, .. } = open_bytes(&content).unwrap();
    let store = StoreRequest {
        kind: StoreKind::Nix,
        root: "/".into(),
        paths: Vec::new(),
        daemon: DaemonChoice::Auto,
        asks_version: false,
        events: None,
        shepherds: Vec::new(),
        lock_timeout: TIMEOUT,
        daemon_timeout: TIMEOUT,
        stall: TIMEOUT,
        mandate: Caller::default(),
    };
    let database = index.database.as_ref().unwrap().frames;
    let wanted = index.frames_of(0..index.items.len());
    assert!(wanted.len() >= ITEMS);

    let mut said = Vec::new();
    let mut say = |request, payload: &[u8]| write_message(&mut said, &request, payload).unwrap();
    say(Request::Hello { protocol: PROTOCOL }, &[]);
    say(Request::Store(store), &[]);
    let request = RestoreRequest {
        store: head.store,
        memory: Unpacking::on(1),
        replace: false,
        verify_content: false,
        sync: true,
    };
    say(Request::Restore(request), &index_bytes);
    for number in (database.0..=database.1).chain(wanted.iter().copied()) {
        let frame = &index.frames[number as usize];
        let bytes = &content[frame.at as usize..][..frame.size as usize];
        say(Request::Frame(FrameId { which: SnapshotRole::Entry, number }), bytes);
    }
    say(Request::Commit, &[]);

    std::fs::write(world.host("/tmp/said"), said).unwrap();
    let script = "{ cat /tmp/said; sleep 1000; } | storecache privileged";
    let root_half = world.spawn(["bash", "-c", script]);
    let replies = poll::until("the outcome", TIMEOUT, || match root_half.stdout() {
        replies if replies.contains("Restored") => Ok(replies),
        replies => Err(replies),
    });
    // A reply for each frame would be more than the pipe to the user process holds.
    let reports = replies.matches("Progress").count();
    assert!(reports < wanted.len() / 2, "{reports} for {} frames", wanted.len());
    drop(root_half);
    world.verify_store();
}
