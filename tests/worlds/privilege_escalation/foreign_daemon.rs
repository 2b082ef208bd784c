//! Processes of root that have nothing to do with the store, made to look like its daemon.

use std::fs;

use super::attacker::{TIMEOUT, confined, save_and_lose_an_item, socket_directory};
use crate::support::{Role, Running, World, poll, procfs, world_runs};

/// A daemon of root with a socket of its own. It does not use the protocol of a store's daemon. Each start adds
/// a line to `/run/victim/starts`.
const VICTIM: &str = "import os, socket
with open('/run/victim/starts', 'a') as starts:
    starts.write(f'{os.getpid()}\\n')
listener = socket.socket(socket.AF_UNIX)
listener.bind(f'/run/victim/socket-{os.getpid()}')
os.symlink(f'socket-{os.getpid()}', '/run/victim/socket')
listener.listen(4096)
while True:
    client = listener.accept()[0]
    try:
        client.sendall(b'220 victim\\r\\n')
    except OSError:
        pass
    client.close()
";

/// Listens on the socket of the daemon, passes the listening socket to a child, and ends.
const PASSING: &str = "import os, signal, socket, sys
if os.path.lexists(sys.argv[1]):
    os.unlink(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen(4096)
print(os.getpid(), flush=True)
if os.fork() == 0:
    os.setsid()
    signal.pause()
";

fn socket(world: &World) -> String {
    format!("{}/daemon-socket/socket", world.state())
}

/// Starts the victim, with this process ID if one is given.
fn start_victim(world: &World, pid: Option<u32>) -> Running<'_> {
    world.sh("mkdir -p /run/victim; chmod 755 /run/victim; echo -n >/run/victim/starts");
    fs::write(world.host("/run/victim/victim.py"), VICTIM).unwrap();
    // Other processes of the world may get the process ID first, so the script retries.
    let script = match pid {
        None => "exec python3 /run/victim/victim.py".to_owned(),
        Some(pid) => format!(
            "for try in $(seq 100); do
                 echo {} >/proc/sys/kernel/ns_last_pid
                 sh -c 'test $$ = {pid} && exec python3 /run/victim/victim.py' &
                 wait $!
             done",
            pid - 1
        ),
    };
    let victim = world.spawn(["bash", "-c", &script]);
    poll::until("the victim to listen", TIMEOUT, || {
        world.host("/run/victim/socket").is_symlink().then_some(()).ok_or(victim.stderr())
    });
    victim
}

/// Panics unless the victim was started once and is still running.
#[track_caller]
fn assert_untouched(world: &World, during: &str) {
    let starts = fs::read_to_string(world.host("/run/victim/starts")).unwrap();
    let pids: Vec<&str> = starts.lines().collect();
    assert_eq!(pids.len(), 1, "the victim was started again: {during}");
    let runs = |outer: &u32| {
        let pids_of = procfs::pids(*outer);
        pids_of.and_then(|all| all.last().map(ToString::to_string)) == Some(pids[0].to_owned())
    };
    let outer = procfs::processes_in_namespace(world.init()).into_iter().find(runs);
    assert!(outer.is_some_and(procfs::is_alive), "the victim has ended: {during}");
}

/// Finding 5 of the review.
fn linked_socket_of_another_daemon(role: Role, restorer: &str) {
    let world = confined(role);
    save_and_lose_an_item(&world);
    let _victim = start_victim(&world, None);
    socket_directory(&world, 0o770);
    let link = format!("ln -sf /run/victim/socket {}", socket(&world));
    world.run_as("nosudo", ["sh", "-c", &link]).ok();
    assert!(world.listener(&socket(&world)).is_some());
    let restored = world_runs::attempt(&world, restorer, "restore", &["--daemon-timeout", "5"]);
    assert_untouched(&world, &restored.to_string());
}

#[test]
fn other_daemon_behind_a_link_is_not_stopped_by_user() {
    linked_socket_of_another_daemon(Role::Mid, "runner");
}

#[test]
fn other_daemon_behind_a_link_is_not_stopped_by_root() {
    linked_socket_of_another_daemon(Role::Mid, "root");
}

#[test]
fn other_daemon_behind_a_guix_link_is_not_stopped() {
    linked_socket_of_another_daemon(Role::GuixRoot, "root");
}

/// The listener has ended, its child has the socket, and another process now has its process ID.
fn process_with_the_number_of_a_listener(listener: &str, restorer: &str) {
    let world = confined(Role::Mid);
    save_and_lose_an_item(&world);
    socket_directory(&world, 0o770);
    let socket = socket(&world);
    let passing = world.command(["python3", "-c", PASSING, &socket]).user(listener).ok();
    let number: u32 = passing.stdout.trim().parse().unwrap();
    let _victim = start_victim(&world, Some(number));
    assert_eq!(world.listener(&socket), Some(number), "the kernel names the dead listener");
    let restored = world_runs::attempt(&world, restorer, "restore", &["--daemon-timeout", "5"]);
    assert_untouched(&world, &restored.to_string());
}

#[test]
fn process_with_number_of_users_listener_is_not_stopped() {
    process_with_the_number_of_a_listener("runner", "runner");
}

#[test]
fn process_with_number_of_roots_listener_is_not_stopped() {
    process_with_the_number_of_a_listener("root", "root");
}
