//! Recovery after the death of the root helper: undoes an incomplete commit and starts the daemon again.

use super::main_loop::{GuardianState, RestartPlan};
use super::messages::Stopped;
use crate::store_context::{StoreTarget, run_lock};
use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use std::path::Path;
use std::time::Duration;
use storecache_daemon::{Stopper, await_ready, is_up_besides};
use storecache_runtime::retry::insist;
use storecache_runtime::{RunContext, threads};
use storecache_store::{Layout, aside, clean_refuges, clean_up, make_writable, undo};

/// How long another process may delay undoing a killed run's commit before the daemon is started anyway. A process
/// that was killed while the disk writes for it lives on until the write is done.
const BEFORE_START: Duration = Duration::from_millis(500);
/// As [`BEFORE_START`], but after the daemon has started.
const AFTER_START: Duration = Duration::from_secs(30);
/// The least stall timeout of a start, even if the user chose a shorter one: aborting a start as it begins would
/// leave the machine without the daemon.
const START_LEAST: Duration = Duration::from_secs(5);

/// Work on one directory that may contain staging.
type RecoveryStep = fn(&RunContext, &Layout, &Path) -> Result<()>;

/// A daemon that may have to be started again.
pub(super) struct DaemonAway<'a> {
    pub known: &'a RestartPlan,
    /// The stopper, if it is not known whether it has stopped the daemon.
    pub half_stopped: Option<&'a Stopper<'a>>,
}

impl GuardianState {
    /// Recovers after the death of the root helper: its locks are free, its commit may be incomplete, and it may have
    /// stopped the daemon in `away`.
    pub(super) fn recover(&self, away: Option<DaemonAway>) -> u8 {
        if self.is_backup {
            self.await_other();
        }
        let outcome = if self.restores { self.undo(away) } else { Ok(()) };
        clean_refuges();
        if !self.is_backup {
            // Recovery is complete, so the backup guardian can be killed.
            let _ = self.other.as_ref().map(|other| pidfd_send_signal(other, Signal::KILL));
        }
        u8::from(outcome.is_err())
    }

    fn undo(&self, away: Option<DaemonAway>) -> Result<()> {
        let layout = &self.target.layout;
        let with_lock = |timeout, work: RecoveryStep| -> Result<()> {
            // Another run that has started by now does this work first.
            let _lock = run_lock(&self.target.run, &layout.state(), timeout, &|| Ok(()))?;
            insist(|| writing_to_store(&self.target, work))
        };
        let outcome = match away {
            Some(away) => {
                let _ = with_lock(BEFORE_START, undo);
                self.start_again(away)
            }
            None => Ok(()),
        };
        let _ = with_lock(AFTER_START, clean_up);
        outcome
    }

    fn start_again(&self, DaemonAway { known, half_stopped }: DaemonAway) -> Result<()> {
        if let Some(stopper) = half_stopped {
            // The daemon may still answer although it is about to end; after that, no process would start it.
            let _ = stopper.stop(&self.target.run, self.target.daemon_timeout, &|| Ok(()));
        }
        // The guardian may have been killed after it had started the daemon.
        let stopped = known.stopped.daemon.bare_process();
        let is_up = || is_up_besides(stopped, &self.target.layout.socket()).unwrap_or(false);
        if self.is_backup && is_up() { Ok(()) } else { self.start(known) }
    }

    /// Waits until the other guardian has ended. Unless it is killed, it ends only when recovery is complete.
    fn await_other(&self) {
        let Some(other) = &self.other else { return };
        while let Err(Errno::INTR) = poll(&mut [PollFd::new(other, PollFlags::IN)], None) {}
    }
}

/// Starts the daemon, and restores the mount of the store.
pub(super) fn start(
    target: &StoreTarget,
    RestartPlan { stopped, starter }: &RestartPlan,
) -> Result<()> {
    let Stopped { daemon, mount } = stopped;
    // If the mount stays, the daemon does not answer, and that is reported below.
    let _ = mount.as_ref().map(|mount| mount.stop(&target.run));
    let socket = target.layout.socket();
    let started = starter.start(&target.run, &socket, target.daemon_timeout.max(START_LEAST));
    mount.as_ref().map_or(Ok(()), |mount| mount.start(&target.run))?;
    started?;
    if !daemon.exists() {
        return Ok(());
    }
    await_ready(&target.run, &socket, &target.layout.probe(), target.daemon_timeout).map(drop)
}

/// Runs `work` in each directory that may contain staging, on a thread that may write to the store. The calling
/// thread stays in the mount namespace in which the daemon has to be started.
fn writing_to_store(target: &StoreTarget, work: RecoveryStep) -> Result<()> {
    let StoreTarget { run, layout, .. } = target;
    let working = || {
        // If this is refused, the mount unit is still stopped, or there is nothing to do.
        let writable = make_writable(&layout.store());
        let places = [layout.store()].into_iter().chain(aside(layout));
        places
            .map(|place| work(run, layout, &place))
            .fold(Ok(()), Result::and)
            .and(writable.map(drop))
    };
    std::thread::scope(|scope| {
        let helper = threads::start_in(scope, "to write to the store", working)?;
        helper.join().unwrap_or_else(|_| bail!("the thread that writes to the store panicked"))
    })
}
