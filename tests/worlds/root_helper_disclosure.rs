//! A user whose sudo rule allows `storecache privileged` and nothing else: what the root helper reveals to
//! this user about processes, locks and journals, and how much memory it uses.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::snapshot_builder::open_bytes;
use crate::support::world_runs::{self, report};
use crate::support::{Fixture, Output, Role, Running, World, poll};
use serde_json::{Value, json};
use storecache_root_helper::protocol::{PROTOCOL, write_message};
use storecache_runtime::memory::{Packing, Unpacking};

const TIMEOUT: Duration = Duration::from_secs(60);
const RULE: &str = "runner ALL=(root) NOPASSWD: /usr/local/bin/storecache privileged\n";
const HELPER: [&str; 4] = ["sudo", "-n", "/usr/local/bin/storecache", "privileged"];
/// A text that root types on a command line, or that a daemon writes into its journal.
const SECRET: &str = "only-root-knows-this";

/// Takes `big-lock` as a client of the database does, until the process is ended.
const HOLD_LOCK_SCRIPT: &str = "import fcntl, signal
lock = open('/nix/var/nix/db/big-lock', 'r+')
fcntl.flock(lock, fcntl.LOCK_SH)
print('held', flush=True)
signal.pause()
";

/// Sends `/tmp/talk` to a root helper, then runs the Python code in `/tmp/script`, which may send more, and keeps
/// the pipe open until the helper has ended. Prints the helper's replies and the largest resident size of sudo and
/// all processes that it started, in KiB (`man 2 getrusage`, `RUSAGE_CHILDREN`).
const CLIENT: &str = "import resource, subprocess, sys, threading
def send(json, payload=b''):
    lengths = len(json).to_bytes(4, 'big') + len(payload).to_bytes(4, 'big')
    helper.stdin.write(lengths + json + payload)
    helper.stdin.flush()
def talk():
    try:
        helper.stdin.write(open('/tmp/talk', 'rb').read())
        exec(open('/tmp/script').read())
        # Out of turn whenever it comes, so that the helper ends.
        send(b'\"Commit\"')
    except BrokenPipeError:
        pass
helper = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
talking = threading.Thread(target=talk)
talking.start()
said = helper.stdout.read()
helper.wait()
talking.join()
sys.stdout.write(said.decode('utf-8', 'replace'))
print()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
";

fn write_sudo_rule(world: &World) {
    fs::write(world.host("/etc/sudoers.d/runner"), RULE).unwrap();
}

/// A bare world with a store and a daemon.
fn confined_world() -> World {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    write_sudo_rule(&world);
    world.start_daemon();
    world
}

/// The messages of a conversation about the store of this machine.
struct Talk(Vec<u8>);

impl Talk {
    fn new(kind: &str) -> Talk {
        let patience = json!({ "secs": 2, "nanos": 0 });
        let store = json!({ "Store": {
            "kind": kind, "root": "/", "paths": [], "daemon": "auto", "asks_version": false,
            "shepherds": [], "lock_timeout": patience, "daemon_timeout": patience,
            "stall": { "secs": 60, "nanos": 0 },
        } });
        Talk(Vec::new()).say(json!({ "Hello": { "protocol": PROTOCOL } }), &[]).say(store, &[])
    }

    fn say(mut self, message: Value, payload: &[u8]) -> Talk {
        write_message(&mut self.0, &message, payload).unwrap();
        self
    }

    /// Sends the messages through sudo as the user, followed by the messages of a script.
    fn then(&self, script: &str, world: &World) -> Output {
        fs::write(world.host("/tmp/talk"), &self.0).unwrap();
        fs::write(world.host("/tmp/script"), script).unwrap();
        let words = ["python3", "-c", CLIENT].into_iter().chain(HELPER);
        world.command(words).user("runner").ok()
    }

    fn run(&self, world: &World) -> Output {
        self.then("", world)
    }
}

/// The entry of the key `test` in the backend of a world.
fn entry(world: &World) -> PathBuf {
    let mut files = fs::read_dir(world.backend().host_path()).unwrap();
    files.next().unwrap().unwrap().path()
}

