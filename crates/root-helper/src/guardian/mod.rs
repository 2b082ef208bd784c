//! The guardian: a separate process that stops the daemon on request, starts it again, and recovers the store,
//! whatever happens to the root helper.
//!
//! The root helper starts the guardian before it gives up rights that it does not need itself, and sends it the
//! guardian setup ([`GuardianSetup`]) before the first change. Before the daemon stops, the guardian finds it and gathers
//! everything that a stop and a start need. It is always the guardian that starts the daemon: on request of the root
//! helper, or when the root helper is dead; in that case it also undoes the commit and removes staging. It runs in a
//! session of its own, so that signals of a terminal or a job do not reach it.
//!
//! A second process, the backup guardian, has the same information. The root helper has given up rights that a daemon
//! needs, so it cannot start one: if the guardian is killed, it sends its requests to the backup guardian. If guardian and
//! root helper are killed, the backup guardian recovers by itself.
//!
//! - `messages`: the messages to and from guardians
//! - `event_lines`: the events of a guardian
//! - `handle`: the root helper's connection to one of them
//! - `message_reader`: a guardian's connection to the root helper
//! - `main_loop`: the orders that a guardian executes
//! - `recovery`: what a guardian does after the death of the root helper
//! - `stop_record`: the record of a stopped daemon, for the next restore
//! - `restart_by_next_restore`: starts a daemon again if the root helper and both guardians were killed

mod event_lines;
mod handle;
mod main_loop;
mod message_reader;
mod messages;
mod recovery;
mod restart_by_next_restore;
mod stop_record;

pub use main_loop::{guard, serve_orders};
pub use messages::{ArmRequest, DaemonFound, GuardianSetup};
pub use stop_record::place_of_records;

use anyhow::{Result, bail};
use handle::{Died, GuardianHandle};
use messages::{Answer, GuardianInit, START, STARTING, STOP, STOPPING};
use std::io::{Write, stderr};
use std::path::Path;
use std::time::Instant;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use tracing::debug;

/// The root helper's connection to both guardians. When dropped, it ends them.
pub struct Guardian {
    // The backup guardian ends first: if the root helper dies in between, the guardian is still there.
    backup: GuardianHandle,
    guardian: GuardianHandle,
}

impl Guardian {
    /// Starts a guardian and a backup guardian, which run this program.
    pub fn start(run: &RunContext) -> Result<Self> {
        // If the file was replaced, use the link to the running program.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self::start_with(run, &program.unwrap_or_else(|| "/proc/self/exe".into()))
    }

    /// As [`Guardian::start`], but with another file as the program.
    pub fn start_with(run: &RunContext, program: &Path) -> Result<Self> {
        let guardian = GuardianHandle::start(run, program, "guardian")?;
        let backup = GuardianHandle::start(run, program, "backup-guardian")?;
        Ok(Guardian { backup, guardian })
    }

    /// Sends both their setup: from now on they recover the store if the root helper dies. Before that, the guardian
    /// starts a daemon that a killed run had stopped. Returns warnings about that.
    pub fn watch(&mut self, setup: &GuardianSetup) -> Result<Vec<String>> {
        let init = |is_backup, other: &GuardianHandle| {
            let (setup, other) = (setup.clone(), other.pid());
            serde_json::to_string(&GuardianInit { setup, is_backup, other })
        };
        let inits = [init(false, &self.backup)?, init(true, &self.guardian)?];
        self.guardian.order(&inits[0])?;
        self.backup.order(&inits[1])?;
        match (self.guardian.answer(&never)?, self.backup.answer(&never)?) {
            (Answer::Watching(warnings), Answer::Watching(_)) => {
                debug!(?warnings, "the guardians watch");
                Ok(warnings)
            }
            _ => bail!("unexpected reply from the guardian (expected `Watching`)"),
        }
    }

    /// Makes the guardian find the daemon and prepare everything for a stop and a start.
    ///
    /// # Errors
    /// If the daemon cannot be stopped and started again. Nothing was changed then.
    pub fn arm(&mut self, brief: &ArmRequest) -> Result<Armed<'_>> {
        let brief = serde_json::to_string(brief)?;
        self.guardian.order(&brief)?;
        self.backup.order(&brief)?;
        match (self.guardian.answer(&never)?, self.backup.answer(&never)?) {
            (Answer::Ready(charge), Answer::Ready(_)) => {
                debug!(daemon = charge.why, runs = charge.runs, "the guardian found the daemon");
                Ok(Armed { guardian: self, charge, started: false })
            }
            _ => bail!("unexpected reply from the guardian (expected `Ready`)"),
        }
    }

    /// Sends an order to the guardian or, if the guardian died, to the backup guardian.
    fn call(&mut self, order: &str, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let ask = |servant: &mut GuardianHandle| {
            servant.order(order)?;
            servant.answer(cancelled)
        };
        let answer = match ask(&mut self.guardian) {
            Err(e) if e.is::<Died>() => {
                debug!(order, reason = %e, "ask the backup guardian instead");
                ask(&mut self.backup)
            }
            answer => answer,
        };
        debug!(
            order,
            ms = began.elapsed().as_millis(),
            done = answer.is_ok(),
            "ordered the guardian"
        );
        match answer? {
            Answer::Done => Ok(()),
            _ => bail!("unexpected reply from the guardian (expected `Done`)"),
        }
    }
}

/// A cancellation check for work that is never canceled.
fn never() -> Result<()> {
    Ok(())
}

/// A guardian that has found the daemon. If it is dropped without [`Armed::start`], it starts the daemon too.
pub struct Armed<'a> {
    guardian: &'a mut Guardian,
    pub charge: DaemonFound,
    started: bool,
}

impl Armed<'_> {
    /// Stops the daemon.
    ///
    /// # Errors
    /// Also if `cancelled` returns an error: the start that follows cancels the stop.
    pub fn stop(&mut self, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
        self.guardian.backup.note(STOPPING);
        self.guardian.call(STOP, cancelled)
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(mut self) -> Result<()> {
        self.order_start()
    }

    fn order_start(&mut self) -> Result<()> {
        self.started = true;
        self.guardian.backup.note(STARTING);
        self.guardian.call(START, &never)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if !self.started {
            // The original error is being reported already. This reports that the daemon was not started.
            if let Err(e) = self.order_start() {
                let _ = writeln!(
                    stderr(),
                    "the daemon was not started again: {}",
                    in_one_line(e.as_ref())
                );
            }
        }
    }
}
