//! The root helper's end of the conversation, and its cancellation.

use super::capabilities::Stage;
use super::events::EventSender;
use super::output::Output;
use super::protocol::{Phase, Reply, Request, read_within, write_message};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use storecache_runtime::memory::{ByteSemaphore, MeteredBytes, Unpacking};
use storecache_runtime::{RunContext, threads};
use tracing::info;

/// How often signals are checked while the user process sends nothing.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// The cancellation flags of a run.
#[derive(Clone, Default)]
pub struct Cancel {
    hung_up: Arc<AtomicBool>,
    signalled: Arc<AtomicBool>,
}

impl Cancel {
    /// # Errors
    /// If the run was canceled: the reason.
    pub fn check(&self) -> Result<()> {
        if self.signalled.load(Ordering::Relaxed) {
            bail!("canceled by a signal");
        }
        if self.hung_up.load(Ordering::Relaxed) {
            bail!("canceled: the user process closed the connection");
        }
        Ok(())
    }
}

/// Passes a message on after validating its content.
pub fn checked(
    message: Result<Option<(Request, MeteredBytes)>>,
) -> Result<Option<(Request, MeteredBytes)>> {
    if let Ok(Some((request, payload))) = &message {
        request.check(payload)?;
    }
    message
}

/// The connection of the root helper: requests in, replies out.
pub struct Conversation {
    /// The run that the user process asked for.
    pub run: RunContext,
    requests: Receiver<Result<(Request, MeteredBytes)>>,
    /// The memory for payloads of requests.
    memory: ByteSemaphore,
    pub cancel: Cancel,
    output: Arc<Mutex<Output>>,
    events: Option<EventSender>,
    /// When input was last received.
    heard: Arc<Mutex<Instant>>,
    /// How long a confined requester may hold locks without sending anything.
    limit: Option<Duration>,
    /// Whether locks are held, so that the limit applies.
    holds_locks: Cell<bool>,
    /// The phase that an error is reported with.
    phase: Cell<Phase>,
    /// Warnings that a restore reports with its plan.
    pub warnings: Vec<String>,
}

impl Conversation {
    /// Starts to read requests, whose parts have at most `largest` bytes, and to catch signals. `limit` is how long
    /// the user process may send nothing while locks are held, and how long it may leave replies unread.
    pub fn start(
        run: RunContext,
        input: impl Read + Send + 'static,
        largest: u32,
        limit: Option<Duration>,
        warnings: impl IntoIterator<Item = String>,
        events: Option<EventSender>,
    ) -> Result<Self> {
        let cancel = Cancel::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancel.signalled))
                .context("catch signals")?;
        }
        let memory = ByteSemaphore::new(Unpacking::on(1).compressed);
        let for_requests = memory.clone();
        let (send, requests) = bounded(2);
        let hung_up = Arc::clone(&cancel.hung_up);
        let heard = Arc::new(Mutex::new(Instant::now()));
        let mut input = Heard { input, at: Arc::clone(&heard) };
        threads::start("to read requests", move || {
            // Drop all capabilities before parsing input, so that exploiting the parser gains nothing.
            if let Err(e) = Stage::Listening.enter() {
                let _ = send.send(Err(e));
                return;
            }
            loop {
                let message = checked(read_within(largest, &mut input, &for_requests)).transpose();
                let ended = !matches!(message, Some(Ok(_)));
                if ended {
                    hung_up.store(true, Ordering::Relaxed);
                }
                let taken = message.is_some_and(|message| send.send(message).is_ok());
                if ended || !taken {
                    return;
                }
            }
        })?;
        let output = Arc::new(Mutex::new(Output::new(limit)?));
        if let Some(events) = &events {
            events.connect(&output);
        }
        let (phase, holds_locks) = (Cell::new(Phase::Plan), Cell::new(false));
        let warnings = warnings.into_iter().collect();
        Ok(Conversation {
            run,
            requests,
            memory,
            cancel,
            output,
            events,
            heard,
            limit,
            holds_locks,
            phase,
            warnings,
        })
    }

    /// From now on locks are held, and the user process may be silent for no longer than the limit.
    pub fn holds_locks(&self) {
        self.holds_locks.set(true);
    }

    /// From now on no locks are held.
    pub fn holds_no_locks(&self) {
        self.holds_locks.set(false);
    }

    /// # Errors
    /// If locks are held and the user process has sent nothing, since `asked`, for longer than the limit.
    fn check_silence(&self, asked: Instant) -> Result<()> {
        let Some(limit) = self.limit.filter(|_| self.holds_locks.get()) else { return Ok(()) };
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.max(asked).elapsed() >= limit {
            bail!(
                "the user process has not sent anything for {} s while the store was locked",
                limit.as_secs()
            );
        }
        Ok(())
    }

    /// Returns the next request.
    ///
    /// # Errors
    /// If the run was canceled.
    pub fn receive(&self) -> Result<(Request, MeteredBytes)> {
        match self.receive_or_end()? {
            Some(message) => Ok(message),
            None => {
                self.cancel.check()?;
                Err(anyhow!("the user process closed the connection"))
            }
        }
    }

    /// Returns the next request, or `None` if the conversation ended in a place where it may.
    pub fn receive_or_end(&self) -> Result<Option<(Request, MeteredBytes)>> {
        let asked = Instant::now();
        loop {
            match self.requests.recv_timeout(LOOK_FOR_SIGNALS) {
                Ok(message) => return message.map(Some),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.cancel.signalled.load(Ordering::Relaxed) => {
                    self.cancel.check()?;
                }
                Err(RecvTimeoutError::Timeout) => self.check_silence(asked)?,
            }
        }
    }

    /// Sets how many bytes of frames may be received ahead of their processing.
    pub fn holds(&self, bytes: u64) {
        self.memory.becomes(bytes);
    }

    pub fn reply(&self, reply: &Reply) -> Result<()> {
        self.reply_with(reply, &[])
    }

    pub fn reply_with(&self, reply: &Reply, payload: &[u8]) -> Result<()> {
        self.events.iter().for_each(EventSender::send);
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *output, reply, payload).context("reply to the user process")
    }

    /// From now on reports activity to the user process, on the thread that is active: a thread that makes no
    /// progress reports nothing. A report is skipped while a reply is being written, because the reply itself shows
    /// activity, and if the user process does not read.
    pub fn tell_signs(&self) {
        let output = Arc::clone(&self.output);
        self.run.set_listener(move |phase, sign, text| {
            let Ok(mut output) = output.try_lock() else { return };
            if !output.has_room() {
                return;
            }
            let alive = Reply::Alive { phase: phase.to_owned(), sign, text: text.to_owned() };
            // If the user process has hung up, the thread that waits for requests notices it.
            let _ = write_message(&mut *output, &alive, &[]);
        });
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        info!(phase = phase.name(), "begin a phase");
        self.run.begin_phase(phase.name());
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Returns the connection for the report of a failure, which comes last.
    pub fn output(&self) -> Arc<Mutex<Output>> {
        Arc::clone(&self.output)
    }
}

/// An input that records when bytes were last received.
struct Heard<R> {
    input: R,
    at: Arc<Mutex<Instant>>,
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(read)
    }
}
