//! The daemon that has the store open: who runs it, how it stops and starts, whether it answers.
//!
//! The room knows units, processes and the worker protocol. It must not know what a store holds.

mod choice;
mod command;
mod context;
mod mount;
mod process;
mod protocol;
mod systemd;

pub use choice::{Daemon, DaemonChoice, Found, find};
pub use context::ProcessContext;
pub use mount::MountUnit;
pub use process::listener;
pub use protocol::{Client, await_ready, nix_version};

use anyhow::Result;
use std::time::Duration;

impl Daemon {
    /// Stops it and waits until its main process has ended. Its workers may live on.
    pub fn stop(&self, patience: Duration) -> Result<()> {
        match self {
            Daemon::Systemd { units } => systemd::stop(units),
            Daemon::Process { pid } => process::stop(*pid, patience),
            Daemon::Command { stop, run_as, .. } => command::run(stop, *run_as),
            Daemon::None => Ok(()),
        }
    }
}

/// Everything that starting the daemon takes, gathered while it still runs.
pub enum Starter {
    Systemd { units: Vec<String> },
    Process(Box<process::Recipe>),
    Command { start: String, run_as: Option<(u32, u32)> },
    None,
}

impl Starter {
    /// Gathers what [`Starter::start`] needs. Call it before the daemon stops.
    pub fn prepare(daemon: &Daemon) -> Result<Self> {
        Ok(match daemon {
            Daemon::Systemd { units } => Starter::Systemd { units: units.clone() },
            Daemon::Process { pid } => Starter::Process(Box::new(process::Recipe::of(*pid)?)),
            Daemon::Command { start, run_as, .. } => {
                Starter::Command { start: start.clone(), run_as: *run_as }
            }
            Daemon::None => Starter::None,
        })
    }

    /// Starts the daemon unless it runs. Says nothing about whether it answers, see
    /// [`await_ready`].
    pub fn start(&self) -> Result<()> {
        match self {
            Starter::Systemd { units } => systemd::start(units),
            Starter::Process(recipe) => recipe.start(),
            Starter::Command { start, run_as } => command::run(start, *run_as),
            Starter::None => Ok(()),
        }
    }
}
