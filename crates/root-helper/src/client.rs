//! Starts the root helper and talks to it.

use super::failure_kind::FailureKind;
use super::helper_error::HelperError;
use super::nonblocking_pipe::{Pipe, SendStop, Sending};
use super::protocol::{
    PROTOCOL, Phase, Reply, Request, Restored, StoreRequest, read_message, write_message,
};
use super::read_ahead::ReadAhead;
use super::requester_rights::CONFINED_LIMIT;
use super::store_context::StoreTarget;
use super::sudo::{NoRoot, SudoRefusal};
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::fmt;
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use storecache_programs::{Program, spawn};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, join};
use storecache_runtime::events;
use storecache_runtime::liveness::{POLL_INTERVAL, StallTimer};
use storecache_runtime::memory::{ByteSemaphore, MeteredBytes, Packing};
use storecache_runtime::standard_error::note;
use storecache_runtime::threads;
use storecache_snapshot::StoreFacts;
use storecache_store::Layout;
use tracing::debug;

/// The prefix of messages that the root helper writes to standard error because it cannot reply.
pub const ROOT_SPEAKS: &str = "storecache privileged: ";
/// The size of a pipe between the two processes in bytes: the most that an unprivileged user may request (`pipe.7`).
const PIPE: usize = 1 << 20;
/// The root helper failed. Before the commit ([`Phase::is_after_commit`]), it undid its changes.
#[derive(Debug, thiserror::Error)]
#[error("{}", join(.causes.iter().cloned()))]
pub struct RootFailure {
    pub phase: Phase,
    /// Outermost first.
    pub causes: Vec<String>,
    #[source]
    pub advice: Advice,
    pub fault: FailureKind,
}

/// The root helper, or the sudo in front of it, ended without a reply.
#[derive(Debug, thiserror::Error)]
pub struct Ended {
    status: ExitStatus,
    /// Its standard error output.
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
            return write!(f, "the root helper did not start: {cause}");
        }
        write!(f, "the root helper ended without a reply ({})", self.status)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// The run was canceled, for this reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cancelled(String);

/// Returns whether the root helper should be started with `--everywhere`, if the user may do that: without it, the
/// root helper could not use root's rights on this store, or not within the requested time.
fn wants_all_of_root(store: &StoreRequest) -> bool {
    let not_ours = |socket: &PathBuf| match socket.metadata() {
        Ok(found) => found.uid() != rustix::process::getuid().as_raw(),
        Err(e) => e.kind() == ErrorKind::PermissionDenied,
    };
    // Other processes never wait for a confined user longer than this.
    let timeout = store.lock_timeout.max(store.daemon_timeout).max(store.stall);
    // On a store of the user's own, a confined root helper uses only the user's rights.
    store.root != Path::new("/")
        || is_theirs(store)
        || store.shepherds.iter().any(not_ours)
        || timeout > CONFINED_LIMIT
}

/// Returns whether the store belongs or may belong to the user: directories that they name, or a store that they own.
fn is_theirs(store: &StoreRequest) -> bool {
    let ours = |layout: Layout| {
        let found = layout.database_dir().metadata().or_else(|_| layout.state().metadata());
        found.is_ok_and(|found| found.uid() == rustix::process::getuid().as_raw())
    };
    !store.kind.has_database() || Layout::new(store.kind, &store.root).is_ok_and(ours)
}

/// The running root helper. When dropped, it is asked to abort, and waited for.
pub struct RootHelperProcess {
    child: Child,
    /// The process ID of the root helper, once it has reported it: the child may be sudo.
    pid: Option<u32>,
    requests: Option<Pipe>,
    replies: Receiver<Result<(Reply, MeteredBytes)>>,
    /// Replies that arrived while a request was being sent.
    early: VecDeque<Result<(Reply, MeteredBytes)>>,
    /// When the root helper last sent anything.
    heard: Arc<Mutex<Instant>>,
    /// The memory for payloads of replies.
    memory: ByteSemaphore,
    errors: Option<JoinHandle<String>>,
    run: RunContext,
}

impl RootHelperProcess {
    /// Starts the root helper for a store, through sudo unless this process is root already, and greets it. If this
    /// user cannot use sudo, a store of their own is accessed with their own rights. Once `run` is canceled, every
    /// call fails and the root helper aborts.
    ///
    /// # Errors
    /// If the store does not belong to the user, and sudo is missing or refuses. Nothing was changed then.
    pub fn start(run: &RunContext, store: &StoreRequest) -> Result<Self, HelperError> {
        Self::start_with_rights(run, store, wants_all_of_root(store))
    }

