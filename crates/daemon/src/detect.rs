//! Finds the service manager, or the bare process, that is in charge of the daemon.
//!
//! This depends on the process that listens on the store's socket: only the service manager that runs this
//! process can stop the daemon and start it again.

use super::daemon_kind::{Daemon, DaemonChoice};
use super::listener::{Listener, untrusted};
use super::shepherd::{self, Behind, Service, ServiceRelation, Shepherd};
use super::systemd::{self, Active};
use super::{duplicate_daemons, procfs};
use anyhow::{Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;
use storecache_runtime::RunContext;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use tracing::debug;

/// Where to look for the daemon of a store.
#[derive(Clone)]
pub struct DaemonLookup<'a> {
    /// The store's root.
    pub root: &'a Path,
    pub socket: PathBuf,
    /// The socket, as programs inside the root name it.
    pub socket_inside: PathBuf,
    /// Names of units that the daemon may be in systemd, sockets first.
    pub units: &'a [&'a str],
    /// The name of its program, and of its service in a shepherd.
    pub name: &'a str,
    /// Sockets of shepherds, in the order in which they are asked. Those that the requester has named come
    /// first.
    pub shepherds: Vec<PathBuf>,
    /// How many of the sockets the requester has named. They are accessed with the requester's rights, so that
    /// the requester does not reach other sockets through the root helper.
    pub named: usize,
    /// User and group of the user who started the run, if that is not root.
    pub requester: Option<(u32, u32)>,
    /// The user who owns the store.
    pub owner: u32,
    /// How long a shepherd may take to answer.
    pub timeout: Duration,
    /// The run that looks, which receives reports of activity.
    pub run: &'a RunContext,
}

/// A daemon, and why it is considered to be the one in charge.
#[derive(Debug, Clone)]
pub struct DetectedDaemon {
    pub daemon: Daemon,
    pub why: String,
    /// Problems that do not prevent stopping and starting the daemon.
    pub warnings: Vec<String>,
}

/// Finds the daemon.
///
/// # Errors
/// If the daemon that the user named does not exist, or does not run the process that listens.
pub fn find(choice: &DaemonChoice, at: &DaemonLookup<'_>) -> Result<DetectedDaemon> {
    let untouched =
        |daemon, why: &str| DetectedDaemon { daemon, why: why.into(), warnings: Vec::new() };
    // Units of this machine say nothing about a store below another root.
    let on_this_machine = at.root == Path::new("/");
    match choice {
        DaemonChoice::None => Ok(untouched(Daemon::None, "daemon handling is disabled")),
        DaemonChoice::Command { stop, start } => {
            let (stop, start, run_as) = (stop.clone(), start.clone(), at.requester);
            Ok(untouched(Daemon::Command { stop, start, run_as }, "commands were given"))
        }
        DaemonChoice::Auto => Facts::gather(at, on_this_machine)?.auto(),
        // An explicit choice means the systemd of this machine, wherever the store is.
        DaemonChoice::Systemd => Facts::gather(at, true)?.systemd(),
        DaemonChoice::Shepherd => Facts::gather(at, on_this_machine)?.shepherd(),
        DaemonChoice::Process => Facts::gather(at, on_this_machine)?.process(),
    }
}

/// Returns a service that a shepherd could start, whether it runs now or not. The shepherd belongs to root or
/// to the requester.
pub fn service_to_start(at: &DaemonLookup<'_>) -> Result<Option<Daemon>> {
    let facts = Facts::gather(at, false)?;
    let stopped = facts.services.into_iter().next().map(|asked| Daemon::Shepherd {
        shepherd: asked.service.shepherd,
        service: asked.service.name,
        pid: None,
    });
    Ok(stopped)
}

