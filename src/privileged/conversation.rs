//! The root half's end of the conversation, and how it is called off.

use super::capabilities::Stage;
use super::protocol::{Phase, Reply, Request, read_message, write_message};
use crate::budget::{Allowance, Held, Unpacking};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::cell::Cell;
use std::io::{Read, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    /// The phase that an error would be reported in.
    phase: Cell<Phase>,
}

impl Conversation {
    /// Goes on reading requests, and catches signals.
    pub fn start(mut input: impl Read + Send + 'static) -> Result<Self> {
        let cancel = Cancel::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancel.signalled))
                .context("catch signals")?;
        }
        let memory = Allowance::of(Unpacking::on(1).compressed);
        let for_requests = memory.clone();
        let (send, requests) = bounded(2);
        let hung_up = Arc::clone(&cancel.hung_up);
        std::thread::spawn(move || {
            // Whoever finds a way in through here is in nothing.
            if let Err(e) = Stage::Listening.enter() {
                let _ = send.send(Err(e));
                return;
            }
            loop {
                let message = checked(read_message(&mut input, &for_requests)).transpose();
                let ended = !matches!(message, Some(Ok(_)));
                if ended {
                    hung_up.store(true, Ordering::Relaxed);
                }
                let heard = message.is_some_and(|message| send.send(message).is_ok());
                if ended || !heard {
                    return;
                }
            }
        });
        Ok(Conversation { requests, memory, cancel, phase: Cell::new(Phase::Plan) })
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
        loop {
            match self.requests.recv_timeout(LOOK_FOR_SIGNALS) {
                Ok(message) => return message.map(Some),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.cancel.signalled.load(Ordering::Relaxed) => {
                    self.cancel.check()?;
                }
                Err(RecvTimeoutError::Timeout) => {}
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
        write_message(&mut stdout().lock(), reply, payload).context("reply to the other half")
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }
}