/// All messages of a restore, including the commit.
fn restore_messages(world: &World) -> Talk {
    let content = fs::read(entry(world)).unwrap();
    let opened = open_bytes(&content).unwrap();
    let restore = json!({ "Restore": {
        "store": opened.head.store, "memory": Unpacking::on(1), "replace": false,
        "verify_content": false, "sync": false,
    } });
    let index = &opened.index;
    let (first, last) = index.database.as_ref().unwrap().frames;
    let frames = (first..=last).chain(index.frames_of(0..index.items.len()));
    let talk = Talk::new("nix").say(restore, &opened.index_bytes);
    let talk = frames.fold(talk, |talk, number| {
        let frame = &index.frames[number as usize];
        let bytes = &content[frame.at as usize..][..frame.size as usize];
        talk.say(json!({ "Frame": { "which": "entry", "number": number } }), bytes)
    });
    talk.say(json!("Commit"), &[])
}

fn doctor(world: &World, user: &str) -> Output {
    let words =
        ["doctor", "--store", world.package_manager().name(), "--json", "--backend", "dir:/cache"];
    world.storecache_as(user, words).run()
}

#[track_caller]
fn found<'a>(report: &'a Value, check: &str) -> &'a str {
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == check).unwrap();
    row["found"].as_str().unwrap()
}

/// Starts a process of root that holds `big-lock` and has a secret on its command line.
fn start_lock_holder(world: &World) -> Running<'_> {
    let holding = world.spawn(["python3", "-c", HOLD_LOCK_SCRIPT, SECRET]);
    poll::until("the lock", TIMEOUT, || match holding.stdout() {
        said if said.contains("held") => Ok(()),
        said => Err(format!("{said}{}", holding.stderr())),
    });
    holding
}

/// Sets whether other users see a process of root in `/proc`.
fn set_hidepid(world: &World, mode: &str) {
    world.sh(&format!("mount -o remount,hidepid={mode} /proc"));
    let seen = world.run_as("runner", ["cat", "/proc/1/cmdline"]);
    assert_eq!(seen.code() == 0, mode == "0", "{seen}");
}

#[test]
fn confined_user_cannot_see_hidden_command_lines() {
    let world = confined_world();
    world_runs::save(&world);
    world.wipe_store();
    let whole = restore_messages(&world);
    let holding = start_lock_holder(&world);
    set_hidepid(&world, "2");

    let output = doctor(&world, "runner");
    assert!(!output.to_string().contains(SECRET), "{output}");
    let json = report(&output);
    assert!(found(&json, "locks").contains("is held by another process"), "{json}");
    let examined = Talk::new("nix").say(json!("Examine"), &[]).run(&world);
    assert!(examined.stdout.contains("big-lock is held by another process"), "{examined}");
    assert!(!examined.to_string().contains(SECRET), "{examined}");

    let waited = world_runs::attempt(&world, "runner", "restore", &["--lock-timeout", "2"]).fails();
    assert!(waited.stderr.contains("is still held after 2 s by another process"), "{waited}");
    assert!(!waited.to_string().contains(SECRET), "{waited}");
    let waited = whole.run(&world);
    assert!(waited.stdout.contains("is held by another process"), "while it waits: {waited}");
    assert!(waited.stdout.contains("is still held after 2 s"), "{waited}");
    assert!(!waited.to_string().contains(SECRET), "{waited}");

    // Root sees all of it.
    let json = report(&doctor(&world, "root"));
    assert!(found(&json, "locks").contains(SECRET), "{json}");
    // So does a user who can read it in /proc and /proc/locks directly.
    set_hidepid(&world, "0");
    let json = report(&doctor(&world, "runner"));
    assert!(found(&json, "locks").contains(SECRET), "{json}");
    drop(holding);
}

#[test]
fn confined_user_cannot_see_hidden_daemons() {
    let world = confined_world();
    world_runs::save(&world);
    world.wipe_store();
    // A second daemon takes the socket. The guardian's messages about the first one reach the user too.
    world.sh("pkill -x nix-daemon; rm -f /nix/var/nix/daemon-socket/socket");
    let start = |word: &str| {
        let before = world.listener("/nix/var/nix/daemon-socket/socket");
        let daemon = format!("nix-daemon --daemon --option extra-platforms {word}");
        world.sh(&format!("setsid --fork {daemon} </dev/null >>/var/log/daemon 2>&1"));
        poll::until("the daemon to listen", TIMEOUT, || {
            let now = world.listener("/nix/var/nix/daemon-socket/socket");
            now.filter(|_| now != before).ok_or("no process listens")
        });
    };
    start(SECRET);
    start("nothing");
    set_hidepid(&world, "2");
    let restored = world_runs::attempt(&world, "runner", "restore", &[]).ok();
    assert!(!restored.to_string().contains(SECRET), "{restored}");
    assert!(
        restored.stdout.contains("another process is also a daemon of this store"),
        "{restored}"
    );
}

