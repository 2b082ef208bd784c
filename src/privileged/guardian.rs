//! The guardian: a process of its own that puts things right, whatever becomes of the root half.
//!
//! It is started before the first change. When the root half is gone it undoes the commit and removes what
//! was staged. Before the daemon stops it gathers what a start takes, and it is the one who starts the daemon
//! in every case: on the word of the root half, or when that is gone. It leaves the session, so that a
//! terminal's or a job's signals do not reach it. Should it die itself, the root half starts the daemon.

use super::target::run_lock;
use crate::daemon::{Daemon, MountUnit, ProcessContext, Starter, await_ready};
use crate::store::{Layout, StoreKind, aside, clean_refuges, clean_up, make_writable, undo};
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write, stderr, stdin, stdout};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What the guardian is told first: what it watches over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ward {
    pub kind: StoreKind,
    pub root: PathBuf,
    /// Whether the store is changed. A save has nothing but a copy of its database to be removed.
    pub restores: bool,
}

/// What it is told before the daemon stops.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    pub daemon: Daemon,
    /// The unit that mounts the store read-only, if the daemon or the commit takes it away.
    pub mount: Option<MountUnit>,
    /// A store path to ask the daemon about.
    pub probe: String,
    pub patience: Duration,
}

/// What the guardian answers: to whatever it is told, but the end.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Failed(Vec<String>),
}

const START: &str = "start";
const END: &str = "end";
/// How long somebody may keep a dead run's commit from being undone before the daemon starts in any case. A
/// process that was killed while the disk writes for it lives on until that is done.
const BEFORE_START: Duration = Duration::from_millis(500);
/// The same once the daemon has started.
const AFTER_START: Duration = Duration::from_secs(30);

/// The root half's end. Dropped, it lets the guardian go.
pub struct Guardian {
    ward: Layout,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A guardian that knows how the daemon starts. Dropped without [`Armed::start`], it has it started too.
pub struct Armed<'a> {
    guardian: &'a mut Guardian,
    brief: &'a Brief,
    /// The same knowledge, for when the guardian dies.
    starter: Starter,
    started: bool,
}

impl Guardian {
    /// Starts a guardian, which is this program again.
    /// `outside` is the mount namespace that it is to live in, if that is not this one.
    pub fn watch(ward: &Ward, outside: Option<Arc<OwnedFd>>) -> Result<Self> {
        // By the link once the file was replaced.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self::watch_with(&program.unwrap_or_else(|| "/proc/self/exe".into()), ward, outside)
    }

    /// The same with another file as the program.
    pub fn watch_with(program: &Path, ward: &Ward, outside: Option<Arc<OwnedFd>>) -> Result<Self> {
        // Whoever ends the root half by its command line must not end its guardian with it.
        let mut command = Command::new(program);
        command.arg0("storecache-guardian").args(["privileged", "--guardian"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let namespaces = outside.into_iter().collect();
        ProcessContext { namespaces, own_session: true, ..ProcessContext::default() }
            .apply(&mut command);
        let mut child = command.spawn().context("start the guardian")?;
        let orders = child.stdin.take().context("the guardian has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the guardian has no output")?);
        let layout = Layout::of(ward.kind, &ward.root)?;
        let mut guardian = Guardian { ward: layout, child, orders, answers };
        guardian.order(&serde_json::to_string(ward)?)?;
        Ok(guardian)
    }

    /// Waits until it is ready to start the daemon.
    pub fn arm<'a>(&'a mut self, brief: &'a Brief) -> Result<Armed<'a>> {
        let arming = |guardian: &mut Self| {
            guardian.order(&serde_json::to_string(brief)?)?;
            let starter = Starter::prepare(&brief.daemon)?;
            // To the ward, and to the brief.
            guardian.answer().and_then(|()| guardian.answer()).map(|()| starter)
        };
        let starter = arming(self).context("prepare to start the daemon again")?;
        Ok(Armed { guardian: self, brief, starter, started: false })
    }

    fn order(&mut self, line: &str) -> Result<()> {
        writeln!(self.orders, "{line}").context("speak to the guardian")
    }

    fn answer(&mut self) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Failed(causes)) => Err(chained(causes)),
            Err(_) => bail!(Died),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // If it is dead there is nothing to end.
        let _ = self.order(END);
        let _ = self.child.wait();
    }
}

