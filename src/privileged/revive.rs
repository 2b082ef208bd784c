//! Daemons that nobody has started again: all processes of a run were killed while the daemon was away, its
//! guardian too. What it takes to start them lies in the staging of that run, and the next restore does it.
//!
//! A bare process is another matter: how it was started is known only while it runs. That it is away is told.

use super::guardian::{Brief, start};
use crate::daemon::{Daemon, Starter, listener};
use crate::store::{Layout, aside, stale};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::Path;

/// The brief of the guardian. No item can be called that.
const STOPPED: &str = ".stopped";

/// Leaves in `staging` how the daemon is started. Call it before the daemon stops.
pub fn record(staging: &Path, brief: &Brief) -> Result<()> {
    let brief = serde_json::to_vec(brief)?;
    std::fs::write(staging.join(STOPPED), brief).context("record how the daemon is started")
}

/// Starts the daemons that dead runs have stopped, unless one listens by now; gives back what a person has to
/// know. The caller holds the lock that every run holds.
pub fn revive(layout: &Layout) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for place in [layout.store()].iter().chain(&aside(layout)) {
        for staging in stale(place)? {
            let brief = match std::fs::read(staging.join(STOPPED)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                read => read.context("read how a dead run would have started the daemon")?,
            };
            // Cut off by the death of its writer: by then nothing was stopped.
            let Ok(brief) = serde_json::from_slice::<Brief>(&brief) else { continue };
            if listener(&layout.socket())?.is_none() {
                told.extend(start_again(layout, &brief));
            }
        }
    }
    Ok(told)
}

fn start_again(layout: &Layout, brief: &Brief) -> Option<String> {
    if let Daemon::Process { pid } = brief.daemon {
        return Some(format!(
            "a restore that was killed had stopped the daemon, process {pid}, and nobody was left to start it \
             again; start it as you did before"
        ));
    }
    let started =
        Starter::prepare(&brief.daemon).and_then(|starter| start(layout, brief, &starter));
    started.err().map(|e| {
        format!(
            "a restore that was killed had stopped the daemon, and it does not start again: {e:#}; start it"
        )
    })
}
