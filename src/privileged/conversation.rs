//! The root half's end of the conversation, and how it is called off.

use super::capabilities::Stage;
use super::output::Output;
use super::protocol::{Phase, Reply, Request, read_within, write_message};
use crate::budget::{Allowance, Held, Unpacking};
use crate::pulse;
use crate::threads;
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How soon a signal is noticed while the other half is silent.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// Set once somebody calls the run off.
#[derive(Clone, Default)]
pub struct Cancel {
    hung_up: Arc<AtomicBool>,
    signalled: Arc<AtomicBool>,
}

impl Cancel {
    /// # Errors
    /// When the run was called off: the reason.
    pub fn check(&self) -> Result<()> {
        if self.signalled.load(Ordering::Relaxed) {
            bail!("cancelled by a signal");
        }
        if self.hung_up.load(Ordering::Relaxed) {
            bail!("cancelled: the other half closed the connection");
        }
        Ok(())
    }
}

/// A message whose content is as it must be.
pub fn checked(message: Result<Option<(Request, Held)>>) -> Result<Option<(Request, Held)>> {
    if let Ok(Some((request, payload))) = &message {
        request.check(payload)?;
    }
    message
}

/// Requests in, replies out.
pub struct Conversation {
    requests: Receiver<Result<(Request, Held)>>,
    /// For what comes with requests.
    memory: Allowance,
    pub cancel: Cancel,
    output: Arc<Mutex<Output>>,
    /// When anything came last.
    heard: Arc<Mutex<Instant>>,
    /// For how long a confined requester may keep locks without a sign.
    limit: Option<Duration>,
    /// Whether locks are held, so that the limit counts.
    holds_locks: Cell<bool>,
    /// The phase that an error would be reported in.
    phase: Cell<Phase>,
    /// What a restore reports with its plan.
    pub warnings: Vec<String>,
}

impl Conversation {
    /// Goes on reading requests, whose parts have at most `largest` bytes, and catches signals. `limit` is how long
    /// the other side may be silent, and not read, while locks are held.
    pub fn start(
        input: impl Read + Send + 'static,
        largest: u32,
        limit: Option<Duration>,
        warnings: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let cancel = Cancel::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancel.signalled))
                .context("catch signals")?;
        }
        let memory = Allowance::of(Unpacking::on(1).compressed);
        let for_requests = memory.clone();
        let (send, requests) = bounded(2);
        let hung_up = Arc::clone(&cancel.hung_up);
        let heard = Arc::new(Mutex::new(Instant::now()));
        let mut input = Heard { input, at: Arc::clone(&heard) };
        threads::start("to hear requests", move || {
            // Whoever finds a way in through here is in nothing.
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
        let (phase, holds_locks) = (Cell::new(Phase::Plan), Cell::new(false));
        let warnings = warnings.into_iter().collect();
        Ok(Conversation {
            requests,
            memory,
            cancel,
            output,
            heard,
            limit,
            holds_locks,
            phase,
            warnings,
        })
    }

    /// From now on locks are held, and the other side may be silent for no longer than the limit.
    pub fn holds_locks(&self) {
        self.holds_locks.set(true);
    }

    /// All locks are free again.
    pub fn holds_no_locks(&self) {
        self.holds_locks.set(false);
    }

    /// # Errors
    /// When the other side keeps locks, and has sent nothing since `asked` for longer than it may.
    fn check_silence(&self, asked: Instant) -> Result<()> {
        let Some(limit) = self.limit.filter(|_| self.holds_locks.get()) else { return Ok(()) };
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.max(asked).elapsed() >= limit {
            bail!(
                "the user process has sent nothing for {} s, while locks of the store were held for it",
                limit.as_secs()
            );
        }
        Ok(())
    }

    /// The next request.
    ///
    /// # Errors
    /// When the run was called off.
    pub fn receive(&self) -> Result<(Request, Held)> {
        match self.receive_or_end()? {
            Some(message) => Ok(message),
            None => {
                self.cancel.check()?;
                Err(anyhow!("the other half went away"))
            }
        }
    }

    /// The next request, where the conversation may end too.
    pub fn receive_or_end(&self) -> Result<Option<(Request, Held)>> {
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

    /// From now on so many bytes of frames are received ahead of what is done with them.
    pub fn holds(&self, bytes: u64) {
        self.memory.becomes(bytes);
    }

    pub fn reply(&self, reply: &Reply) -> Result<()> {
        self.reply_with(reply, &[])
    }

    pub fn reply_with(&self, reply: &Reply, payload: &[u8]) -> Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *output, reply, payload).context("reply to the other half")
    }

    /// From now on the other half hears of every sign of life, on the thread that gives it: what does not
    /// move is silent. While a reply is being written, that is the sign; and where the other half does not read,
    /// a sign is not worth waiting for.
    pub fn tell_signs(&self) {
        let output = Arc::clone(&self.output);
        pulse::listen(move |phase, sign, text| {
            let Ok(mut output) = output.try_lock() else { return };
            if !output.has_room() {
                return;
            }
            let alive = Reply::Alive { phase: phase.to_owned(), sign, text: text.to_owned() };
            // Whoever has hung up is noticed by those who wait for requests.
            let _ = write_message(&mut *output, &alive, &[]);
        });
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        pulse::enter(phase.name());
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }
}

/// An input that notes when anything came.
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
