//! The orders of the root helper, and checks of the root helper between them.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, getppid, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use storecache_runtime::RunContext;
use storecache_runtime::liveness::ProcActivity;

/// How often the root helper is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Orders {
    run: RunContext,
    input: BufReader<File>,
    /// The root helper, which started this process.
    root_helper: OwnedFd,
    /// Since when the root helper has been seen to be stopped by a signal.
    stopped: Option<Instant>,
}

impl Orders {
    /// Reads orders for `run` from standard input.
    pub fn begin(run: &RunContext) -> Result<Self> {
        let input =
            stdin().as_fd().try_clone_to_owned().context("open the input from the root helper")?;
        let parent = getppid().context("the root helper has ended")?;
        let root_helper =
            pidfd_open(parent, PidfdFlags::empty()).context("watch the root helper")?;
        if getppid() != Some(parent) {
            bail!("the root helper has ended");
        }
        Ok(Orders {
            run: run.clone(),
            input: BufReader::new(input.into()),
            root_helper,
            stopped: None,
        })
    }

    /// Returns the next order, or `None` if the root helper is dead. A root helper that sends no order before
    /// `deadline` is killed, because it keeps the daemon stopped for longer than it may.
    pub fn hear(&mut self, deadline: Option<Instant>) -> Option<String> {
        while !self.is_there(CHECK_INTERVAL) {
            self.wake();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let _ = pidfd_send_signal(&self.root_helper, Signal::KILL);
            }
        }
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(1..) if line.ends_with('\n') => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Checks that no order is waiting.
    ///
    /// # Errors
    /// If the next order has arrived, or the root helper is dead. Then the current work is canceled.
    pub fn none_waits(&self) -> Result<()> {
        if self.is_there(Duration::ZERO) {
            bail!("canceled by the root helper");
        }
        Ok(())
    }

    /// Returns whether there is input to read, which may be the end of the stream.
    fn is_there(&self, timeout: Duration) -> bool {
        if !self.input.buffer().is_empty() {
            return true;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut [PollFd::new(self.input.get_ref(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => false,
            // Reading returns the error.
            _ => true,
        }
    }

    /// Wakes the root helper if another process has stopped it: it cannot undo its changes, and the user process may
    /// not be allowed to wake it, because it is in another session. By then the user process has aborted the run by a
    /// timeout, so the root helper ends.
    fn wake(&mut self) {
        let Some(root_helper) = getppid() else { return };
        let pid = root_helper.as_raw_nonzero().get().cast_unsigned();
        if !ProcActivity::read(pid).is_some_and(|process| process.stopped) {
            self.stopped = None;
        } else if self.stopped.get_or_insert_with(Instant::now).elapsed()
            >= self.run.stall_timeout() * 2
        {
            let _ = kill_process(root_helper, Signal::CONT);
        }
    }
}
