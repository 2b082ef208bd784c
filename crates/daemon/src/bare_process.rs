//! Daemons that run as a bare process, found as the listener of their socket.

use super::executable::{Executable, Replaced};
use super::listener::{Elsewhere, Listener, VerifiedListener};
use super::procfs;
use super::unknown_supervisor::Supervisor;
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use rustix::thread::{CapabilitySet, move_into_link_name_space};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_programs as system;
use storecache_programs::{OpenProgram, ProcessContext, Program};
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::disclosure;
use storecache_runtime::liveness::{POLL_INTERVAL, SILENCE_THRESHOLD, StallTimer};

/// Namespaces that a daemon in a container may have of its own. The mount namespace is last: after joining it,
/// this process does not have its own /proc any more.
const NAMESPACES: [&str; 5] = ["ipc", "uts", "net", "cgroup", "mnt"];

/// How long a daemon may take to end before SIGTERM is sent again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether a daemon listens on a socket, other than the `stopped` one.
pub fn is_up_besides(stopped: Option<u32>, socket: &Path) -> Result<bool> {
    match Listener::find(socket) {
        // A child that the stopped daemon forked for a client keeps the listening socket until it closes it.
        // Until then the kernel accepts connections that no process answers.
        Ok(found) => Ok(found.is_some_and(|found| Some(found.pid) != stopped)),
        // A process in another pid namespace listens too.
        Err(e) if e.is::<Elsewhere>() => Ok(true),
        Err(e) => Err(e),
    }
}

/// A process whose end is awaited, whatever ends it.
pub struct ProcessHandle {
    pid: u32,
    handle: Arc<OwnedFd>,
}

impl From<&VerifiedListener> for ProcessHandle {
    fn from(verified: &VerifiedListener) -> Self {
        ProcessHandle { pid: verified.listener.pid, handle: Arc::clone(&verified.process) }
    }
}

impl ProcessHandle {
    /// Finds a process; `None` if it has ended already.
    pub fn find(pid: u32) -> Result<Option<Self>> {
        match handle(pid) {
            Ok(handle) => Ok(Some(ProcessHandle { pid, handle: Arc::new(handle) })),
            Err(Errno::SRCH) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("find the daemon, process {pid}")),
        }
    }

    /// Sends SIGTERM until the process has ended. A zombie counts as ended.
    ///
    /// One signal is not enough: a nix-daemon that is accepting a client when the signal arrives only checks
    /// for signals after the next client (`nix:src/nix/unix/daemon.cc`, `daemonLoop`).
    pub fn stop(&self, run: &RunContext, timeout: Duration) -> Result<()> {
        self.terminate()?;
        self.await_end_asking(run, timeout, Some(ASK_AGAIN))
    }

    fn terminate(&self) -> Result<()> {
        match pidfd_send_signal(&self.handle, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("stop the daemon, process {}", self.pid)),
        }
    }

    /// Waits for up to `timeout` and returns whether the process has ended. A zombie counts as ended.
    pub fn ends_within(&self, timeout: Duration) -> Result<bool> {
        has_ended(&self.handle, timeout)
    }

    /// Waits until the process has ended. `timeout` counts from its last activity, so a process that works or
    /// waits for a disk gets more time.
    ///
    /// # Errors
    /// If the process shows no activity for the time of `timeout`.
    pub fn await_end(&self, run: &RunContext, timeout: Duration) -> Result<()> {
        self.await_end_asking(run, timeout, None)
    }

    /// As [`ProcessHandle::await_end`], with a SIGTERM whenever the process shows no activity for the time of `again`.
    fn await_end_asking(
        &self,
        run: &RunContext,
        timeout: Duration,
        again: Option<Duration>,
    ) -> Result<()> {
        let mut asked = Instant::now();
        let name = format!("the daemon, process {},", self.pid);
        let mut stall_timer = StallTimer::new(timeout);
        while !self.ends_within(POLL_INTERVAL)? {
            let activity = stall_timer.sample(&procfs::family(self.pid));
            // A process that works on its end is left alone: its handler may start over with each signal.
            if activity.is_some() {
                asked = Instant::now();
            }
            if again.is_some_and(|again| asked.elapsed() >= again) {
                asked = Instant::now();
                self.terminate()?;
            }
            match activity {
                Some(activity) => {
                    run.report_active(format!("{name} was sent SIGTERM, and {activity}"))
                }
                None if stall_timer.idle() < SILENCE_THRESHOLD => {}
                None => run.report_waiting(format!(
                    "{name} was sent SIGTERM, and {}",
                    stall_timer.describe_silence()
                )),
            }
            if stall_timer.is_expired() {
                let seconds = timeout.as_secs();
                bail!(run.timed_out(
                    "daemon-timeout",
                    format!(
                        "{name} did not end within {seconds} s of SIGTERM: it {}; once it has \
                         ended, start it again",
                        stall_timer.describe_silence()
                    )
                ));
            }
        }
        Ok(())
    }
}

