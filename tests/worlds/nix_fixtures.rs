//! Tests of the worlds themselves: they have the properties that other tests rely on.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::{Backend, Fixture, Role, World, poll, store_content};
use rustix::process::Signal;

#[test]
fn a_fresh_world_has_an_empty_store_that_its_daemon_fills() {
    for role in Role::ALL {
        let world = World::new(role);
        assert!(world.valid_paths().is_empty());
        world.start_daemon();
        world.sh("mkdir /tmp/thing && echo one >/tmp/thing/file");
        let added = world.nix(["nix-store", "--add", "/tmp/thing"]).ok();
        assert_eq!(world.valid_paths(), BTreeSet::from([added.stdout.trim().to_owned()]));
        world.verify_store();
    }
}

#[test]
fn each_fixture_is_sound_and_completely_built() {
    for role in Role::ALL {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        assert!(world.valid_paths().len() > 30);
        world.assert_nothing_to_build(role, Fixture::Small);
        world.verify_store();
    }
}

#[test]
fn the_full_fixture_of_the_old_root_is_large() {
    let world = World::with_fixture(Role::Old, Fixture::Full);
    world.start_daemon();
    assert!(world.valid_paths().len() > 200);
    world.assert_nothing_to_build(Role::Old, Fixture::Full);
    world.verify_store();
}

#[test]
fn closure_of_one_nix_version_needs_no_build_in_another() {
    for role in [Role::Old, Role::Mid] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let everything: Vec<_> = world.valid_paths().into_iter().collect();
        world.sh(&format!("nix-store --export {} >/cache/closure", everything.join(" ")));
        let restored = World::build(Role::New).backend(world.backend()).start();
        restored.start_daemon();
        restored.sh("nix-store --import </cache/closure");
        restored.assert_nothing_to_build(role, Fixture::Small);
    }
}

#[test]
fn the_fixture_holds_every_shape_of_item() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    let registrations = world.registrations();
    let item = |name: &str| {
        let mut matching = registrations.keys().filter(|path| path[44..] == *name);
        matching.next().unwrap_or_else(|| panic!("no item is called {name}"))
    };
    let mode = |path: &str| fs::symlink_metadata(world.host(path)).unwrap().mode();

    assert!(registrations[item("selfish")].references.contains(item("selfish")));
    assert!(registrations[item("twins-dev")].references.contains(item("twins")));
    assert!(registrations[item("fixed")].ca.is_some());
    assert_eq!(mode(item("plain")), 0o100444);
    assert_eq!(mode(item("program")), 0o100555);
    assert_eq!(mode(item("link")), 0o120777);

    let names = world.tree_digest(item("names"));
    assert!(names.keys().any(|path| path.to_str().is_none()), "no name is other than UTF-8");
    assert!(names.keys().any(|path| path.as_os_str().len() > 255), "no path is long");
    let shapes = world.tree_digest(item("shapes"));
    assert!(shapes[Path::new("large")].size > 9 << 20);
    assert_eq!(shapes[Path::new("empty-file")].size, 0);
    assert_eq!(shapes[Path::new("empty-directory")].mode, 0o40555);
    let inode = |name| fs::metadata(world.host(item("shapes")).join(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("same-inode"));
}

#[test]
fn the_optimised_fixture_keeps_its_hard_links_across_items() {
    let world = World::with_fixture(Role::Old, Fixture::Optimised);
    let count = world.sh("find /nix/store/*-* -links +1 -type f | wc -l").stdout;
    assert!(count.trim().parse::<u32>().unwrap() > 1000, "{count}");
    let links = world.sh("find /nix/store/*-* -links +1 -type l | wc -l").stdout;
    assert_ne!(links.trim(), "0");
}

