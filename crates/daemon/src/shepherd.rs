//! Daemons that are a service of a shepherd, either the system's or a user's own.
//!
//! storecache runs `herd` as the owner of the shepherd: root must not talk to a socket on which another user
//! listens. The output of `herd` is parsed in the formats of shepherd 0.9 to 1.0 (`shepherd/scripts/herd.scm`).

use super::bare_process::ProcessHandle;
use super::procfs;
use super::worker_protocol::connect;
use anyhow::{Result, anyhow, bail};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storecache_programs::{HerdOrder, Program, await_output};
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::liveness::Watch;

/// A shepherd that storecache may control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shepherd {
    pub socket: PathBuf,
    /// User and group of the shepherd, if that is not root.
    pub owner: Option<(u32, u32)>,
    /// How long it may take to answer.
    pub timeout: Duration,
}

/// The process behind a socket.
pub enum Behind {
    Nobody,
    /// A shepherd, with its process ID when it began to listen.
    Shepherd(Shepherd, u32),
    /// A process of a user who is neither root nor the requester.
    Stranger {
        uid: u32,
        pid: u32,
    },
}

/// The state of a service, as its shepherd reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub shepherd: Shepherd,
    pub name: String,
    pub is_running: bool,
    /// Its main process, if it has one.
    pub pid: Option<u32>,
}

/// How the process that listens belongs to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceRelation {
    None,
    /// The listener is a process of the service.
    Process,
    /// The listener is the shepherd itself, which starts the service with its first client.
    Activation,
}

/// Finds out which process listens on `socket`. `requester` is the user and group of the user who started the
/// run, if that is not root. A socket that is `of` a user is accessed with the rights of that user, and only a
/// process of that user is accepted behind it.
pub fn behind(
    socket: &Path,
    requester: Option<(u32, u32)>,
    of: Option<(u32, u32)>,
    timeout: Duration,
) -> Result<Behind> {
    let stream = match with_rights_of(of, || connect(socket)) {
        Ok(stream) => stream,
        // The socket does not exist, or no process listens on it.
        Err(_) => return Ok(Behind::Nobody),
    };
    let peer = nix::sys::socket::getsockopt(&stream, PeerCredentials)?;
    let pid = u32::try_from(peer.pid()).unwrap_or_default();
    let shepherd = |owner| Shepherd { socket: socket.to_owned(), owner, timeout };
    let own = geteuid().as_raw();
    Ok(match (peer.uid(), requester) {
        (uid, _) if uid == own && of.is_none() => Behind::Shepherd(shepherd(None), pid),
        (uid, Some(own)) if uid == own.0 => Behind::Shepherd(shepherd(Some(own)), pid),
        (uid, _) => Behind::Stranger { uid, pid },
    })
}

/// Calls `work` with the rights that a user has on files, if a user is given.
pub fn with_rights_of<T>(user: Option<(u32, u32)>, work: impl FnOnce() -> T) -> T {
    let Some((uid, gid)) = user else { return work() };
    // This changes the current thread only, and removes its capabilities for files (`man 7 capabilities`).
    let gid = setfsgid(Gid::from_raw(gid));
    let uid = setfsuid(Uid::from_raw(uid));
    let done = work();
    setfsuid(uid);
    setfsgid(gid);
    done
}

impl Shepherd {
    /// Returns the state of a service; `None` if the shepherd does not know it.
    pub fn service(&self, run: &RunContext, name: &str) -> Result<Option<Service>> {
        let shepherd = self.clone();
        let Some(status) = self.status(run, name)? else { return Ok(None) };
        let (is_running, pid) = read_status(&status);
        Ok(Some(Service { shepherd, name: name.to_owned(), is_running, pid }))
    }

    /// Returns the process ID of the shepherd itself. The peer of its socket may have another one: that of the
    /// process before it went into the background.
    fn pid(&self, run: &RunContext) -> Result<Option<u32>> {
        Ok(self.status(run, "root")?.and_then(|status| read_status(&status).1))
    }

    fn status(&self, run: &RunContext, service: &str) -> Result<Option<String>> {
        match self.herd(run, HerdOrder::Status(service)) {
            Err(e) if format!("{e:#}").contains("could not be found") => Ok(None),
            other => other.map(Some),
        }
    }

    /// Returns the names of all running services.
    fn running(&self, run: &RunContext) -> Result<Vec<String>> {
        let status = self.herd(run, HerdOrder::List)?;
        let running = status.lines().filter_map(|line| line.trim().strip_prefix("+ "));
        Ok(running.map(|name| name.trim().to_owned()).collect())
    }

