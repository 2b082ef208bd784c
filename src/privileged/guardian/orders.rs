//! Orders as they come from the root half, and a look at that while none comes.

use crate::pulse::{self, Vitals};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, getppid, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often the root half is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Orders {
    input: BufReader<File>,
    /// The root helper, which has started this process.
    root_helper: OwnedFd,
    /// Since when the root half is seen to be stopped.
    stopped: Option<Instant>,
}

impl Orders {
    /// Those on standard input.
    pub fn begin() -> Result<Self> {
        let input = stdin().as_fd().try_clone_to_owned().context("hear the root half")?;
        let parent = getppid().context("the root helper has ended")?;
        let root_helper =
            pidfd_open(parent, PidfdFlags::empty()).context("watch the root helper")?;
        if getppid() != Some(parent) {
            bail!("the root helper has ended");
        }
        Ok(Orders { input: BufReader::new(input.into()), root_helper, stopped: None })
    }

    /// The next one; nothing once the root half is dead. A root helper that gives none before `deadline` is
    /// killed: it keeps the daemon away for longer than it may.
    pub fn hear(&mut self, deadline: Option<Instant>) -> Option<String> {
        while !self.is_there(LOOK) {
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

    /// # Errors
    /// When the next order is there, or nobody who could give one: then what is being done is called off.
    pub fn none_waits(&self) -> Result<()> {
        if self.is_there(Duration::ZERO) {
            bail!("called off by the root half");
        }
        Ok(())
    }

    /// Whether there is something to be read, if only the end.
    fn is_there(&self, patience: Duration) -> bool {
        if !self.input.buffer().is_empty() {
            return true;
        }
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut [PollFd::new(self.input.get_ref(), PollFlags::IN)], Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => false,
            // Reading tells what is wrong.
            _ => true,
        }
    }

    /// Wakes the root half if somebody has stopped it: it cannot undo what it began, and its other half may
    /// not be allowed to, as it is of another session. That one has cut it by then, so it ends.
    fn wake(&mut self) {
        let Some(root_half) = getppid() else { return };
        let pid = root_half.as_raw_nonzero().get().cast_unsigned();
        if !Vitals::of(pid).is_some_and(|vitals| vitals.stopped) {
            self.stopped = None;
        } else if self.stopped.get_or_insert_with(Instant::now).elapsed() >= pulse::clock() * 2 {
            let _ = kill_process(root_half, Signal::CONT);
        }
    }
}
