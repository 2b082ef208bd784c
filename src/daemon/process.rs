//! Daemons that are a bare process, found as the listener of their socket.

use super::program::Program;
use super::protocol::connect;
use super::supervisor::Supervisor;
use super::{ProcessContext, procfs};
use crate::pulse::{self, LOOK, SILENT, Vigil};
use anyhow::{Context, Result, bail};
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use rustix::thread::{CapabilitySet, move_into_link_name_space};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What a daemon in a container may have of its own. The mounts come last: they take away our /proc.
const NAMESPACES: [&str; 5] = ["ipc", "uts", "net", "cgroup", "mnt"];

/// A daemon of which this process sees nothing but the socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon behind {0} runs in another container, so that it can not be stopped from here; restore \
     there, or name commands that reach it with --daemon command"
)]
pub struct Elsewhere(String);

/// The process that listens on a socket; nothing when nobody does. The kernel remembers who called
/// `listen` (`man 7 unix`, `SO_PEERCRED`).
pub fn listener(socket: &Path) -> Result<Option<u32>> {
    let stream = match connect(socket) {
        Ok(stream) => stream,
        Err(e) => match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                return Ok(None);
            }
            _ => return Err(e).with_context(|| format!("connect to {}", socket.display())),
        },
    };
    // Not through rustix: its type of a pid cannot be the 0 of a process that we cannot see.
    match nix::sys::socket::getsockopt(&stream, PeerCredentials)?.pid() {
        pid @ 1.. => Ok(u32::try_from(pid).ok()),
        _ => Err(Elsewhere(socket.display().to_string()).into()),
    }
}

/// Whether a daemon listens on a socket that is not the one that was `stopped`.
pub fn is_up_besides(stopped: Option<u32>, socket: &Path) -> Result<bool> {
    match listener(socket) {
        // A child that it forked for a client has its socket too, until it closes that: whoever connects
        // then is let in by the kernel, and answered by nobody.
        Ok(found) => Ok(found.is_some() && found != stopped),
        // It listens all the same.
        Err(e) if e.is::<Elsewhere>() => Ok(true),
        Err(e) => Err(e),
    }
}

/// A process whose end is awaited, whoever brings it about.
pub struct Watched {
    pid: u32,
    handle: OwnedFd,
}

impl Watched {
    /// Nothing when it has ended already.
    pub fn find(pid: u32) -> Result<Option<Self>> {
        match handle(pid) {
            Ok(handle) => Ok(Some(Watched { pid, handle })),
            Err(Errno::SRCH) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("find the daemon, process {pid}")),
        }
    }

    /// Sends SIGTERM and waits for its end, zombie or not.
    pub fn stop(&self, patience: Duration) -> Result<()> {
        match pidfd_send_signal(&self.handle, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(e) => {
                return Err(e).with_context(|| format!("stop the daemon, process {}", self.pid));
            }
        }
        self.await_end(patience)
    }

    /// Whether it ends in time, zombie or not.
    pub fn ends_within(&self, patience: Duration) -> Result<bool> {
        has_ended(&self.handle, patience)
    }

    /// The same, where it must. What works, or waits for a disk, gets as much time as that takes: `patience`
    /// counts since its last sign of life.
    pub fn await_end(&self, patience: Duration) -> Result<()> {
        let name = format!("the daemon, process {},", self.pid);
        let mut vigil = Vigil::new(patience);
        while !self.ends_within(LOOK)? {
            match vigil.look(&procfs::family(self.pid)) {
                Some(sign) => pulse::alive(format!("{name} was told to end, and {sign}")),
                None if vigil.silent() < SILENT => {}
                None => pulse::waits(format!("{name} was told to end, and {}", vigil.tell())),
            }
            if vigil.is_over() {
                let seconds = patience.as_secs();
                bail!(pulse::cut(
                    "daemon-timeout",
                    format!(
                        "{name} did not end within {seconds} s of being told to: it {}; once it has \
                         ended, start it again",
                        vigil.tell()
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

fn has_ended(handle: &OwnedFd, patience: Duration) -> Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    loop {
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            // A signal that is caught calls nothing off by itself.
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// How a process was started, and what it had open.
pub struct Recipe {
    pid: u32,
    process: OwnedFd,
    supervisor: Option<Supervisor>,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    context: ProcessContext,
    /// Where it differs from ours.
    pid_namespace: Option<Arc<OwnedFd>>,
    output: [Option<OwnedFd>; 2],
}

impl Recipe {
    /// Reads it off the running process.
    ///
    /// # Errors
    /// When the process is gone, or when no program is where it came from: then it must not be
    /// stopped, since it could not be started again.
    pub fn of(pid: u32) -> Result<Self> {
        let about = || format!("look at the daemon, process {pid}");
        let process = handle(pid).with_context(about)?;
        let proc = procfs::directory(pid);
        let status = std::fs::read_to_string(proc.join("status")).with_context(about)?;
        let fields = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_whitespace()
        };
        let ids =
            |name: &str| -> Vec<u32> { fields(name).filter_map(|id| id.parse().ok()).collect() };
        // Fields are the real, effective, saved and file-system id (man 5 proc_pid_status).
        let effective = |name: &str| ids(name).get(1).copied().context("no ids in its status");
        let ambient = fields("CapAmb:").next().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        let umask = fields("Umask:").next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let link = |file: &str, flags| Ok(Arc::new(procfs::open_link(pid, file, flags)?));
        let same_users = || -> Result<bool> {
            let [ours, theirs] = [Path::new("/proc/self"), &proc].map(|of| of.join("ns/user"));
            let [ours, theirs] = [std::fs::metadata(ours)?, std::fs::metadata(theirs)?];
            Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
        };
        if !same_users().with_context(about)? {
            // There anybody is root, mounts what they like and calls that capabilities. To start it with
            // our rights as it was would give them ours.
            bail!(
                "the daemon, {}, runs in a user namespace of its own, and could not be started again \
                 from here; restore there, or name commands that reach it with --daemon command",
                procfs::describe(pid)
            );
        }
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
            uid: effective("Uid:")?,
            gid: effective("Gid:")?,
            groups: ids("Groups:"),
            ambient: ambient.map(CapabilitySet::from_bits_retain),
            umask: umask.map(Mode::from_raw_mode),
            own_session: true,
        };
        let output = [1, 2].map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
        Ok(Recipe {
            pid,
            process,
            supervisor: Supervisor::of(pid),
            program: Program::of(pid)?.path,
            arguments: procfs::words(pid, "cmdline")?,
            environment: procfs::environment(pid)?,
            context,
            pid_namespace: foreign("pid")?,
            output,
        })
    }

    /// Starts the program with the same arguments, directory, environment and output, unless the
    /// process still runs, or somebody else listens on its socket by now: whoever keeps it up has
    /// started it already. One that is about to is waited for.
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
        let about = || format!("start {}", self.program.display());
        let mut command = Command::new(&self.program);
        if let Some((name, rest)) = self.arguments.split_first() {
            command.arg0(name).args(rest);
        }
        command.env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null());
        let stdio = |fd: &Option<OwnedFd>| -> Result<Stdio> {
            Ok(fd.as_ref().map(OwnedFd::try_clone).transpose()?.map_or(Stdio::null(), Stdio::from))
        };
        command.stdout(stdio(&self.output[0])?).stderr(stdio(&self.output[1])?);
        self.context.clone().apply(&mut command);
        if let Some(namespace) = &self.pid_namespace {
            // This process stays where it is; its next children are born there.
            move_into_link_name_space(namespace.as_fd(), None).with_context(about)?;
        }
        command.spawn().with_context(about)?;
        Ok(())
    }
}
