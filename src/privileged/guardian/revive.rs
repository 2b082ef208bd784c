//! Daemons that nobody has started again: all processes of a run were killed while the daemon was away, its
//! guardians too. What it takes to start them lies in the staging of that run, and the guardian of the next
//! restore does it.
//!
//! A bare process is another matter: how it was started is known only while it runs. That it is away is told.

use super::duty::{Known, start};
use super::words::Stopped;
use crate::daemon::{Daemon, Starter, listener};
use crate::privileged::target::StoreTarget;
use crate::store::{aside, stale};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was stopped. No item can be called that.
const STOPPED: &str = ".stopped";

/// Leaves in `staging` how the daemon is started. Call it before the daemon stops.
pub fn record(staging: &Path, stopped: &Stopped) -> Result<()> {
    let stopped = serde_json::to_vec(stopped)?;
    std::fs::write(staging.join(STOPPED), stopped).context("record how the daemon is started")
}

/// Starts the daemons that dead runs have stopped, unless one listens by now; gives back what a person has to
/// know. The root half holds the lock that every run holds.
pub(super) fn revive(target: &StoreTarget) -> Result<Vec<String>> {
    let layout = &target.layout;
    let mut told = Vec::new();
    for place in [layout.store()].iter().chain(&aside(layout)) {
        for staging in stale(place)?.iter().filter(|staging| is_ours(staging)) {
            let stopped = match std::fs::read(staging.join(STOPPED)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                read => read.context("read how a dead run would have started the daemon")?,
            };
            // Cut off by the death of its writer: by then nothing was stopped.
            let Ok(stopped) = serde_json::from_slice::<Stopped>(&stopped) else { continue };
            if listener(&layout.socket())?.is_none() {
                told.extend(start_again(target, stopped));
            }
        }
    }
    Ok(told)
}

/// Whether it was made with the rights that this has. Others may make what they like in a store, those who
/// build for one: what they left says nothing about what is to be started.
fn is_ours(staging: &Path) -> bool {
    let found = staging.symlink_metadata();
    found.is_ok_and(|it| it.is_dir() && it.uid() == rustix::process::geteuid().as_raw())
}

fn start_again(target: &StoreTarget, stopped: Stopped) -> Option<String> {
    if let Daemon::Process { pid } = stopped.daemon {
        return Some(format!(
            "a restore that was killed had stopped the daemon, process {pid}, and nobody was left to start it \
             again; start it as you did before"
        ));
    }
    let starter = Starter::prepare(&stopped.daemon);
    let started = starter.and_then(|starter| start(target, &Known { stopped, starter }));
    started.err().map(|e| {
        format!(
            "a restore that was killed had stopped the daemon, and it does not start again: {e:#}; start it"
        )
    })
}
