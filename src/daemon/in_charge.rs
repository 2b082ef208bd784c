//! Finding the daemon in charge.
//!
//! The fact to go by is the process that listens on the store's socket: whoever runs that one is in
//! charge of the daemon, and nobody else's means can stop it or start it again.

use super::choice::{Daemon, DaemonChoice};
use super::shepherd::{self, Behind, Service, Tie};
use super::systemd::{self, Active};
use super::{process, procfs, rivals};
use anyhow::{Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the daemon of a store may be found.
#[derive(Debug, Clone)]
pub struct Whereabouts<'a> {
    /// The store's root.
    pub root: &'a Path,
    pub socket: PathBuf,
    /// The socket as programs inside the root name it.
    pub socket_inside: PathBuf,
    /// Names that systemd may know it by, sockets first.
    pub units: &'a [&'a str],
    /// The name of its program, and of its service in a shepherd.
    pub name: &'a str,
    /// Where shepherds may listen, in the order in which they are asked.
    pub shepherds: Vec<PathBuf>,
    /// User and group of whoever asked for all this, if that is not root.
    pub requester: Option<(u32, u32)>,
    /// How long a shepherd may take for an answer.
    pub patience: Duration,
}

/// A daemon, and why it is taken to be the one in charge.
#[derive(Debug, Clone)]
pub struct Found {
    pub daemon: Daemon,
    pub why: String,
    /// What is wrong although the daemon does as it is told.
    pub warnings: Vec<String>,
}

/// Finds the daemon.
///
/// # Errors
/// When the one that the user named is not there, or does not run the process that listens.
pub fn find(choice: &DaemonChoice, at: &Whereabouts<'_>) -> Result<Found> {
    let untouched = |daemon, why: &str| Found { daemon, why: why.into(), warnings: Vec::new() };
    match choice {
        DaemonChoice::None => Ok(untouched(Daemon::None, "asked to leave the daemon alone")),
        DaemonChoice::Command { stop, start } => {
            let (stop, start, run_as) = (stop.clone(), start.clone(), at.requester);
            Ok(untouched(Daemon::Command { stop, start, run_as }, "commands were given"))
        }
        DaemonChoice::Auto => Facts::gather(at)?.auto(),
        DaemonChoice::Systemd => Facts::gather(at)?.systemd(),
        DaemonChoice::Shepherd => Facts::gather(at)?.shepherd(),
        DaemonChoice::Process => Facts::gather(at)?.process(),
    }
}

/// Who listens, and who may be in charge of that.
struct Facts<'a> {
    at: &'a Whereabouts<'a>,
    listener: Option<u32>,
    units: Option<Active>,
    services: Vec<Asked>,
    /// Why a shepherd that is there could not be asked.
    silent: Vec<String>,
}

/// The service of a shepherd, and how the listener belongs to it.
struct Asked {
    service: Service,
    tie: Tie,
}

impl<'a> Facts<'a> {
    fn gather(at: &'a Whereabouts<'a>) -> Result<Self> {
        let listener = process::listener(&at.socket)?;
        // Units of this machine say nothing about a store below another root.
        let units = (at.root == Path::new("/") && systemd::is_running())
            .then(|| Active::of(at.units))
            .transpose()?
            .flatten();
        let mut facts = Facts { at, listener, units, services: Vec::new(), silent: Vec::new() };
        if facts.systemd_listens() {
            return Ok(facts);
        }
        let mut seen = Vec::new();
        for socket in &at.shepherds {
            // One directory may have two names.
            let Ok(real) = socket.canonicalize() else { continue };
            if !seen.contains(&real) {
                facts.ask(socket)?;
                seen.push(real);
            }
        }
        Ok(facts)
    }

