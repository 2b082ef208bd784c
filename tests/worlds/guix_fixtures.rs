//! Tests of the Guix worlds themselves: they have the properties that other tests rely on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::world_runs::{assert_same, record_state};
use crate::support::{Fixture, Role, World, store_content};

/// Returns the one valid path with that name.
fn item(world: &World, name: &str) -> String {
    let mut found = world.valid_paths().into_iter().filter(|path| path[44..] == *name);
    found.next().unwrap_or_else(|| panic!("no item is called {name}"))
}

fn uid(world: &World, user: &str) -> u32 {
    world.ok(["id", "-u", user]).stdout.trim().parse().unwrap()
}

fn add(world: &World) -> String {
    let add = r#"(use-modules (guix store))
        (with-store store (display (add-to-store store "thing" #t "sha256" "/tmp/thing")))"#;
    world.sh("mkdir -p /tmp/thing && echo one >/tmp/thing/file");
    fs::write(world.host("/tmp/add.scm"), add).unwrap();
    world.ok(["guix", "repl", "--", "/tmp/add.scm"]).stdout
}

#[test]
fn new_guix_world_has_an_empty_store_its_daemon_can_fill() {
    for role in Role::GUIX {
        let world = World::new(role);
        assert!(world.valid_paths().is_empty());
        world.start_daemon();
        let added = add(&world);
        assert_eq!(world.valid_paths(), BTreeSet::from([added.clone()]), "{role:?}");
        let owner = uid(&world, role.owner());
        assert_eq!(owner == 0, role != Role::Guix);
        for path in [added.as_str(), world.store(), "/var/guix/db/db.sqlite"] {
            assert_eq!(fs::metadata(world.host(path)).unwrap().uid(), owner, "{role:?} {path}");
        }
        world.verify_store();
    }
}

#[test]
fn guix_fixtures_are_sound_and_complete() {
    let all = Role::GUIX.map(|role| (role, Fixture::Small));
    for (role, fixture) in all.into_iter().chain([(Role::Guix, Fixture::Full)]) {
        let world = World::with_fixture(role, fixture);
        world.start_daemon();
        assert!(world.valid_paths().len() > 30);
        assert_eq!(
            world.assert_nothing_to_build(role, fixture),
            item(&world, "top"),
            "{role:?} {fixture:?}"
        );
        world.verify_store();
        let owner = uid(&world, role.owner());
        for path in world.valid_paths() {
            let tree = world.tree_digest(&path);
            assert!(tree.values().all(|entry| entry.uid == owner), "{role:?} {path}");
        }
    }
}

#[test]
fn guix_fixture_has_every_kind_of_item() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    let registrations = world.registrations();
    let item = |name: &str| item(&world, name);
    let mode = |path: &str| fs::symlink_metadata(world.host(path)).unwrap().mode();

    let references = |name: &str| &registrations[&item(name)].references;
    assert!(references("selfish").contains(&item("selfish")));
    assert!(references("twins-doc").contains(&item("twins")));
    assert!(references("twins-doc").contains(&item("middle")));
    assert!(references("profile").len() > 10);
    let twins = (item("twins.drv"), "doc".to_owned(), item("twins-doc"));
    assert!(world.derivation_outputs().contains(&twins));
    assert_eq!(mode(&item("plain")), 0o100444);
    assert_eq!(mode(&item("program")), 0o100555);
    assert_eq!(mode(&item("link")), 0o120777);

    let names = world.tree_digest(&item("names"));
    assert!(names.keys().any(|path| path.to_str().is_none()), "no name is other than UTF-8");
    assert!(names.keys().any(|path| path.as_os_str().len() > 255), "no path is long");
    let shapes = world.tree_digest(&item("shapes"));
    assert!(shapes[Path::new("large")].size > 9 << 20);
    assert_eq!(shapes[Path::new("empty-directory")].mode, 0o40555);
}

#[test]
fn guix_daemon_links_equal_files_unless_they_are_small() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        let inode = |name: &str, file: &str| {
            fs::metadata(world.host(item(&world, name)).join(file)).unwrap().ino()
        };
        assert_eq!(inode("shared-one", "same"), inode("shared-two", "same"), "{role:?}");
        assert_eq!(inode("shared-two", "again"), inode("shared-two", "same"), "{role:?}");
        assert_eq!(inode("shared-one", "run"), inode("shared-two", "run"), "{role:?}");
        assert_ne!(inode("shared-one", "run"), inode("shared-one", "same"), "{role:?}");
        let small_too = inode("shared-one", "small") == inode("shared-two", "small");
        assert_eq!(small_too, role == Role::GuixOld);
        assert!(world.store_listing().contains(".links"));
    }
}

