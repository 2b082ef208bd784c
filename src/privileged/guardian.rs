//! The guardian: a process of its own that stops the daemon when it is told to, and starts it again,
//! whatever becomes of the root half.
//!
//! It is started before the root half gives up what it does not need itself, and waits for its brief.
//! With that it finds the daemon and gathers what a stop and a start take. It is the one who starts the
//! daemon in every case: on the word of the root half, or when the root half is gone. It leaves the
//! session, so that a terminal's or a job's signals do not reach it.

use super::mandate::Mandate;
use super::protocol::StoreRequest;
use super::surroundings::{ROOT_PATH, settle};
use super::target::{StoreTarget, run_lock};
use crate::daemon::{Daemon, Found, MountUnit, ProcessContext, Starter, Stopper, await_ready};
use crate::store::{make_writable, recover, remove_staging, staging_now};
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write, stderr, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What the guardian is told first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    /// The store whose daemon it is.
    pub store: StoreRequest,
    /// On whose behalf; it does not go with the request.
    pub mandate: Mandate,
    /// The unit that mounts the store read-only, if the commit takes it away.
    pub mount: Option<MountUnit>,
    pub staging: PathBuf,
}

/// The daemon that the guardian has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    /// Why it is taken to be the one in charge.
    pub why: String,
    pub warnings: Vec<String>,
    /// Whether there is any.
    pub runs: bool,
}

/// What the guardian answers: to the brief, and to each order.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Ready(Charge),
    Done,
    Failed(Vec<String>),
}

const STOP: &str = "stop";
const START: &str = "start";
/// How long a dead run's commit may take to undo before the daemon starts in any case.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(2);
/// What sudo and its like leave in the environment of what they start.
const STARTED_BY_HAND: [&str; 4] = ["SUDO_COMMAND", "SUDO_UID", "DOAS_USER", "PKEXEC_UID"];

/// The root half's end. Dropped once it has its brief and without [`Guardian::start`], it has the daemon
/// started too.
pub struct Guardian {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    has_brief: bool,
}

impl Guardian {
    /// Starts a guardian, which is this program again.
    pub fn wait() -> Result<Self> {
        // By the link once the file was replaced.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self::wait_with(&program.unwrap_or_else(|| "/proc/self/exe".into()))
    }

    /// The same with another file as the program.
    pub fn wait_with(program: &Path) -> Result<Self> {
        // Whoever ends the root half by its command line must not end its guardian with it.
        let mut command = Command::new(program);
        command.arg0("storecache-guardian").args(["privileged", "--guardian"]);
        command.env_clear().env("PATH", ROOT_PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        ProcessContext { own_session: true, ..ProcessContext::default() }.apply(&mut command);
        let mut child = command.spawn().context("start the guardian")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the guardian has no output")?);
        Ok(Guardian { child, orders, answers, has_brief: false })
    }

    /// Has it find the daemon and prepare all that a stop and a start take.
    ///
    /// # Errors
    /// When there is no daemon that could be stopped and started again. Nothing was done then.
    pub fn arm(&mut self, brief: &Brief) -> Result<Charge> {
        let line = serde_json::to_string(brief).context("encode the brief")?;
        self.order(&line)?;
        match self.answer()? {
            Answer::Ready(charge) => {
                self.has_brief = true;
                Ok(charge)
            }
            _ => bail!("the guardian did not say what it found"),
        }
    }

    /// Has the daemon stopped.
    pub fn stop(&mut self) -> Result<()> {
        self.order(STOP)?;
        self.answer().map(drop)
    }

    /// Has the daemon started and waits until it answers.
    pub fn start(mut self) -> Result<()> {
        self.order_start()
    }

    fn order_start(&mut self) -> Result<()> {
        self.order(START)?;
        self.orders = None;
        let answer = self.answer().map(drop);
        self.child.wait().context("wait for the guardian")?;
        answer
    }

    fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the guardian has its orders already")?;
        writeln!(orders, "{line}").context("speak to the guardian")
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(causes)) => Err(chained(causes)),
            Ok(answer) => Ok(answer),
            Err(_) => bail!("the guardian died"),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if !self.has_brief {
            // The daemon was not stopped: there is nothing to start.
            self.orders = None;
            let _ = self.child.wait();
        } else if self.orders.is_some() {
            // Whatever went wrong is being reported already; should the guardian be dead, so that
            // nobody starts the daemon, its death is what is left to tell.
            if let Err(e) = self.order_start() {
                let _ = writeln!(stderr(), "storecache: the daemon was not started again: {e:#}");
            }
        }
    }
}

/// Puts causes, outermost first, back together.
fn chained(causes: Vec<String>) -> anyhow::Error {
    let mut causes = causes.into_iter().rev();
    let first = anyhow!(causes.next().unwrap_or_default());
    causes.fold(first, |error, cause| error.context(cause))
}

