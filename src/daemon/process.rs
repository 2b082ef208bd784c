//! Daemons that are a bare process, found as the listener of their socket.

use super::ProcessContext;
use super::protocol::connect;
use anyhow::{Context, Result, bail};
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use rustix::thread::move_into_link_name_space;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What a daemon in a container may have of its own. The mounts come last: they take away our /proc.
const NAMESPACES: [&str; 5] = ["ipc", "uts", "net", "cgroup", "mnt"];

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
        _ => bail!(
            "the daemon behind {} runs in another container, so that it can not be stopped from \
             here; restore there, or name commands that reach it with --daemon command",
            socket.display()
        ),
    }
}

/// Sends SIGTERM and waits for the end of the process, zombie or not.
pub fn stop(pid: u32, patience: Duration) -> Result<()> {
    let handle = match handle(pid) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("find the daemon, process {pid}")),
    };
    match pidfd_send_signal(&handle, Signal::TERM) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(e) => return Err(e).with_context(|| format!("stop the daemon, process {pid}")),
    }
    if !has_ended(&handle, patience)? {
        let seconds = patience.as_secs();
        bail!("the daemon, process {pid}, did not end within {seconds} s of SIGTERM");
    }
    Ok(())
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
    let mut ended = [PollFd::new(handle, PollFlags::IN)];
    Ok(poll(&mut ended, Some(&timeout))? > 0)
}

/// How a process was started, and what it had open.
pub struct Recipe {
    process: OwnedFd,
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
    /// When the process is gone, or when its program is not on disk any more: then it must not be
    /// stopped, since it could not be started again.
    pub fn of(pid: u32) -> Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let about = || format!("look at the daemon, process {pid}");
        let process = handle(pid).with_context(about)?;
        let words = |file: &str| -> Result<Vec<OsString>> {
            let bytes = std::fs::read(proc.join(file)).with_context(about)?;
            let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
            Ok(bytes.split(|&b| b == 0).map(|w| OsString::from_vec(w.to_vec())).collect())
        };
        let arguments = words("cmdline")?;
        let environment = words("environ")?.into_iter().filter_map(|variable| {
            let bytes = variable.into_vec();
            let equals = bytes.iter().position(|&b| b == b'=')?;
            let (name, value) = (bytes[..equals].to_vec(), bytes[equals + 1..].to_vec());
            Some((OsString::from_vec(name), OsString::from_vec(value)))
        });
        let environment: Vec<(OsString, OsString)> = environment.collect();
        let open_path = |file: &str, flags: OFlags| -> Result<Arc<OwnedFd>> {
            let fd = open(proc.join(file), flags | OFlags::CLOEXEC, Mode::empty());
            Ok(Arc::new(fd.with_context(about)?))
        };
        let status = std::fs::read_to_string(proc.join("status")).with_context(about)?;
        let ids = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        // Fields are the real, effective, saved and file-system id (man 5 proc_pid_status).
        let effective = |name: &str| ids(name).get(1).copied().context("no ids in its status");
        let foreign = |name: &str| -> Result<Option<Arc<OwnedFd>>> {
            let path = format!("ns/{name}");
            let ours = std::fs::metadata(Path::new("/proc/self").join(&path))?;
            let theirs = std::fs::metadata(proc.join(&path)).with_context(about)?;
            let differs = (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino());
            differs.then(|| open_path(&path, OFlags::RDONLY)).transpose()
        };
        let namespaces = NAMESPACES.iter().filter_map(|name| foreign(name).transpose());
        let context = ProcessContext {
            namespaces: namespaces.collect::<Result<_>>()?,
            root: Some(open_path("root", OFlags::PATH | OFlags::DIRECTORY)?),
            directory: Some(open_path("cwd", OFlags::PATH | OFlags::DIRECTORY)?),
            uid: effective("Uid:")?,
            gid: effective("Gid:")?,
            groups: ids("Groups:"),
            own_session: true,
        };
        let program = program(&proc, &context, &arguments, &environment).with_context(about)?;
        let output = [1, 2].map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
        Ok(Recipe {
            process,
            program,
            arguments,
            environment,
            context,
            pid_namespace: foreign("pid")?,
            output,
        })
    }

    /// Starts the same program with the same arguments, directory, environment and output.
    pub fn start(&self) -> Result<()> {
        if !has_ended(&self.process, Duration::ZERO)? {
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

/// The path to run: the name that the process was started by, so that it is called the same again,
/// or else the path that the kernel knows.
///
/// # Errors
/// When the program is not on disk any more.
fn program(
    proc: &Path,
    context: &ProcessContext,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> Result<PathBuf> {
    let root = context.root.as_ref().context("no root directory")?;
    let running = std::fs::metadata(proc.join("exe"))?;
    // As the process would find it: links lead to where they lead in its own root.
    let is_running = |path: &Path| -> bool {
        let below = path.strip_prefix("/").unwrap_or(path);
        openat2(root, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
            .and_then(fstat)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (running.dev(), running.ino()))
    };
    let name = arguments.first().map(Path::new).filter(|name| !name.as_os_str().is_empty());
    let search = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let named: Vec<PathBuf> = match name {
        Some(name) if name.is_absolute() => vec![name.to_owned()],
        Some(name) if name.components().count() == 1 => {
            let directories = search.map(std::env::split_paths).into_iter().flatten();
            directories.map(|directory| directory.join(name)).collect()
        }
        _ => Vec::new(),
    };
    let known = std::fs::read_link(proc.join("exe"))?;
    let mut candidates = named.iter().chain([&known]).filter(|path| path.is_absolute());
    candidates.find(|path| is_running(path)).cloned().with_context(|| {
        format!(
            "it runs {}, which is not on disk any more, so that it could not be started again; \
             restart it yourself and try again",
            known.display()
        )
    })
}