    fn herd(&self, run: &RunContext, order: HerdOrder<'_>) -> Result<String> {
        let about =
            || format!("herd --socket {} {}", self.socket.display(), order.words().join(" "));
        let watch = Watch {
            run,
            what: &about(),
            flag: "daemon-timeout",
            timeout: self.timeout,
            check_canceled: &|| Ok(()),
            probe: &mut || None,
        };
        let herd = Program::Herd { socket: &self.socket, owner: self.owner, order };
        let output = await_output(herd, watch).map_err(|e| match e.downcast_ref() {
            Some(error) if std::io::Error::kind(error) == ErrorKind::NotFound => {
                anyhow!("a shepherd runs the daemon, but root does not have the program `herd`")
                    .hint(
                        "install shepherd for the whole system, or give commands with --daemon \
                     command",
                    )
            }
            Some(_) => e,
            None => e.context(format!("no answer within {} s", self.timeout.as_secs())),
        })?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
            bail!("{} failed ({}): {said}", about(), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Service {
    /// Determines how the process that listens belongs to this service.
    pub fn tie(&self, run: &RunContext, listener: u32) -> Result<ServiceRelation> {
        if self.pid.is_some_and(|pid| procfs::descends(listener, pid)) {
            return Ok(ServiceRelation::Process);
        }
        let Some(shepherd) = self.shepherd.pid(run)? else { return Ok(ServiceRelation::None) };
        Ok(match self.pid {
            _ if listener == shepherd => ServiceRelation::Activation,
            // The service was started by custom commands, so the only evidence is the ancestry of its
            // processes.
            None if procfs::descends(listener, shepherd) => ServiceRelation::Process,
            _ => ServiceRelation::None,
        })
    }

    /// Describes the service for messages, with its main process.
    pub fn describe(&self) -> String {
        let process = self.pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        let (socket, name) = (self.shepherd.socket.display(), &self.name);
        format!("the shepherd at {socket} runs the service {name}{process}")
    }
}

/// Parses the output of `herd status`: whether the service runs, and its main process.
fn read_status(status: &str) -> (bool, Option<u32>) {
    let mut is_running = false;
    let mut pid = None;
    // The service's own messages come last, after an empty line.
    for line in status.lines().map(str::trim).take_while(|line| !line.is_empty()) {
        let runs = ["It is running", "It is started", "It is transient", "It is starting"];
        is_running |= runs.iter().any(|text| line.starts_with(text));
        let named = line.strip_prefix("Main PID: ").or(line.strip_prefix("Running value is "));
        pid = pid.or(named.and_then(|text| text.trim_end_matches('.').parse().ok()));
    }
    (is_running, pid)
}

/// Stops a service and waits until its process has ended too, because the service's own stop action may not
/// wait.
pub fn stop(
    run: &RunContext,
    shepherd: &Shepherd,
    service: &str,
    process: Option<&ProcessHandle>,
    timeout: Duration,
) -> Result<()> {
    shepherd.herd(run, HerdOrder::Stop(service))?;
    process.map_or(Ok(()), |process| process.await_end(run, timeout))
}

/// Everything that is required to start a service.
pub struct ServiceRestart {
    shepherd: Shepherd,
    service: String,
    /// All services that ran beside it: those that require it are stopped along with it.
    running: Vec<String>,
}

impl ServiceRestart {
    pub fn from_service(run: &RunContext, shepherd: &Shepherd, service: &str) -> Result<Self> {
        let (shepherd, running) = (shepherd.clone(), shepherd.running(run)?);
        Ok(ServiceRestart { shepherd, service: service.to_owned(), running })
    }

    pub fn start(&self, run: &RunContext) -> Result<()> {
        self.shepherd.herd(run, HerdOrder::Start(&self.service))?;
        let now = self.shepherd.running(run)?;
        for service in self.running.iter().filter(|service| !now.contains(service)) {
            // A shepherd forgets transient services when they end.
            if self.shepherd.service(run, service)?.is_some() {
                self.shepherd.herd(run, HerdOrder::Start(service))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::read_status;

    #[test]
    fn status_of_every_shepherd_version_is_parsed() {
        for (status, expected) in [
            (
                "Status of guix-daemon:\n  It is running since 13:21:08 (1 second ago).\n  Main PID: 56\n",
                (true, Some(56)),
            ),
            (
                "Status of guix-daemon:\n  It is started.\n  Running value is 417.\n",
                (true, Some(417)),
            ),
            (
                "Status of guix-daemon:\n  It is running since 13:21:08.\n  Running value is #t.\n",
                (true, None),
            ),
            (
                "Status of guix-daemon:\n  It is running since 13:21:08.\n  Systemd-style service listening on 1 endpoint:\n    - /s (\"s\")\n",
                (true, None),
            ),
            (
                "Status of guix-daemon:\n  It is stopped since 13:21:10.\n  Process terminated with signal 15.\n\nRecent messages:\n  It is running\n",
                (false, None),
            ),
        ] {
            assert_eq!(read_status(status), expected, "{status}");
        }
    }
}
