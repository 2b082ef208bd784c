//! The main loop of a guardian and a backup guardian: executes the orders of the root helper until it ends or dies.

use super::event_lines::report_events;
use super::message_reader::Orders;
use super::messages::{
    Answer, ArmRequest, DaemonFound, END, GuardianInit, START, STARTING, STOP, STOPPING, Stopped,
};
use super::recovery::{DaemonAway, start};
use super::restart_by_next_restore::restart_stopped_daemon;
use super::stop_record::StopRecord;
use crate::protocol::Phase;
use crate::sanitize::settle;
use crate::store_context::StoreTarget;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{Write, stdout};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_daemon::{DetectedDaemon, MountUnit, Starter, Stopper, VerifiedListener, parent_of};
use storecache_runtime::RunContext;
use storecache_runtime::advice::Advice;
use storecache_runtime::events::EventLevel;
use tracing::debug;

/// How much later than the guardian the backup guardian kills a root helper that keeps the daemon stopped.
const BACKUP_DELAY: Duration = Duration::from_secs(5);
/// Variables that sudo and similar programs set in the environment of the programs that they start.
const STARTED_BY_HAND: [&str; 4] = ["SUDO_COMMAND", "SUDO_UID", "DOAS_USER", "PKEXEC_UID"];

/// Serves the root helper on standard input and output. Returns the exit code.
pub fn guard(run: &RunContext) -> u8 {
    // The guardian trusts its input, so only our root helper may start it.
    let by_hand = STARTED_BY_HAND.iter().find(|name| std::env::var_os(name).is_some());
    if let Some(name) = by_hand {
        return answer_result(Err(anyhow!(
            "{name} is set; only the root helper can start a guardian"
        )));
    }
    if let Err(e) = settle() {
        return answer_result(Err(e));
    }
    // Commands that it runs for a user must not create files that every user can write to.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // If a run is terminated as a whole, as systemd terminates a unit, the daemon must still be started again.
    // Handlers are used because an ignored signal would be ignored in the daemon too.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    run.set_listener(|_, activity, text| answer(&Answer::Alive(activity, text.to_owned())));
    serve_orders(run, report_events)
}

/// Executes the orders from standard input, in a process that is already set up. Returns the exit code. Calls
/// `report_events` if the root helper wants events up to a level.
pub fn serve_orders(run: &RunContext, report_events: fn(EventLevel)) -> u8 {
    let mut orders = match Orders::begin(run) {
        Ok(orders) => orders,
        Err(e) => return answer_result(Err(e)),
    };
    let duty = match orders.hear(None) {
        // Nothing was changed, so there is nothing to recover.
        None => return 0,
        Some(line) if line == END => return 0,
        Some(line) => GuardianState::take(run, &line, report_events),
    };
    let begun = duty.and_then(|duty| Ok((duty.begin()?, duty)));
    match begun {
        Ok((told, duty)) => {
            answer(&Answer::Watching(told));
            duty.serve(&mut orders)
        }
        Err(e) => answer_result(Err(e)),
    }
}

/// The setup of a guardian or backup guardian.
pub(super) struct GuardianState {
    pub target: StoreTarget,
    pub restores: bool,
    pub is_backup: bool,
    /// The other guardian, if it is alive.
    pub other: Option<OwnedFd>,
}

/// A daemon, with everything that is needed to start it again.
pub(super) struct RestartPlan {
    pub stopped: Stopped,
    pub starter: Starter,
}

impl GuardianState {
    fn take(run: &RunContext, line: &str, report_events: fn(EventLevel)) -> Result<Self> {
        let GuardianInit { mut setup, is_backup, other } =
            serde_json::from_str(line).context("parse the guardian setup")?;
        setup.store.mandate = setup.mandate;
        storecache_runtime::disclosure::limit_to(setup.mandate.confined())?;
        run.set_stall_timeout(setup.store.stall);
        // The root helper rarely reads what the backup guardian writes.
        setup.store.events.filter(|_| !is_backup).into_iter().for_each(report_events);
        let target = StoreTarget::new(run, &setup.store)?;
        let (restores, other) = (setup.restores, find_other(other)?);
        Ok(GuardianState { target, restores, is_backup, other })
    }

    fn begin(&self) -> Result<Vec<String>> {
        match self.restores && !self.is_backup {
            true => restart_stopped_daemon(&self.target),
            false => Ok(Vec::new()),
        }
    }

    /// Executes orders until there is nothing left to do.
    fn serve(&self, orders: &mut Orders) -> u8 {
        while let Some(line) = orders.hear(None) {
            if line == END {
                return 0;
            }
            let (known, listener, charge) = match self.find(&line) {
                Ok(found) => found,
                Err(e) => {
                    answer_result(Err(e));
                    continue;
                }
            };
            let stopper = Stopper::prepare(&known.stopped.daemon, listener.as_ref());
            match stopper.context("prepare to stop the daemon") {
                Ok(stopper) => {
                    answer(&Answer::Ready(charge));
                    return self.serve_armed(&known, &stopper, orders);
                }
                Err(e) => _ = answer_result(Err(e)),
            }
        }
        self.recover(None)
    }