/// It was killed, most likely.
#[derive(Debug, thiserror::Error)]
#[error("the guardian died")]
struct Died;

impl Armed<'_> {
    /// Has the daemon started and waits until it answers.
    pub fn start(mut self) -> Result<()> {
        self.order_start()
    }

    fn order_start(&mut self) -> Result<()> {
        self.started = true;
        match self
            .guardian
            .order(START)
            .map_err(|_| Died.into())
            .and_then(|()| self.guardian.answer())
        {
            Err(e) if e.is::<Died>() => start(&self.guardian.ward, self.brief, &self.starter),
            outcome => outcome,
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if !self.started {
            // Whatever went wrong is being reported already; that nobody starts the daemon is what is left
            // to tell.
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

/// The guardian itself, on standard input and output. Gives back the exit code.
pub fn guard() -> u8 {
    let mut lines = stdin().lock().lines();
    // Nothing once the root half is dead.
    let mut next_line = || lines.next().and_then(Result::ok);

    let ward = next_line().context("nobody says what to watch over").and_then(|line| {
        let ward: Ward = serde_json::from_str(&line).context("the ward does not parse")?;
        Ok((Layout::of(ward.kind, &ward.root)?, ward.restores))
    });
    let (layout, restores) = match ward {
        Ok(ward) => ward,
        Err(e) => {
            // The root half may have died before its first word, and nothing is staged yet.
            clean_refuges();
            return tell(Err(e));
        }
    };
    tell(Ok(()));

    let mut armed = None;
    let mut started = false;
    while let Some(line) = next_line() {
        match (line.as_str(), &armed) {
            (END, _) => return 0,
            (START, Some((brief, starter))) => {
                started = true;
                tell(start(&layout, brief, starter));
            }
            _ => match prepare(&line) {
                Ok(prepared) => {
                    armed = Some(prepared);
                    tell(Ok(()));
                }
                Err(e) => _ = tell(Err(e)),
            },
        }
    }

    // The root half is dead: its locks are free, its commit may be half done.
    if !restores {
        clean_refuges();
        return 0;
    }
    let put_right = |patience, work: fn(&Layout, &Path) -> Result<()>| -> Result<()> {
        // Another run that has begun by now does the same first.
        let _lock = run_lock(&layout.state(), patience, &|| Ok(()))?;
        writing_to_store(&layout, work)
    };
    let outcome = match &armed {
        Some((brief, starter)) if !started => {
            let _ = put_right(BEFORE_START, undo);
            start(&layout, brief, starter)
        }
        _ => Ok(()),
    };
    let _ = put_right(AFTER_START, clean_up);
    clean_refuges();
    u8::from(outcome.is_err())
}

fn prepare(line: &str) -> Result<(Brief, Starter)> {
    let brief: Brief = serde_json::from_str(line).context("the brief does not parse")?;
    let starter = Starter::prepare(&brief.daemon)?;
    Ok((brief, starter))
}

/// Starts the daemon, and has the mount back.
pub(super) fn start(layout: &Layout, brief: &Brief, starter: &Starter) -> Result<()> {
    // Should it stay, the daemon does not answer, which is told then.
    let _ = brief.mount.as_ref().map(MountUnit::stop);
    let started = starter.start(&layout.socket());
    brief.mount.as_ref().map_or(Ok(()), MountUnit::start)?;
    started?;
    if brief.daemon == Daemon::None {
        return Ok(());
    }
    await_ready(&layout.socket(), &brief.probe, brief.patience).map(drop)
}

/// Runs `work` wherever staging may lie, on a thread that may write to the store, while this one stays where
/// the daemon is to be started from.
fn writing_to_store(layout: &Layout, work: fn(&Layout, &Path) -> Result<()>) -> Result<()> {
    let working = || {
        // Where that is refused, the unit of the mount is still stopped, or there is nothing to do.
        let writable = make_writable(&layout.store());
        let places = [layout.store()].into_iter().chain(aside(layout));
        places.map(|place| work(layout, &place)).fold(Ok(()), Result::and).and(writable.map(drop))
    };
    std::thread::scope(|scope| scope.spawn(working).join())
        .unwrap_or_else(|_| bail!("the guardian's helper panicked"))
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