    /// As [`RootHelperProcess::start`], but with all rights of root if the user may become root: then the root helper
    /// also reports what only root can read, such as the journal. Other users get the rights that
    /// [`RootHelperProcess::start`] gives them.
    ///
    /// # Errors
    /// As [`RootHelperProcess::start`].
    pub fn start_to_examine(run: &RunContext, store: &StoreRequest) -> Result<Self, HelperError> {
        Self::start_with_rights(run, store, true)
    }

    fn start_with_rights(
        run: &RunContext,
        store: &StoreRequest,
        all_of_root: bool,
    ) -> Result<Self, HelperError> {
        if rustix::process::geteuid().is_root() {
            return Self::start_with(run, false, &["privileged"]);
        }
        if all_of_root {
            // A user who is allowed more than the plain `privileged` command may become root anyway. For other users,
            // the plain root helper does what it can with their own rights.
            let started = Self::start_with(run, true, &["privileged", "--everywhere"]);
            match started {
                Ok(_) | Err(HelperError::Cancelled(_) | HelperError::TimedOut(_)) => {
                    return started;
                }
                Err(e) => debug!(reason = %e, "the user may not use all rights of root"),
            }
        }
        let refusal = match Self::start_with(run, true, &["privileged"]) {
            Err(HelperError::SudoRefused(refusal)) => refusal,
            other => return other,
        };
        debug!(reason = %refusal, "sudo refused");
        if is_theirs(store) {
            return Self::start_with(run, false, &["privileged"]);
        }
        // If the store does not exist, report that instead.
        StoreTarget::new(run, store)?;
        Err(NoRoot::new(refusal).into())
    }

    fn start_with(run: &RunContext, by_sudo: bool, words: &[&str]) -> Result<Self, HelperError> {
        let program = std::env::current_exe().context("find the path of this program")?;
        let root_helper = Program::RootHelper { program: &program, by_sudo, words };
        debug!(program = %program.display(), by_sudo, arguments = words.join(" "), "start the root helper");
        let mut child = spawn(root_helper).map_err(|e| match e.kind() {
            ErrorKind::NotFound if by_sudo => HelperError::SudoRefused(SudoRefusal::Missing),
            _ => anyhow!(e).context("start the root helper").into(),
        })?;
        let requests = child.stdin.take().context("the root helper has no input")?;
        for pipe in [Some(requests.as_fd()), child.stdout.as_ref().map(AsFd::as_fd)] {
            // With larger pipes, frames pass in fewer pieces. The kernel refuses this to a user with many pipes; then
            // the pipes keep their size.
            let _ = pipe.map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
        }
        let memory = ByteSemaphore::new(Packing::on(1).in_flight);
        let started = hear(run, &mut child, by_sudo, &memory)
            .and_then(|heard| Ok((heard, Pipe::new(requests)?)));
        let ((errors, replies, heard), requests) = match started {
            Ok((heard, requests)) => (heard, Some(requests)),
            Err(e) => {
                // The root helper ends when its input is closed; it has not done anything yet.
                drop((child.stdout.take(), child.stderr.take()));
                let _ = child.wait();
                return Err(e.into());
            }
        };
        let (pid, early, errors) = (None, VecDeque::new(), Some(errors));
        let mut root = RootHelperProcess {
            child,
            pid,
            requests,
            replies,
            early,
            heard,
            memory,
            errors,
            run: run.clone(),
        };
        let greeted = root.send(&Request::Hello { protocol: PROTOCOL }, &[]);
        match greeted.and_then(|()| root.receive()) {
            Ok((Reply::Hello { protocol: PROTOCOL, pid }, _)) => {
                debug!(pid, "the root helper answers");
                root.pid = Some(pid);
                Ok(root)
            }
            Ok(_) => Err(anyhow!("the root helper is another version of storecache").into()),
            // sudo reports its own refusals with this exit code (`man 8 sudo`).
            Err(HelperError::Ended(ended)) if by_sudo && ended.is_of_sudo() => {
                Err(SudoRefusal::parse(&ended.text).into())
            }
            Err(e) => Err(e),
        }
    }

    /// Lets this root helper undo its changes and end, and starts another one for the same store: after a failure it
    /// accepts no more requests.
    pub fn again(&mut self, store: &StoreRequest) -> Result<StoreFacts, HelperError> {
        self.end();
        *self = RootHelperProcess::start(&self.run, store)?;
        self.survey(store)
    }

    /// Sends the store request, and returns the facts that the root helper found.
    pub fn survey(&mut self, store: &StoreRequest) -> Result<StoreFacts, HelperError> {
        self.send(&Request::Store(store.clone()), &[])?;
        match self.receive()? {
            (Reply::Store(facts), _) => Ok(facts),
            _ => Err(HelperError::unexpected_reply("Store")),
        }
    }

