//! Starting the root half and talking to it.

use super::fault::Fault;
use super::mandate::CONFINED_LIMIT;
use super::pipe::{GaveUp, Pipe, Sending};
use super::protocol::{
    PROTOCOL, Phase, Reply, Request, Restored, StoreRequest, read_message, write_message,
};
use super::read_ahead::ReadAhead;
use super::sudo::{NoRoot, SudoRefusal};
use super::target::StoreTarget;
use crate::budget::{Allowance, Held, Packing};
use crate::pulse::{self, Cut, LOOK, Vigil};
use crate::report;
use crate::snapshot::StoreFacts;
use crate::store::{Layout, StoreKind};
use crate::system::{Program, spawn};
use crate::threads;
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::fmt;
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// How the root half begins what it says where it cannot reply.
pub const ROOT_SPEAKS: &str = "storecache privileged: ";
/// Bytes that a pipe between the halves holds: as many as an ordinary user may ask for (`pipe.7`).
const PIPE: usize = 1 << 20;
/// The root half failed and undid what it had begun.
#[derive(Debug, thiserror::Error)]
#[error("{}", .causes.join(": "))]
pub struct RootFailure {
    pub phase: Phase,
    /// Outermost first.
    pub causes: Vec<String>,
    pub fault: Fault,
}

/// The root half, or the sudo in front of it, ended without a reply.
#[derive(Debug, thiserror::Error)]
struct Ended {
    status: ExitStatus,
    /// What it wrote to its error output.
    text: String,
}

impl Ended {
    fn is_of_sudo(&self) -> bool {
        self.status.code() == Some(1) && !self.text.starts_with(ROOT_SPEAKS)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = self.text.strip_prefix(ROOT_SPEAKS) {
            return write!(f, "the root half did not start: {cause}");
        }
        write!(f, "the root half ended before it was done ({})", self.status)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// Somebody called the run off.
#[derive(Debug, thiserror::Error)]
#[error("{}", pulse::why_called_off())]
pub struct Cancelled;

/// A root half of this process was left alone before it had ended.
static LEFT_ALONE: AtomicBool = AtomicBool::new(false);

/// Whether a root half goes on undoing what it began, as it could not be waited for.
pub fn is_still_undoing() -> bool {
    LEFT_ALONE.load(Ordering::Relaxed)
}

/// Whether the root half is to use root's rights in a place that the user names, as far as they may.
fn wants_all_of_root(store: &StoreRequest) -> bool {
    let not_ours = |socket: &PathBuf| match socket.metadata() {
        Ok(found) => found.uid() != rustix::process::getuid().as_raw(),
        Err(e) => e.kind() == ErrorKind::PermissionDenied,
    };
    // Others wait for a confined user no longer than that.
    let patience = store.lock_patience.max(store.daemon_patience).max(store.stall);
    // What is theirs, the root half leaves to their rights.
    store.root != Path::new("/")
        || is_theirs(store)
        || store.shepherds.iter().any(not_ours)
        || patience > CONFINED_LIMIT
}

/// Whether it is a place of the user's own, or may be: directories they name, or a store they own.
fn is_theirs(store: &StoreRequest) -> bool {
    let ours = |layout: Layout| {
        let found = layout.database_dir().metadata().or_else(|_| layout.state().metadata());
        found.is_ok_and(|found| found.uid() == rustix::process::getuid().as_raw())
    };
    store.kind == StoreKind::Plain || Layout::of(store.kind, &store.root).is_ok_and(ours)
}

/// The root half, running. Dropped, it is told to abort and waited for.
pub struct RootHalf {
    child: Child,
    /// Its own pid, as far as it has told it: the child may be sudo.
    pid: Option<u32>,
    requests: Option<Pipe>,
    replies: Receiver<Result<(Reply, Held)>>,
    /// Replies that came while a request was on its way.
    early: VecDeque<Result<(Reply, Held)>>,
    /// When something was heard of it last.
    heard: Arc<Mutex<Instant>>,
    /// For what comes with replies.
    memory: Allowance,
    errors: Option<JoinHandle<String>>,
    cancelled: Arc<AtomicBool>,
}

impl RootHalf {
    /// Starts the root half for a store, through sudo unless this process is root already, and greets
    /// it. Where there is no sudo for this user, what is theirs is reached with their own rights.
    /// When `cancelled` is set, every call fails and the root half aborts.
    ///
    /// # Errors
    /// When the store is not theirs, and sudo is missing or refuses; nothing was done then.
    pub fn start(cancelled: &Arc<AtomicBool>, store: &StoreRequest) -> Result<Self> {
        Self::start_with_rights(cancelled, store, wants_all_of_root(store))
    }

    /// The same with all rights of root where the user may become root: then the helper also reports what only root
    /// can read, such as the journal. Other users get what [`RootHalf::start`] gives them.
    ///
    /// # Errors
    /// As [`RootHalf::start`].
    pub fn start_to_examine(cancelled: &Arc<AtomicBool>, store: &StoreRequest) -> Result<Self> {
        Self::start_with_rights(cancelled, store, true)
    }

    fn start_with_rights(
        cancelled: &Arc<AtomicBool>,
        store: &StoreRequest,
        all_of_root: bool,
    ) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Self::start_with(cancelled, false, &["privileged"]);
        }
        if all_of_root {
            // Who may run more than the bare root half may become root anyway. To others it does with
            // their own rights what it can.
            let started = Self::start_with(cancelled, true, &["privileged", "--everywhere"]);
            match started {
                Err(e) if !(e.is::<Cancelled>() || e.is::<Cut>()) => {}
                other => return other,
            }
        }
        let refusal = match Self::start_with(cancelled, true, &["privileged"]) {
            Err(e) => e.downcast::<SudoRefusal>()?,
            Ok(root) => return Ok(root),
        };
        if is_theirs(store) {
            return Self::start_with(cancelled, false, &["privileged"]);
        }
        // What is not there belongs to nobody.
        StoreTarget::new(store)?;
        bail!(NoRoot::new(refusal))
    }