#[test]
fn the_new_fixture_has_its_rows_in_the_wal_alone() {
    let world = World::with_fixture(Role::New, Fixture::Full);
    let main = world.host("/nix/var/nix/db/db.sqlite");
    assert!(fs::metadata(main.with_extension("sqlite-wal")).unwrap().len() > 0);
    let alone = tempfile::NamedTempFile::new().unwrap();
    fs::copy(&main, alone.path()).unwrap();
    let error = rusqlite::Connection::open(alone.path()).and_then(|database| {
        database.query_row("select count(*) from ValidPaths", [], |row| row.get::<_, u32>(0))
    });
    assert!(error.unwrap_err().to_string().contains("no such table"));
    assert!(world.valid_paths().len() > 60);
}

#[test]
fn reading_the_database_leaves_no_trace() {
    for role in Role::ALL {
        let world = World::with_fixture(role, Fixture::Small);
        let files = || {
            world.tree_digest("/nix/var/nix/db").into_iter().map(|(path, entry)| (path, entry.size))
        };
        let before: Vec<_> = files().collect();
        world.valid_paths();
        assert_eq!(before, files().collect::<Vec<_>>(), "{role:?}");
    }
}

#[test]
fn the_daemon_can_be_stopped_and_started() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    assert_eq!(world.daemon_pid(), None);
    world.start_daemon();
    let first = world.daemon_pid().expect("it listens");
    assert!(world.sh(&format!("cat /proc/{first}/cmdline")).stdout.starts_with("nix-daemon"));
    world.stop_daemon();
    world.wait_until_idle();
    assert_eq!(world.daemon_pid(), None);
    assert!(!world.daemon_answers());
    world.start_daemon();
    assert_ne!(world.daemon_pid().unwrap(), first);
}

#[test]
fn a_wiped_store_is_a_fresh_one() {
    let world = World::with_fixture(Role::New, Fixture::Small);
    world.start_daemon();
    world.wipe_store();
    assert!(world.daemon_answers());
    assert!(world.valid_paths().is_empty());
    assert!(world.store_listing().iter().all(|name| name.starts_with('.')));
}

#[test]
fn unregistered_files_are_on_disk_but_not_valid() {
    let world = World::with_fixture(Role::Old, Fixture::Small);
    let planted = store_content::add_unregistered_files(&world);
    let listing = world.store_listing();
    assert!(planted.iter().all(|&name| listing.contains(name)));
    assert!(
        planted.iter().all(|name| !world.valid_paths().contains(&format!("/nix/store/{name}")))
    );
    world.start_daemon();
    world.nix(["nix-store", "--gc"]).ok();
    let left = world.store_listing();
    assert!(planted.iter().all(|&name| name == ".links" || !left.contains(name)), "{left:?}");
}

#[test]
fn runner_has_sudo_and_nosudo_does_not() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    assert_eq!(world.run_as("runner", ["id", "-u"]).ok().stdout, "1001\n");
    assert_eq!(world.run_as("runner", ["sudo", "-n", "id", "-u"]).ok().stdout, "0\n");
    world.run_as("nosudo", ["sudo", "-n", "id", "-u"]).fails();
    world.run_as("runner", ["touch", "/nix/store/mine"]).fails();
    let path = world.valid_paths().into_iter().next().unwrap();
    for user in ["runner", "nosudo"] {
        world.command(["nix-store", "--query", "--hash", &path]).user(user).through_daemon().ok();
    }
}

#[test]
fn command_has_a_clean_environment() {
    let world = World::new(Role::Mid);
    let output = world.command(["env"]).user("runner").cd("/tmp").env("KEY", "a value").ok();
    let mut lines = output.lines();
    lines.sort();
    let expected = [
        "HOME=/home/runner",
        "KEY=a value",
        "LANG=C.UTF-8",
        "LOGNAME=runner",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER=runner",
    ];
    assert_eq!(lines, expected);
    assert_eq!(world.command(["pwd"]).cd("/tmp").ok().stdout, "/tmp\n");
    assert_eq!(world.command(["cat"]).input("words").ok().stdout, "words");
}