/// A daemon, and all that it takes to stop it and to start it again.
struct Ward {
    target: StoreTarget,
    brief: Brief,
    daemon: Daemon,
    starter: Starter,
    /// The unit that mounts the store read-only, if the daemon or the commit takes it away.
    mount: Option<MountUnit>,
}

/// The guardian itself, on standard input and output. Gives back the exit code.
pub fn guard() -> u8 {
    // Its brief is taken at its word, and so only from a root half of ours.
    let by_hand = STARTED_BY_HAND.iter().find(|name| std::env::var_os(name).is_some());
    if let Some(name) = by_hand {
        return tell(Err(anyhow!("{name} is set: a guardian is started by the root half alone")));
    }
    if let Err(e) = settle() {
        return tell(Err(e));
    }
    // What it runs for a user is not to make files for all the world.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let mut lines = stdin().lock().lines();
    let mut next_line = || lines.next().transpose().map(Option::unwrap_or_default);

    let line = match next_line() {
        // Nobody needs it.
        Ok(line) if line.is_empty() => return 0,
        Ok(line) => line,
        Err(e) => return tell(Err(e.into())),
    };
    let (ward, charge) = match Ward::take(&line) {
        Ok(taken) => taken,
        Err(e) => return tell(Err(e)),
    };
    let mut stopper = match Stopper::prepare(&ward.daemon) {
        Ok(stopper) => Some(stopper),
        Err(e) => return tell(Err(e.context("prepare to stop the daemon"))),
    };
    answer(&Answer::Ready(charge));

    let mut ordered = next_line();
    if let (Ok(STOP), Some(stopper)) = (ordered.as_deref(), stopper.take()) {
        tell(stopper.stop(ward.target.daemon_patience));
        ordered = next_line();
    }
    let ordered = ordered.is_ok_and(|line| line == START);
    if !ordered {
        // The root half is dead: its locks are free, its commit may be half done.
        let _ = ward.writing_to_store(Ward::undo);
    }
    let outcome = ward.start();
    if !ordered {
        let _ = ward.writing_to_store(Ward::remove_staging);
    }
    tell(outcome)
}

impl Ward {
    fn take(line: &str) -> Result<(Self, Charge)> {
        let mut brief: Brief = serde_json::from_str(line).context("the brief does not parse")?;
        brief.store.mandate = brief.mandate;
        let target = StoreTarget::new(&brief.store)?;
        let Found { daemon, why, mut warnings } = target.daemon()?;
        if let Some(replaced) = daemon.replaced()? {
            warnings.push(format!("{replaced}; the new one runs from now on"));
        }
        let runs = daemon != Daemon::None;
        let starter = Starter::prepare(&daemon).context("prepare to start the daemon again")?;
        let mount = match &brief.mount {
            None if target.layout.root == Path::new("/") => {
                MountUnit::taken_away_by(&daemon, target.layout.store_dir)?
            }
            unit => unit.clone(),
        };
        Ok((Ward { target, brief, daemon, starter, mount }, Charge { why, warnings, runs }))
    }

    fn start(&self) -> Result<()> {
        // Should it stay, the daemon does not answer, which is told then.
        let _ = self.mount.as_ref().map(MountUnit::stop);
        let socket = self.target.layout.socket();
        let started = self.starter.start(&socket);
        self.mount.as_ref().map_or(Ok(()), MountUnit::start)?;
        started?;
        if self.daemon == Daemon::None {
            return Ok(());
        }
        let probe = self.target.layout.probe();
        await_ready(&socket, &probe, self.target.daemon_patience).map(drop)
    }

    /// Runs `work` on a thread that may write to the store, while this one stays where the daemon is to
    /// be started from.
    fn writing_to_store(&self, work: fn(&Self) -> Result<()>) -> Result<()> {
        let working = || {
            // Where that is refused, the unit of the mount is still stopped, or there is nothing to do.
            let writable = make_writable(&self.target.layout.store());
            work(self).and(writable.map(drop))
        };
        std::thread::scope(|scope| scope.spawn(working).join())
            .unwrap_or_else(|_| bail!("the guardian's helper panicked"))
    }

    fn undo(&self) -> Result<()> {
        let layout = &self.target.layout;
        let _lock = run_lock(&layout.state(), RECOVERY_PATIENCE, &|| Ok(()))?;
        recover(layout, &staging_now(layout, &self.brief.staging))
    }

    fn remove_staging(&self) -> Result<()> {
        let staging = staging_now(&self.target.layout, &self.brief.staging);
        Ok(remove_staging(&staging)?)
    }
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
    // The root half may be dead, which is why we are here.
    let _ = writeln!(stdout(), "{line}");
}