    fn ask(&mut self, socket: &Path) -> Result<()> {
        let at = self.at;
        let (pid, reason) = match shepherd::behind(socket, at.requester, at.patience)? {
            Behind::Nobody => return Ok(()),
            Behind::Stranger { uid, pid } => {
                let socket = socket.display();
                (
                    pid,
                    format!(
                        "the shepherd behind {socket} belongs to the user {uid}, and only its \
                     owner may talk to it"
                    ),
                )
            }
            Behind::Shepherd(shepherd, pid) => {
                let asked = shepherd.service(at.name).and_then(|service| {
                    let Some(service) = service else { return Ok(None) };
                    let tie = self.listener.map(|pid| service.tie(pid)).transpose()?;
                    Ok(Some(Asked { service, tie: tie.unwrap_or(Tie::None) }))
                });
                match asked {
                    Ok(Some(asked)) => {
                        self.services.push(asked);
                        return Ok(());
                    }
                    Ok(None) => {
                        let socket = socket.display();
                        let unknown =
                            format!("the shepherd behind {socket} has no service {}", at.name);
                        self.silent.push(unknown);
                        return Ok(());
                    }
                    Err(e) => (pid, format!("{e:#}")),
                }
            }
        };
        if pid != 1 && self.listener.is_some_and(|listener| procfs::descends(listener, pid)) {
            bail!("process {pid} runs the daemon and would start it again, but {reason}");
        }
        self.silent.push(reason);
        Ok(())
    }

    fn auto(self) -> Result<Found> {
        if self.systemd_listens() || (self.listener.is_none() && self.units.is_some()) {
            return self.systemd();
        }
        if self.service().is_some() {
            return self.shepherd();
        }
        if self.listener.is_some() {
            return self.process();
        }
        let why = "nothing listens on its socket".into();
        Ok(Found { daemon: Daemon::None, why, warnings: self.lost() })
    }

    fn systemd(self) -> Result<Found> {
        let Some(units) = &self.units else {
            let names = self.at.units.join(", ");
            bail!("systemd has none of {names} active; start one, or use --daemon auto");
        };
        let listens = match self.listener {
            None => "nothing listens".to_owned(),
            Some(1) if self.systemd_listens() => "listens for it itself".to_owned(),
            Some(pid) if self.systemd_listens() => format!("process {pid} of it listens"),
            Some(pid) => bail!(
                "systemd has {}, but it is {} that listens on {}; end the one that is too many, or \
                 use --daemon auto",
                units.describe(),
                procfs::describe(pid),
                self.at.socket.display()
            ),
        };
        Ok(Found {
            why: format!("systemd has {} active, and {listens}", units.units.join(" and ")),
            warnings: self.lost(),
            daemon: Daemon::Systemd { units: units.units.clone() },
        })
    }

    fn shepherd(self) -> Result<Found> {
        let Some(asked) = self.service() else { return Err(self.no_service()) };
        let Service { shepherd, name, pid, .. } = &asked.service;
        let socket = shepherd.socket.display();
        let (pid, listens) = match (self.listener, asked.tie) {
            (Some(listener), Tie::Process) => {
                (Some(listener), format!("process {listener} of it listens"))
            }
            (Some(_), _) => (*pid, "listens for it itself".to_owned()),
            (None, _) => (*pid, "nothing listens".to_owned()),
        };
        let warnings = self.units_beside().into_iter().chain(self.lost()).collect();
        Ok(Found {
            why: format!(
                "the shepherd behind {socket} has its service {name} running, and {listens}"
            ),
            warnings,
            daemon: Daemon::Shepherd { shepherd: shepherd.clone(), service: name.clone(), pid },
        })
    }

    fn process(self) -> Result<Found> {
        let socket = self.at.socket.display();
        let Some(pid) = self.listener else {
            bail!("no process listens on {socket}; start the daemon, or use --daemon auto");
        };
        if self.systemd_listens() {
            bail!(
                "systemd runs {} and would start it again; use --daemon systemd",
                procfs::describe(pid)
            );
        }
        if let Some(asked) = self.service() {
            bail!(
                "the shepherd behind {} runs {} and would start it again; use --daemon shepherd",
                asked.service.shepherd.socket.display(),
                procfs::describe(pid)
            );
        }
        if pid == 1 {
            bail!(
                "init itself listens on {socket}, and none of {} is active; name the daemon with \
                 --daemon command",
                self.at.units.join(", ")
            );
        }
        let beside = self.services.iter().filter(|asked| asked.service.is_running);
        let beside = beside.filter_map(|asked| self.service_beside(&asked.service));
        let warnings = self.units_beside().into_iter().chain(beside).chain(self.lost()).collect();
        let although = match &self.units {
            Some(units) => format!(", although systemd has {}", units.describe()),
            None => String::new(),
        };
        let why = format!("process {pid} listens on its socket{although}");
        Ok(Found { daemon: Daemon::Process { pid }, why, warnings })
    }

