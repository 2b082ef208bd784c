//! The daemon choices of a user, and the daemons that can be stopped and started.

use super::executable::{Executable, Program, Replaced};
use super::shepherd::Shepherd;
use super::systemd;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The `--daemon` choice of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonChoice {
    Auto,
    Systemd,
    Shepherd,
    Process,
    /// Shell commands of the user.
    Command {
        stop: String,
        start: String,
    },
    None,
}

/// A daemon that can be stopped and started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Daemon {
    /// Units that were active, sockets first.
    Systemd {
        units: Vec<String>,
    },
    /// A service, and its main process if it is known.
    Shepherd {
        shepherd: Shepherd,
        service: String,
        pid: Option<u32>,
    },
    /// The process that listens on the socket.
    Process {
        pid: u32,
    },
    /// Run as the given user and group, or as the user of this process.
    Command {
        stop: String,
        start: String,
        run_as: Option<(u32, u32)>,
    },
    None,
}

impl Daemon {
    /// Returns whether there is a daemon.
    pub fn exists(&self) -> bool {
        match self {
            Daemon::Systemd { .. }
            | Daemon::Shepherd { .. }
            | Daemon::Process { .. }
            | Daemon::Command { .. } => true,
            Daemon::None => false,
        }
    }

    /// Returns the process of a daemon that runs without a supervisor.
    pub fn bare_process(&self) -> Option<u32> {
        match self {
            Daemon::Process { pid } => Some(*pid),
            Daemon::Systemd { .. }
            | Daemon::Shepherd { .. }
            | Daemon::Command { .. }
            | Daemon::None => None,
        }
    }

    /// Returns the units of systemd that run the daemon, sockets first.
    pub fn units(&self) -> &[String] {
        match self {
            Daemon::Systemd { units } => units,
            Daemon::Shepherd { .. }
            | Daemon::Process { .. }
            | Daemon::Command { .. }
            | Daemon::None => &[],
        }
    }

    /// Returns a report if a start would run a different file from the one that runs now.
    ///
    /// # Errors
    /// If the program does not exist any more, so that the daemon could not be started again.
    pub fn replaced(&self) -> Result<Option<Replaced>> {
        match self {
            Daemon::Systemd { units } => systemd::replaced(units),
            Daemon::Process { pid } => Ok(Executable::look(*pid)?.replaced(*pid)),
            Daemon::Shepherd { pid: Some(pid), .. } => Ok(Program::open(*pid)?.report(*pid)),
            Daemon::Shepherd { pid: None, .. } | Daemon::Command { .. } | Daemon::None => Ok(None),
        }
    }
}
