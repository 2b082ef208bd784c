//! Starts a daemon again that a restore has stopped, if no process of that restore is left. The next restore does
//! this.
//!
//! The record that the guardian wrote ([`StopRecord`]), the flags of this restore, and the systemd or shepherd that
//! runs now determine what to start. A bare process cannot be started again, because how it was started was known
//! only while it ran; that it is stopped is reported.

use super::main_loop::RestartPlan;
use super::messages::Stopped;
use super::recovery::start;
use super::stop_record::{StopRecord, StoppedDaemon};
use crate::store_context::StoreTarget;
use anyhow::{Context, Result, anyhow, bail};
use storecache_daemon::{Daemon, DaemonChoice, Listener, MountUnit, Starter};
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_store::{AbandonedStaging, aside};

/// The name under which older versions left a record in the store.
const RECORD_IN_STORE: &str = ".stopped";

/// Starts the daemon that a killed run has stopped, unless a daemon listens by now. Returns warnings. The root helper
/// holds the lock that every run takes.
pub(super) fn restart_stopped_daemon(target: &StoreTarget) -> Result<Vec<String>> {
    let mut warnings = records_in_store(target)?;
    let record = match StopRecord::read(target) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(warnings),
        Err(e) => {
            warnings.push(format!(
                "the record of a stopped daemon is ignored: {}",
                in_one_line(e.as_ref())
            ));
            return Ok(warnings);
        }
    };
    if Listener::find(&target.layout.socket())?.is_some() {
        StopRecord::remove(target)?;
        return Ok(warnings);
    }
    match restart(target, &record) {
        Ok(()) => StopRecord::remove(target)?,
        Err(e) => warnings.push(format!(
            "a killed restore had stopped the daemon, which cannot be started again: {}",
            in_one_line(e.as_ref())
        )),
    }
    Ok(warnings)
}

/// Returns a warning for each record in the store. Any user may have put these there, so they are ignored.
fn records_in_store(target: &StoreTarget) -> Result<Vec<String>> {
    let layout = &target.layout;
    let mut ignored = Vec::new();
    for place in [layout.store()].iter().chain(&aside(layout)) {
        for staging in AbandonedStaging::all_in(place)? {
            if staging.has(RECORD_IN_STORE) {
                ignored.push(format!(
                    "{} is ignored: a record of a stopped daemon is only valid outside the store",
                    staging.path().join(RECORD_IN_STORE).display()
                ));
            }
        }
    }
    Ok(ignored)
}

fn restart(target: &StoreTarget, record: &StopRecord) -> Result<()> {
    let daemon = match &record.stopped {
        StoppedDaemon::Units(units) => Daemon::Systemd { units: units.clone() },
        StoppedDaemon::ShepherdService => target
            .service_to_start()?
            .context("no shepherd has a service for the daemon")
            .hint("start the daemon yourself")?,
        StoppedDaemon::BareProcess => {
            bail!(
                anyhow!("the command that started it is unknown")
                    .hint("start it as you did before")
            )
        }
        StoppedDaemon::UserCommand => own_command(target)
            .context("it was stopped by a --daemon-stop command")
            .hint("start it yourself")?,
    };
    let mount = record.mount.then(|| MountUnit::named_after(target.layout.store_dir));
    let starter = Starter::prepare(&target.run, &daemon, None)?;
    start(target, &RestartPlan { stopped: Stopped { daemon, mount }, starter })
}

/// Returns the commands of this restore's own flags, or `None` if it has no such flags.
fn own_command(target: &StoreTarget) -> Option<Daemon> {
    let request = &target.request;
    match &request.daemon {
        DaemonChoice::Command { stop, start } => Some(Daemon::Command {
            stop: stop.clone(),
            start: start.clone(),
            run_as: request.mandate.requester,
        }),
        DaemonChoice::Auto
        | DaemonChoice::Systemd
        | DaemonChoice::Shepherd
        | DaemonChoice::Process
        | DaemonChoice::None => None,
    }
}
