//! How long a user with the sudo rule can keep the daemon stopped, and how long this user can hold locks.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::attacker::{confined, socket_directory};
use super::support::requests::{ROOT_HALF, Snapshot, Talk, entry, save, store};
use super::support::{Role, Running, World, poll, runs};

/// Far more than the 60 seconds after which the helper aborts.
const LIMIT: Duration = Duration::from_secs(200);

/// Responds to the plan with frames and `Commit`, and then reads no replies, while the pipe for them is full.
/// With the first argument `blocking` it also makes the helper's end of the pipe blocking again.
const DEAF: &str = "import fcntl, os, signal, subprocess, sys
replies, theirs = os.pipe()
helper = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=theirs)
with open('/tmp/planned', 'rb') as planned:
    helper.stdin.write(planned.read())
helper.stdin.flush()
heard = b''
while b'\"Plan\"' not in heard:
    heard += os.read(replies, 65536)
print('planned', flush=True)
if sys.argv[1] == 'blocking':
    fcntl.fcntl(theirs, fcntl.F_SETFL, 0)
fill = os.open(f'/proc/self/fd/{theirs}', os.O_WRONLY | os.O_NONBLOCK)
try:
    while True:
        os.write(fill, b'\\0')
except BlockingIOError:
    pass
try:
    with open('/tmp/rest', 'rb') as rest:
        helper.stdin.write(rest.read())
    helper.stdin.flush()
except BrokenPipeError:
    pass
signal.pause()
";

/// Requests a restore with commands that fail to stop and to start the daemon. The pipe for error output is
/// full.
const MUTE: &str = "import fcntl, os, signal, subprocess, sys
errors, theirs = os.pipe()
fill = os.open(f'/proc/self/fd/{theirs}', os.O_WRONLY | os.O_NONBLOCK)
try:
    while True:
        os.write(fill, b'\\0')
except BlockingIOError:
    pass
helper = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stderr=theirs)
with open('/tmp/rest', 'rb') as rest:
    helper.stdin.write(rest.read())
helper.stdin.flush()
signal.pause()
";

/// Returns a `Store` request with timeouts of a year.
fn patient(kind: &str) -> Talk {
    let year = json!({ "secs": 366 * 24 * 60 * 60, "nanos": 0 });
    Talk::hello().say(store(json!({
        "kind": kind, "lock_patience": year, "daemon_patience": year, "stall": year,
    })))
}

/// Returns a world with one snapshot and an empty store.
fn emptied(role: Role) -> (World, Snapshot) {
    let world = confined(role);
    runs::save(&world);
    let snapshot = Snapshot::of(&entry(&world));
    world.wipe_store();
    socket_directory(&world, 0o755);
    (world, snapshot)
}

