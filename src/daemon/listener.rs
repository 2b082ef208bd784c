//! The process behind a daemon's socket, as the kernel recorded it when it called `listen`.
//!
//! What `/proc` says about a process later proves nothing about who started it: a user can bind a socket, leave
//! it to a child and become a setuid program. So the user to go by is the one that the kernel noted at
//! `listen` (`man 7 unix`, `SO_PEERCRED`; `linux:net/unix/af_unix.c`, `unix_listen`).

use super::process::has_ended;
use super::procfs;
use super::protocol::{Client, connect};
use super::rivals;
use crate::path_audit::Suspects;
use anyhow::{Context, Result, bail};
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

/// A daemon of which this process sees nothing but the socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon behind {0} runs in another container, so that it can not be stopped from here; restore \
     there, or name commands that reach it with --daemon command"
)]
pub struct Elsewhere(String);

/// The process that called `listen` on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub pid: u32,
    /// The user that it was when it began to listen.
    pub uid: u32,
}

impl Listener {
    /// The listener of `socket`; `None` if nothing listens there.
    ///
    /// # Errors
    /// [`Elsewhere`] if it is in another pid namespace; also if the socket cannot be reached.
    pub fn find(socket: &Path) -> Result<Option<Self>> {
        match reach(socket)? {
            Some(stream) => Self::of(&stream, socket).map(Some),
            None => Ok(None),
        }
    }

    fn of(stream: &UnixStream, socket: &Path) -> Result<Self> {
        // Not through rustix: its type of a pid cannot be the 0 of a process that we cannot see.
        let peer = getsockopt(stream, PeerCredentials)?;
        match u32::try_from(peer.pid()) {
            Ok(pid @ 1..) => Ok(Listener { pid, uid: peer.uid() }),
            _ => Err(Elsewhere(socket.display().to_string()).into()),
        }
    }

    /// Whether this may be the daemon of a store that `owner` owns: only root and the owner may run that.
    /// A process without root's rights may also manage a daemon of its own user.
    pub fn is_trusted(&self, owner: u32) -> bool {
        [0, owner, geteuid().as_raw()].contains(&self.uid)
    }
}

/// A stream to a socket; `None` if nothing listens there.
fn reach(socket: &Path) -> Result<Option<UnixStream>> {
    match connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) => match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(e).with_context(|| format!("connect to {}", socket.display())),
        },
    }
}

/// Why a socket must not be used without a supervisor in charge: it is a symbolic link, or others than root and
/// the store's owner can put another one in its place. `None` if there is no such reason.
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

/// How a socket could be another process's than the daemon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketExposure {
    SymbolicLink,
    /// Others may replace it; why that is so.
    Writable(String),
}

impl SocketExposure {
    /// What is wrong with the socket.
    pub fn describe(&self, socket: &Path) -> String {
        let shown = socket.display();
        match self {
            SocketExposure::SymbolicLink => format!("{shown} is a symbolic link"),
            SocketExposure::Writable(reason) => {
                format!("another user could put a socket of their own at {shown}: {reason}")
            }
        }
    }

    /// A command for root that mends it, but for the start of the daemon where its socket is removed.
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
    /// The process itself: its number may become another's.
    pub process: Arc<OwnedFd>,
}

impl VerifiedListener {
    /// Verifies the listener of `socket` for a store that `owner` owns: the socket is not exposed, root or the
    /// owner began to listen, and it completes the handshake of the worker protocol within `patience`.
    ///
    /// # Errors
    /// If any of that is not so, or nothing listens.
    pub fn verify(socket: &Path, owner: u32, patience: Duration) -> Result<Self> {
        if let Some(exposure) = socket_exposure(socket, owner)? {
            bail!(
                "{}; so the process behind it is not stopped without systemd or a shepherd in charge of \
                 it; run as root: {}",
                exposure.describe(socket),
                exposure.fix(socket, owner)
            );
        }
        let Some(stream) = reach(socket)? else {
            bail!("no process listens on {}", socket.display());
        };
        let listener = Listener::of(&stream, socket)?;
        if !listener.is_trusted(owner) {
            bail!(untrusted(&listener, socket, owner));
        }
        let process = process_of(&stream, &listener, socket)?;
        drop(stream);
        Client::open(socket, Instant::now() + patience).with_context(|| {
            format!(
                "{} listens on {}, and does not answer as a daemon of Nix or Guix does; it is left alone",
                procfs::describe(listener.pid),
                socket.display()
            )
        })?;
        if Listener::find(socket)? != Some(listener) {
            bail!("another process listens on {} by now; try again", socket.display());
        }
        Ok(VerifiedListener { listener, process: Arc::new(process) })
    }
}

/// The cause why a listener is left alone.
pub fn untrusted(listener: &Listener, socket: &Path, owner: u32) -> String {
    let or_owner =
        if owner == 0 { String::new() } else { format!(" nor user {owner}, who owns the store") };
    format!(
        "user {} began to listen on {}, and neither root{or_owner} did; so {} is neither stopped nor \
         started again; end it, and start the daemon of the store",
        listener.uid,
        socket.display(),
        procfs::describe(listener.pid)
    )
}

/// A descriptor of the process that called `listen`: from the socket itself since Linux 6.5.
fn process_of(stream: &UnixStream, listener: &Listener, socket: &Path) -> Result<OwnedFd> {
    let gone = || {
        format!(
            "the process that began to listen on {} has ended, and another one still has the socket; end \
             that one, and start the daemon again",
            socket.display()
        )
    };
    match getsockopt(stream, PeerPidfd) {
        // Newer kernels give the descriptor of a process that has ended, too.
        Ok(process) if has_ended(&process, Duration::ZERO)? => bail!(gone()),
        Ok(process) => return Ok(process),
        Err(Errno::ENOPROTOOPT) => {}
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => bail!(gone()),
        Err(e) => return Err(e).with_context(gone),
    }
    let pid = i32::try_from(listener.pid).ok().and_then(Pid::from_raw).with_context(gone)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).with_context(gone)?;
    // The number may have been another's by the time of the call: the daemon has the socket open.
    if !rivals::has_open(listener.pid, socket) {
        bail!(gone());
    }
    Ok(process)
}
