//! The boundary between a user and root: the root helper against a user who may run `storecache privileged`
//! through sudo and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::helper_requests::{
    ROOT_HELPER_COMMAND, RULE, RequestStream, Snapshot, entry, save, store,
};
use crate::support::world_runs::{self, leftovers, report};
use crate::support::{
    Entry, Fixture, Output, Role, Running, World, poll, procfs, programs, tree_digest,
};
use rustix::thread::CapabilitySet;
use serde_json::json;
use storecache_root_helper::Stage;
use storecache_root_helper::protocol::PROTOCOL;

const TIMEOUT: Duration = Duration::from_secs(60);
const HOME: &str = "/home/runner";
/// The content of a file that only root can read.
const SECRET: &str = "only-root-knows-this";

/// A world whose user may run the root helper, and nothing else, as root.
fn confined_world(fixture: Option<Fixture>) -> World {
    let world = match fixture {
        Some(fixture) => World::with_fixture(Role::Mid, fixture),
        None => World::new(Role::Mid),
    };
    fs::write(world.host("/etc/sudoers.d/runner"), RULE).unwrap();
    fs::write(world.host("/root/secret"), SECRET).unwrap();
    fs::set_permissions(world.host("/root/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    world.start_daemon();
    world
}

/// Files that must stay unchanged, whatever a user sends.
type ProtectedFiles = BTreeMap<PathBuf, Entry>;

fn protected_files(world: &World) -> ProtectedFiles {
    let trees = ["/etc", "/root", "/opt", "/usr/local", "/var/lib/dpkg/info", "/nix/store"];
    let mut all = ProtectedFiles::new();
    for tree in trees {
        let found = tree_digest(world.host(tree));
        all.extend(found.into_iter().map(|(path, entry)| (Path::new(tree).join(path), entry)));
    }
    // Ignores this time, which changes when a name is added or removed, even that of a lock file.
    all.get_mut(Path::new("/nix/store")).unwrap().mtime = (0, 0);
    all
}

#[track_caller]
fn assert_files_unchanged(world: &World, before: &ProtectedFiles) {
    let after = protected_files(world);
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, entry)| after.get(*path) != Some(entry))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[track_caller]
fn assert_refused(done: &Output, with: &str) {
    assert_eq!(done.code(), 1, "{done}");
    assert!(done.stdout.contains("\"Failed\""), "{done}");
    assert!(done.stdout.contains(with), "{with}: {done}");
    assert!(!done.stderr.contains("panicked"), "{done}");
    assert!(!done.to_string().contains(SECRET), "{done}");
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    poll::until("our processes to end", TIMEOUT, || {
        let mut left = leftovers(world);
        left.retain(|what| what != "storecache" && !what.contains("said"));
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
}

#[test]
fn sudo_rule_allows_save_and_restore_and_nothing_else() {
    let world = confined_world(Some(Fixture::Small));
    let before = world_runs::record_state(&world);
    world_runs::save(&world);
    world.wipe_store();
    world_runs::restore(&world);
    world_runs::assert_same(&before, &world_runs::record_state(&world));
    world.verify_store();

    for words in [
        &["privileged", "--everywhere"][..],
        &["privileged", "--guardian"],
        &["save"],
        &["restore"],
        &[],
    ] {
        let words = ["sudo", "-n", "--", "/usr/local/bin/storecache"].iter().chain(words);
        let refused = world.run_as("runner", words).fails();
        assert!(refused.stderr.contains("password is required"), "{refused}");
    }
    // Even if a rule allows more, the guardian does not accept input from a user.
    fs::write(world.host("/etc/sudoers.d/runner"), RULE.replace('\n', " *\n")).unwrap();
    let words = ["sudo", "-n", "--", "/usr/local/bin/storecache", "privileged", "--guardian"];
    let refused = world.command(words).user("runner").input("{}\n").run();
    assert!(refused.stdout.contains("SUDO_COMMAND is set"), "{refused}");
}

/// A file-system root that the user owns, with a store that `plant` has tampered with.
fn fake_root(world: &World, name: &str, plant: impl FnOnce(&Path)) -> String {
    let inside = format!("{HOME}/{name}");
    let root = world.host(&inside);
    fs::create_dir_all(root.join("nix/var/nix/db")).unwrap();
    fs::create_dir_all(root.join("nix/store")).unwrap();
    plant(&root);
    world.ok(["chown", "-hR", "runner:runner", &inside]);
    inside
}

#[test]
fn root_helper_drops_root_for_a_forged_store() {
    let world = confined_world(Some(Fixture::Small));
    world_runs::save(&world);
    let snapshot = Snapshot::open(&entry(&world));
    world.sh("mkdir -p /opt/roots-own/nix/var/nix/db /opt/roots-own/nix/store");
    let before = protected_files(&world);
    let link = |target: &str, at: PathBuf| {
        let _ = fs::remove_dir(&at);
        symlink(target, at).unwrap();
    };
    let roots = [
        fake_root(&world, "store", |root| link("/etc/cron.d", root.join("nix/store"))),
        fake_root(&world, "state", |root| link("/root", root.join("nix/var/nix/db"))),
        fake_root(&world, "schema", |root| {
            link("/root/secret", root.join("nix/var/nix/db/schema"))
        }),
        fake_root(&world, "lock", |root| link("/etc/nologin", root.join("nix/var/nix/gc.lock"))),
        fake_root(&world, "big", |root| link("/etc/shadow", root.join("nix/var/nix/db/big-lock"))),
        fake_root(&world, "database", |root| {
            link("/root/secret", root.join("nix/var/nix/db/db.sqlite"));
        }),
        fake_root(&world, "fifo", |root| {
            let fifo = root.join("nix/var/nix/db/db.sqlite");
            rustix::fs::mkfifoat(rustix::fs::CWD, fifo, 0o666.into()).unwrap();
        }),
        fake_root(&world, "whole", |root| {
            fs::remove_dir_all(root.join("nix")).unwrap();
            symlink("/opt/roots-own/nix", root.join("nix")).unwrap();
        }),
        fake_root(&world, "programs", |root| {
            for name in ["nix-store", "systemctl", "herd", "sh"] {
                let program = root.join("bin").join(name);
                fs::create_dir_all(root.join("bin")).unwrap();
                programs::write(&program, "#!/bin/sh\nid -u >>/home/runner/ran\n");
            }
        }),
    ];
    let mut talks = Vec::new();
    // A message that is out of turn in every state, so that each helper ends.
    let end = |talk: RequestStream| talk.say(json!({ "Pack": { "delta": false } }));
    for root in &roots {
        let about = store(json!({ "root": root, "asks_version": true, "daemon": "none" }));
        let about = RequestStream::hello().say(about);
        for order in [json!("Valid"), json!("Examine"), json!({ "Check": ["x"] })] {
            talks.push(end(about.clone().say(order)));
        }
        talks.push(end(end(about.clone().say(save(json!({}))))));
        let restore = about.with(snapshot.restore(), &snapshot.opened.index_bytes);
        let restore = snapshot.database().chain(snapshot.wanted()).fold(restore, |talk, number| {
            let (message, bytes) = snapshot.frame(number);
            talk.with(message, bytes)
        });
        talks.push(end(restore.say(json!("Commit"))));
    }
    for (number, ended) in
        RequestStream::run_each_until_exit(&talks, &world).into_iter().enumerate()
    {
        let root = &roots[number / 5];
        assert!(!ended.said.contains(SECRET), "{root}: {ended:?}");
        assert!(!ended.said.contains("panicked"), "{root}: {ended:?}");
        assert!(ended.said.contains("with the rights of user 1001"), "{root}: {ended:?}");
        assert_eq!(ended.code, 1, "{root}: {ended:?}");
    }
    for root in &roots {
        // Everything that was created there belongs to the user.
        for (path, entry) in tree_digest(world.host(root)) {
            assert_eq!(entry.uid, 1001, "{root}: {}", path.display());
        }
    }
    assert!(!world.host("/home/runner/ran").exists());
    assert_files_unchanged(&world, &before);
    assert_nothing_left(&world);
    world.verify_store();
}

#[test]
fn root_helper_drops_root_for_a_root_swapped_during_checks() {
    let world = confined_world(None);
    let evil = fake_root(&world, "evil", |root| {
        fs::remove_dir(root.join("nix/store")).unwrap();
        symlink("/etc", root.join("nix/store")).unwrap();
        symlink("/root/secret", root.join("nix/var/nix/db/schema")).unwrap();
    });
    let before = protected_files(&world);
    let flip = format!(
        "cd {HOME}; while :; do ln -sfn / swap-new; mv -T swap-new swap; ln -sfn {evil} swap-new;
         mv -T swap-new swap; done"
    );
    let flipping = world.command(["bash", "-c", &flip]).user("runner").spawn();
    poll::until("the link", TIMEOUT, || {
        world.host("/home/runner/swap").is_symlink().then_some(()).ok_or("none")
    });
    for _ in 0..10 {
        let about = store(json!({ "root": format!("{HOME}/swap") }));
        let done =
            RequestStream::hello().say(about).say(json!("Valid")).say(save(json!({}))).run(&world);
        assert_refused(&done, "");
        assert!(!done.stdout.contains("does not contain a number"), "as root: {done}");
    }
    drop(flipping);
    world.sh("pkill -x -u runner bash || true");
    assert_files_unchanged(&world, &before);
}

#[test]
fn plain_directories_are_accessed_with_the_users_rights() {
    let world = confined_world(None);
    let plain = |verb: &str, path: &str, more: &[&str]| {
        let words = [verb, "--store", "plain", "--key", "plain", "--path", path];
        let words = words.into_iter().chain(["--backend", "dir:/cache", "--json"]);
        world.storecache_as("runner", words.chain(more.iter().copied())).run()
    };
    let failed = plain("save", "/root", &[]).fails();
    assert!(failed.stderr.contains("with the rights of user 1001"), "{failed}");
    assert!(failed.stderr.contains("run storecache as root"), "{failed}");
    world.sh(&format!("mkdir -p {HOME}/mine/below && echo mine >{HOME}/mine/file"));
    world.ok(["chown", "-R", "runner:runner", "/home/runner/mine"]);
    report(&plain("save", "/home/runner/mine", &[]).ok());
    fs::remove_dir_all(world.host("/home/runner/mine")).unwrap();
    let restored = report(&plain("restore", "/home/runner/mine", &[]).ok());
    assert_eq!(restored["items"]["restored"], 1, "{restored}");
    assert_eq!(fs::metadata(world.host("/home/runner/mine/file")).unwrap().uid(), 1001);

    // A snapshot that root has made, of files that only root may write.
    world.sh("mkdir -p /opt/tool && echo old >/opt/tool/file");
    let made = ["save", "--store", "plain", "--key", "plain", "--path", "/opt/tool"];
    world.storecache(made.into_iter().chain(["--backend", "dir:/cache"])).ok();
    world.sh("chmod -R a+rX /cache; echo new >/opt/tool/file");
    let before = protected_files(&world);
    let refused = plain("restore", "/opt/tool", &["--mode", "replace"]);
    assert!(refused.stderr.contains("Permission denied"), "{refused}");
    // Where the user may write, files are not restored with root as their owner either.
    symlink("/home/runner/mine", world.host("/home/runner/elsewhere")).unwrap();
    let moved =
        json!({ "kind": "plain", "root": "/home/runner/elsewhere", "paths": ["/opt/tool"] });
    let snapshot = Snapshot::open(&entry(&world));
    let index = &snapshot.opened.index_bytes;
    let talk = RequestStream::hello().say(store(moved)).with(snapshot.restore(), index);
    let talk = snapshot.wanted().into_iter().fold(talk, |talk, number| {
        let (message, bytes) = snapshot.frame(number);
        talk.with(message, bytes)
    });
    assert_refused(&talk.say(json!("Commit")).run(&world), "user 1001");
    assert_files_unchanged(&world, &before);

    // A user who may run everything through sudo has root's rights there, as before.
    fs::write(world.host("/etc/sudoers.d/runner"), "runner ALL=(ALL) NOPASSWD: ALL\n").unwrap();
    report(&plain("restore", "/opt/tool", &["--mode", "replace"]).ok());
    assert_eq!(fs::read_to_string(world.host("/opt/tool/file")).unwrap(), "old\n");
    assert_nothing_left(&world);
}

#[test]
fn root_helper_refuses_invalid_and_out_of_order_messages() {
    let world = confined_world(Some(Fixture::Small));
    world_runs::save(&world);
    world.wipe_store();
    let snapshot = Snapshot::open(&entry(&world));
    let before = protected_files(&world);
    let index = &snapshot.opened.index_bytes;
    let hello = RequestStream::hello;
    let nix = RequestStream::for_nix_store;
    let planned = || snapshot.planned();
    let (first, first_bytes) = snapshot.frame(snapshot.wanted()[0]);
    let (other, other_bytes) = snapshot.frame(*snapshot.wanted().last().unwrap());
    let length = |json: u32, payload: u32| [json.to_be_bytes(), payload.to_be_bytes()].concat();
    let long = "x".repeat(5000);
    let year = json!({ "secs": u64::MAX, "nanos": 0 });
    let command = json!({ "command": { "stop": "x".repeat(1 << 17), "start": "" } });
    let many: Vec<String> = (0..5000).map(|n| format!("/{n}")).collect();
    let shepherds = vec!["/s"; 20];
    let memory = |threads: i64| json!({ "threads": threads, "in_flight": 1, "largest": 1 });
    let mut restore_zero = snapshot.restore();
    restore_zero["Restore"]["memory"]["threads"] = json!(0);
    let mut restore_guix = snapshot.restore();
    restore_guix["Restore"]["store"]["kind"] = json!("guix");
    let cases: Vec<(RequestStream, &str)> = vec![
        // Order.
        (RequestStream::default().say(json!("Valid")), "expected `Hello`, received `Valid`"),
        (RequestStream::default().say(json!({ "Hello": { "protocol": 99 } })), "uses protocol 99"),
        (hello().say(json!("Commit")), "expected `Store`, received"),
        (hello().say(json!({ "Hello": { "protocol": PROTOCOL } })), "expected `Store`, received"),
        (nix().say(store(json!({}))), "unexpected `Store`"),
        (nix().say(json!({ "Hello": { "protocol": PROTOCOL } })), "unexpected `Hello`"),
        (nix().say(json!("Commit")), "unexpected `Commit`"),
        (nix().say(json!({ "Pack": { "delta": false } })), "unexpected `Pack`"),
        (nix().with(first.clone(), first_bytes), "unexpected `Frame`"),
        (nix().with(json!({ "Base": snapshot.opened.head.store }), index), "unexpected `Base`"),
        (nix().with(snapshot.restore(), index).say(json!("Commit")), "of the database"),
        (planned().say(json!("Commit")), "expected frame"),
        (planned().with(other, other_bytes), "expected frame"),
        (planned().say(json!("Examine")), "expected frame"),
        (
            planned().with(first.clone(), first_bytes).with(first.clone(), first_bytes),
            "protocol error: expected",
        ),
        (snapshot.staged().with(first.clone(), first_bytes), "expected `Commit`"),
        (snapshot.staged().with(snapshot.restore(), index), "expected `Commit`"),
        (
            planned().say(json!({ "Check": ["x"] })).with(snapshot.restore(), index),
            "unexpected `Restore`",
        ),
        (planned().say(json!({ "Check": ["x"] })).say(save(json!({}))), "unexpected `Save`"),
        (planned().say(json!({ "Check": ["x"] })).say(json!("Examine")), "unexpected `Examine`"),
        // Shape.
        (RequestStream::default().raw(b"GET / HTTP/1.1\r\n\r\n"), "too large"),
        (hello().raw(&length(1 << 21, 0)), "too large"),
        (nix().raw(&length(600 << 20, 0)), "too large"),
        (nix().raw(&length(4, 600 << 20)).raw(b"true"), "too large"),
        (nix().raw(&length(4000, 0)).raw(b"{}"), "cut short: received 2 of 4000"),
        (nix().raw(&length(7, 9)).raw(b"\"Valid\""), "cut short: received 0 of 9"),
        (nix().raw(&[0; 3]), "cut short"),
        (nix().raw(&length(0, 0)), "parse a message"),
        (nix().raw(&length(3, 0)).raw(b"\xff\xfe\xfd"), "parse a message"),
        (nix().say(json!("Become")), "parse a message"),
        (nix().say(json!({ "Valid": {}, "Commit": {} })), "parse a message"),
        (nix().say(json!({ "Check": [1] })), "parse a message"),
        (nix().say(json!({ "Frame": { "which": "entry", "number": -1 } })), "parse a message"),
        (
            nix().say(json!({ "Frame": { "which": "entry", "number": 1u64 << 40 } })),
            "parse a message",
        ),
        (
            nix().say(json!({ "Frame": { "which": "entry", "number": 1, "x": 1 } })),
            "parse a message",
        ),
        (nix().say(save(json!({ "run": "sh" }))), "parse a message"),
        (nix().raw(&length(200_000, 0)).raw("[".repeat(200_000).as_bytes()), "parse a message"),
        (hello().say(store(json!({ "mandate": { "everywhere": true } }))), "parse a message"),
        (hello().say(store(json!({ "kind": "brew" }))), "parse a message"),
        (
            hello().raw(&length(46, 0)).raw(br#"{"Store":{"kind":"nix","kind":"nix","root":""}}"#),
            "parse a message",
        ),
        // Bytes where none belong.
        (
            RequestStream::default().with(json!({ "Hello": { "protocol": PROTOCOL } }), b"x"),
            "payload",
        ),
        (hello().with(store(json!({})), b"x"), "Store must not have a payload"),
        (nix().with(json!("Valid"), b"x"), "Valid must not have a payload"),
        (nix().with(save(json!({})), b"x"), "Save must not have a payload"),
        (snapshot.staged().with(json!("Commit"), b"x"), "Commit must not have a payload"),
        // Numbers and sizes.
        (nix().say(save(json!({ "level": 0 }))), "compression level: 0"),
        (nix().say(save(json!({ "level": i32::MIN }))), "compression level: -"),
        (nix().say(save(json!({ "memory": memory(0) }))), "threads must be at least 1"),
        (nix().say(save(json!({ "memory": memory(1 << 20) }))), "threads exceed the limit"),
        (nix().say(save(json!({ "memory": memory(-1) }))), "parse a message"),
        (nix().say(save(json!({ "max_size": -1 }))), "parse a message"),
        (nix().with(restore_zero, index), "threads must be at least 1"),
        (nix().with(restore_guix, index), "for the store kind guix"),
        (nix().with(snapshot.restore(), b"{}"), "ndex"),
        (hello().say(store(json!({ "lock_timeout": year }))), "longer than a year"),
        (hello().say(store(json!({ "daemon_timeout": year }))), "longer than a year"),
        (hello().say(store(json!({ "stall": year }))), "longer than a year"),
        (
            hello().say(store(json!({ "stall": { "secs": 0, "nanos": 999_999_999 } }))),
            "at least 1 s",
        ),
        (hello().say(store(json!({ "daemon": command }))), "bytes of a command"),
        (hello().say(store(json!({ "paths": many }))), "directories exceed the limit"),
        (hello().say(store(json!({ "shepherds": shepherds }))), "shepherds exceed the limit"),
        // Paths and names.
        (hello().say(store(json!({ "root": "relative" }))), "is not absolute"),
        (hello().say(store(json!({ "root": "/tmp/../etc" }))), "contains `..`"),
        (hello().say(store(json!({ "root": format!("/{long}") }))), "bytes of a path"),
        (hello().say(store(json!({ "kind": "plain" }))), "needs --path DIR"),
        (hello().say(store(json!({ "kind": "plain", "paths": ["x"] }))), "is not absolute"),
        (hello().say(store(json!({ "root": "/etc/passwd" }))), "there is no directory"),
        (hello().say(store(json!({ "root": "/etc" }))), "no nix store found"),
        (nix().say(save(json!({ "roots": ["../../etc/shadow"] }))), "../../etc/shadow"),
    ];
    // The "cut short" cases need the client to close the pipe. All others must end while the pipe is open.
    let (cut, whole): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|(_, with)| with.contains("cut short"));
    for (talk, with) in &cut {
        assert_refused(&talk.run(&world), with);
    }
    let (talks, with): (Vec<RequestStream>, Vec<&str>) = whole.into_iter().unzip();
    for (ended, with) in RequestStream::run_each_until_exit(&talks, &world).into_iter().zip(with) {
        assert_eq!(ended.code, 1, "{with}: {ended:?}");
        assert!(ended.said.contains("\"Failed\""), "{with}: {ended:?}");
        assert!(ended.said.contains(with), "{with}: {ended:?}");
        assert!(!ended.said.contains("panicked"), "{with}: {ended:?}");
    }
    assert_nothing_left(&world);
    assert_files_unchanged(&world, &before);
    assert!(world.daemon_answers());
    assert!(world.valid_paths().is_empty());
    world.verify_store();
}

#[test]
fn root_helper_cleans_up_after_a_disconnect_or_flood() {
    let world = confined_world(Some(Fixture::Small));
    world_runs::save(&world);
    world.wipe_store();
    let snapshot = Snapshot::open(&entry(&world));
    let before = protected_files(&world);
    let (message, bytes) = snapshot.frame(snapshot.wanted()[0]);
    let committing = snapshot.staged().say(json!("Commit"));
    let half = RequestStream(committing.0[..committing.0.len() / 2].to_vec());
    let points = [
        RequestStream::default(),
        RequestStream::hello(),
        RequestStream::for_nix_store(),
        RequestStream::for_nix_store().say(save(json!({}))),
        RequestStream::for_nix_store().with(snapshot.restore(), &snapshot.opened.index_bytes),
        snapshot.planned(),
        snapshot.planned().with(message, bytes),
        half,
        snapshot.staged(),
    ];
    for (point, talk) in points.iter().enumerate() {
        let done = talk.run(&world);
        assert!(!done.stderr.contains("panicked"), "{point}: {done}");
        assert!(!done.stdout.contains("\"Restored\""), "{point}: {done}");
        assert_nothing_left(&world);
    }
    // If the client disconnects during the commit, the commit is either completed or undone.
    let done = committing.run(&world);
    let said = |what: &str| done.stdout.contains(what);
    assert!(said("\"Restored\"") || said("canceled"), "{done}");
    assert_nothing_left(&world);
    poll::until("the daemon", TIMEOUT, || world.daemon_answers().then_some(()).ok_or("silent"));
    world.verify_store();
    if said("canceled") {
        assert_files_unchanged(&world, &before);
    }

    // An endless stream of input that is not a message.
    let script = format!("{{ cat /tmp/said; yes; }} | {ROOT_HELPER_COMMAND} >/tmp/heard");
    fs::write(world.host("/tmp/said"), RequestStream::for_nix_store().0).unwrap();
    let flooded = world.command(["bash", "-c", &script]).user("runner").run();
    assert!(!flooded.stderr.contains("panicked"), "{flooded}");
    assert_nothing_left(&world);
}

#[test]
fn root_helper_resets_inherited_process_state() {
    let world = confined_world(Some(Fixture::Small));
    // A sudo rule that passes everything through.
    let lax =
        format!("{RULE}Defaults !env_reset, setenv, !secure_path\nDefaults closefrom_override\n");
    fs::write(world.host("/etc/sudoers.d/runner"), lax).unwrap();
    let evil = "mkdir -p ~/bin; for name in systemctl herd sh nix-store; do
        printf '#!/bin/sh\\nid -u >>/home/runner/ran\\n' >~/bin/$name; chmod +x ~/bin/$name; done
        export PATH=~/bin:$PATH TMPDIR=/nowhere SQLITE_TMPDIR=/nowhere HOME=/nowhere SECRET=kept
        export XDG_RUNTIME_DIR=/nowhere NOTIFY_SOCKET=/nowhere RUST_BACKTRACE=full
        trap '' CHLD TERM HUP INT; ulimit -S -n 32; ulimit -S -f 1000; ulimit -S -t 1000
        cd /home/runner; exec 9</home/runner/.profile
        ";
    let talk = RequestStream::for_nix_store().say(json!("Examine")).say(save(json!({})));
    let helper_command = ROOT_HELPER_COMMAND.replace("-n", "-n -C 20");
    let script = format!("{evil} {{ cat /tmp/said; exec sleep 1000; }} | {helper_command}");
    fs::write(world.host("/tmp/said"), &talk.0).unwrap();
    let talking = world.command(["bash", "-c", &script]).user("runner").env("HOME", HOME).spawn();
    poll::until("the frozen database", TIMEOUT, || match talking.stdout() {
        said if said.contains("Frozen") => Ok(()),
        said => Err(format!("{said}{}", talking.stderr())),
    });
    let pid = world_runs::root_helper_pid(&world).as_raw_nonzero().get();
    let proc = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let open = fs::read_dir(proc.join("fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(!open.iter().any(|file| file.ends_with(".profile")), "{open:?}");
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // SIGHUP, SIGINT, SIGTERM and SIGCHLD.
    for signal in [1, 2, 15, 17] {
        assert_eq!(field("SigIgn:") & 1 << (signal - 1), 0, "signal {signal} is ignored");
    }
    assert_eq!(field("SigBlk:"), 0);
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(!limit("Max open files").contains(" 32 "), "{limits}");
    for name in ["Max file size", "Max cpu time", "Max address space"] {
        assert_eq!(limit(name).matches("unlimited").count(), 2, "{limits}");
    }
    // The helper's own limit: half of the memory of the machine.
    let data = limit("Max data size").split_whitespace().nth(3).unwrap().to_owned();
    assert!(data.parse::<u64>().unwrap() >= 256 << 20, "{limits}");
    assert!(guardian(&world).is_some(), "no guardian would remove the copy of the database");
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = rest.split_whitespace().collect();
    assert_eq!(fields[4], "0", "it has a terminal: {stat}");
    assert!(!world.host("/home/runner/ran").exists());
    drop(talking);
    world.sh("pkill -KILL -x sleep || true");
    assert_nothing_left(&world);
}

#[test]
fn root_helper_accepts_a_caller_identity_only_from_sudo() {
    let world = confined_world(None);
    let talk = RequestStream::for_nix_store();
    fs::write(world.host("/tmp/said"), &talk.0).unwrap();
    let as_root = |variables: &[(&str, &str)]| {
        let run = world.command(["storecache", "privileged"]).input(talk.0.clone());
        variables.iter().fold(run, |run, (name, value)| run.env(name, value)).run()
    };
    assert!(as_root(&[]).stdout.contains("state_dir"));
    for (variables, with) in [
        (&[("SUDO_UID", "runner"), ("SUDO_GID", "1001")][..], "SUDO_UID is not a number"),
        (&[("SUDO_UID", "-1"), ("SUDO_GID", "1001")], "SUDO_UID is not a number"),
        (&[("SUDO_UID", "1001")], "must both be set"),
        (&[("DOAS_USER", "runner")], "DOAS_USER is set"),
        (&[("PKEXEC_UID", "1001")], "PKEXEC_UID is set"),
    ] {
        let refused = as_root(variables);
        assert_eq!(refused.code(), 1, "{refused}");
        assert!(refused.stdout.contains(with), "{with}: {refused}");
    }
    // A pipe does not identify its other end; only its owner is known.
    let fifo = "mkfifo /tmp/pipe; chown runner /tmp/pipe; cat /tmp/said >/tmp/pipe &
        storecache privileged </tmp/pipe || true";
    let refused = world.sh(fifo);
    assert!(refused.stdout.contains("requests come from user 1001"), "{refused}");
    // A setuid-root copy of the program.
    world.sh("cp /usr/local/bin/storecache /opt/storecache; chmod u+s /opt/storecache");
    let script = "/opt/storecache privileged </tmp/said || true";
    let refused = world.run_as("runner", ["sh", "-c", script]);
    assert!(refused.stdout.contains("neither setuid nor setgid"), "{refused}");
}

#[test]
fn user_owned_store_is_restored_with_the_users_rights() {
    let world = confined_world(Some(Fixture::Small));
    let all = world.valid_paths();
    world.stop_daemon();
    world.wait_until_idle();
    let give = || world.sh("rm -rf /nix/var/nix/daemon-socket; chown -hR runner:runner /nix");
    give();
    let before = protected_files(&world);
    world_runs::save(&world);
    assert_files_unchanged(&world, &before);
    world.wipe_store();
    give();
    // A restore that cannot complete: its staging is read-only and must be removed anyway.
    let broken = "mkdir -p /nix/var/nix/gcroots; echo >/nix/var/nix/gcroots/storecache";
    world.run_as("runner", ["sh", "-c", broken]).ok();
    let failed = world_runs::attempt(&world, "runner", "restore", &[]).fails();
    assert!(failed.stderr.contains("with the rights of user 1001"), "{failed}");
    assert_nothing_left(&world);
    world.sh("rm /nix/var/nix/gcroots/storecache");
    let restored = world_runs::restore(&world);
    assert_eq!(restored["items"]["restored"], all.len(), "{restored}");
    for (path, entry) in tree_digest(world.host("/nix")) {
        assert_eq!(entry.uid, 1001, "{}", path.display());
    }
    assert_eq!(world.valid_paths(), all);
    assert_nothing_left(&world);
    world.verify_store();
}

/// Listens on the daemon's socket and accepts connections, but never answers.
const IMPOSTOR: &str = "import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind('/nix/var/nix/daemon-socket/socket')
listener.listen()
print('listening', flush=True)
while True:
    listener.accept()
";

#[test]
fn root_helper_refuses_a_user_process_on_the_daemon_socket() {
    let world = confined_world(Some(Fixture::Small));
    world_runs::save(&world);
    world.wipe_store();
    world.stop_daemon();
    world.sh("rm -f /nix/var/nix/daemon-socket/socket");
    // As in an installation that lets a group run its own daemons.
    world.sh("chgrp runner /nix/var/nix/daemon-socket; chmod 770 /nix/var/nix/daemon-socket");
    let words = ["unshare", "--user", "--map-root-user", "--mount", "python3", "-c", IMPOSTOR];
    let impostor = world.command(words).user("runner").spawn();
    poll::until("the impostor to listen", TIMEOUT, || match impostor.stdout() {
        said if said.contains("listening") => Ok(()),
        said => Err(format!("{said}{}", impostor.stderr())),
    });
    let before = protected_files(&world);
    let failed = world_runs::attempt(&world, "runner", "restore", &[]).fails();
    assert!(failed.stderr.contains("user 1001 opened the socket"), "{failed}");
    assert_files_unchanged(&world, &before);
    drop(impostor);
}

/// The rights of a process, for each thread: effective, permitted, inheritable, bounding and ambient
/// capability sets, whether it can gain no more privileges (1), and whether its calls are filtered (2).
fn rights(pid: u32) -> Vec<[u64; 7]> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let read = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let sets = ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"];
        let names = sets.into_iter().chain(["NoNewPrivs:", "Seccomp:"]);
        let values: Option<Vec<u64>> = names.map(value).collect();
        values?.try_into().ok()
    };
    threads.filter_map(read).collect()
}

fn set(stage: Stage) -> u64 {
    stage.keeps().iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one).bits()
}

#[track_caller]
fn assert_stage_rights(world: &World, stage: Stage) {
    let pid = world_runs::root_helper_pid(world).as_raw_nonzero().get() as u32;
    let found = rights(pid);
    let bounding = set(Stage::Asked);
    let (own, listening) = (set(stage), set(Stage::Listening));
    assert!(found.len() >= 2, "{stage:?}: {found:x?}");
    assert!(found.iter().any(|thread| thread[0] == own), "{stage:?}: {found:x?}");
    for [effective, permitted, inheritable, bound, ambient, no_more, filtered] in found {
        assert!([own, listening].contains(&effective), "{stage:?}: {effective:x}");
        assert_eq!(permitted, effective);
        assert_eq!((inheritable, ambient, no_more, filtered), (0, 0, 1, 2), "{stage:?}");
        // The bounding set is not reduced further: this would need one more capability, and the set grants
        // nothing to a process with fewer capabilities.
        assert_eq!(bound, bounding, "{stage:?}: {bound:x}");
    }
}

fn guardian(world: &World) -> Option<u32> {
    procfs::processes_in_namespace(world.init()).into_iter().find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"storecache-guardian")
    })
}

