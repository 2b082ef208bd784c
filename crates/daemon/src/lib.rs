//! The daemon of a store: what runs it, how it is stopped and started, and whether it answers.
//!
//! - `detect`: finds the service manager, or the bare process, that is in charge
//! - `systemd`, `shepherd`, `bare_process`, `custom_command`: the ways to stop and start it
//! - `listener`: the process behind the socket, as the kernel recorded it
//! - `worker_protocol`: checks that a daemon answers
//!
//! This crate knows units, services, processes and the worker protocol. It must not know the content of a store.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod bare_process;
mod custom_command;
mod daemon_kind;
mod detect;
mod duplicate_daemons;
mod executable;
mod listener;
mod procfs;
mod shepherd;
mod store_mount_unit;
mod systemd;
pub mod systemd_journal;
mod unknown_supervisor;
mod worker_protocol;

use bare_process::ProcessHandle;
pub use bare_process::is_up_besides;
pub use daemon_kind::{Daemon, DaemonChoice};
pub use detect::{DaemonLookup, DetectedDaemon, find, service_to_start};
pub use executable::Replaced;
pub use listener::{Listener, SocketExposure, VerifiedListener, socket_exposure};
pub use procfs::parent_of;
pub use shepherd::Shepherd;
pub use store_mount_unit::MountUnit;
pub use systemd::{UnitState, states as unit_states};
pub use worker_protocol::{Client, await_ready, nix_version};

use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use storecache_runtime::RunContext;
use storecache_runtime::retry::insist;

/// Everything that stopping the daemon requires, collected while it still runs: later, another process may have
/// its process ID.
pub enum Stopper<'a> {
    Systemd(systemd::Stop),
    Shepherd { shepherd: &'a Shepherd, service: &'a str, process: Option<ProcessHandle> },
    Process(ProcessHandle),
    Command { stop: &'a str, run_as: Option<(u32, u32)> },
    None,
}

impl<'a> Stopper<'a> {
    /// Collects the requirements of [`Stopper::stop`]. A bare process is stopped only if its `listener` was
    /// verified.
    pub fn prepare(daemon: &'a Daemon, listener: Option<&VerifiedListener>) -> Result<Self> {
        Ok(match daemon {
            Daemon::Systemd { units } => Stopper::Systemd(systemd::Stop::new(units)?),
            Daemon::Shepherd { shepherd, service, pid } => {
                let process = pid.map(ProcessHandle::find).transpose()?.flatten();
                Stopper::Shepherd { shepherd, service, process }
            }
            Daemon::Process { pid } => Stopper::Process(verified(*pid, listener)?.into()),
            Daemon::Command { stop, run_as, .. } => Stopper::Command { stop, run_as: *run_as },
            Daemon::None => Stopper::None,
        })
    }

    /// Stops the daemon and waits until its main process has ended. Its workers may live on.
    ///
    /// `timeout` counts from the last activity of the stopping processes.
    ///
    /// # Errors
    /// Also any error of `cancelled`, for units of systemd and for commands only: there, the next start can wait
    /// for the end of the daemon.
    pub fn stop(
        &self,
        run: &RunContext,
        timeout: Duration,
        cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        match self {
            Stopper::Systemd(stop) => stop.now(run, timeout, cancelled),
            Stopper::Shepherd { shepherd, service, process } => {
                shepherd::stop(run, shepherd, service, process.as_ref(), timeout)
            }
            Stopper::Process(process) => process.stop(run, timeout),
            Stopper::Command { stop, run_as } => {
                custom_command::run(run, stop, *run_as, timeout, cancelled)
            }
            Stopper::None => Ok(()),
        }
    }
}

/// Returns `listener` if it is the process `pid`.
fn verified(pid: u32, listener: Option<&VerifiedListener>) -> Result<&VerifiedListener> {
    listener
        .filter(|verified| verified.listener.pid == pid)
        .with_context(|| format!("process {pid} was not verified to be the daemon"))
}

/// Everything that starting the daemon requires, collected while it still runs.
pub enum Starter {
    Systemd { units: Vec<String> },
    Shepherd(shepherd::ServiceRestart),
    Process(Box<bare_process::ProcessRestart>),
    Command { start: String, run_as: Option<(u32, u32)> },
    None,
}

impl Starter {
    /// Collects the requirements of [`Starter::start`]. Call it before the daemon stops. A bare process can be
    /// started again only if its `listener` was verified.
    pub fn prepare(
        run: &RunContext,
        daemon: &Daemon,
        listener: Option<&VerifiedListener>,
    ) -> Result<Self> {
        Ok(match daemon {
            Daemon::Systemd { units } => {
                Starter::Systemd { units: systemd::to_start_again(units)? }
            }
            Daemon::Shepherd { shepherd, service, .. } => {
                Starter::Shepherd(shepherd::ServiceRestart::from_service(run, shepherd, service)?)
            }
            Daemon::Process { pid } => Starter::Process(Box::new(
                bare_process::ProcessRestart::from_listener(verified(*pid, listener)?)?,
            )),
            Daemon::Command { start, run_as, .. } => {
                Starter::Command { start: start.clone(), run_as: *run_as }
            }
            Daemon::None => Starter::None,
        })
    }

    /// Returns a report if a start would run a different file from the one that runs now.
    ///
    /// # Errors
    /// If the program does not exist any more, so that the daemon could not be started again.
    pub fn replaced(&self, daemon: &Daemon) -> Result<Option<Replaced>> {
        match self {
            Starter::Process(recipe) => Ok(recipe.replaced()),
            Starter::Systemd { .. }
            | Starter::Shepherd(_)
            | Starter::Command { .. }
            | Starter::None => daemon.replaced(),
        }
    }

    /// Starts the daemon unless it runs. Does not check whether it answers on `socket`, see [`await_ready`].
    /// Failed calls are retried, because a store cannot be used without its daemon.
    pub fn start(&self, run: &RunContext, socket: &Path, timeout: Duration) -> Result<()> {
        match self {
            Starter::Systemd { units } => systemd::start(run, units, timeout),
            Starter::Shepherd(recipe) => recipe.start(run),
            Starter::Process(recipe) => insist(|| recipe.start(socket)),
            // Only the user knows whether their command can be run twice.
            Starter::Command { start, run_as } => {
                custom_command::run(run, start, *run_as, timeout, &|| Ok(()))
            }
            Starter::None => Ok(()),
        }
    }
}