/// The process that listens, and the service managers that may be in charge of it.
struct Facts<'a> {
    at: &'a DaemonLookup<'a>,
    /// The process that listens, if root or the store's owner started it.
    listener: Option<u32>,
    /// The process that listens, if another user started it. It is never stopped.
    stranger: Option<Listener>,
    units: Option<Active>,
    services: Vec<ShepherdService>,
    /// Shepherds that do not have such a service.
    unaware: Vec<String>,
    /// Why other shepherds could not be asked.
    silent: Vec<String>,
}

/// The service of a shepherd, and its relation to the listener.
struct ShepherdService {
    service: Service,
    tie: ServiceRelation,
}

impl<'a> Facts<'a> {
    fn gather(at: &'a DaemonLookup<'a>, asks_systemd: bool) -> Result<Self> {
        let found = Listener::find(&at.socket)?;
        let trusted = found.filter(|found| found.is_trusted(at.owner));
        let (listener, stranger) = (trusted.map(|it| it.pid), found.filter(|_| trusted.is_none()));
        let asks_systemd = asks_systemd && systemd::is_running();
        let units = asks_systemd.then(|| Active::find(at.units)).transpose()?.flatten();
        let (services, unaware, silent) = Default::default();
        let mut facts = Facts { at, listener, stranger, units, services, unaware, silent };
        let (listener, stranger) = (facts.listener, facts.stranger.map(|it| it.pid));
        let units = facts.units.as_ref().map(Active::describe);
        debug!(listener, stranger, units, asks_systemd, "found the process that listens");
        if facts.systemd_listens() {
            return Ok(facts);
        }
        let mut seen = Vec::new();
        for (number, socket) in at.shepherds.iter().enumerate() {
            let of = at.requester.filter(|_| number < at.named);
            // A directory may be listed under two names.
            let Ok(real) = shepherd::with_rights_of(of, || socket.canonicalize()) else { continue };
            if !seen.contains(&real) {
                facts.ask(socket, of)?;
                seen.push(real);
            }
        }
        for asked in &facts.services {
            debug!(service = asked.service.name, relation = ?asked.tie, "a shepherd has a service");
        }
        for reason in facts.unaware.iter().chain(&facts.silent) {
            debug!(reason, "a shepherd is not in charge");
        }
        Ok(facts)
    }

    /// Asks a shepherd, with the rights of a user if the socket belongs to that user.
    fn ask(&mut self, socket: &Path, of: Option<(u32, u32)>) -> Result<()> {
        let shown = socket.display();
        let behind = shepherd::behind(socket, self.at.requester, of, self.at.timeout)?;
        let (pid, answer) = match behind {
            Behind::Nobody => return Ok(()),
            Behind::Shepherd(shepherd, pid) => (pid, self.service_of(&shepherd)),
            Behind::Stranger { uid, pid } => {
                let owner =
                    format!("belongs to the user {uid}, and only its owner may connect to it");
                (pid, Err(anyhow!("the shepherd at {shown} {owner}")))
            }
        };
        match answer {
            Ok(Some(asked)) => self.services.push(asked),
            Ok(None) => {
                let name = self.at.name;
                self.unaware.push(format!("the shepherd at {shown} has no service {name}"));
            }
            // Every process descends from init, which need not be in charge of the daemon.
            Err(e) if pid != 1 && self.listener.is_some_and(|it| procfs::descends(it, pid)) => {
                return Err(e.context(format!(
                    "process {pid} runs the daemon and would start it again, but cannot be asked \
                     to stop it"
                )));
            }
            Err(e) => self.silent.push(in_one_line(e.as_ref())),
        }
        Ok(())
    }

    fn service_of(&self, shepherd: &Shepherd) -> Result<Option<ShepherdService>> {
        let Some(service) = shepherd.service(self.at.run, self.at.name)? else { return Ok(None) };
        let tie = self
            .listener
            .map_or(Ok(ServiceRelation::None), |listener| service.tie(self.at.run, listener))?;
        Ok(Some(ShepherdService { service, tie }))
    }

