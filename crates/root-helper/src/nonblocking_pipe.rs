//! The pipe to the root helper. Writes to it never block.

use super::helper_error::HelperError;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::{self, ErrorKind, Write};
use std::process::ChildStdin;

use storecache_runtime::liveness::POLL_INTERVAL;

/// The standard input of another process. Nothing else writes to it.
pub struct Pipe(ChildStdin);

impl Pipe {
    pub fn new(input: ChildStdin) -> Result<Self> {
        let flags = fcntl_getfl(&input).context("read the flags of the pipe to the root helper")?;
        fcntl_setfl(&input, flags | OFlags::NONBLOCK)
            .context("set the flags of the pipe to the root helper")?;
        Ok(Pipe(input))
    }
}

/// Why writing to the pipe stopped.
pub enum SendStop {
    /// The wait for room in the pipe was given up.
    GaveUp(HelperError),
    /// The root helper closed its end.
    HungUp,
}

/// A writer to a pipe that calls `wait` repeatedly while the pipe has no room.
pub struct Sending<'a> {
    pub pipe: &'a mut Pipe,
    /// An error of it ends the wait.
    pub wait: &'a mut dyn FnMut() -> Result<(), HelperError>,
    /// Set when a write fails.
    pub stop: Option<SendStop>,
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let interval = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.subsec_nanos().into() };
        loop {
            match self.pipe.0.write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other.inspect_err(|_| self.stop = Some(SendStop::HungUp)),
            }
            if let Err(error) = (self.wait)() {
                self.stop = Some(SendStop::GaveUp(error));
                return Err(io::Error::other("gave up waiting for the root helper"));
            }
            poll(&mut [PollFd::new(&self.pipe.0, PollFlags::OUT)], Some(&interval))?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