fn handle(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

pub(super) fn has_ended(handle: &OwnedFd, timeout: Duration) -> Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    loop {
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            // A caught signal does not cancel anything by itself.
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// Everything that is required to start a bare daemon again: its program, and how it was started.
pub struct ProcessRestart {
    pid: u32,
    process: Arc<OwnedFd>,
    supervisor: Option<Supervisor>,
    executable: Executable,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    context: ProcessContext,
    /// Its pid namespace, if it differs from the one of this process.
    pid_namespace: Option<Arc<OwnedFd>>,
    output: [Option<OwnedFd>; 2],
}

impl ProcessRestart {
    /// Collects the requirements from the running process.
    ///
    /// # Errors
    /// If the process is gone, runs as a different user from the one that called `listen`, or runs a program that
    /// other users could have written. The process must not be stopped then, since it must not be started
    /// again. Also if it has its own user namespace, or a library of it was removed from the disk.
    pub fn from_listener(verified: &VerifiedListener) -> Result<Self> {
        let Listener { pid, uid } = verified.listener;
        let about = || format!("examine the daemon, process {pid}");
        let process = Arc::clone(&verified.process);
        let proc = procfs::directory(pid);
        let status = Status::read(pid).with_context(about)?;
        let link = |file: &str, flags| Ok(Arc::new(procfs::open_link(pid, file, flags)?));
        let same_users = || -> Result<bool> {
            let [ours, theirs] = [Path::new("/proc/self"), &proc].map(|of| of.join("ns/user"));
            let [ours, theirs] = [std::fs::metadata(ours)?, std::fs::metadata(theirs)?];
            Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
        };
        if !same_users().with_context(about)? {
            // In a user namespace, an ordinary user can be root, mount anything and have all capabilities. A
            // start from here with the same settings would turn them into the rights of this process.
            bail!(
                "the daemon, {}, runs in another user namespace, so it could not be started again \
                 from here; restore there, or give commands that reach it with --daemon command",
                procfs::describe(pid)
            );
        }
        if let Some(library) = procfs::replaced_library(pid).with_context(about)? {
            bail!(
                "{} runs {library}, which is no longer on disk, so it could not be started again; \
                 restart it and try again",
                procfs::describe(pid)
            );
        }
        let gid = status.only_user(uid).with_context(|| {
            format!(
                "the daemon, {}, could not be started again; restart it and try again",
                procfs::describe(pid)
            )
        })?;
        let foreign = |name: &str| -> Result<Option<Arc<OwnedFd>>> {
            let path = format!("ns/{name}");
            let ours = std::fs::metadata(Path::new("/proc/self").join(&path))?;
            let theirs = std::fs::metadata(proc.join(&path)).with_context(about)?;
            let differs = (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino());
            differs.then(|| link(&path, OFlags::RDONLY)).transpose()
        };
        let namespaces = NAMESPACES.iter().filter_map(|name| foreign(name).transpose());
        let context = ProcessContext {
            namespaces: namespaces.collect::<Result<_>>()?,
            root: Some(link("root", OFlags::PATH | OFlags::DIRECTORY)?),
            directory: Some(link("cwd", OFlags::PATH | OFlags::DIRECTORY)?),
            uid,
            gid,
            groups: status.ids("Groups:"),
            ambient: status.ambient(),
            umask: status.umask(),
            own_session: true,
        };
        let output = [1, 2].map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
        let recipe = ProcessRestart {
            pid,
            supervisor: Supervisor::find(pid),
            executable: Executable::open(pid, uid)?,
            arguments: procfs::words(pid, "cmdline")?,
            environment: harmless(procfs::environment(pid)?),
            context,
            pid_namespace: foreign("pid")?,
            output,
            process,
        };
        // Everything above was read by process ID. The process has not ended yet, so the ID was not reused.
        if has_ended(&recipe.process, Duration::ZERO)? {
            bail!(
                anyhow!("the daemon, process {pid}, has just ended").hint("start it and try again")
            );
        }
        Ok(recipe)
    }

    /// Returns a report if the file on disk differs from the one that a start would run.
    pub fn replaced(&self) -> Option<Replaced> {
        self.executable.replaced(self.pid)
    }

    /// Starts the same program with the same arguments, directory, environment and output, unless the process
    /// still runs, or another one listens on its socket: then a supervisor has started the daemon already.
    /// Waits for a supervisor that is about to start it.
    pub fn start(&self, socket: &Path) -> Result<()> {
        if !has_ended(&self.process, Duration::ZERO)? {
            return Ok(());
        }
        let is_up = || is_up_besides(Some(self.pid), socket);
        if let Some(supervisor) = &self.supervisor {
            supervisor.await_start(&self.arguments, || is_up().unwrap_or(false));
        }
        if is_up()? {
            return Ok(());
        }
        let path = &self.executable.path;
        let about = || format!("start {}", disclosure::program(self.pid, path));
        let output = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        let [stdout, stderr] = &self.output;
        let daemon = OpenProgram {
            path,
            exec: self.executable.clone().exec(&self.arguments, &self.environment)?,
            context: self.context.clone(),
            output: [output(stdout)?, output(stderr)?],
        };
        if let Some(namespace) = &self.pid_namespace {
            // This process stays in its pid namespace; its next children are created in the other one.
            move_into_link_name_space(namespace.as_fd(), None).with_context(about)?;
        }
        system::start(Program::Daemon(daemon)).with_context(about)
    }
}

/// Variables that the dynamic loader drops for setuid programs, because they change the behavior of a program
/// (`glibc:sysdeps/generic/unsecvars.h`), besides all that begin with `LD_` and `MALLOC_`.
const LOADER_VARIABLES: [&str; 13] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "SEGFAULT_OUTPUT_NAME",
    "TMPDIR",
    "TZDIR",
];

/// Removes the variables that a loader drops for setuid programs.
fn harmless(environment: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let is_harmless = |(name, _): &(OsString, OsString)| {
        let bytes = name.as_bytes();
        !bytes.starts_with(b"LD_")
            && !bytes.starts_with(b"MALLOC_")
            && !LOADER_VARIABLES.iter().any(|it| name == it)
    };
    environment.into_iter().filter(is_harmless).collect()
}

/// The file `status` of a process (`man 5 proc_pid_status`).
struct Status(String);

impl Status {
    fn read(pid: u32) -> std::io::Result<Self> {
        std::fs::read_to_string(procfs::directory(pid).join("status")).map(Status)
    }

    fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.fields(name).filter_map(|id| id.parse().ok()).collect()
    }

    /// Returns the group of a process whose real, effective, saved and file-system users are all `uid`, and
    /// whose groups are all the same.
    ///
    /// # Errors
    /// For any other process, which has become a setuid or setgid program.
    fn only_user(&self, uid: u32) -> Result<u32> {
        let users = self.ids("Uid:");
        let groups = self.ids("Gid:");
        if users != [uid; 4] {
            bail!(
                "user {uid} opened the socket, but the process now has the real, effective, saved \
                 and file-system users {users:?}"
            );
        }
        match groups[..] {
            [a, b, c, d] if a == b && b == c && c == d => Ok(a),
            _ => bail!(
                "the process has the real, effective, saved and file-system groups {groups:?}"
            ),
        }
    }

    fn ambient(&self) -> Option<CapabilitySet> {
        let bits =
            self.fields("CapAmb:").next().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        bits.map(CapabilitySet::from_bits_retain)
    }

    fn umask(&self) -> Option<Mode> {
        let mode = self.fields("Umask:").next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        mode.map(Mode::from_raw_mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_variables_are_dropped() {
        let pair = |name: &str| (OsString::from(name), OsString::from("x"));
        let kept = ["PATH", "HOME", "NIX_CONFIG", "LANG", "OLD_LD_PATH", "no_proxy"];
        let dropped = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "LD_",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "MALLOC_CHECK_",
            "TMPDIR",
            "TZDIR",
        ];
        let all = kept.iter().chain(&dropped).map(|name| pair(name)).collect();
        assert_eq!(harmless(all), kept.map(pair));
    }

    #[test]
    fn process_with_mixed_user_ids_is_refused() {
        let status = |users: &str, groups: &str| {
            Status(format!("Name:\tx\nUid:\t{users}\nGid:\t{groups}\nGroups:\t7 8 \n"))
        };
        assert_eq!(status("0 0 0 0", "5 5 5 5").only_user(0).unwrap(), 5);
        for (users, groups) in [
            ("1001 0 0 0", "0 0 0 0"),
            ("0 0 0 0", "1001 0 0 0"),
            ("0 1001 0 0", "0 0 0 0"),
            ("0 0 1001 0", "0 0 0 0"),
            ("0 0 0 1001", "0 0 0 0"),
            ("1001 1001 1001 1001", "0 0 0 0"),
            ("0 0 0", "0 0 0 0"),
            ("", ""),
        ] {
            assert!(status(users, groups).only_user(0).is_err(), "{users} {groups}");
        }
        assert_eq!(status("0 0 0 0", "0 0 0 0").ids("Groups:"), [7, 8]);
    }
}