    fn start_with(cancelled: &Arc<AtomicBool>, by_sudo: bool, words: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("find the path of this program")?;
        let root_helper = Program::RootHelper { program: &program, by_sudo, words };
        let mut child = spawn(root_helper).map_err(|e| match e.kind() {
            ErrorKind::NotFound if by_sudo => anyhow!(SudoRefusal::Missing),
            _ => anyhow!(e).context("start the root half"),
        })?;
        let requests = child.stdin.take().context("the root half has no input")?;
        for pipe in [Some(requests.as_fd()), child.stdout.as_ref().map(AsFd::as_fd)] {
            // Frames pass in few pieces then. Whoever has many pipes already is refused, and does without.
            let _ = pipe.map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
        }
        let memory = Allowance::of(Packing::on(1).in_flight);
        let started =
            hear(&mut child, by_sudo, &memory).and_then(|heard| Ok((heard, Pipe::new(requests)?)));
        let ((errors, replies, heard), requests) = match started {
            Ok((heard, requests)) => (heard, Some(requests)),
            Err(e) => {
                // It ends with its input, before it has done anything.
                drop((child.stdout.take(), child.stderr.take()));
                let _ = child.wait();
                return Err(e);
            }
        };
        let cancelled = Arc::clone(cancelled);
        let (pid, early, errors) = (None, VecDeque::new(), Some(errors));
        let mut root =
            RootHalf { child, pid, requests, replies, early, heard, memory, errors, cancelled };
        let greeted = root.send(&Request::Hello { protocol: PROTOCOL }, &[]);
        match greeted.and_then(|()| root.receive()) {
            Ok((Reply::Hello { protocol: PROTOCOL, pid }, _)) => {
                root.pid = Some(pid);
                Ok(root)
            }
            Err(e) if e.is::<Cancelled>() || e.is::<Cut>() => Err(e),
            Ok(_) => bail!("the root half is another version of storecache"),
            Err(e) => match e.downcast_ref::<Ended>() {
                // What sudo has against it, it says as a program of its own, with this code (`man 8 sudo`).
                Some(ended) if by_sudo && ended.is_of_sudo() => {
                    Err(SudoRefusal::parse(&ended.text).into())
                }
                _ => Err(e),
            },
        }
    }

    /// Lets this one undo what it began and end, and starts another for the same store: after a failure
    /// nothing can be asked of it any more.
    pub fn again(&mut self, store: &StoreRequest) -> Result<StoreFacts> {
        self.end();
        *self = RootHalf::start(&self.cancelled, store)?;
        self.survey(store)
    }

