//! The work of a guardian and a backup guardian: executing orders, and recovery after the death of the root helper.

use super::message_reader::Orders;
use super::messages::{
    Answer, ArmRequest, DaemonFound, END, GuardianInit, START, STARTING, STOP, STOPPING, Stopped,
};
use super::restart_after_crash::restart_after_crash;
use super::stop_record::StopRecord;
use crate::protocol::Phase;
use crate::sanitize::settle;
use crate::store_context::{StoreTarget, run_lock};
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{Write, stdout};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_daemon::{
    DetectedDaemon, MountUnit, Starter, Stopper, VerifiedListener, await_ready, is_up_besides,
    parent_of,
};
use storecache_runtime::retry::insist;
use storecache_runtime::{liveness, threads};
use storecache_store::{Layout, aside, clean_refuges, clean_up, make_writable, undo};

/// How long another process may delay undoing a killed run's commit before the daemon is started anyway. A process
/// that was killed while the disk writes for it lives on until the write is done.
const BEFORE_START: Duration = Duration::from_millis(500);
/// As [`BEFORE_START`], but after the daemon has started.
const AFTER_START: Duration = Duration::from_secs(30);
/// The least stall timeout of a start, even if the user chose a shorter one: aborting a start as it begins would
/// leave the machine without the daemon.
const START_LEAST: Duration = Duration::from_secs(5);
/// How much later than the guardian the backup guardian kills a root helper that keeps the daemon stopped.
const BACKUP_DELAY: Duration = Duration::from_secs(5);
/// Variables that sudo and similar programs set in the environment of the programs that they start.
const STARTED_BY_HAND: [&str; 4] = ["SUDO_COMMAND", "SUDO_UID", "DOAS_USER", "PKEXEC_UID"];

/// Serves the root helper on standard input and output. Returns the exit code.
pub fn guard() -> u8 {
    // The guardian trusts its input, so only our root helper may start it.
    let by_hand = STARTED_BY_HAND.iter().find(|name| std::env::var_os(name).is_some());
    if let Some(name) = by_hand {
        return tell(Err(anyhow!("{name} is set; only the root helper can start a guardian")));
    }
    if let Err(e) = settle() {
        return tell(Err(e));
    }
    // Commands that it runs for a user must not create files that every user can write to.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // If a run is terminated as a whole, as systemd terminates a unit, the daemon must still be started again.
    // Handlers are used because an ignored signal would be ignored in the daemon too.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    liveness::process_run()
        .set_listener(|_, activity, text| answer(&Answer::Alive(activity, text.to_owned())));
    serve_orders()
}

/// Executes the orders from standard input, in a process that is already set up. Returns the exit code.
pub fn serve_orders() -> u8 {
    let mut orders = match Orders::begin() {
        Ok(orders) => orders,
        Err(e) => return tell(Err(e)),
    };
    let duty = match orders.hear(None) {
        // Nothing was changed, so there is nothing to recover.
        None => return 0,
        Some(line) if line == END => return 0,
        Some(line) => GuardianState::take(&line),
    };
    let begun = duty.and_then(|duty| Ok((duty.begin()?, duty)));
    match begun {
        Ok((told, duty)) => {
            answer(&Answer::Watching(told));
            duty.serve(&mut orders)
        }
        Err(e) => tell(Err(e)),
    }
}

/// The setup of a guardian or backup guardian.
struct GuardianState {
    target: StoreTarget,
    restores: bool,
    is_backup: bool,
    /// The other guardian, if it is alive.
    other: Option<OwnedFd>,
}

/// A daemon, with everything that is needed to start it again.
pub(super) struct RestartPlan {
    pub stopped: Stopped,
    pub starter: Starter,
}

/// A daemon that may have to be started again.
struct DaemonAway<'a> {
    known: &'a RestartPlan,
    /// The stopper, if it is not known whether it has stopped the daemon.
    half_stopped: Option<&'a Stopper<'a>>,
}

impl GuardianState {
    fn take(line: &str) -> Result<Self> {
        let GuardianInit { mut ward, is_backup, other } =
            serde_json::from_str(line).context("parse the guardian setup")?;
        ward.store.mandate = ward.mandate;
        storecache_runtime::disclosure::limit_to(ward.mandate.confined())?;
        liveness::process_run().set_stall_timeout(ward.store.stall);
        let target = StoreTarget::new(&ward.store)?;
        let (restores, other) = (ward.restores, find_other(other)?);
        Ok(GuardianState { target, restores, is_backup, other })
    }