#[test]
fn two_worlds_share_a_backend_and_nothing_else() {
    let one = World::new(Role::Old);
    let other = World::build(Role::New).backend(one.backend()).start();
    one.sh("echo mine >/tmp/file");
    one.run_as("runner", ["sh", "-c", "echo ours >/cache/file"]).ok();
    assert_eq!(other.ok(["cat", "/cache/file"]).stdout, "ours\n");
    assert_eq!(fs::read_to_string(one.backend().host_path().join("file")).unwrap(), "ours\n");
    other.run(["cat", "/tmp/file"]).fails();
    let backend: Backend = other.backend().clone();
    drop((one, other));
    assert!(backend.host_path().join("file").exists());
}

#[test]
fn world_reaches_the_network_of_the_test_only_on_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!(": </dev/tcp/127.0.0.1/{port}");
    World::new(Role::Mid).run(["bash", "-c", &connect]).fails();
    let open = World::build(Role::Mid).network().start();
    open.ok(["bash", "-c", &connect]);
    open.start_daemon();
    let same_path = World::build(Role::Old).network().start();
    assert_eq!(same_path.daemon_pid(), None, "the daemon of another world is not its own");
    World::build(Role::Old).network().container().start().ok(["bash", "-c", &connect]);
}

#[test]
fn changes_of_a_world_do_not_reach_its_root() {
    let world = World::new(Role::Mid);
    world.sh("echo changed >/etc/hostname; rm -r /usr/share/doc; touch /new");
    drop(world);
    let root = Role::Mid.root();
    assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "world\n");
    assert!(root.join("usr/share/doc").exists() && !root.join("new").exists());
}

#[test]
fn processes_of_a_world_end_with_it() {
    let world = World::new(Role::Mid);
    world.start_daemon();
    let directory = world.host("/nix");
    let init = world.init();
    let sleeper = world.spawn(["sleep", "1000"]);
    sleeper.signal(Signal::STOP);
    let pid = sleeper.outer_pid().unwrap();
    drop(sleeper);
    drop(world);
    assert!(![pid, init].iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    assert!(!directory.exists());
}

#[test]
fn orphans_are_reaped() {
    let world = World::new(Role::Old);
    world.sh("(sleep 0.05 & echo $! >/tmp/pid)");
    let pid = fs::read_to_string(world.host("/tmp/pid")).unwrap();
    poll::until("the orphan to be gone", Duration::from_secs(5), || {
        if world.host("/proc").join(pid.trim()).exists() { Err("it is there") } else { Ok(()) }
    });
}

#[test]
#[should_panic(expected = "waited")]
fn a_command_that_hangs_fails_its_test() {
    let world = World::new(Role::Old);
    world.command(["sleep", "1000"]).timeout(Duration::from_millis(200)).run();
}

#[test]
fn the_program_under_test_runs_in_every_root() {
    for role in Role::ALL {
        let world = World::new(role);
        world.storecache(["--version"]).ok();
        world.storecache_as("runner", ["--version"]).ok();
    }
}

#[test]
fn a_container_boots_systemd_with_the_daemon_behind_a_socket() {
    let world = World::build(Role::Old).fixture(Fixture::Small).container().start();
    assert_eq!(world.ok(["systemctl", "is-active", "nix-daemon.socket"]).stdout, "active\n");
    world.start_daemon();
    assert_ne!(world.daemon_pid().expect("it listens"), 1);
    world.assert_nothing_to_build(Role::Old, Fixture::Small);
    assert_eq!(
        world.run_as("runner", ["sudo", "-n", "systemctl", "is-active", "nix-daemon"]).ok().stdout,
        "active\n"
    );
    world.stop_daemon();
    assert!(!world.daemon_answers());
    world.ok(["systemctl", "start", "nix-daemon.socket"]);
    assert_eq!(world.daemon_pid(), Some(1), "systemd listens");
    assert!(world.daemon_answers());
    assert_ne!(world.daemon_pid(), Some(1), "the service listens");
    world.verify_store();
}

#[test]
fn containers_of_every_root_run_side_by_side() {
    let worlds: Vec<World> = Role::ALL.into_iter().map(World::container).collect();
    for world in &worlds {
        world.start_daemon();
        world.storecache(["--version"]).ok();
        world.wipe_store();
        assert!(world.daemon_answers());
    }
}
