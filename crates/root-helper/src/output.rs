//! The standard output of the root helper. To a confined requester, a write waits no longer than the limit, so that a
//! user process that stops reading cannot keep the root helper waiting while it holds locks.

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::unistd::{dup2_stderr, dup2_stdout};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::pipe::PIPE_BUF;
use std::fs::File;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub struct Output {
    file: File,
    /// How long to wait until the reader makes room; `None` is without limit.
    limit: Option<Duration>,
}

impl Output {
    /// Opens standard output. If there is a limit, no write to it or to standard error blocks from now on.
    ///
    /// # Errors
    /// If there is a limit, and standard output is a file to which a write could block all the same.
    pub fn new(limit: Option<Duration>) -> Result<Self> {
        if limit.is_some() {
            // Standard error may be discarded, because errors are reported as replies.
            let errors = without_blocking(stderr().as_fd()).or_else(|_| null_device())?;
            dup2_stderr(errors).context("set up standard error")?;
            let replies = without_blocking(stdout().as_fd()).context("set up standard output")?;
            dup2_stdout(replies).context("set up standard output")?;
        }
        let file = stdout().as_fd().try_clone_to_owned().context("duplicate standard output")?;
        Ok(Output::to(file.into(), limit))
    }

    /// Writes to a file. If there is a limit, a write to the file must not block.
    pub(super) fn to(file: File, limit: Option<Duration>) -> Self {
        Output { file, limit }
    }

    /// Writes a message if that is possible without waiting, which is never the case for one that is too long.
    /// Returns whether it was written.
    pub fn write_if_room(&mut self, message: &[u8]) -> bool {
        if message.len() > PIPE_BUF || !self.has_room() {
            return false;
        }
        match self.file.write(message) {
            // A pipe takes all or nothing; a terminal or a file may take less, and needs the rest.
            Ok(written) => self.write_all(&message[written..]).is_ok(),
            Err(_) => false,
        }
    }

    /// Returns whether a short message can be written without waiting (`man 7 pipe`, `PIPE_BUF`).
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
                        format!("the user process has not read anything for {} s", limit.as_secs());
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Returns the file behind a standard descriptor in a form in which a write to it does not block. The requester
/// shares the original open file description and could clear `O_NONBLOCK` on it (`man 2 fcntl`), so this opens a new
/// one.
///
/// # Errors
/// If that is not possible: a socket cannot be opened again, and a write to a FUSE file waits for a server that the
/// requester may control.
fn without_blocking(descriptor: BorrowedFd) -> Result<OwnedFd> {
    let found = fstat(descriptor)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo | FileType::CharacterDevice => {
            let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(open(path, flags, Mode::empty())?)
        }
        FileType::RegularFile if fstatfs(descriptor)?.filesystem_type() != FUSE_SUPER_MAGIC => {
            Ok(descriptor.try_clone_to_owned()?)
        }
        _ => bail!("not a pipe, a terminal or a regular file"),
    }
}

fn null_device() -> Result<OwnedFd> {
    open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (self.file.write(bytes), self.limit) {
                (Err(e), Some(limit)) if e.kind() == ErrorKind::WouldBlock => {
                    // If the user process does not read, it is not waited for again.
                    self.wait_for_room(limit).inspect_err(|_| self.limit = Some(Duration::ZERO))?;
                }
                (done, _) => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