#[test]
fn full_guix_fixture_contains_guile_and_its_libraries() {
    let world = World::with_fixture(Role::Guix, Fixture::Full);
    let job = item(&world, "job");
    let modules = "(use-modules (fibers) (gnutls) (gcrypt hash) (web socket client)) \
                   (display (search-path %load-path \"fibers.scm\"))";
    let run = || {
        world.command([&format!("{job}/bin/job"), "-c", modules]).user("nosudo").env("LC_ALL", "C")
    };
    assert!(run().ok().stdout.starts_with("/gnu/store/"));
    world.wipe_store();
    run().run().fails();
}

#[test]
fn guix_daemon_can_be_stopped_and_started() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        assert_eq!(world.daemon_pid(), None);
        world.start_daemon();
        let first = world.daemon_pid().expect("it listens");
        let owner = uid(&world, role.owner());
        assert_eq!(fs::metadata(world.host(format!("/proc/{first}"))).unwrap().uid(), owner);
        let words = world.sh(&format!("cat /proc/{first}/cmdline")).stdout;
        assert!(words.starts_with("guix-daemon\0") && words.contains("--no-substitutes"));
        world.stop_daemon();
        world.wait_until_idle();
        assert_eq!(world.daemon_pid(), None);
        assert!(!world.daemon_answers());
        world.start_daemon();
        assert_ne!(world.daemon_pid().unwrap(), first);
    }
}

#[test]
fn wait_until_idle_waits_for_guix_workers() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    world.start_daemon();
    let hold = "(use-modules (guix store)) (define store (open-connection)) (sleep 1)";
    fs::write(world.host("/tmp/hold.scm"), hold).unwrap();
    let mut holder = world.spawn(["guix", "repl", "--", "/tmp/hold.scm"]);
    let workers = || world.sh("pgrep -f 'guix-daemon [0-9]' || true").lines().len();
    crate::support::poll::until(
        "the worker to be there",
        std::time::Duration::from_secs(5),
        || {
            if workers() > 0 { Ok(()) } else { Err("none") }
        },
    );
    let daemon = world.daemon_pid();
    world.stop_daemon();
    assert!(daemon.is_some() && holder.is_running());
    assert_eq!(workers(), 1, "it outlives the daemon");
    world.wait_until_idle();
    assert_eq!(workers(), 0);
}

#[test]
fn wiped_guix_store_is_empty_and_usable() {
    for role in Role::GUIX {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        world.wipe_store();
        assert!(world.daemon_answers());
        assert!(world.valid_paths().is_empty());
        assert!(world.store_listing().iter().all(|name| name.starts_with('.')));
        assert!(world.valid_paths().is_empty());
        add(&world);
        world.verify_store();
    }
}

#[test]
fn unregistered_files_are_on_disk_but_not_valid() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    let planted = store_content::add_unregistered_files(&world);
    let valid = world.valid_paths();
    let listing = world.store_listing();
    assert!(planted.iter().all(|&name| listing.contains(name)));
    assert!(planted.iter().all(|name| !valid.contains(&format!("/gnu/store/{name}"))));
    let before = record_state(&world);
    world.start_daemon();
    world.verify_store();
    assert_same(&before, &record_state(&world));
}

