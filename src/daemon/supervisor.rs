//! Whoever started a bare daemon, and may start it again as soon as it has ended: a loop in a shell,
//! a supervisor that we know nothing of. A second daemon beside theirs would take the socket away
//! from the first.

use super::procfs;
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a daemon may take from its fork to its socket before another one is started. Reached
/// only where the parent of the daemon forks for a purpose of its own.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(2);

/// The parent of a daemon, at a time when the daemon still ran.
pub struct Supervisor {
    pid: u32,
    /// What it runs; a child that has not called `exec` yet runs the same.
    program: PathBuf,
    /// In ticks of the kernel since boot.
    seen_at: u64,
}

impl Supervisor {
    /// Nothing where the parent cannot be seen from here.
    pub fn of(daemon: u32) -> Option<Self> {
        let pid = procfs::parent(daemon)?;
        Some(Supervisor { pid, program: program(pid)?, seen_at: procfs::ticks_now() })
    }

    /// Waits while a daemon of these arguments that it has started since is not up, until `is_up`.
    pub fn await_start(&self, arguments: &[OsString], is_up: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.is_starting(arguments) && !is_up() && Instant::now() < deadline {
            sleep(STEP);
        }
    }

    fn is_starting(&self, arguments: &[OsString]) -> bool {
        procfs::all().any(|pid| self.has_started(pid, arguments))
    }

    /// Whether a process is a daemon that it has started since.
    fn has_started(&self, pid: u32, arguments: &[OsString]) -> bool {
        procfs::parent(pid) == Some(self.pid)
            // A daemon may end, and the next one begin, within one tick.
            && procfs::started_at(pid).is_some_and(|ticks| ticks >= self.seen_at)
            && (self.has_forked(pid) || runs(pid, arguments))
            // What the daemon forked for a client has its arguments too. Once the daemon has ended it belongs to
            // another parent, which may be that of the daemon, and it lives as long as its client.
            && !procfs::serves(pid)
    }

    /// Whether a child has not called `exec` yet. Those of init do so at once, and what else runs its
    /// program below it, such as the manager of a user's session, stays.
    fn has_forked(&self, child: u32) -> bool {
        self.pid != 1 && program(child).as_ref() == Some(&self.program)
    }
}

/// Whether a process has these arguments, or none yet: those of a program come a moment after it. What
/// has ended and was not waited for has neither program nor arguments.
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

    /// A process that runs for long, and is one when this returns.
    fn begin(input: Stdio) -> Child {
        let mut command = Command::new(WORDS[0]);
        let child = command.arg(WORDS[1]).stdin(input).spawn().unwrap();
        // The kernel lets us go on before it has the arguments in place.
        while procfs::words(child.id(), "cmdline").is_ok_and(|words| words != WORDS) {
            sleep(STEP);
        }
        child
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_serves_a_client_is_no_daemon_that_begins() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let client = UnixStream::connect(&socket).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let supervisor = Supervisor { pid: std::process::id(), program: "/no".into(), seen_at: 0 };
        let is_starting = |input: OwnedFd| {
            let child = begin(input.into());
            let arguments = WORDS.map(OsString::from);
            // Other tests have children as well.
            let seen = supervisor.has_started(child.id(), &arguments);
            end(child);
            seen
        };
        assert!(!is_starting(connection.into()), "it serves a client");
        assert!(is_starting(client.into()), "it is a client, as of the log");
        assert!(is_starting(listener.into()), "it listens");
    }

    #[test]
    fn what_began_in_the_tick_in_which_the_daemon_was_seen_began_after_it() {
        let child = begin(Stdio::null());
        let seen_at = procfs::started_at(child.id()).unwrap();
        let at = |seen_at| Supervisor { pid: std::process::id(), program: "/no".into(), seen_at };
        let arguments = WORDS.map(OsString::from);
        let now = at(seen_at).has_started(child.id(), &arguments);
        let later = at(seen_at + 1).has_started(child.id(), &arguments);
        end(child);
        assert_eq!((now, later), (true, false));
    }
}
