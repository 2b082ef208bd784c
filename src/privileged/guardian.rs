//! The guardian: a process of its own that starts the daemon again, whatever becomes of the root
//! half.
//!
//! It is started before the daemon stops, gathers what a start takes, and is the one who starts the
//! daemon in every case: on the word of the root half, or when the root half is gone. It leaves the
//! session, so that a terminal's or a job's signals do not reach it.

use super::target::run_lock;
use crate::daemon::{Daemon, MountUnit, ProcessContext, Starter, await_ready};
use crate::pulse::{self, Cut, LOOK, Sign, Vigil};
use crate::store::{Layout, StoreKind, make_writable, recover, staging_now};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{BufRead, BufReader, Write, stderr, stdin, stdout};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What the guardian is told first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    pub daemon: Daemon,
    /// The unit that mounts the store read-only, if the daemon or the commit takes it away.
    pub mount: Option<MountUnit>,
    pub kind: StoreKind,
    pub root: PathBuf,
    /// A store path to ask the daemon about.
    pub probe: String,
    pub staging: PathBuf,
    pub patience: Duration,
}

/// What the guardian answers: to the brief, and to the order to start.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It is alive, and this is what it does. More follows.
    Alive(Sign, String),
    Done,
    Failed(Vec<String>),
}

const START: &str = "start";
/// How long a dead run's commit may take to undo before the daemon starts in any case.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(2);

/// The root half's end. Dropped without [`Guardian::start`], it has the daemon started too.
pub struct Guardian {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Guardian {
    /// Starts a guardian, which is this program again, and waits until it is ready.
    /// `outside` is the mount namespace that it is to live in, if that is not this one.
    pub fn arm(brief: &Brief, outside: Option<Arc<OwnedFd>>) -> Result<Self> {
        // By the link once the file was replaced.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self::arm_with(&program.unwrap_or_else(|| "/proc/self/exe".into()), brief, outside)
    }

    /// The same with another file as the program.
    pub fn arm_with(program: &Path, brief: &Brief, outside: Option<Arc<OwnedFd>>) -> Result<Self> {
        // Whoever ends the root half by its command line must not end its guardian with it.
        let mut command = Command::new(program);
        command.arg0("storecache-guardian").args(["privileged", "--guardian"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let namespaces = outside.into_iter().collect();
        ProcessContext { namespaces, own_session: true, ..ProcessContext::default() }
            .apply(&mut command);
        let mut child = command.spawn().context("start the guardian")?;
        let orders = child.stdin.take();
        let answers = lines_of(child.stdout.take().context("the guardian has no output")?);
        let mut guardian = Guardian { child, orders, answers };
        let briefed = serde_json::to_string(brief)
            .map_err(Into::into)
            .and_then(|line| guardian.order(&line))
            .and_then(|()| guardian.answer());
        if let Err(e) = briefed {
            // The daemon was not stopped: there is nothing to start.
            guardian.orders = None;
            let _ = guardian.child.wait();
            return Err(e.context("prepare to start the daemon again"));
        }
        Ok(guardian)
    }

    /// Has the daemon started and waits until it answers.
    pub fn start(mut self) -> Result<()> {
        self.order_start()
    }

    fn order_start(&mut self) -> Result<()> {
        self.order(START)?;
        self.orders = None;
        let answer = self.answer();
        if !answer.as_ref().is_err_and(anyhow::Error::is::<Cut>) {
            self.child.wait().context("wait for the guardian")?;
        }
        answer
    }

    fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the guardian has its orders already")?;
        writeln!(orders, "{line}").context("speak to the guardian")
    }

    fn answer(&mut self) -> Result<()> {
        let pid = self.child.id();
        let mut vigil = Vigil::new(pulse::clock());
        let mut woken = false;
        loop {
            match self.answers.recv_timeout(LOOK) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Answer::Done) => return Ok(()),
                    Ok(Answer::Failed(causes)) => return Err(chained(causes)),
                    Ok(Answer::Alive(sign, text)) => {
                        vigil.sign();
                        pulse::heard_here(sign, text);
                    }
                    Err(_) => bail!("the guardian says what nobody knows: {line}"),
                },
                Err(RecvTimeoutError::Disconnected) => bail!("the guardian died"),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(sign) = vigil.look(&[pid]) {
                        pulse::alive(format!("the guardian, process {pid}: {sign}"));
                    }
                }
            }
            if !vigil.is_over() {
                continue;
            }
            if woken {
                let what = format!("the guardian, process {pid}, {}", vigil.tell());
                bail!(pulse::cut("stall-timeout", what));
            }
            // It may be that somebody has stopped it, and nobody else starts the daemon.
            woken = true;
            vigil.sign();
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if self.orders.is_some() {
            // Whatever went wrong is being reported already; should the guardian be dead, so that
            // nobody starts the daemon, its death is what is left to tell.
            if let Err(e) = self.order_start() {
                let _ = writeln!(stderr(), "storecache: the daemon was not started again: {e:#}");
            }
        }
    }
}