#[test]
fn root_helper_keeps_only_the_capabilities_of_its_stage() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        world_runs::save(&world);
        let snapshot = Snapshot::open(&entry(&world));
        let kind = world.package_manager().name();
        let about = || RequestStream::hello().say(store(json!({ "kind": kind })));
        let all = rights(world.init())[0][0];
        let holding = |talk: RequestStream, until: &str, more: &str| {
            let helper_command = format!("{ROOT_HELPER_COMMAND} {more}");
            let talking = talk.hold(&world, "runner", &helper_command);
            poll::until(until, TIMEOUT, || match fs::read(world.host("/tmp/heard")) {
                Ok(heard) if String::from_utf8_lossy(&heard).contains(until) => Ok(()),
                _ => Err(format!("{}{}", talking.stdout(), talking.stderr())),
            });
            talking
        };
        let end = |talking: Running| {
            drop(talking);
            world.sh("pkill -KILL -x sleep || true; rm -f /tmp/heard");
            assert_nothing_left(&world);
        };

        let asked = holding(about().say(json!("Valid")), "\"Valid\"", ">/tmp/heard");
        assert_stage_rights(&world, Stage::Asked);
        let waiting = guardian(&world).expect("it waits");
        let environment = fs::read_to_string(format!("/proc/{waiting}/environ")).unwrap();
        assert!(environment.starts_with("PATH=/usr/local/sbin:"), "{environment}");
        assert_eq!(environment.matches('\0').count(), 1, "{environment}");
        let guardian_may = rights(waiting);
        assert!(guardian_may.iter().all(|thread| thread[0] == all && thread[5..] == [0, 0]));
        end(asked);

        // The client stops reading frames.
        let pack = about().say(save(json!({}))).say(json!({ "Pack": { "delta": false } }));
        let slow = "| { head -c 3000 >/tmp/heard; sleep 1000; }";
        let packing = holding(pack, "\"Frame\"", slow);
        assert_stage_rights(&world, Stage::Packing);
        end(packing);

        world.wipe_store();
        let talk = about().with(snapshot.restore(), &snapshot.opened.index_bytes);
        let talk = snapshot.database().fold(talk, |talk, number| {
            let (message, bytes) = snapshot.frame(number);
            talk.with(message, bytes)
        });
        let restoring = holding(talk.clone(), "\"Plan\"", ">/tmp/heard");
        assert_stage_rights(&world, Stage::Restoring);
        end(restoring);

        // During the commit too, while the daemon is stopped.
        let lock = world.hold_database();
        let talk = snapshot.wanted().into_iter().fold(talk, |talk, number| {
            let (message, bytes) = snapshot.frame(number);
            talk.with(message, bytes)
        });
        let committing = talk.say(json!("Commit")).hold(&world, "runner", ROOT_HELPER_COMMAND);
        poll::until("the daemon to be away", TIMEOUT, || match world.daemon_pid() {
            None => Ok(()),
            Some(pid) => Err(format!("{pid} {}", committing.stdout())),
        });
        assert_stage_rights(&world, Stage::Restoring);
        drop(lock);
        poll::until("the end", TIMEOUT, || match committing.stdout() {
            said if said.contains("Restored") => Ok(()),
            said => Err(said),
        });
        end(committing);
        world.verify_store();
    }
}

