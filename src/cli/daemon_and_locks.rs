//! Flags for the daemon: how it is stopped and started, and how long to wait for it and for locks.

use crate::config::StoreOptions;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::time::Duration;
use storecache_daemon::DaemonChoice;

/// The default of `--lock-timeout`, in seconds. The defaults of the inputs are in `src/action/inputs.rs`.
pub(super) const DEFAULT_LOCK_TIMEOUT: u64 = 60;
/// The default of `--daemon-timeout`, in seconds.
pub(super) const DEFAULT_DAEMON_TIMEOUT: u64 = 60;

/// Flags of the commands that stop and start the daemon, or wait for its locks.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// How to stop and start the daemon
    #[arg(long, value_enum, default_value_t = Daemon::Auto)]
    daemon: Daemon,
    /// Shell command that stops the daemon, for --daemon command
    #[arg(long, value_name = "COMMAND", hide_short_help = true)]
    daemon_stop: Option<String>,
    /// Shell command that starts the daemon, for --daemon command
    #[arg(long, value_name = "COMMAND", hide_short_help = true)]
    daemon_start: Option<String>,
    /// Seconds to wait for locks that other processes hold
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LOCK_TIMEOUT)]
    lock_timeout: u64,
    /// Seconds to wait for the daemon to stop, or to answer again
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_DAEMON_TIMEOUT)]
    daemon_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Daemon {
    /// Detect it from the process that listens on the daemon's socket
    Auto,
    /// With systemd units
    Systemd,
    /// With the shepherd of SHEPHERD_SOCKET, of the user, or of the system
    Shepherd,
    /// As a bare process without a supervisor
    Process,
    /// With the commands of --daemon-stop and --daemon-start
    Command,
    /// Do not stop or start the daemon
    None,
}

impl DaemonArgs {
    /// Adds these options to those of the store.
    pub(super) fn options(self, store: StoreOptions) -> Result<StoreOptions> {
        let daemon = match (self.daemon, self.daemon_stop, self.daemon_start) {
            (Daemon::Command, Some(stop), Some(start)) => DaemonChoice::Command { stop, start },
            (Daemon::Command, ..) => {
                bail!("--daemon command needs --daemon-stop and --daemon-start")
            }
            (_, Some(_), _) | (_, _, Some(_)) => {
                bail!("--daemon-stop and --daemon-start are for --daemon command")
            }
            (Daemon::Auto, ..) => DaemonChoice::Auto,
            (Daemon::Systemd, ..) => DaemonChoice::Systemd,
            (Daemon::Process, ..) => DaemonChoice::Process,
            (Daemon::None, ..) => DaemonChoice::None,
            (Daemon::Shepherd, ..) => DaemonChoice::Shepherd,
        };
        Ok(StoreOptions {
            daemon,
            lock_timeout: Duration::from_secs(self.lock_timeout),
            daemon_timeout: Duration::from_secs(self.daemon_timeout),
            ..store
        })
    }
}