    /// Names the store; gives back what the root half found.
    pub fn survey(&mut self, store: &StoreRequest) -> Result<StoreFacts> {
        self.send(&Request::Store(store.clone()), &[])?;
        match self.receive()? {
            (Reply::Store(facts), _) => Ok(facts),
            _ => bail!("the root half did not describe the store"),
        }
    }

    pub fn send(&mut self, request: &Request, payload: &[u8]) -> Result<()> {
        self.check()?;
        let mut requests = self.requests.take().context("the root half was told to end")?;
        let mut vigil = Vigil::new(pulse::clock()).without_bytes();
        let mut wait = || self.wait(&mut vigil);
        match write_message(&mut Sending { pipe: &mut requests, wait: &mut wait }, request, payload)
        {
            Ok(()) => {
                self.requests = Some(requests);
                Ok(())
            }
            Err(error) => match error.downcast::<std::io::Error>() {
                Err(error) => {
                    self.requests = Some(requests);
                    Err(error)
                }
                Ok(error) if error.get_ref().is_some_and(|inner| inner.is::<GaveUp>()) => {
                    let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
                    Err(inner
                        .map_or_else(|| anyhow!("nobody waits any more"), |it: Box<GaveUp>| it.0))
                }
                // It hung up; what it said before that is the cause, or how it ended.
                Ok(_) => Err(self.last_words().unwrap_or_else(|| self.ended())),
            },
        }
    }

    /// Waits a moment for the root half, which may have to say something before it listens.
    ///
    /// # Errors
    /// When the run is called off, or when there is no sign of life of it for too long.
    fn wait(&mut self, vigil: &mut Vigil) -> Result<()> {
        self.check()?;
        while let Ok(message) = self.replies.try_recv() {
            self.early.push_back(message);
        }
        self.watch(vigil)
    }

    /// Looks whether the root half is alive.
    fn watch(&self, vigil: &mut Vigil) -> Result<()> {
        vigil.sign_at(*self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let pid = self.pid.unwrap_or(self.child.id());
        if let Some(sign) = vigil.look(&[pid]) {
            pulse::alive(format!("{} {sign}", self.name()));
        }
        if vigil.is_over() {
            bail!(pulse::cut("stall-timeout", format!("{} {}", self.name(), vigil.tell())));
        }
        Ok(())
    }

    fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("the root half (process {pid})"),
            None => format!("the start of the root half (process {})", self.child.id()),
        }
    }

    /// From now on so many bytes of frames are received ahead of what is done with them.
    pub fn holds(&self, bytes: u64) {
        self.memory.becomes(bytes);
    }

    /// The next reply.
    ///
    /// # Errors
    /// [`RootFailure`] when that is what it says; also when it died.
    pub fn receive(&mut self) -> Result<(Reply, Held)> {
        if let Some(message) = self.early.pop_front() {
            return failure_or(message?);
        }
        let mut vigil = Vigil::new(pulse::clock()).without_bytes();
        loop {
            self.check()?;
            match self.replies.recv_timeout(LOOK) {
                Ok(message) => return failure_or(message?),
                Err(RecvTimeoutError::Timeout) => self.watch(&mut vigil)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.ended());
                }
            }
        }
    }

    /// A reply that has come already; nothing when none has.
    pub fn try_receive(&mut self) -> Result<Option<Reply>> {
        match self.early.pop_front().map_or_else(|| self.replies.try_recv(), Ok) {
            Ok(message) => Ok(Some(failure_or(message?)?.0)),
            Err(_) => Ok(None),
        }
    }

    fn last_words(&mut self) -> Option<anyhow::Error> {
        self.early.drain(..).chain(self.replies.iter()).find_map(|message| match message {
            Ok(message) => failure_or(message).err(),
            Err(e) => Some(e),
        })
    }

    /// Ends it after the order to commit, when nobody waits any more: it may have been too late. Gives back
    /// what became of the commit, unless that is undone.
    pub fn settle(&mut self) -> Option<Result<Restored>> {
        report_errors(&self.end());
        self.early.drain(..).find_map(|message| match message {
            Ok((Reply::Restored(restored), _)) => Some(Ok(restored)),
            Ok((Reply::Failed { phase, causes, fault }, _)) if phase.is_after_commit() => {
                Some(Err(RootFailure { phase, causes, fault }.into()))
            }
            _ => None,
        })
    }

    fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Cancelled.into());
        }
        Ok(())
    }

    /// The error that it ended, although nobody told it to.
    fn ended(&mut self) -> anyhow::Error {
        let text = self.end();
        match self.child.try_wait().context("wait for the root half") {
            Ok(Some(status)) => Ended { status, text }.into(),
            // It could not be waited for, which is what the text says.
            Ok(None) => anyhow!(text),
            Err(e) => e,
        }
    }

    /// Closes its input, lets it undo what it began, and gives back what it wrote to its error
    /// output.
    fn end(&mut self) -> String {
        self.requests = None;
        let mut vigil = Vigil::new(pulse::clock()).without_bytes();
        let mut means = [Signal::CONT, Signal::KILL].into_iter();
        // Undoing takes as long as it takes, unless this run has no more time.
        let most = pulse::was_cut().map(|_| pulse::clock() * 3);
        let began = Instant::now();
        if pulse::was_cut().is_some() {
            // It may be that somebody has stopped it. This wakes it, so that it can undo what it began.
            self.signal(means.next());
        }
        loop {
            match self.replies.recv_timeout(LOOK) {
                // Frames that nobody wants any more would only take memory.
                Ok(Ok((Reply::Frame { .. }, _))) => {}
                Ok(message) => self.early.push_back(message),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    vigil.sign_at(*self.heard.lock().unwrap_or_else(PoisonError::into_inner));
                    vigil.look(&[self.pid.unwrap_or(self.child.id())]);
                }
            }
            if most.is_some_and(|most| began.elapsed() >= most) {
                LEFT_ALONE.store(true, Ordering::Relaxed);
                let name = self.name();
                return format!("{name} is alive, and undoes what it began as soon as it can");
            }
            if vigil.is_over() {
                vigil.sign();
                let Some(means) = means.next() else {
                    LEFT_ALONE.store(true, Ordering::Relaxed);
                    return format!("{} does not end; its guardian keeps the daemon", self.name());
                };
                self.signal(Some(means));
            }
        }
        let _ = self.child.wait();
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }

    /// To the root half and to sudo before it. An ordinary user may only wake them, as they are of the same
    /// session (`man 2 kill`).
    fn signal(&self, signal: Option<Signal>) {
        let Some(signal) = signal else { return };
        for pid in [Some(self.child.id()), self.pid].into_iter().flatten() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // What has ended, or is another's, stays as it is.
            let _ = pid.map(|pid| kill_process(pid, signal));
        }
    }
}