/// The table of capabilities as defined by the program.
fn capabilities() -> String {
    let stages = [Stage::Asked, Stage::Packing, Stage::Restoring];
    let mut table = "| capability | asked | packing | restoring |\n|---|---|---|---|\n".to_owned();
    let all: CapabilitySet =
        Stage::ALL.iter().flat_map(|stage| stage.keeps()).map(|kept| kept.0).collect();
    for (name, one) in all.iter_names() {
        let why = |stage: &Stage| {
            let kept = stage.keeps().iter().find(|kept| kept.0 == one);
            kept.map_or("", |kept| kept.1).to_owned()
        };
        let cells: Vec<String> = stages.iter().map(why).collect();
        table += &format!("| `CAP_{name}` | {} |\n", cells.join(" | "));
    }
    table
}

#[test]
fn security_md_lists_all_capabilities_and_messages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let table = capabilities();
    assert!(text.contains(&table), "SECURITY.md must have this table:\n{table}");
    assert!(text.contains(RULE.trim_end()));

    let source = fs::read_to_string(root.join("crates/root-helper/src/protocol.rs")).unwrap();
    let (_, rest) = source.split_once("pub enum Request {").unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    let messages: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap())
        .collect();
    let (_, section) = text.split_once("### Messages").unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .take_while(|name| !name.starts_with("CAP_"))
        .collect();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let leak = |names: Vec<&str>| names.iter().map(|name| &*name.to_string().leak()).collect();
    assert_eq!(sorted(leak(messages)), sorted(leak(rows)));
}
