//! The root helper's standard output: to a confined requester it never waits for longer than the limit, so that
//! a reader who stops reading cannot keep it in a place where it holds locks.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io::{self, ErrorKind, Write, stdout};
use std::os::fd::AsFd;
use std::time::Duration;

pub struct Output {
    file: File,
    /// How long to wait until the reader makes room; `None` is for ever.
    limit: Option<Duration>,
}

impl Output {
    /// Standard output, which is set not to block if there is a limit.
    pub fn new(limit: Option<Duration>) -> Result<Self> {
        let file = stdout().as_fd().try_clone_to_owned().context("write to the user process")?;
        if limit.is_some() {
            let flags = fcntl_getfl(&file).context("set up the output")?;
            fcntl_setfl(&file, flags | OFlags::NONBLOCK).context("set up the output")?;
        }
        Ok(Output { file: file.into(), limit })
    }

    /// Whether something short can be written without waiting (`man 7 pipe`, `PIPE_BUF`).
    pub fn has_room(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
        poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0)
    }

    fn wait_for_room(&self, limit: Duration) -> io::Result<()> {
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let limit_spec = Timespec { tv_sec: seconds, tv_nsec: limit.subsec_nanos().into() };
        loop {
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&limit_spec)) {
                Ok(0) => {
                    let text =
                        format!("the user process has read nothing for {} s", limit.as_secs());
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (self.file.write(bytes), self.limit) {
                (Err(e), Some(limit)) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait_for_room(limit)?;
                }
                (done, _) => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