#[test]
fn guix_container_runs_the_daemon_on_a_read_only_store() {
    for role in Role::GUIX {
        let world = World::build(role).fixture(Fixture::Small).container().start();
        assert!(world.daemon_answers());
        let read_only = || {
            let refused = world.run(["touch", "/gnu/store/mine"]).fails();
            assert!(refused.stderr.contains("Read-only file system"), "{role:?}: {refused}");
        };
        read_only();
        let pid = world.daemon_pid().expect("it listens");
        let owner = uid(&world, role.owner());
        assert_eq!(fs::metadata(world.host(format!("/proc/{pid}"))).unwrap().uid(), owner);
        world.assert_nothing_to_build(role, Fixture::Small);
        let added = add(&world);
        assert_eq!(fs::metadata(world.host(&added)).unwrap().uid(), owner);
        world.verify_store();
        world.stop_daemon();
        assert!(!world.daemon_answers());
        read_only();
        world.start_daemon();
        read_only();
        world.wipe_store();
        read_only();
        assert!(world.daemon_answers() && world.valid_paths().is_empty());
        // The daemon can build, too.
        world.sh("mkdir -p /tmp/bb/bin && cp /bin/busybox /tmp/bb/bin && cd /tmp/bb/bin
            for name in $(busybox --list); do [ -e $name ] || ln -s busybox $name; done
            guix repl -- /tmp/recipe/build.scm fill /tmp/bb");
        world.verify_store();
    }
}

#[test]
fn storecache_runs_in_every_guix_world() {
    for role in Role::GUIX {
        let world = World::new(role);
        world.storecache(["--version"]).ok();
        world.storecache_as("runner", ["--version"]).ok();
        assert_eq!(world.run_as("runner", ["sudo", "-n", "id", "-u"]).ok().stdout, "0\n");
        world.run_as("nosudo", ["sudo", "-n", "id", "-u"]).fails();
    }
}

#[test]
fn shepherd_restarts_a_killed_daemon() {
    for role in [Role::Guix, Role::GuixRoot] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_shepherd();
        let first = world.daemon_pid().expect("it listens");
        let owner = uid(&world, role.owner());
        assert_eq!(fs::metadata(world.host(format!("/proc/{first}"))).unwrap().uid(), owner);
        world.sh(&format!("kill {first}"));
        crate::support::poll::until("another daemon", std::time::Duration::from_secs(10), || {
            if world.daemon_pid().is_some_and(|pid| pid != first) { Ok(()) } else { Err("none") }
        });
        world.stop_daemon();
        assert!(!world.daemon_answers());
        world.start_daemon();
        world.wipe_store();
        add(&world);
        world.verify_store();
        assert!(world.ok(["herd", "status", "guix-daemon"]).stdout.contains("running"));
    }
}

#[test]
fn fixture_closure_is_the_same_in_both_guix_versions() {
    let world = World::with_fixture(Role::GuixOld, Fixture::Small);
    world.start_daemon();
    world.sh("guix archive --generate-key && cp /etc/guix/signing-key.pub /cache");
    let everything: Vec<_> = world.valid_paths().into_iter().collect();
    world.sh(&format!("guix archive --export {} >/cache/closure", everything.join(" ")));
    for role in [Role::Guix, Role::GuixRoot] {
        let restored = World::build(role).backend(world.backend()).start();
        restored.start_daemon();
        restored.sh("guix archive --authorize </cache/signing-key.pub");
        restored.sh("guix archive --import </cache/closure");
        assert_eq!(restored.valid_paths().len(), everything.len());
        restored.assert_nothing_to_build(Role::GuixOld, Fixture::Small);
    }
}

#[test]
fn store_owner_can_have_another_user_id() {
    let world = World::with_fixture(Role::Guix, Fixture::Small);
    let before = uid(&world, "guix-daemon");
    world.renumber_owner(4321);
    world.start_daemon();
    let added = add(&world);
    assert_ne!(before, 4321);
    assert_eq!(fs::metadata(world.host(added)).unwrap().uid(), 4321);
    world.assert_nothing_to_build(Role::Guix, Fixture::Small);
    world.wipe_store();
    let added = add(&world);
    assert_eq!(fs::metadata(world.host(added)).unwrap().uid(), 4321);
}