/// Panics unless the helper ends by itself and leaves nothing behind, while the daemon always answers.
#[track_caller]
fn assert_cut_off(world: &World, attacker: &Running) {
    poll::until("the helper to give up", LIMIT, || {
        assert!(world.daemon_answers(), "the daemon is away: {}", replies(attacker));
        let mut left = runs::leftovers(world);
        left.retain(|what| what != "storecache" && !what.contains("said"));
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
    assert!(world.daemon_answers());
    assert!(world.valid_paths().is_empty(), "it was restored: {}", replies(attacker));
}

/// Returns the last replies of the helper, without their lengths.
fn replies(attacker: &Running) -> String {
    let all: Vec<char> = attacker.stdout().chars().filter(|it| !it.is_control()).collect();
    all[all.len().saturating_sub(500)..].iter().collect()
}

/// Panics unless a restore is possible again.
#[track_caller]
fn assert_restores(world: &World) {
    let restored = runs::restore(world);
    assert_ne!(restored["items"]["restored"], 0, "{restored}");
    world.verify_store();
}

#[track_caller]
fn until_heard(attacker: &Running, what: &str) {
    poll::until(what, LIMIT, || match attacker.stdout() {
        said if said.contains(what) => Ok(()),
        _ => Err(format!("{}{}", replies(attacker), attacker.stderr())),
    });
}

/// Finding 6: the user's own client has the database open, for which the daemon's child holds `big-lock`.
fn own_client_holds_the_database(role: Role) {
    let (world, snapshot) = emptied(role);
    let client = world.connected_client_as("runner");
    let daemon = world.daemon_pid();
    world.try_lock("db/big-lock").unwrap_err();
    let talk = snapshot.staged_after(patient(world.flavour().name())).say(json!("Commit"));
    let attacker = talk.hold(&world, "runner", ROOT_HALF);
    until_heard(&attacker, "\"Plan\"");
    assert_cut_off(&world, &attacker);
    assert!(attacker.stdout().contains("big-lock"), "not for the lock: {}", replies(&attacker));
    assert_eq!(world.daemon_pid(), daemon, "the daemon was stopped");
    drop((client, attacker));
    assert_restores(&world);
}

/// The guardian ends a helper that hangs in its commit while the daemon is stopped.
#[test]
fn hanging_helper_keeps_the_daemon_away_for_a_minute_slow() {
    let (world, snapshot) = emptied(Role::Mid);
    let database = world.hold_database();
    let talk = snapshot.staged_after(patient("nix")).say(json!("Commit"));
    let attacker = talk.hold(&world, "runner", ROOT_HALF);
    poll::until("the daemon to be stopped", LIMIT, || match world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", replies(&attacker))),
    });
    kill_process(runs::root_half(&world), Signal::STOP).unwrap();
    poll::until("the daemon to be back", LIMIT, || world.daemon_pid().ok_or("it is away"));
    drop(database);
    poll::until("the daemon to answer", LIMIT, || {
        if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
    });
    assert!(world.valid_paths().is_empty(), "it was restored: {}", replies(&attacker));
    drop(attacker);
    assert_restores(&world);
}

#[test]
fn nix_daemon_answers_while_a_lock_is_held_slow() {
    own_client_holds_the_database(Role::Mid);
}

#[test]
fn guix_daemon_answers_while_a_lock_is_held_slow() {
    own_client_holds_the_database(Role::GuixRoot);
}

/// The helper itself makes no progress, for whatever reason: here a signal stops it in the commit.
#[test]
fn stopped_helper_does_not_keep_the_daemon_away_slow() {
    let (world, snapshot) = emptied(Role::Mid);
    let database = world.hold_database();
    let talk = snapshot.staged_after(patient("nix")).say(json!("Commit"));
    let requester = talk.hold(&world, "runner", ROOT_HALF);
    poll::until("the daemon to be stopped", LIMIT, || match world.daemon_pid() {
        None => Ok(()),
        Some(_) => Err(replies(&requester)),
    });
    kill_process(runs::root_half(&world), Signal::STOP).unwrap();
    poll::until("the daemon to be back", LIMIT, || {
        if world.daemon_answers() { Ok(()) } else { Err("it is away") }
    });
    drop(database);
    // sudo stops itself along with its command, and is not checked here.
    poll::until("the commit to be undone", LIMIT, || {
        let left = [runs::staging(&world), world.try_lock("gc.lock").err().into_iter().collect()];
        if left.concat().is_empty() { Ok(()) } else { Err(left.concat().join("; ")) }
    });
    assert!(world.valid_paths().is_empty(), "it was restored: {}", replies(&requester));
    drop(requester);
    assert_restores(&world);
}

/// The requester sends nothing after the plan.
fn silent_after_the_plan() {
    let (world, snapshot) = emptied(Role::Mid);
    let attacker = snapshot.planned_after(patient("nix")).hold(&world, "runner", ROOT_HALF);
    until_heard(&attacker, "\"Plan\"");
    world.try_lock("gc.lock").unwrap_err();
    assert_cut_off(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// The requester sends one frame, so that staging exists, and then nothing.
fn silent_after_a_frame() {
    let (world, snapshot) = emptied(Role::Mid);
    let (message, bytes) = snapshot.frame(snapshot.wanted()[0]);
    let talk = snapshot.planned_after(patient("nix")).with(message, bytes);
    let attacker = talk.hold(&world, "runner", ROOT_HALF);
    poll::until("staging", LIMIT, || match runs::staging(&world) {
        staging if staging.is_empty() => Err(replies(&attacker)),
        _ => Ok(()),
    });
    assert_cut_off(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// The requester requests a save and reads no frames. The helper holds `gc.lock` meanwhile.
fn deaf_for_frames() {
    let (world, _) = emptied(Role::Mid);
    runs::restore(&world);
    let order: Value = json!({ "Pack": { "delta": false } });
    let talk = patient("nix").say(save(json!({}))).say(order);
    let deaf = format!("{ROOT_HALF} | {{ head -c 3000; sleep 1000; }}");
    let attacker = talk.hold(&world, "runner", &deaf);
    until_heard(&attacker, "\"Frozen\"");
    world.try_lock("gc.lock").unwrap_err();
    poll::until("the helper to give up", LIMIT, || {
        assert!(world.daemon_answers());
        world.try_lock("gc.lock")
    });
}

/// The requester reads no replies while the helper commits.
fn deaf_for_replies() {
    deaf_in_the_commit("polite");
}

/// The requester also has the pipe for replies open, and decides whether a write to it blocks.
fn deaf_with_a_blocking_pipe() {
    deaf_in_the_commit("blocking");
}

fn deaf_in_the_commit(pipe: &str) {
    let (world, snapshot) = emptied(Role::Mid);
    let planned = snapshot.planned_after(patient("nix"));
    let staged = snapshot.staged_after(patient("nix")).say(json!("Commit"));
    fs::write(world.host("/tmp/planned"), &planned.0).unwrap();
    fs::write(world.host("/tmp/rest"), &staged.0[planned.0.len()..]).unwrap();
    let words = ["python3", "-c", DEAF, pipe].into_iter().chain(ROOT_HALF.split(' '));
    let attacker = world.command(words).user("runner").spawn();
    until_heard(&attacker, "planned");
    poll::until("the helper to give up", LIMIT, || {
        let mut left = runs::leftovers(&world);
        left.retain(|what| what != "storecache");
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
    // The helper may have committed: then all items are there, otherwise none of them.
    assert!(world.daemon_answers());
    world.verify_store();
    drop(attacker);
    runs::restore(&world);
}

/// The requester reads no error output, and the daemon's start command fails.
fn deaf_for_errors() {
    let (world, snapshot) = emptied(Role::Mid);
    let command = json!({ "command": { "stop": "false", "start": "false" } });
    let talk = Talk::hello().say(store(json!({ "daemon": command })));
    let staged = snapshot.staged_after(talk).say(json!("Commit"));
    fs::write(world.host("/tmp/rest"), &staged.0).unwrap();
    let words = ["python3", "-c", MUTE].into_iter().chain(ROOT_HALF.split(' '));
    let attacker = world.command(words).user("runner").spawn();
    until_heard(&attacker, "\"Plan\"");
    assert_cut_off(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// Each case waits for the helper's 60 seconds, so they run at the same time.
#[test]
fn stalled_requester_is_cut_off_slow() {
    let cases: [(&str, fn()); 6] = [
        ("silent after the plan", silent_after_the_plan),
        ("silent after a frame", silent_after_a_frame),
        ("deaf for frames", deaf_for_frames),
        ("deaf for replies", deaf_for_replies),
        ("deaf with a blocking pipe", deaf_with_a_blocking_pipe),
        ("deaf for errors", deaf_for_errors),
    ];
    let failed: Vec<&str> = thread::scope(|scope| {
        let running = cases.map(|(name, case)| (name, scope.spawn(case)));
        let failed = running.into_iter().filter_map(|(name, case)| case.join().err().map(|_| name));
        failed.collect()
    });
    assert!(failed.is_empty(), "not cut off: {failed:?}");
}