    pub fn send(&mut self, request: &Request, payload: &[u8]) -> Result<(), HelperError> {
        self.check()?;
        let mut requests = self.requests.take().context("the root helper was asked to end")?;
        let mut stall_timer = StallTimer::new(self.run.stall_timeout()).without_bytes();
        let mut wait = || self.wait(&mut stall_timer);
        let mut sending = Sending { pipe: &mut requests, wait: &mut wait, stop: None };
        let sent = write_message(&mut sending, request, payload);
        match (sent, sending.stop.take()) {
            (Ok(()), _) => {
                self.requests = Some(requests);
                Ok(())
            }
            (Err(_), Some(SendStop::GaveUp(error))) => Err(error),
            // The cause is the message that the root helper sent before that, or else how it ended.
            (Err(_), Some(SendStop::HungUp)) => {
                Err(self.last_words().unwrap_or_else(|| self.ended()))
            }
            // The message could not be encoded.
            (Err(error), None) => {
                self.requests = Some(requests);
                Err(error.into())
            }
        }
    }

    /// Waits a moment for the root helper, which may have to send a reply before it reads.
    ///
    /// # Errors
    /// If the run was canceled, or if the root helper shows no activity for too long.
    fn wait(&mut self, stall_timer: &mut StallTimer) -> Result<(), HelperError> {
        self.check()?;
        while let Ok(message) = self.replies.try_recv() {
            self.early.push_back(message);
        }
        self.watch(stall_timer)
    }

    /// Checks whether the root helper is active.
    fn watch(&self, stall_timer: &mut StallTimer) -> Result<(), HelperError> {
        stall_timer.reset_at(*self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let pid = self.pid.unwrap_or(self.child.id());
        if let Some(activity) = stall_timer.sample(&[pid]) {
            self.run.report_active(format!("{}: {activity}", self.name()));
        }
        if stall_timer.is_expired() {
            let timed_out = self.run.timed_out(
                "stall-timeout",
                format!("{} {}", self.name(), stall_timer.describe_silence()),
            );
            return Err(timed_out.into());
        }
        Ok(())
    }

    fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("the root helper (process {pid})"),
            None => format!("the start of the root helper (process {})", self.child.id()),
        }
    }

    /// Sets how many bytes of frames may be received ahead of their processing.
    pub fn holds(&self, bytes: u64) {
        self.memory.becomes(bytes);
    }

    /// Returns the next reply.
    ///
    /// # Errors
    /// [`HelperError::Failed`] if that is the reply. Also if the root helper died.
    pub fn receive(&mut self) -> Result<(Reply, MeteredBytes), HelperError> {
        if let Some(message) = self.early.pop_front() {
            return failure_or(message?);
        }
        let mut stall_timer = StallTimer::new(self.run.stall_timeout()).without_bytes();
        loop {
            self.check()?;
            match self.replies.recv_timeout(POLL_INTERVAL) {
                Ok(message) => return failure_or(message?),
                Err(RecvTimeoutError::Timeout) => self.watch(&mut stall_timer)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.ended());
                }
            }
        }
    }

    /// Returns a reply that has already arrived, or `None`.
    pub fn try_receive(&mut self) -> Result<Option<Reply>, HelperError> {
        match self.early.pop_front().map_or_else(|| self.replies.try_recv(), Ok) {
            Ok(message) => Ok(Some(failure_or(message?)?.0)),
            Err(_) => Ok(None),
        }
    }

    fn last_words(&mut self) -> Option<HelperError> {
        self.early.drain(..).chain(self.replies.iter()).find_map(|message| match message {
            Ok(message) => failure_or(message).err(),
            Err(e) => Some(e.into()),
        })
    }

    /// Ends the root helper after the commit request, when the caller has stopped waiting: that may have been too
    /// late to cancel the commit. Returns the outcome of the commit, unless it was undone.
    pub fn settle(&mut self) -> Option<Result<Restored, HelperError>> {
        report_errors(&self.end());
        self.early.drain(..).find_map(|message| match message {
            Ok((Reply::Restored(restored), _)) => Some(Ok(restored)),
            Ok((Reply::Failed { phase, causes, advice, fault }, _)) if phase.is_after_commit() => {
                Some(Err(RootFailure { phase, causes, advice, fault }.into()))
            }
            _ => None,
        })
    }

    fn check(&self) -> Result<(), HelperError> {
        if self.run.is_canceled() {
            return Err(Cancelled(self.run.cancel_reason()).into());
        }
        Ok(())
    }

    /// Returns the error that the root helper ended without being asked to.
    fn ended(&mut self) -> HelperError {
        let text = self.end();
        match self.child.try_wait().context("wait for the root helper") {
            Ok(Some(status)) => Ended { status, text }.into(),
            // The root helper could not be waited for; the text explains it.
            Ok(None) => anyhow!(text).into(),
            Err(e) => e.into(),
        }
    }

    /// Closes the root helper's input, lets it undo its changes, and returns what it wrote to standard error.
    fn end(&mut self) -> String {
        self.requests = None;
        let mut stall_timer = StallTimer::new(self.run.stall_timeout()).without_bytes();
        let mut means = [Signal::CONT, Signal::KILL].into_iter();
        // Undoing may take as long as it needs, unless this run was already aborted by a timeout.
        let most = self.run.first_timeout().map(|_| self.run.stall_timeout() * 3);
        let began = Instant::now();
        if self.run.first_timeout().is_some() {
            // Another process may have stopped the root helper. SIGCONT wakes it, so that it can undo its changes.
            self.signal(means.next());
        }
        loop {
            match self.replies.recv_timeout(POLL_INTERVAL) {
                // Frames that are no longer needed would only use memory.
                Ok(Ok((Reply::Frame { .. }, _))) => {}
                Ok(message) => self.early.push_back(message),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    stall_timer
                        .reset_at(*self.heard.lock().unwrap_or_else(PoisonError::into_inner));
                    stall_timer.sample(&[self.pid.unwrap_or(self.child.id())]);
                }
            }
            if most.is_some_and(|most| began.elapsed() >= most) {
                self.run.mark_undoing();
                let name = self.name();
                return format!(
                    "{name} is still working, and undoes its changes as soon as it can"
                );
            }
            if stall_timer.is_expired() {
                stall_timer.reset();
                let Some(means) = means.next() else {
                    self.run.mark_undoing();
                    return format!(
                        "{} does not end; its guardian takes care of the daemon",
                        self.name()
                    );
                };
                self.signal(Some(means));
            }
        }
        let _ = self.child.wait();
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }

    /// Sends a signal to the root helper and to the sudo in front of it. An unprivileged user may only send SIGCONT,
    /// and only to a process in the same session (`man 2 kill`), which the root helper may have left.
    fn signal(&self, signal: Option<Signal>) {
        let Some(signal) = signal else { return };
        for pid in [Some(self.child.id()), self.pid].into_iter().flatten() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // A process that has ended, or that this user may not signal, is left alone.
            let _ = pid.map(|pid| kill_process(pid, signal));
        }
    }
}