/// What a process says, line by line, until it has ended.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (said, lines) = unbounded();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Puts causes, outermost first, back together.
fn chained(causes: Vec<String>) -> anyhow::Error {
    let mut causes = causes.into_iter().rev();
    let first = anyhow!(causes.next().unwrap_or_default());
    causes.fold(first, |error, cause| error.context(cause))
}

/// The guardian itself, on standard input and output. Gives back the exit code.
pub fn guard() -> u8 {
    // Whoever ends a run as a whole, as systemd ends a unit, ends it with the daemon started again. Handlers,
    // because what is ignored stays so for the daemon too.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    pulse::listen(|_, sign, text| {
        let line = serde_json::to_string(&Answer::Alive(sign, text.to_owned()));
        // The root half may be dead, which is why we are here.
        let _ = writeln!(stdout(), "{}", line.unwrap_or_default());
    });
    let mut lines = stdin().lock().lines();
    let mut next_line = || lines.next().transpose().map(Option::unwrap_or_default);

    let prepared = next_line().map_err(Into::into).and_then(|line| {
        let brief: Brief = serde_json::from_str(&line).context("the brief does not parse")?;
        let starter = Starter::prepare(&brief.daemon)?;
        Ok((brief, starter))
    });
    let (brief, starter) = match prepared {
        Ok(prepared) => prepared,
        Err(e) => return tell(Err(e)),
    };
    tell(Ok(()));

    let ordered = next_line().is_ok_and(|line| line == START);
    if !ordered {
        // The root half is dead: its locks are free, its commit may be half done.
        let _ = writing_to_store(&brief, undo);
    }
    let outcome = start(&brief, &starter);
    if !ordered {
        let _ = writing_to_store(&brief, remove_staging);
    }
    tell(outcome)
}

fn start(brief: &Brief, starter: &Starter) -> Result<()> {
    // Should it stay, the daemon does not answer, which is told then.
    let _ = brief.mount.as_ref().map(MountUnit::stop);
    let layout = Layout::of(brief.kind, &brief.root)?;
    let started = starter.start(&layout.socket(), brief.patience);
    brief.mount.as_ref().map_or(Ok(()), MountUnit::start)?;
    started?;
    if brief.daemon == Daemon::None {
        return Ok(());
    }
    await_ready(&layout.socket(), &brief.probe, brief.patience).map(drop)
}

/// Runs `work` on a thread that may write to the store, while this one stays where the daemon is to
/// be started from.
fn writing_to_store(brief: &Brief, work: fn(&Brief) -> Result<()>) -> Result<()> {
    let working = || {
        // Where that is refused, the unit of the mount is still stopped, or there is nothing to do.
        let writable = make_writable(&Layout::of(brief.kind, &brief.root)?.store());
        work(brief).and(writable.map(drop))
    };
    std::thread::scope(|scope| scope.spawn(working).join())
        .unwrap_or_else(|_| bail!("the guardian's helper panicked"))
}

fn undo(brief: &Brief) -> Result<()> {
    let layout = Layout::of(brief.kind, &brief.root)?;
    let _lock = run_lock(&layout.state(), RECOVERY_PATIENCE, &|| Ok(()))?;
    recover(&layout, &staging_now(&layout, &brief.staging))
}

fn remove_staging(brief: &Brief) -> Result<()> {
    let layout = Layout::of(brief.kind, &brief.root)?;
    Ok(std::fs::remove_dir_all(staging_now(&layout, &brief.staging))?)
}

fn tell(outcome: Result<()>) -> u8 {
    let (answer, code) = match outcome {
        Ok(()) => (Answer::Done, 0),
        Err(e) => (Answer::Failed(e.chain().map(ToString::to_string).collect()), 1),
    };
    let line = serde_json::to_string(&answer).unwrap_or_default();
    // The root half may be dead, which is why we are here.
    let _ = writeln!(stdout(), "{line}");
    code
}