/// What is written to its error output, once it has ended; its replies as they come; and when anything came
/// last.
type Heard = (JoinHandle<String>, Receiver<Result<(Reply, Held)>>, Arc<Mutex<Instant>>);

fn hear(child: &mut Child, by_sudo: bool, memory: &Allowance) -> Result<Heard> {
    let output = child.stdout.take().context("the root half has no output")?;
    let mut error_output = child.stderr.take().context("the root half has no error output")?;
    let (send, replies) = bounded(4);
    let heard = Arc::new(Mutex::new(Instant::now()));
    let (memory, last_heard) = (memory.clone(), Arc::clone(&heard));
    // Only a confined user is cut off for not reading, and comes through sudo.
    let output: Box<dyn Read + Send> = match by_sudo {
        true => Box::new(ReadAhead::start(output)?),
        false => Box::new(output),
    };
    threads::start("to hear replies", move || {
        let mut output = BufReader::with_capacity(1 << 16, output);
        while let Some(message) = read_message(&mut output, &memory).transpose() {
            *last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            if let Ok((Reply::Alive { phase, sign, text }, _)) = message {
                pulse::heard(&phase, sign, text);
                continue;
            }
            let failed = message.is_err();
            if send.send(message).is_err() || failed {
                return;
            }
        }
    })?;
    let errors = threads::start("to hear errors", move || {
        let mut text = Vec::new();
        let _ = error_output.read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_owned()
    })?;
    Ok((errors, replies, heard))
}

fn failure_or((reply, payload): (Reply, Held)) -> Result<(Reply, Held)> {
    match reply {
        Reply::Failed { phase, causes, fault } => Err(RootFailure { phase, causes, fault }.into()),
        reply => Ok((reply, payload)),
    }
}

/// Reports what the root half, or sudo, wrote to its error output.
fn report_errors(text: &str) {
    text.lines().for_each(|line| report::note(format!("storecache: root helper: {line}")));
}

impl Drop for RootHalf {
    fn drop(&mut self) {
        report_errors(&self.end());
    }
}
