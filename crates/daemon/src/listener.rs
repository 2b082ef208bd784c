//! The process behind a daemon's socket, as the kernel recorded it when the process called `listen`.
//!
//! The later state of a process in `/proc` does not prove which user started it: a user can bind a socket,
//! leave it to a child, and become a setuid program. So storecache relies on the user that the kernel recorded
//! at `listen` (`man 7 unix`, `SO_PEERCRED`; `linux:net/unix/af_unix.c`, `unix_listen`).

use super::bare_process::has_ended;
use super::duplicate_daemons;
use super::procfs;
use super::worker_protocol::{Client, connect};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::path_audit::Suspects;

/// The error that this process can see the daemon's socket, but not its process.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon at {0} runs in another container, so it cannot be stopped from here; restore \
     there, or give commands that reach it with --daemon command"
)]
pub struct Elsewhere(String);

/// The process that called `listen` on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub pid: u32,
    /// The user of the process when it called `listen`.
    pub uid: u32,
}

impl Listener {
    /// Finds the listener of `socket`; `None` if no process listens there.
    ///
    /// # Errors
    /// [`Elsewhere`] if it is in another pid namespace; also if the socket cannot be reached.
    pub fn find(socket: &Path) -> Result<Option<Self>> {
        match reach(socket)? {
            Some(stream) => Self::from_stream(&stream, socket).map(Some),
            None => Ok(None),
        }
    }

    fn from_stream(stream: &UnixStream, socket: &Path) -> Result<Self> {
        // Not through rustix: its type for process IDs cannot represent 0, which stands for a process that this
        // one cannot see.
        let peer = getsockopt(stream, PeerCredentials)?;
        match u32::try_from(peer.pid()) {
            Ok(pid @ 1..) => Ok(Listener { pid, uid: peer.uid() }),
            _ => Err(Elsewhere(socket.display().to_string()).into()),
        }
    }

    /// Whether this may be the daemon of a store that `owner` owns: only root and the owner may run it. A
    /// process without root's rights may also manage a daemon of its own user.
    pub fn is_trusted(&self, owner: u32) -> bool {
        [0, owner, geteuid().as_raw()].contains(&self.uid)
    }
}

/// Connects to a socket; `None` if no process listens there.
fn reach(socket: &Path) -> Result<Option<UnixStream>> {
    match connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) => match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(e).with_context(|| format!("connect to {}", socket.display())),
        },
    }
}

/// Returns the reason why a socket must not be used without a service manager in charge: it is a symbolic link,
/// or users other than root and the store's owner can replace it. `None` if there is no such reason.
pub fn socket_exposure(socket: &Path, owner: u32) -> Result<Option<SocketExposure>> {
    if socket.is_symlink() {
        return Ok(Some(SocketExposure::SymbolicLink));
    }
    let Some(directory) = socket.parent() else { return Ok(None) };
    match Suspects::EverybodyBut(owner).follow(directory)? {
        Ok(_) => Ok(None),
        Err(reason) => Ok(Some(SocketExposure::Writable(reason))),
    }
}

/// Why a process other than the daemon could be behind a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketExposure {
    SymbolicLink,
    /// Other users may replace it, for this reason.
    Writable(String),
}

impl SocketExposure {
    /// Describes the problem with the socket.
    pub fn describe(&self, socket: &Path) -> String {
        let shown = socket.display();
        match self {
            SocketExposure::SymbolicLink => format!("{shown} is a symbolic link"),
            SocketExposure::Writable(reason) => {
                format!("another user could put a socket of their own at {shown}: {reason}")
            }
        }
    }

    /// Returns a command that repairs the socket when run as root. After the removal of a socket, the daemon
    /// has to be started again too.
    pub fn fix(&self, socket: &Path, owner: u32) -> String {
        match self {
            SocketExposure::SymbolicLink => format!("rm {}", socket.display()),
            SocketExposure::Writable(_) => {
                let directory = socket.parent().unwrap_or(socket).display();
                format!("chown {owner} {directory} && chmod 755 {directory}")
            }
        }
    }
}

/// The listener of a socket, proven to be a daemon that may be stopped and started again.
#[derive(Debug, Clone)]
pub struct VerifiedListener {
    pub listener: Listener,
    /// A descriptor of the process, because its ID may be reused.
    pub process: Arc<OwnedFd>,
}

impl VerifiedListener {
    /// Verifies the listener of `socket` for a store that `owner` owns: the socket is not exposed, root or the
    /// owner called `listen`, and the listener completes the handshake of the worker protocol within
    /// `timeout`.
    ///
    /// # Errors
    /// If one of these checks fails, or no process listens.
    pub fn verify(run: &RunContext, socket: &Path, owner: u32, timeout: Duration) -> Result<Self> {
        if let Some(exposure) = socket_exposure(socket, owner)? {
            bail!(
                "{}; a daemon at such a socket is stopped only if systemd or a shepherd runs it; \
                 run as root: {}",
                exposure.describe(socket),
                exposure.fix(socket, owner)
            );
        }
        let Some(stream) = reach(socket)? else {
            bail!("no process listens on {}", socket.display());
        };
        let listener = Listener::from_stream(&stream, socket)?;
        if !listener.is_trusted(owner) {
            bail!(untrusted(&listener, socket, owner));
        }
        let process = process_of(&stream, &listener, socket)?;
        drop(stream);
        Client::open_again(run, socket, Instant::now() + timeout).with_context(|| {
            format!(
                "{} listens on {}, but does not answer like a Nix or Guix daemon, so it is not \
                 stopped",
                procfs::describe(listener.pid),
                socket.display()
            )
        })?;
        if Listener::find(socket)? != Some(listener) {
            bail!(anyhow!("another process now listens on {}", socket.display()).hint("try again"));
        }
        Ok(VerifiedListener { listener, process: Arc::new(process) })
    }
}

/// Explains why a listener is left alone.
pub fn untrusted(listener: &Listener, socket: &Path, owner: u32) -> String {
    let or_owner =
        if owner == 0 { String::new() } else { format!(" or user {owner}, who owns the store") };
    format!(
        "user {} opened the socket {}, not root{or_owner}, so {} is neither stopped nor started \
         again; end it, and start the daemon of the store",
        listener.uid,
        socket.display(),
        procfs::describe(listener.pid)
    )
}

/// Returns a descriptor of the process that called `listen`, obtained from the socket itself since Linux 6.5.
fn process_of(stream: &UnixStream, listener: &Listener, socket: &Path) -> Result<OwnedFd> {
    let gone = || {
        format!(
            "the process that opened the socket {} has ended, but another process still has it \
             open; end that process, and start the daemon again",
            socket.display()
        )
    };
    match getsockopt(stream, PeerPidfd) {
        // Newer kernels also return a descriptor of a process that has ended.
        Ok(process) if has_ended(&process, Duration::ZERO)? => bail!(gone()),
        Ok(process) => return Ok(process),
        Err(Errno::ENOPROTOOPT) => {}
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => bail!(gone()),
        Err(e) => return Err(e).with_context(gone),
    }
    let pid = i32::try_from(listener.pid).ok().and_then(Pid::from_raw).with_context(gone)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).with_context(gone)?;
    // The process ID may have been reused before the call, but only the daemon has the socket open.
    if !duplicate_daemons::has_open(listener.pid, socket) {
        bail!(gone());
    }
    Ok(process)
}