    fn auto(self) -> Result<DetectedDaemon> {
        if self.systemd_listens() || (self.listener.is_none() && self.units.is_some()) {
            return self.systemd();
        }
        if self.service().is_some() {
            return self.shepherd();
        }
        if self.listener.is_some() || self.stranger.is_some() {
            return self.process();
        }
        let why = "no process listens on its socket".into();
        Ok(DetectedDaemon { daemon: Daemon::None, why, warnings: self.lost() })
    }

    /// Describes the problem if neither root nor the store's owner started the process that listens.
    fn stranger(&self) -> Option<String> {
        self.stranger.map(|listener| untrusted(&listener, &self.at.socket, self.at.owner))
    }

    fn systemd(self) -> Result<DetectedDaemon> {
        let Some(units) = &self.units else {
            let names = self.at.units.join(", ");
            bail!(
                anyhow!("none of {names} is active in systemd")
                    .hint("start one, or use --daemon auto")
            );
        };
        let listens = match self.listener {
            None if self.stranger.is_some() => "another process has the socket".to_owned(),
            None => "no process listens".to_owned(),
            Some(1) if self.systemd_listens() => "systemd itself listens".to_owned(),
            Some(pid) if self.systemd_listens() => format!("its process {pid} listens"),
            Some(pid) => bail!(
                anyhow!(
                    "{}, but {} listens on {}",
                    units.describe(),
                    procfs::describe(pid),
                    self.at.socket.display()
                )
                .hint("stop the one that is not needed, or use --daemon auto")
            ),
        };
        Ok(DetectedDaemon {
            why: format!("systemd has {} active, and {listens}", units.units.join(" and ")),
            warnings: self.lost().into_iter().chain(self.stranger()).collect(),
            daemon: Daemon::Systemd { units: units.units.clone() },
        })
    }

    fn shepherd(self) -> Result<DetectedDaemon> {
        let Some(asked) = self.service() else { return Err(self.no_service()) };
        let Service { shepherd, name, pid, .. } = &asked.service;
        let socket = shepherd.socket.display();
        let (pid, listens) = match (self.listener, asked.tie) {
            (Some(listener), ServiceRelation::Process) => {
                (Some(listener), format!("its process {listener} listens"))
            }
            (Some(_), _) => (*pid, "the shepherd itself listens".to_owned()),
            (None, _) => (*pid, "no process listens".to_owned()),
        };
        let warnings = self.units_beside().into_iter().chain(self.lost()).chain(self.stranger());
        let warnings = warnings.collect();
        Ok(DetectedDaemon {
            why: format!("the shepherd at {socket} runs the service {name}, and {listens}"),
            warnings,
            daemon: Daemon::Shepherd { shepherd: shepherd.clone(), service: name.clone(), pid },
        })
    }

    fn process(self) -> Result<DetectedDaemon> {
        if let Some(stranger) = self.stranger() {
            bail!(stranger);
        }
        let socket = self.at.socket.display();
        let Some(pid) = self.listener else {
            bail!(
                anyhow!("no process listens on {socket}")
                    .hint("start the daemon, or use --daemon auto")
            );
        };
        if self.systemd_listens() {
            bail!(
                anyhow!("systemd runs {} and would start it again", procfs::describe(pid))
                    .hint("use --daemon systemd")
            );
        }
        if let Some(asked) = self.service() {
            bail!(
                anyhow!(
                    "the shepherd at {} runs {} and would start it again",
                    asked.service.shepherd.socket.display(),
                    procfs::describe(pid)
                )
                .hint("use --daemon shepherd")
            );
        }
        if pid == 1 {
            bail!(
                anyhow!(
                    "init listens on {socket}, but none of {} is active",
                    self.at.units.join(", ")
                )
                .hint("give commands with --daemon command")
            );
        }
        let beside = self.running().filter_map(|asked| self.service_beside(&asked.service));
        let beside = self.units_beside().into_iter().chain(beside);
        let warnings = beside.chain(self.lost()).chain(self.silent.clone()).collect();
        let although = self.running().next().map(|asked| asked.service.describe());
        let although = self.units.as_ref().map(Active::describe).or(although);
        let although = although.map(|other| format!(", although {other}")).unwrap_or_default();
        let why = format!("process {pid} listens on its socket{although}");
        Ok(DetectedDaemon { daemon: Daemon::Process { pid }, why, warnings })
    }

