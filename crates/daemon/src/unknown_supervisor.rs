//! The process that started a bare daemon, and may start it again as soon as it has ended: a loop in a shell,
//! or a supervisor of an unknown kind. A second daemon beside the supervisor's would take the socket away from
//! the first.

use super::procfs;
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a daemon may take from its fork to its socket before storecache starts one itself. This limit is
/// reached only if the parent of the daemon forks for another purpose.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long the parent may take from the end of the daemon to the fork of the next one. This limit is reached
/// if it never reaps its children, or is busy with something else.
const REACTION: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(2);

/// The parent of a daemon, seen while the daemon still ran.
pub struct Supervisor {
    pid: u32,
    /// The program of the parent; a child that has not called `exec` yet runs the same.
    program: PathBuf,
    /// In clock ticks since boot.
    seen_at: u64,
    /// The daemon, and when it was started.
    daemon: (u32, Option<u64>),
}

impl Supervisor {
    /// Finds the parent of `daemon`; `None` if it is not visible from here.
    pub fn find(daemon: u32) -> Option<Self> {
        let pid = procfs::parent(daemon)?;
        let daemon = (daemon, procfs::started_at(daemon));
        Some(Supervisor { pid, program: program(pid)?, seen_at: procfs::ticks_now(), daemon })
    }

    /// Waits until `is_up`, as long as the supervisor may still start a daemon with these arguments, or has
    /// forked one that is not up yet. The old daemon has ended by now.
    pub fn await_start(&self, arguments: &[OsString], is_up: impl Fn() -> bool) {
        let begun = Instant::now();
        loop {
            // Check this before `is_starting`, otherwise a fork between the two checks is missed.
            let waits = self.has_reacted() || begun.elapsed() >= REACTION;
            let is_starting = self.is_starting(arguments) && begun.elapsed() < LONGEST_WAIT;
            if (waits && !is_starting) || is_up() {
                return;
            }
            sleep(STEP);
        }
    }

    /// Whether the supervisor has reaped the daemon and is not at work any more, so that it will not start
    /// another one. Always true for init, which may never reap it.
    fn has_reacted(&self) -> bool {
        let (daemon, started_at) = self.daemon;
        let is_its_zombie =
            procfs::parent(daemon) == Some(self.pid) && procfs::started_at(daemon) == started_at;
        self.pid == 1 || !(is_its_zombie || procfs::is_at_work(self.pid))
    }

    fn is_starting(&self, arguments: &[OsString]) -> bool {
        procfs::all().any(|pid| self.has_started(pid, arguments))
    }

    /// Whether a process is a daemon that the supervisor has started since.
    fn has_started(&self, pid: u32, arguments: &[OsString]) -> bool {
        procfs::parent(pid) == Some(self.pid)
            // A daemon may end, and the next one start, within one tick.
            && procfs::started_at(pid).is_some_and(|ticks| ticks >= self.seen_at)
            && (self.has_forked(pid) || runs(pid, arguments))
            // A child that the daemon forked for a client has the same arguments. When the daemon has ended,
            // another process adopts the child, possibly the parent of the daemon, and the child lives as long
            // as its client.
            && !procfs::serves(pid)
    }

    /// Whether a child has not called `exec` yet. False for children of init: they call `exec` at once, and the
    /// others that run the program of init, such as the manager of a user's session, keep running it.
    fn has_forked(&self, child: u32) -> bool {
        self.pid != 1 && program(child).as_ref() == Some(&self.program)
    }
}

/// Whether a process has these arguments, or a program without arguments yet, since the kernel sets the
/// arguments a moment after the program. A zombie has neither a program nor arguments.
fn runs(pid: u32, arguments: &[OsString]) -> bool {
    let Ok(words) = procfs::words(pid, "cmdline") else { return false };
    words == arguments || (words.iter().all(|word| word.is_empty()) && program(pid).is_some())
}

fn program(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(procfs::directory(pid).join("exe")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command, Stdio};

    const WORDS: [&str; 2] = ["sleep", "60"];

    /// Starts a process that runs for long, and waits until it runs its program.
    fn begin(input: Stdio) -> Child {
        let mut command = Command::new(WORDS[0]);
        let child = command.arg(WORDS[1]).stdin(input).spawn().unwrap();
        // The kernel lets the parent continue before the arguments are in place.
        while procfs::words(child.id(), "cmdline").is_ok_and(|words| words != WORDS) {
            sleep(STEP);
        }
        child
    }

    fn of_this_process(seen_at: u64, daemon: u32) -> Supervisor {
        let daemon = (daemon, procfs::started_at(daemon));
        Supervisor { pid: std::process::id(), program: "/no".into(), seen_at, daemon }
    }

    #[test]
    fn supervisor_has_reacted_once_it_reaps_its_daemon() {
        let mut child = begin(Stdio::null());
        let supervisor = of_this_process(0, child.id());
        child.kill().unwrap();
        assert!(!supervisor.has_reacted());
        child.wait().unwrap();
        // The main thread of a test program sleeps while it waits for the others.
        while procfs::is_at_work(supervisor.pid) {
            sleep(STEP);
        }
        assert!(supervisor.has_reacted());
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn process_that_serves_a_client_is_not_a_starting_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let client = UnixStream::connect(&socket).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let supervisor = of_this_process(0, 0);
        let is_starting = |input: OwnedFd| {
            let child = begin(input.into());
            let arguments = WORDS.map(OsString::from);
            // Other tests have children as well, so check only this one.
            let seen = supervisor.has_started(child.id(), &arguments);
            end(child);
            seen
        };
        assert!(!is_starting(connection.into()), "it serves a client");
        assert!(is_starting(client.into()), "it is a client, as of the log");
        assert!(is_starting(listener.into()), "it listens");
    }

    #[test]
    fn process_started_in_the_same_tick_counts_as_later() {
        let child = begin(Stdio::null());
        let seen_at = procfs::started_at(child.id()).unwrap();
        let at = |seen_at| of_this_process(seen_at, 0);
        let arguments = WORDS.map(OsString::from);
        let now = at(seen_at).has_started(child.id(), &arguments);
        let later = at(seen_at + 1).has_started(child.id(), &arguments);
        end(child);
        assert_eq!((now, later), (true, false));
    }
}
