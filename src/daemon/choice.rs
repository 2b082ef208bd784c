//! Finding the daemon in charge.

use super::{process, systemd};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonChoice {
    Auto,
    Systemd,
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

/// A daemon, and why it is taken to be the one in charge.
#[derive(Debug, Clone)]
pub struct Found {
    pub daemon: Daemon,
    pub why: String,
}

/// Finds the daemon of the store whose socket is `socket`. `units` are the names that systemd may
/// know it by; `root` is the store's root, `run_as` whoever asked for all this.
///
/// # Errors
/// When the daemon that the user named is not there.
pub fn find(
    choice: &DaemonChoice,
    socket: &Path,
    units: &[&str],
    root: &Path,
    run_as: Option<(u32, u32)>,
) -> Result<Found> {
    let found = |daemon, why: String| Ok(Found { daemon, why });
    match choice {
        DaemonChoice::None => found(Daemon::None, "asked to leave the daemon alone".into()),
        DaemonChoice::Command { stop, start } => {
            let (stop, start) = (stop.clone(), start.clone());
            found(Daemon::Command { stop, start, run_as }, "commands were given".into())
        }
        DaemonChoice::Systemd => {
            let active = systemd::active(units)?;
            if active.is_empty() {
                let names = units.join(", ");
                bail!("systemd has none of {names} active; start one, or use --daemon auto");
            }
            let why = format!("systemd has {} active", active.join(" and "));
            found(Daemon::Systemd { units: active }, why)
        }
        DaemonChoice::Process => match process::listener(socket)? {
            Some(pid) if pid != 1 => {
                found(Daemon::Process { pid }, format!("process {pid} listens on its socket"))
            }
            Some(_) => bail!("init itself listens on {}; use --daemon systemd", socket.display()),
            None => bail!(
                "no process listens on {}; start the daemon, or use --daemon auto",
                socket.display()
            ),
        },
        DaemonChoice::Auto => {
            // Units of this machine say nothing about a store below another root.
            if root == Path::new("/") && systemd::is_running() {
                let active = systemd::active(units)?;
                if !active.is_empty() {
                    let why = format!("systemd has {} active", active.join(" and "));
                    return found(Daemon::Systemd { units: active }, why);
                }
            }
            match process::listener(socket)? {
                Some(1) => bail!(
                    "init itself listens on {} but none of {} is active; name the daemon with \
                     --daemon command",
                    socket.display(),
                    units.join(", ")
                ),
                Some(pid) => {
                    found(Daemon::Process { pid }, format!("process {pid} listens on its socket"))
                }
                None => found(Daemon::None, "nothing listens on its socket".into()),
            }
        }
    }
}