    fn begin(&self) -> Result<Vec<String>> {
        match self.restores && !self.is_backup {
            true => restart_after_crash(&self.target),
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
                    tell(Err(e));
                    continue;
                }
            };
            let stopper = Stopper::prepare(&known.stopped.daemon, listener.as_ref());
            match stopper.context("prepare to stop the daemon") {
                Ok(stopper) => {
                    answer(&Answer::Ready(charge));
                    return self.serve_armed(&known, &stopper, orders);
                }
                Err(e) => _ = tell(Err(e)),
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
                    liveness::enter(Phase::Commit.name());
                    back_by = self.back_by();
                    let called_off = || orders.none_waits();
                    self.record(known);
                    tell(stopper.stop(self.target.daemon_patience, &called_off));
                }
                START => {
                    liveness::enter(Phase::Daemon.name());
                    (started, back_by) = (true, None);
                    tell(self.start(known));
                }
                _ => _ = tell(Err(anyhow!("the daemon was already found"))),
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
    fn start(&self, known: &RestartPlan) -> Result<()> {
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
        let starter = Starter::prepare(&daemon, listener.as_ref())
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
        let known = RestartPlan { stopped: Stopped { daemon, mount }, starter };
        Ok((known, listener, DaemonFound { why, warnings, runs }))
    }

    /// Recovers after the death of the root helper: its locks are free, its commit may be incomplete, and it may have
    /// stopped the daemon in `away`.
    fn recover(&self, away: Option<DaemonAway>) -> u8 {
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
        let with_lock = |patience, work: fn(&Layout, &Path) -> Result<()>| -> Result<()> {
            // Another run that has started by now does this work first.
            let _lock = run_lock(&layout.state(), patience, &|| Ok(()))?;
            insist(|| writing_to_store(layout, work))
        };
        let outcome = match away {
            Some(away) => {
                let _ = with_lock(BEFORE_START, undo);
                self.start_what_is(away)
            }
            None => Ok(()),
        };
        let _ = with_lock(AFTER_START, clean_up);
        outcome
    }

    fn start_what_is(&self, DaemonAway { known, half_stopped }: DaemonAway) -> Result<()> {
        if let Some(stopper) = half_stopped {
            // The daemon may still answer although it is about to end; after that, no process would start it.
            let _ = stopper.stop(self.target.daemon_patience, &|| Ok(()));
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
    let _ = mount.as_ref().map(MountUnit::stop);
    let socket = target.layout.socket();
    let started = starter.start(&socket, target.daemon_patience.max(START_LEAST));
    mount.as_ref().map_or(Ok(()), MountUnit::start)?;
    started?;
    if !daemon.exists() {
        return Ok(());
    }
    await_ready(&socket, &target.layout.probe(), target.daemon_patience).map(drop)
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

/// Runs `work` in each directory that may contain staging, on a thread that may write to the store. The calling
/// thread stays in the mount namespace in which the daemon has to be started.
fn writing_to_store(layout: &Layout, work: fn(&Layout, &Path) -> Result<()>) -> Result<()> {
    let working = || {
        // If this is refused, the mount unit is still stopped, or there is nothing to do.
        let writable = make_writable(&layout.store());
        let places = [layout.store()].into_iter().chain(aside(layout));
        places.map(|place| work(layout, &place)).fold(Ok(()), Result::and).and(writable.map(drop))
    };
    std::thread::scope(|scope| {
        let helper = threads::start_in(scope, "to write to the store", working)?;
        helper.join().unwrap_or_else(|_| bail!("the thread that writes to the store panicked"))
    })
}

fn tell(outcome: Result<()>) -> u8 {
    match outcome {
        Ok(()) => {
            answer(&Answer::Done);
            0
        }
        Err(e) => {
            answer(&Answer::Failed(e.chain().map(ToString::to_string).collect()));
            1
        }
    }
}

fn answer(answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    // If the root helper is dead, the answer is lost, which does no harm.
    let _ = writeln!(stdout(), "{line}");
}
