//! Commands inside a world.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::strace::{self, Trace};
use super::syscall_injector::Injector;
use super::{poll, procfs, world::World};

const TIMEOUT: Duration = Duration::from_secs(120);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command to be run in a world. Unless changed, it runs as root, in `/`, with a clean environment, an
/// empty input, and a timeout of two minutes.
#[derive(Clone)]
pub struct Invocation<'w> {
    world: &'w World,
    words: Vec<OsString>,
    user: Option<String>,
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    timeout: Duration,
    injector: Option<Injector>,
    trace: Option<PathBuf>,
}

impl<'w> Invocation<'w> {
    pub(super) fn new<I>(world: &'w World, words: I) -> Invocation<'w>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        Invocation {
            world,
            words: words.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            user: None,
            directory: PathBuf::from("/"),
            environment: Vec::new(),
            input: Vec::new(),
            timeout: TIMEOUT,
            injector: None,
            trace: None,
        }
    }

    /// Runs as an ordinary user; `runner` may use sudo, `nosudo` may not.
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    pub fn cd(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = directory.as_ref().to_owned();
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Uses the daemon instead of opening the store directly, as Guix always does.
    pub fn through_daemon(self) -> Self {
        self.env("NIX_REMOTE", "daemon")
    }

    /// Sets the content of standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sets the timeout after which the command counts as hung and the test fails.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets `syscall_injector` observe the system calls of the command and inject failures.
    pub fn under(mut self, injector: &Injector) -> Self {
        self.injector = Some(injector.clone());
        self
    }

    /// Writes the system calls of the command and of all that it starts to `trace`.
    pub fn traced(mut self, trace: &Trace) -> Self {
        self.trace = Some(trace.prefix());
        self
    }

    /// Runs the command to its end, whatever the outcome.
    #[track_caller]
    pub fn run(self) -> Output {
        let timeout = self.timeout;
        self.spawn().wait(timeout)
    }

    /// Runs the command, and panics with all its output unless it succeeds.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.run().ok()
    }

    /// Starts the command in the background. It is killed when the returned value is dropped.
    #[track_caller]
    pub fn spawn(self) -> Running<'w> {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(&self.input).unwrap();
        stdin.rewind().unwrap();
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        let child = self
            .command()
            .stdin(stdin)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .expect("cannot run nsenter");
        Running { command: self.to_string(), child, stdout, stderr, world: self.world }
    }

    fn command(&self) -> Command {
        let user = self.user.as_deref().unwrap_or("root");
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        let nsenter = "/usr/bin/nsenter";
        let mut command = match &self.trace {
            None => Command::new(nsenter),
            Some(trace) => {
                let mut command = Command::new("/usr/bin/strace");
                command.args(strace::arguments(trace)).arg(nsenter);
                command
            }
        };
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").env("HOME", home);
        command.env("USER", user).env("LOGNAME", user);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--all").arg("--target").arg(self.world.init().to_string()).arg("--");
        command.arg("env").arg("--chdir").arg(&self.directory);
        if let Some(user) = &self.user {
            command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.args(&self.words);
        if let Some(injector) = &self.injector {
            injector.attach(&mut command);
        }
        command
    }
}

impl fmt::Display for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        write!(f, "{}", words.join(" "))
    }
}

/// A command that may still be running.
pub struct Running<'w> {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
    // This reference only keeps the world from being dropped first.
    world: &'w World,
}

impl Running<'_> {
    /// The pid of the command itself as the test process sees it, if it is still running.
    pub fn outer_pid(&self) -> Option<u32> {
        procfs::first_child(self.child.id())
    }

    /// The pid of the command as its world sees it.
    pub fn pid(&self) -> Option<u32> {
        procfs::pids(self.outer_pid()?)?.pop()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn stdout(&self) -> String {
        content(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        content(&self.stderr)
    }

    /// Sends a signal to the command itself.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = poll::until("the command to be up", Duration::from_secs(5), || {
            self.outer_pid().ok_or("no process")
        });
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
        if signal == Signal::CONT {
            // When the command stops, nsenter stops itself too.
            kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
        }
    }

    /// Waits until the command has ended, and panics with its output so far if it does not end in time.
    /// Processes that the command left in the background may continue.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Output {
        let status = poll::until(&format!("`{}` to end", self.command), limit, || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| format!("it runs\n{}{}", self.stdout(), self.stderr()))
        });
        Output {
            command: self.command.clone(),
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Once the process is reaped, its pid may belong to another process.
        if self.is_running() {
            let child = &mut self.child;
            if let Some(pid) = procfs::first_child(child.id()) {
                let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// Reads at a position, because a writer in the background shares the offset of the file.
fn content(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    let length = file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// The status and output of a command that ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The exit status as a shell reports it: 128 plus the number of the signal for a killed command.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "expected to succeed:\n{self}");
        self
    }

    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(!self.status.success(), "expected to fail:\n{self}");
        self
    }

    /// The lines of standard error, without the events that a run prints before its error.
    pub fn messages(&self) -> Vec<&str> {
        let is_event = |line: &str| {
            line.starts_with("note: the last ") && line.ends_with(" before the failure:")
                || ["info: ", "debug: "].iter().any(|level| line.starts_with(level))
        };
        self.stderr.lines().filter(|line| !is_event(line)).collect()
    }

    /// The messages about errors.
    pub fn errors(&self) -> Vec<&str> {
        self.messages().into_iter().filter(|line| line.starts_with("error: ")).collect()
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.lines().map(str::to_owned).collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}--- {}", self.stdout, self.stderr, self.status)
    }
}