#[test]
fn confined_user_sees_their_own_processes() {
    let world = confined_world();
    world.sh("chmod 666 /nix/var/nix/db/big-lock; chmod 755 /nix/var/nix/db");
    let holding =
        world.command(["python3", "-c", HOLD_LOCK_SCRIPT, "my-own-words"]).user("runner").spawn();
    poll::until("the lock", TIMEOUT, || match holding.stdout() {
        said if said.contains("held") => Ok(()),
        said => Err(format!("{said}{}", holding.stderr())),
    });
    set_hidepid(&world, "2");
    let report = report(&doctor(&world, "runner"));
    assert!(found(&report, "locks").contains("my-own-words"), "{report}");
    drop(holding);
}

#[test]
fn confined_user_cannot_read_the_journal() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    let unit = "guix-daemon.service";
    let write = format!(
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
         s.connect('/run/systemd/journal/socket'); \
         s.send(b'MESSAGE=No space left on device: {SECRET}\\nPRIORITY=3\\n\
         OBJECT_SYSTEMD_UNIT={unit}\\nUNIT={unit}\\n')"
    );
    world.ok(["python3", "-c", &write]);
    poll::until("the journal to have it", TIMEOUT, || {
        world.run(["journalctl", "--sync"]);
        let read = world.run(["journalctl", "--unit", unit]).stdout;
        if read.contains(SECRET) { Ok(()) } else { Err(read) }
    });
    let json = report(&doctor(&world, "runner"));
    assert!(found(&json, "journal").contains(SECRET), "they may run anything as root: {json}");

    write_sudo_rule(&world);
    set_hidepid(&world, "2");
    let output = doctor(&world, "runner");
    assert!(!output.to_string().contains(SECRET), "{output}");
    let json = report(&output);
    assert!(found(&json, "journal").contains("not read"), "{json}");
    let examined = Talk::new("guix").say(json!("Examine"), &[]).run(&world);
    assert!(examined.stdout.contains("\"journal\""), "{examined}");
    assert!(!examined.to_string().contains(SECRET), "{examined}");
    assert!(!examined.stdout.contains("No space left"), "{examined}");
}

/// The memory of the machine, as the world sees it.
const MACHINE_MEMORY: u64 = 600 << 20;

#[test]
fn root_helper_memory_is_bounded_by_the_machine() {
    let world = confined_world();
    let state_before = world_runs::record_state(&world);
    world_runs::save(&world);
    world.sh(&format!(
        "sed 's/^MemTotal: .*/MemTotal: {} kB/' /proc/meminfo >/tmp/meminfo
         mount --bind /tmp/meminfo /proc/meminfo",
        MACHINE_MEMORY >> 10
    ));
    let most = 1u64 << 50;
    let save = json!({ "Save": {
        "level": 1, "long": false, "leave_out": ["NAMES"], "known": [], "restored": {}, "roots": [],
        "memory": Packing { threads: 1024, in_flight: most, largest: most }, "max_size": null,
        "base": null,
    } });
    let save = save.to_string();
    let (before, after) = save.split_once("\"NAMES\"").unwrap();
    let opened = open_bytes(&fs::read(entry(&world)).unwrap()).unwrap();
    let restore = json!({ "Restore": {
        "store": opened.head.store, "replace": false, "verify_content": true, "sync": false,
        "memory": Unpacking { threads: 1024, compressed: most, large: most },
    } });
    let frame = r#"{"Frame":{"which":"entry","number":0}}"#;
    for (what, script) in [
        (
            "a list of 40 million names",
            format!("send(b'{before}' + b'\"\",' * 40_000_000 + b'\"\"{after}')"),
        ),
        ("an index of 400 MiB", format!("send(b'{restore}', b'[' * (400 << 20))")),
        ("a frame of 400 MiB", format!("send(b'{frame}', bytes(400 << 20))")),
        (
            "patterns in many messages",
            "for _ in range(8): send(b'{\"Check\":[' + b'\"\",' * 4_000_000 + b'\"\"]}')".into(),
        ),
    ] {
        let measured = Talk::new("nix").then(&script, &world);
        let kibibytes: u64 = measured.lines().last().unwrap().parse().unwrap();
        assert!(
            kibibytes << 10 <= MACHINE_MEMORY / 2,
            "{what}: {} MiB: {measured}",
            kibibytes >> 10
        );
    }
    // Ordinary runs still work.
    world.wipe_store();
    world_runs::restore(&world);
    world_runs::assert_same(&state_before, &world_runs::record_state(&world));
}
