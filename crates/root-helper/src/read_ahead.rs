//! Slowly reads the root helper's output ahead while the user process is busy.
//!
//! The root helper ends a save of a confined user who reads nothing for a minute, because it holds `gc.lock`
//! meanwhile. An upload over a slow link, or a retried upload, may keep the user process from reading replies for
//! longer. So a thread reads a small piece from the pipe from time to time.

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::process::ChildStdout;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storecache_runtime::threads;

/// How often a piece is read ahead. The root helper waits four times as long.
const INTERVAL: Duration = Duration::from_secs(15);
/// Bytes that are read ahead at a time: as many as make room in a pipe (`man 7 pipe`).
const PIECE: usize = 4 << 10;
/// The most bytes that are read ahead: enough for an hour.
const MOST: usize = 1 << 20;

/// The output of a child process.
pub struct ReadAhead {
    shared: Arc<Mutex<Shared>>,
    /// Ends the thread when it is dropped.
    _ends: Sender<()>,
}

struct Shared {
    output: ChildStdout,
    /// Bytes that were read ahead and not taken yet.
    ahead: Vec<u8>,
}

impl ReadAhead {
    /// Starts the thread that reads ahead.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(output: ChildStdout) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { output, ahead: Vec::new() }));
        let (ends, ended) = channel::<()>();
        let weak = Arc::downgrade(&shared);
        threads::start("to read ahead", move || {
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let Some(shared) = weak.upgrade() else { return };
                // A reader that waits for output holds the lock, and then nothing needs to be read ahead.
                if let Ok(mut shared) = shared.try_lock() {
                    shared.read_ahead();
                }
            }
        })?;
        Ok(ReadAhead { shared, _ends: ends })
    }
}

impl Shared {
    /// Reads a piece if there is output. The end of the stream, and errors, are left to the reader.
    fn read_ahead(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.output, PollFlags::IN)];
        if self.ahead.len() + PIECE > MOST || !poll(&mut ready, Some(&now)).is_ok_and(|n| n > 0) {
            return;
        }
        let mut piece = [0; PIECE];
        if let Ok(read) = self.output.read(&mut piece) {
            self.ahead.extend_from_slice(&piece[..read]);
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.ahead.is_empty() {
            return shared.output.read(buffer);
        }
        let taken = buffer.len().min(shared.ahead.len());
        buffer[..taken].copy_from_slice(&shared.ahead[..taken]);
        shared.ahead.drain(..taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn read_ahead_returns_all_bytes_in_order() {
        let mut child = Command::new("seq").arg("20000").stdout(Stdio::piped()).spawn().unwrap();
        let mut output = ReadAhead::start(child.stdout.take().unwrap()).unwrap();
        let mut all = vec![0; 100];
        output.read_exact(&mut all).unwrap();
        {
            let mut shared = output.shared.lock().unwrap();
            (0..3).for_each(|_| shared.read_ahead());
            assert!(!shared.ahead.is_empty());
        }
        output.read_to_end(&mut all).unwrap();
        child.wait().unwrap();
        let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
        assert!(all == expected.as_bytes());
    }
}