    /// Whether systemd runs the process that listens.
    fn systemd_listens(&self) -> bool {
        let both = self.units.as_ref().zip(self.listener);
        both.is_some_and(|(units, listener)| units.run(listener))
    }

    /// Returns the running service that runs the listener. Without a listener, returns any running service.
    fn service(&self) -> Option<&ShepherdService> {
        let tied = |asked: &&ShepherdService| {
            self.listener.is_none() || asked.tie != ServiceRelation::None
        };
        self.running().find(tied)
    }

    fn running(&self) -> impl Iterator<Item = &ShepherdService> {
        self.services.iter().filter(|asked| asked.service.is_running)
    }

    fn no_service(&self) -> anyhow::Error {
        let socket = |asked: &ShepherdService| asked.service.shepherd.socket.display().to_string();
        let running = self.running().next();
        let name = self.at.name;
        if self.systemd_listens() {
            return anyhow!("systemd runs the listening process").hint("use --daemon systemd");
        }
        if let (Some(asked), Some(listener)) = (running, self.listener) {
            return anyhow!(
                "{}, but {} listens on {}",
                asked.service.describe(),
                procfs::describe(listener),
                self.at.socket.display()
            )
            .hint("stop the one that is not needed, or use --daemon auto");
        }
        if let Some(asked) = self.services.first() {
            return anyhow!("the shepherd at {} does not run its service {name}", socket(asked))
                .hint(format!("start it with `herd start {name}`, or use --daemon auto"));
        }
        let others = [&self.silent[..], &self.unaware].concat();
        if !others.is_empty() {
            return anyhow!("{}", others.join("; ")).hint("use --daemon auto");
        }
        let sockets = self.at.shepherds.iter().map(|socket| socket.display().to_string());
        anyhow!("no shepherd listens on {}", sockets.collect::<Vec<_>>().join(" or "))
            .hint("start one, name its socket in SHEPHERD_SOCKET, or use --daemon auto")
    }

    /// Warns if systemd runs a daemon that is not the one which listens.
    fn units_beside(&self) -> Option<String> {
        let units = self.units.as_ref()?;
        let names = units.units.join(" ");
        self.beside(&units.describe(), &format!("systemctl restart {names}"))
    }

    /// Warns that a shepherd runs a daemon that is not the one which listens.
    fn service_beside(&self, service: &Service) -> Option<String> {
        let socket = service.shepherd.socket.display();
        let restart = format!("herd --socket={socket} restart {}", service.name);
        self.beside(&service.describe(), &restart)
    }

    fn beside(&self, has: &str, restart: &str) -> Option<String> {
        let listener = procfs::describe(self.listener?);
        Some(format!(
            "{has}, but {listener} has the socket, so clients do not reach the other daemon; stop \
             the one that is not needed, then run `{restart}`"
        ))
    }

    /// Warns about daemons that no service manager runs and that clients cannot reach.
    fn lost(&self) -> Vec<String> {
        let DaemonLookup { name, root, socket_inside, .. } = self.at;
        let mut lost = duplicate_daemons::find_duplicates(name, root, socket_inside, self.listener);
        lost.retain(|&pid| {
            let services = || self.services.iter().filter_map(|asked| asked.service.pid);
            !self.units.as_ref().is_some_and(|units| units.run(pid))
                && !services().any(|service| procfs::descends(pid, service))
        });
        let warn = |pid| {
            let process = procfs::describe(pid);
            format!(
                "{process} is also a daemon of this store, but has lost the socket, so clients do \
                 not reach it; stop or restart it"
            )
        };
        lost.into_iter().map(warn).collect()
    }
}