    fn serve_armed(&self, known: &RestartPlan, stopper: &Stopper, orders: &mut Orders) -> u8 {
        let mut started = false;
        let mut stopping = false;
        // The deadline by which the daemon must be back.
        let mut back_by: Option<Instant> = None;
        while let Some(line) = orders.hear(back_by) {
            match line.as_str() {
                END => return 0,
                STOPPING => {
                    stopping = true;
                    // The guardian acts before the backup guardian does.
                    back_by = self.back_by().map(|by| by + BACKUP_DELAY);
                }
                STARTING => (stopping, back_by) = (false, None),
                STOP => {
                    self.target.run.begin_phase(Phase::Commit.name());
                    back_by = self.back_by();
                    let called_off = || orders.none_waits();
                    self.record(known);
                    answer_result(stopper.stop(
                        &self.target.run,
                        self.target.daemon_timeout,
                        &called_off,
                    ));
                }
                START => {
                    self.target.run.begin_phase(Phase::Daemon.name());
                    (started, back_by) = (true, None);
                    answer_result(self.start(known));
                }
                _ => _ = answer_result(Err(anyhow!("the daemon was already found"))),
            }
        }
        self.recover(
            (!started).then_some(DaemonAway { known, half_stopped: stopping.then_some(stopper) }),
        )
    }

    /// Returns the deadline for a daemon that stops now, if the requester is confined.
    fn back_by(&self) -> Option<Instant> {
        self.target.request.mandate.limit().map(|limit| Instant::now() + limit)
    }

    /// Records what is stopped. If the directory for records is missing, the restore continues; `doctor` reports it.
    fn record(&self, RestartPlan { stopped, .. }: &RestartPlan) {
        let _ = StopRecord::write(&self.target, &stopped.daemon, stopped.mount.is_some());
    }

    /// Starts the daemon and removes the record of its stop.
    pub(super) fn start(&self, known: &RestartPlan) -> Result<()> {
        start(&self.target, known)?;
        StopRecord::remove(&self.target)
    }

    /// Finds the daemon, and gathers everything for a stop and a start.
    fn find(&self, brief: &str) -> Result<(RestartPlan, Option<VerifiedListener>, DaemonFound)> {
        let brief: ArmRequest =
            serde_json::from_str(brief).context("parse the request to find the daemon")?;
        let DetectedDaemon { daemon, why, mut warnings } = self.target.daemon()?;
        let is_bare = daemon.bare_process().is_some();
        let listener = is_bare.then(|| self.target.verified_listener()).transpose()?;
        let starter = Starter::prepare(&self.target.run, &daemon, listener.as_ref())
            .context("prepare to start the daemon again")?;
        warnings.extend(starter.replaced(&daemon)?.map(|replaced| replaced.to_string()));
        let layout = &self.target.layout;
        let mount = match brief.takes_mount {
            true => Some(MountUnit::named_after(layout.store_dir)),
            false if layout.root == Path::new("/") => {
                MountUnit::taken_away_by(&daemon, layout.store_dir)?
            }
            false => None,
        };
        let runs = daemon.exists();
        let mount_unit = mount.as_ref().map(|mount| &*mount.name);
        debug!(daemon = why, mount_unit, ?warnings, "can stop the daemon");
        let known = RestartPlan { stopped: Stopped { daemon, mount }, starter };
        Ok((known, listener, DaemonFound { why, warnings, runs }))
    }
}

/// Returns a handle of the other guardian, or `None` if it has ended.
///
/// # Errors
/// If it was not started by the root helper that started this process, or cannot be watched.
fn find_other(other: u32) -> Result<Option<OwnedFd>> {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    let pid =
        i32::try_from(other).ok().and_then(Pid::from_raw).context("not a valid process ID")?;
    let about = "watch the other guardian";
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        handle => handle.context(about)?,
    };
    let started_by = parent_of(other).context(about)?;
    if Some(started_by) != parent {
        bail!("process {other} is not a guardian of this run");
    }
    Ok(Some(handle))
}

fn answer_result(outcome: Result<()>) -> u8 {
    match outcome {
        Ok(()) => {
            answer(&Answer::Done);
            0
        }
        Err(e) => {
            let causes = e.chain().filter(|cause| !cause.is::<Advice>()).map(ToString::to_string);
            let advice = Advice::find(e.as_ref()).cloned().unwrap_or_default();
            answer(&Answer::Failed(causes.collect(), advice));
            1
        }
    }
}

fn answer(answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    // If the root helper is dead, the answer is lost, which does no harm.
    let _ = writeln!(stdout(), "{line}");
}