/// The thread that collects standard error until it is closed, the replies as they arrive, and the time of the last
/// message.
type Heard = (JoinHandle<String>, Receiver<Result<(Reply, MeteredBytes)>>, Arc<Mutex<Instant>>);

fn hear(
    run: &RunContext,
    child: &mut Child,
    by_sudo: bool,
    memory: &ByteSemaphore,
) -> Result<Heard> {
    let output = child.stdout.take().context("the root helper has no output")?;
    let mut error_output = child.stderr.take().context("the root helper has no error output")?;
    let (send, replies) = bounded(4);
    let heard = Arc::new(Mutex::new(Instant::now()));
    let (run, memory, last_heard) = (run.clone(), memory.clone(), Arc::clone(&heard));
    // The time limit for unread replies applies only to confined users, who always come through sudo.
    let output: Box<dyn Read + Send> = match by_sudo {
        true => Box::new(ReadAhead::start(output)?),
        false => Box::new(output),
    };
    threads::start("to read replies", move || {
        let mut output = BufReader::with_capacity(1 << 16, output);
        while let Some(message) = read_message(&mut output, &memory).transpose() {
            *last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            if let Ok((Reply::Alive { phase, sign, text }, _)) = message {
                run.forward(&phase, sign, text);
                continue;
            }
            if let Ok((Reply::Event(event), _)) = message {
                events::forward(event);
                continue;
            }
            let failed = message.is_err();
            if send.send(message).is_err() || failed {
                return;
            }
        }
    })?;
    let errors = threads::start("to read standard error", move || {
        let mut text = Vec::new();
        let _ = error_output.read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_owned()
    })?;
    Ok((errors, replies, heard))
}

fn failure_or(
    (reply, payload): (Reply, MeteredBytes),
) -> Result<(Reply, MeteredBytes), HelperError> {
    match reply {
        Reply::Failed { phase, causes, advice, fault } => {
            Err(RootFailure { phase, causes, advice, fault }.into())
        }
        reply => Ok((reply, payload)),
    }
}

/// Prints what the root helper, or sudo, wrote to standard error.
fn report_errors(text: &str) {
    text.lines().for_each(|line| note(format!("warning: root helper: {line}")));
}

impl Drop for RootHelperProcess {
    fn drop(&mut self) {
        report_errors(&self.end());
    }
}
