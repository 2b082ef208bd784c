//! Limits on what a message may request. The sender may be any program, not only our user process.

use super::protocol::{Request, RestoreRequest, SaveRequest, StoreRequest};
use anyhow::{Result, bail};
use std::path::{Component, Path};
use std::time::Duration;
use storecache_daemon::DaemonChoice;

/// Longer than any path that the kernel accepts.
const PATH_LIMIT: usize = 4096;
const PATHS_LIMIT: usize = 4096;
const SHEPHERDS_LIMIT: usize = 16;
const COMMAND_LIMIT: usize = 64 << 10;
const THREADS_LIMIT: usize = 1024;
const LEVELS: std::ops::RangeInclusive<i32> = 1..=22;
/// Checking for activity takes time, so a shorter timeout would abort working processes.
const STALL_LEAST: Duration = Duration::from_secs(1);
const PATIENCE_LIMIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// More memory than any machine has; sums of a few such values do not overflow.
const MEMORY_LIMIT: u64 = 1 << 50;

impl Request {
    /// Returns the name of the message, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Hello { .. } => "Hello",
            Request::Store(_) => "Store",
            Request::Save(_) => "Save",
            Request::Pack { .. } => "Pack",
            Request::Restore(_) => "Restore",
            Request::Base(_) => "Base",
            Request::Frame(_) => "Frame",
            Request::Commit => "Commit",
            Request::Check(_) => "Check",
            Request::Valid => "Valid",
            Request::Examine => "Examine",
        }
    }

    /// Refuses messages that our user process never sends.
    pub fn check(&self, payload: &[u8]) -> Result<()> {
        let carries = matches!(self, Request::Restore(_) | Request::Base(_) | Request::Frame(_));
        if !carries && !payload.is_empty() {
            bail!("the message {} must not have a payload", self.name());
        }
        match self {
            Request::Store(request) => request.check(),
            Request::Save(request) => request.check(),
            Request::Restore(request) => request.check(),
            _ => Ok(()),
        }
    }
}

impl StoreRequest {
    fn check(&self) -> Result<()> {
        limit("directories", self.paths.len(), PATHS_LIMIT)?;
        limit("sockets of shepherds", self.shepherds.len(), SHEPHERDS_LIMIT)?;
        // These paths come from the user: they must be absolute and must not contain dots.
        self.paths.iter().chain([&self.root]).try_for_each(|path| leads_down(path))?;
        self.shepherds.iter().try_for_each(|path| short(path))?;
        if !self.kind.has_database() && self.paths.is_empty() {
            bail!("a plain store needs --path DIR");
        }
        for timeout in [self.lock_timeout, self.daemon_timeout, self.stall] {
            if timeout > PATIENCE_LIMIT {
                bail!("a timeout of {} s is longer than a year", timeout.as_secs());
            }
        }
        if self.stall < STALL_LEAST {
            bail!("--stall-timeout must be at least 1 s");
        }
        match &self.daemon {
            DaemonChoice::Command { stop, start } => {
                limit("bytes of a command", stop.len().max(start.len()), COMMAND_LIMIT)
            }
            DaemonChoice::Auto
            | DaemonChoice::Systemd
            | DaemonChoice::Shepherd
            | DaemonChoice::Process
            | DaemonChoice::None => Ok(()),
        }
    }
}

impl SaveRequest {
    fn check(&self) -> Result<()> {
        if !LEVELS.contains(&self.level) {
            bail!("not a valid compression level: {}", self.level);
        }
        threads(self.memory.threads)?;
        memory(self.memory.in_flight)?;
        memory(self.memory.largest)
    }
}

impl RestoreRequest {
    fn check(&self) -> Result<()> {
        threads(self.memory.threads)?;
        memory(self.memory.compressed)?;
        memory(self.memory.large)
    }
}

fn threads(count: usize) -> Result<()> {
    if count == 0 {
        bail!("the number of threads must be at least 1");
    }
    limit("threads", count, THREADS_LIMIT)
}

fn memory(bytes: u64) -> Result<()> {
    if bytes > MEMORY_LIMIT {
        bail!("{bytes} bytes of memory exceed the limit of {MEMORY_LIMIT}");
    }
    Ok(())
}

fn limit(what: &str, count: usize, most: usize) -> Result<()> {
    if count > most {
        bail!("{count} {what} exceed the limit of {most}");
    }
    Ok(())
}

fn leads_down(path: &Path) -> Result<()> {
    short(path)?;
    let mut components = path.components();
    let absolute = components.next() == Some(Component::RootDir);
    if !absolute || !components.all(|c| matches!(c, Component::Normal(_))) {
        bail!("the path {} is not absolute or contains `..`", path.display());
    }
    Ok(())
}

fn short(path: &Path) -> Result<()> {
    limit("bytes of a path", path.as_os_str().len(), PATH_LIMIT)
}
