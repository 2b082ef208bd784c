//! Starting the root half and talking to it.

use super::pipe::{GaveUp, Pipe, Sending};
use super::protocol::{
    PROTOCOL, Phase, Reply, Request, Restored, StoreRequest, read_message, write_message,
};
use crate::budget::{Allowance, Held, Packing};
use crate::pulse::{self, Cut, LOOK, Vigil};
use crate::report;
use crate::snapshot::StoreFacts;
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// The only search path that the root half gets.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
     /run/wrappers/bin:/run/current-system/sw/bin:\
     /run/current-system/profile/bin:/run/current-system/profile/sbin";
/// Bytes that a pipe between the halves holds: as many as an ordinary user may ask for (`pipe.7`).
const PIPE: usize = 1 << 20;
/// The root half failed and undid what it had begun.
#[derive(Debug, thiserror::Error)]
#[error("{}", .causes.join(": "))]
pub struct RootFailure {
    pub phase: Phase,
    /// Outermost first.
    pub causes: Vec<String>,
}

/// Somebody called the run off.
#[derive(Debug, thiserror::Error)]
#[error("{}", pulse::why_called_off())]
pub struct Cancelled;

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
    /// Starts the root half, through sudo unless this process is root already, and greets it.
    /// When `cancelled` is set, every call fails and the root half aborts.
    ///
    /// # Errors
    /// When sudo is missing or refuses; nothing was done then.
    pub fn start(cancelled: &Arc<AtomicBool>) -> Result<Self> {
        let program = std::env::current_exe().context("find the path of this program")?;
        let is_root = rustix::process::geteuid().is_root();
        let mut command = if is_root {
            Command::new(&program)
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "--"]).arg(&program);
            sudo
        };
        command.arg("privileged").env_clear().env("PATH", ROOT_PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound if !is_root => anyhow!(
                "the store belongs to root, and sudo is not installed; run as root, or install sudo"
            ),
            _ => anyhow!(e).context("start the root half"),
        })?;
        let requests = child.stdin.take().context("the root half has no input")?;
        for pipe in [Some(requests.as_fd()), child.stdout.as_ref().map(AsFd::as_fd)] {
            // Frames pass in few pieces then. Whoever has many pipes already is refused, and does without.
            let _ = pipe.map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
        }
        let output = child.stdout.take().context("the root half has no output")?;
        let mut error_output = child.stderr.take().context("the root half has no error output")?;
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = error_output.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let requests = Some(Pipe::new(requests)?);
        let (send, replies) = bounded(4);
        let heard = Arc::new(Mutex::new(Instant::now()));
        let last_heard = Arc::clone(&heard);
        let memory = Allowance::of(Packing::on(1).in_flight);
        let for_replies = memory.clone();
        std::thread::spawn(move || {
            let mut output = BufReader::with_capacity(1 << 16, output);
            while let Some(message) = read_message(&mut output, &for_replies).transpose() {
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
        });
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
            Err(e) if is_root => Err(e),
            Err(_) => {
                let text = root.end();
                let text = if text.is_empty() { "no reason given".into() } else { text };
                bail!(
                    "the store belongs to root, and sudo refused: {text}; allow this user to run \
                     `{} privileged` without a password, or run as root",
                    program.display()
                )
            }
        }
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
                // It hung up; what it said before that is the cause.
                Ok(error) => Err(self.last_words().unwrap_or_else(|| error.into())),
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
                    let text = self.end();
                    let status = self.child.wait()?;
                    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
                    bail!("the root half ended before it was done ({status}){text}");
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
        let text = self.end();
        if !text.is_empty() {
            report::note(text);
        }
        self.early.drain(..).find_map(|message| match message {
            Ok((Reply::Restored(restored), _)) => Some(Ok(restored)),
            Ok((Reply::Failed { phase, causes }, _)) if phase.is_after_commit() => {
                Some(Err(RootFailure { phase, causes }.into()))
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
                let name = self.name();
                return format!("{name} is alive, and undoes what it began as soon as it can");
            }
            if vigil.is_over() {
                vigil.sign();
                let Some(means) = means.next() else {
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

fn failure_or((reply, payload): (Reply, Held)) -> Result<(Reply, Held)> {
    match reply {
        Reply::Failed { phase, causes } => Err(RootFailure { phase, causes }.into()),
        reply => Ok((reply, payload)),
    }
}

impl Drop for RootHalf {
    fn drop(&mut self) {
        let text = self.end();
        if !text.is_empty() {
            report::note(text);
        }
    }
}
