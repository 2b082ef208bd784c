//! How long a user with the sudo rule can keep the daemon stopped, and how long this user can hold locks.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::attacker::{confined, socket_directory};
use crate::support::helper_requests::{
    ROOT_HELPER_COMMAND, RequestStream, Snapshot, entry, save, store,
};
use crate::support::{Role, Running, World, poll, world_runs};

/// Far more than the 60 seconds after which the helper aborts.
const TIMEOUT: Duration = Duration::from_secs(200);

/// Responds to the plan with frames and `Commit`, and then reads no replies, while the pipe for them is full.
/// With the first argument `blocking` it also makes the helper's end of the pipe blocking again.
const STOPS_READING_REPLIES: &str = "import fcntl, os, signal, subprocess, sys
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
const FULL_ERROR_PIPE: &str = "import fcntl, os, signal, subprocess, sys
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
fn store_request_with_year_timeouts(kind: &str) -> RequestStream {
    let year = json!({ "secs": 366 * 24 * 60 * 60, "nanos": 0 });
    RequestStream::hello().say(store(json!({
        "kind": kind, "lock_timeout": year, "daemon_timeout": year, "stall": year,
    })))
}

/// Returns a world with one snapshot and an empty store.
fn world_with_empty_store(role: Role) -> (World, Snapshot) {
    let world = confined(role);
    world_runs::save(&world);
    let snapshot = Snapshot::open(&entry(&world));
    world.wipe_store();
    socket_directory(&world, 0o755);
    (world, snapshot)
}

