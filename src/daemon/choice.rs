//! What may be asked for, and what there is to stop and to start.

use super::executable::{Executable, Program, Replaced};
use super::shepherd::Shepherd;
use super::systemd;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What the user asked for.
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
    /// A service, and the process that it runs, where that is known.
    Shepherd {
        shepherd: Shepherd,
        service: String,
        pid: Option<u32>,
    },
    /// The process that listens on the socket.
    Process {
        pid: u32,
    },
    /// Run as the user and group given, or as we are.
    Command {
        stop: String,
        start: String,
        run_as: Option<(u32, u32)>,
    },
    None,
}

impl Daemon {
    /// Whether a start would run another file than the one that runs now.
    ///
    /// # Errors
    /// When there is nothing any more that a start could run.
    pub fn replaced(&self) -> Result<Option<Replaced>> {
        match self {
            Daemon::Systemd { units } => systemd::replaced(units),
            Daemon::Process { pid } => Ok(Executable::look(*pid)?.replaced(*pid)),
            Daemon::Shepherd { pid: Some(pid), .. } => Ok(Program::of(*pid)?.report(*pid)),
            Daemon::Shepherd { pid: None, .. } | Daemon::Command { .. } | Daemon::None => Ok(None),
        }
    }
}
