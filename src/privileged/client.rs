//! Starting the root half and talking to it.

use super::fault::Fault;
use super::protocol::{PROTOCOL, Phase, Reply, Request, StoreRequest, read_message, write_message};
use super::surroundings::ROOT_PATH;
use crate::budget::{Allowance, Held, Packing};
use crate::report;
use crate::snapshot::StoreFacts;
use crate::store::{Layout, StoreKind};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that a pipe between the halves holds: as many as an ordinary user may ask for (`pipe.7`).
const PIPE: usize = 1 << 20;
/// How soon a signal is noticed while the root half is silent.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// The root half failed and undid what it had begun.
#[derive(Debug, thiserror::Error)]
#[error("{}", .causes.join(": "))]
pub struct RootFailure {
    pub phase: Phase,
    /// Outermost first.
    pub causes: Vec<String>,
    pub fault: Fault,
}

/// Somebody called the run off.
#[derive(Debug, thiserror::Error)]
#[error("cancelled by a signal")]
pub struct Cancelled;

/// Whether the root half is to use root's rights in a place that the user names, as far as they may.
fn wants_all_of_root(store: &StoreRequest) -> bool {
    let not_ours = |socket: &PathBuf| match socket.metadata() {
        Ok(found) => found.uid() != rustix::process::getuid().as_raw(),
        Err(e) => e.kind() == ErrorKind::PermissionDenied,
    };
    // What is theirs, the root half leaves to their rights.
    let ours = |layout: Layout| {
        let found = layout.database_dir().metadata().or_else(|_| layout.state().metadata());
        found.is_ok_and(|found| found.uid() == rustix::process::getuid().as_raw())
    };
    store.kind == StoreKind::Plain
        || store.root != Path::new("/")
        || Layout::of(store.kind, &store.root).is_ok_and(ours)
        || store.shepherds.iter().any(not_ours)
}

/// The root half, running. Dropped, it is told to abort and waited for.
pub struct RootHalf {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<Result<(Reply, Held)>>,
    /// For what comes with replies.
    memory: Allowance,
    errors: Option<JoinHandle<String>>,
    cancelled: Arc<AtomicBool>,
}

impl RootHalf {
    /// Starts the root half for a store, through sudo unless this process is root already, and greets
    /// it. When `cancelled` is set, every call fails and the root half aborts.
    ///
    /// # Errors
    /// When sudo is missing or refuses; nothing was done then.
    pub fn start(cancelled: &Arc<AtomicBool>, store: &StoreRequest) -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root && wants_all_of_root(store) {
            // Who may run more than the bare root half may become root anyway. To others it does with
            // their own rights what it can.
            let started = Self::start_with(cancelled, false, &["privileged", "--everywhere"]);
            if let Ok(root) = started {
                return Ok(root);
            }
        }
        Self::start_with(cancelled, is_root, &["privileged"])
    }

    fn start_with(cancelled: &Arc<AtomicBool>, is_root: bool, words: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("find the path of this program")?;
        let mut command = if is_root {
            Command::new(&program)
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "--"]).arg(&program);
            sudo
        };
        command.args(words).env_clear().env("PATH", ROOT_PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound if !is_root => anyhow!(
                "the store belongs to root, and sudo is not installed; run as root, or install sudo"
            ),
            _ => anyhow!(e).context("start the root half"),
        })?;
        let requests = child.stdin.take();
        for pipe in [requests.as_ref().map(AsFd::as_fd), child.stdout.as_ref().map(AsFd::as_fd)] {
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
        let (send, replies) = bounded(4);
        let memory = Allowance::of(Packing::on(1).in_flight);
        let for_replies = memory.clone();
        std::thread::spawn(move || {
            let mut output = BufReader::with_capacity(1 << 16, output);
            while let Some(message) = read_message(&mut output, &for_replies).transpose() {
                let failed = message.is_err();
                if send.send(message).is_err() || failed {
                    return;
                }
            }
        });
        let cancelled = Arc::clone(cancelled);
        let mut root =
            RootHalf { child, requests, replies, memory, errors: Some(errors), cancelled };
        let greeted = root.send(&Request::Hello { protocol: PROTOCOL }, &[]);
        match greeted.and_then(|()| root.receive()) {
            Ok((Reply::Hello { protocol: PROTOCOL }, _)) => Ok(root),
            Ok(_) => bail!("the root half is another version of storecache"),
            Err(e) if is_root || e.is::<RootFailure>() => Err(e),
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
        let requests = self.requests.as_mut().context("the root half was told to end")?;
        match write_message(requests, request, payload) {
            Err(error) if error.is::<std::io::Error>() => {
                // It hung up; what it said before that is the cause.
                self.requests = None;
                Err(self.last_words().unwrap_or(error))
            }
            other => other,
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
        loop {
            self.check()?;
            match self.replies.recv_timeout(LOOK_FOR_SIGNALS) {
                Ok(message) => return failure_or(message?),
                Err(RecvTimeoutError::Timeout) => {}
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
        match self.replies.try_recv() {
            Ok(message) => Ok(Some(failure_or(message?)?.0)),
            Err(_) => Ok(None),
        }
    }

    fn last_words(&self) -> Option<anyhow::Error> {
        self.replies.iter().find_map(|message| match message {
            Ok(message) => failure_or(message).err(),
            Err(e) => Some(e),
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
        while self.replies.recv().is_ok() {}
        let _ = self.child.wait();
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }
}

fn failure_or((reply, payload): (Reply, Held)) -> Result<(Reply, Held)> {
    match reply {
        Reply::Failed { phase, causes, fault } => Err(RootFailure { phase, causes, fault }.into()),
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