/// Panics unless the helper ends by itself and leaves nothing behind, while the daemon always answers.
#[track_caller]
fn assert_helper_aborts(world: &World, attacker: &Running) {
    poll::until("the helper to abort", TIMEOUT, || {
        assert!(world.daemon_answers(), "the daemon is away: {}", replies(attacker));
        let mut left = world_runs::leftovers(world);
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
    let restored = world_runs::restore(world);
    assert_ne!(restored["items"]["restored"], 0, "{restored}");
    world.verify_store();
}

#[track_caller]
fn wait_for_reply(attacker: &Running, what: &str) {
    poll::until(what, TIMEOUT, || match attacker.stdout() {
        said if said.contains(what) => Ok(()),
        _ => Err(format!("{}{}", replies(attacker), attacker.stderr())),
    });
}

/// Finding 6: the user's own client has the database open, for which the daemon's child holds `big-lock`.
fn own_client_holds_the_database(role: Role) {
    let (world, snapshot) = world_with_empty_store(role);
    let client = world.connected_client_as("runner");
    let daemon = world.daemon_pid();
    world.try_lock("db/big-lock").unwrap_err();
    let talk = snapshot
        .staged_after(store_request_with_year_timeouts(world.package_manager().name()))
        .say(json!("Commit"));
    let attacker = talk.hold(&world, "runner", ROOT_HELPER_COMMAND);
    wait_for_reply(&attacker, "\"Plan\"");
    assert_helper_aborts(&world, &attacker);
    assert!(attacker.stdout().contains("big-lock"), "not for the lock: {}", replies(&attacker));
    assert_eq!(world.daemon_pid(), daemon, "the daemon was stopped");
    drop((client, attacker));
    assert_restores(&world);
}

/// The guardian ends a helper that hangs in its commit while the daemon is stopped.
#[test]
fn hanging_helper_stops_the_daemon_for_at_most_a_minute_slow() {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let database = world.hold_database();
    let talk = snapshot.staged_after(store_request_with_year_timeouts("nix")).say(json!("Commit"));
    let attacker = talk.hold(&world, "runner", ROOT_HELPER_COMMAND);
    poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
        None => Ok(()),
        Some(pid) => Err(format!("process {pid} listens; {}", replies(&attacker))),
    });
    kill_process(world_runs::root_helper_pid(&world), Signal::STOP).unwrap();
    poll::until("the daemon to run again", TIMEOUT, || {
        world.daemon_pid().ok_or("no process listens")
    });
    drop(database);
    poll::until("the daemon to answer", TIMEOUT, || {
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
fn stopped_helper_does_not_keep_the_daemon_stopped_slow() {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let database = world.hold_database();
    let talk = snapshot.staged_after(store_request_with_year_timeouts("nix")).say(json!("Commit"));
    let requester = talk.hold(&world, "runner", ROOT_HELPER_COMMAND);
    poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
        None => Ok(()),
        Some(_) => Err(replies(&requester)),
    });
    kill_process(world_runs::root_helper_pid(&world), Signal::STOP).unwrap();
    poll::until("the daemon to run again", TIMEOUT, || {
        if world.daemon_answers() { Ok(()) } else { Err("no process listens") }
    });
    drop(database);
    // sudo stops itself along with its command, and is not checked here.
    poll::until("the commit to be undone", TIMEOUT, || {
        let left =
            [world_runs::staging(&world), world.try_lock("gc.lock").err().into_iter().collect()];
        if left.concat().is_empty() { Ok(()) } else { Err(left.concat().join("; ")) }
    });
    assert!(world.valid_paths().is_empty(), "it was restored: {}", replies(&requester));
    drop(requester);
    assert_restores(&world);
}

/// The requester sends nothing after the plan.
fn send_nothing_after_the_plan() {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let attacker = snapshot.planned_after(store_request_with_year_timeouts("nix")).hold(
        &world,
        "runner",
        ROOT_HELPER_COMMAND,
    );
    wait_for_reply(&attacker, "\"Plan\"");
    world.try_lock("gc.lock").unwrap_err();
    assert_helper_aborts(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// The requester sends one frame, so that staging exists, and then nothing.
fn send_nothing_after_a_frame() {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let (message, bytes) = snapshot.frame(snapshot.wanted()[0]);
    let talk = snapshot.planned_after(store_request_with_year_timeouts("nix")).with(message, bytes);
    let attacker = talk.hold(&world, "runner", ROOT_HELPER_COMMAND);
    poll::until("staging", TIMEOUT, || match world_runs::staging(&world) {
        staging if staging.is_empty() => Err(replies(&attacker)),
        _ => Ok(()),
    });
    assert_helper_aborts(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// The requester requests a save and reads no frames. The helper holds `gc.lock` meanwhile.
fn read_no_frames() {
    let (world, _) = world_with_empty_store(Role::Mid);
    world_runs::restore(&world);
    let order: Value = json!({ "Pack": { "delta": false } });
    let talk = store_request_with_year_timeouts("nix").say(save(json!({}))).say(order);
    let deaf = format!("{ROOT_HELPER_COMMAND} | {{ head -c 3000; sleep 1000; }}");
    let attacker = talk.hold(&world, "runner", &deaf);
    wait_for_reply(&attacker, "\"Frozen\"");
    world.try_lock("gc.lock").unwrap_err();
    poll::until("the helper to abort", TIMEOUT, || {
        assert!(world.daemon_answers());
        world.try_lock("gc.lock")
    });
}

/// The requester reads no replies while the helper commits.
fn read_no_replies() {
    commit_without_reading_replies("polite");
}

/// The requester also has the pipe for replies open, and decides whether a write to it blocks.
fn read_no_replies_from_a_blocking_pipe() {
    commit_without_reading_replies("blocking");
}

fn commit_without_reading_replies(pipe: &str) {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let planned = snapshot.planned_after(store_request_with_year_timeouts("nix"));
    let staged =
        snapshot.staged_after(store_request_with_year_timeouts("nix")).say(json!("Commit"));
    fs::write(world.host("/tmp/planned"), &planned.0).unwrap();
    fs::write(world.host("/tmp/rest"), &staged.0[planned.0.len()..]).unwrap();
    let words = ["python3", "-c", STOPS_READING_REPLIES, pipe]
        .into_iter()
        .chain(ROOT_HELPER_COMMAND.split(' '));
    let attacker = world.command(words).user("runner").spawn();
    wait_for_reply(&attacker, "planned");
    poll::until("the helper to abort", TIMEOUT, || {
        let mut left = world_runs::leftovers(&world);
        left.retain(|what| what != "storecache");
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
    // The helper may have committed: then all items are there, otherwise none of them.
    assert!(world.daemon_answers());
    world.verify_store();
    drop(attacker);
    world_runs::restore(&world);
}

/// The requester reads no error output, and the daemon's start command fails.
fn read_no_error_output() {
    let (world, snapshot) = world_with_empty_store(Role::Mid);
    let command = json!({ "command": { "stop": "false", "start": "false" } });
    let talk = RequestStream::hello().say(store(json!({ "daemon": command })));
    let staged = snapshot.staged_after(talk).say(json!("Commit"));
    fs::write(world.host("/tmp/rest"), &staged.0).unwrap();
    let words =
        ["python3", "-c", FULL_ERROR_PIPE].into_iter().chain(ROOT_HELPER_COMMAND.split(' '));
    let attacker = world.command(words).user("runner").spawn();
    wait_for_reply(&attacker, "\"Plan\"");
    assert_helper_aborts(&world, &attacker);
    drop(attacker);
    assert_restores(&world);
}

/// Each case waits for the helper's 60 seconds, so they run at the same time.
#[test]
fn stalled_requester_is_cut_off_slow() {
    let cases: [(&str, fn()); 6] = [
        ("silent after the plan", send_nothing_after_the_plan),
        ("silent after a frame", send_nothing_after_a_frame),
        ("does not read frames", read_no_frames),
        ("does not read replies", read_no_replies),
        ("does not read a blocking pipe", read_no_replies_from_a_blocking_pipe),
        ("does not read errors", read_no_error_output),
    ];
    let failed: Vec<&str> = thread::scope(|scope| {
        let running = cases.map(|(name, case)| (name, scope.spawn(case)));
        let failed = running.into_iter().filter_map(|(name, case)| case.join().err().map(|_| name));
        failed.collect()
    });
    assert!(failed.is_empty(), "not aborted: {failed:?}");
}