    /// Whether it is systemd who runs what listens.
    fn systemd_listens(&self) -> bool {
        let both = self.units.as_ref().zip(self.listener);
        both.is_some_and(|(units, listener)| units.run(listener))
    }

    /// The service that runs what listens, or that would if anything did.
    fn service(&self) -> Option<&Asked> {
        let tied = |asked: &&Asked| self.listener.is_none() || asked.tie != Tie::None;
        self.services.iter().filter(|asked| asked.service.is_running).find(tied)
    }

    fn no_service(&self) -> anyhow::Error {
        let socket = |asked: &Asked| asked.service.shepherd.socket.display().to_string();
        let running = self.services.iter().find(|asked| asked.service.is_running);
        let name = self.at.name;
        if self.systemd_listens() {
            return anyhow!("systemd runs what listens on the socket; use --daemon systemd");
        }
        if let (Some(asked), Some(listener)) = (running, self.listener) {
            return anyhow!(
                "the shepherd behind {} has {}, but it is {} that listens on {}; end the one that \
                 is too many, or use --daemon auto",
                socket(asked),
                asked.service.describe(),
                procfs::describe(listener),
                self.at.socket.display()
            );
        }
        if let Some(asked) = self.services.first() {
            return anyhow!(
                "the shepherd behind {} does not have its service {name} running; start it with \
                 `herd start {name}`, or use --daemon auto",
                socket(asked)
            );
        }
        if !self.silent.is_empty() {
            return anyhow!("{}; use --daemon auto", self.silent.join("; "));
        }
        let sockets = self.at.shepherds.iter().map(|socket| socket.display().to_string());
        anyhow!(
            "no shepherd listens on {}; start one, name its socket in SHEPHERD_SOCKET, or use \
             --daemon auto",
            sockets.collect::<Vec<_>>().join(" or ")
        )
    }

    /// Says that systemd has a daemon up that is not the one which listens.
    fn units_beside(&self) -> Option<String> {
        let units = self.units.as_ref()?;
        let names = units.units.join(" ");
        self.beside(
            &format!("systemd has {}", units.describe()),
            &format!("systemctl restart {names}"),
        )
    }

    /// The same of a shepherd.
    fn service_beside(&self, service: &Service) -> Option<String> {
        let socket = service.shepherd.socket.display();
        let has = format!("the shepherd behind {socket} has {}", service.describe());
        self.beside(&has, &format!("herd --socket={socket} restart {}", service.name))
    }

    fn beside(&self, has: &str, restart: &str) -> Option<String> {
        let listener = procfs::describe(self.listener?);
        Some(format!(
            "{has} too, but it is {listener} that has the socket, so that nobody reaches the other; \
             end the one that is too many, then run `{restart}`"
        ))
    }

    /// Names daemons that nobody runs and nobody can reach.
    fn lost(&self) -> Vec<String> {
        let Whereabouts { name, root, socket_inside, .. } = self.at;
        let mut lost = rivals::of(name, root, socket_inside, self.listener);
        lost.retain(|&pid| {
            let services = || self.services.iter().filter_map(|asked| asked.service.pid);
            !self.units.as_ref().is_some_and(|units| units.run(pid))
                && !services().any(|service| procfs::descends(pid, service))
        });
        let warn = |pid| {
            let process = procfs::describe(pid);
            format!(
                "{process} is a daemon of this store too, but has lost the socket, so that nobody \
                 reaches it; end it"
            )
        };
        lost.into_iter().map(warn).collect()
    }
}
