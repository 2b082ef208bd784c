//! The store that a conversation is about.

use super::connection::Conversation;
use super::protocol::{FrameId, Reply, Request, StoreRequest};
use super::snapshot_files::Unpackers;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, open, statvfs, syncfs};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_daemon as daemon;
use storecache_daemon::{Daemon, DaemonLookup, DetectedDaemon, VerifiedListener};
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::memory::MeteredBytes;
use storecache_runtime::writeback::Writeback;
use storecache_snapshot::Unpacked;
use storecache_store::{Layout, Lock, LockKind, LockMode, Owner, in_root, lock, make_lock_file};
use tracing::trace;

/// How often progress is reported. It is not reported with each frame: the user process may read slowly while it
/// sends frames, and with a full reply pipe each process would wait for the other.
const TELL_PROGRESS: Duration = Duration::from_millis(100);
/// Sockets of the system's own shepherd.
const SHEPHERD_SOCKETS: [&str; 2] = ["/run/shepherd/socket", "/var/run/shepherd/socket"];

/// A store with a database, and everything that is needed to work on it.
pub struct StoreTarget {
    /// The run that works on the store.
    pub run: RunContext,
    pub layout: Layout,
    pub lock_timeout: Duration,
    pub daemon_timeout: Duration,
    pub request: StoreRequest,
}

impl StoreTarget {
    /// Finds the store of a request, for `run`.
    ///
    /// # Errors
    /// If the store is not found.
    pub fn new(run: &RunContext, request: &StoreRequest) -> Result<Self> {
        if !is_directory(&request.root)? {
            bail!("there is no directory {}", request.root.display());
        }
        let layout = Layout::new(request.kind, &request.root)?.resolved()?;
        if !is_directory(&layout.state())? {
            bail!(
                anyhow!(
                    "no {} store found: there is no {}",
                    request.kind,
                    layout.state().display()
                )
                .hint(format!(
                    "install {} first, or name the file-system root of the store with --root DIR",
                    request.kind.package_manager()
                ))
            );
        }
        Ok(StoreTarget {
            run: run.clone(),
            layout,
            lock_timeout: request.lock_timeout,
            daemon_timeout: request.daemon_timeout,
            request: request.clone(),
        })
    }

    /// Returns the names that systemd may know the daemon by; sockets first.
    pub fn units(&self) -> &'static [&'static str] {
        self.layout.kind.units()
    }

    /// Returns the daemon that is in charge now.
    pub fn daemon(&self) -> Result<DetectedDaemon> {
        daemon::find(&self.request.daemon, &self.whereabouts()?)
    }

    /// Returns the stopped service of a shepherd that can be started.
    pub fn service_to_start(&self) -> Result<Option<Daemon>> {
        daemon::service_to_start(&self.whereabouts()?)
    }

    /// Returns the process that listens, verified to be a daemon that may be stopped and started again.
    ///
    /// # Errors
    /// If it cannot be verified.
    pub fn verified_listener(&self) -> Result<VerifiedListener> {
        let owner = Owner::find(&self.layout)?.uid;
        VerifiedListener::verify(&self.run, &self.layout.socket(), owner, self.daemon_timeout)
    }

    fn whereabouts(&self) -> Result<DaemonLookup<'_>> {
        let StoreRequest { root, shepherds, mandate, .. } = &self.request;
        let name = self.layout.kind.daemon();
        let systems =
            SHEPHERD_SOCKETS.iter().filter_map(|path| in_root(root, Path::new(path)).ok());
        // The requester's own shepherds belong to this machine, not to a system below another root.
        let mut systems = systems.collect::<Vec<PathBuf>>();
        systems.dedup();
        let own = shepherds.iter().filter(|own| root == Path::new("/") && !systems.contains(own));
        let own: Vec<PathBuf> = own.cloned().collect();
        let named = mandate.confined().map_or(0, |_| own.len());
        let shepherds = [own, systems].concat();
        Ok(DaemonLookup {
            root,
            socket: self.layout.socket(),
            socket_inside: self.layout.socket_inside(),
            units: self.units(),
            name,
            shepherds,
            named,
            requester: mandate.requester,
            owner: Owner::find(&self.layout)?.uid,
            timeout: self.daemon_timeout,
            run: &self.run,
        })
    }

    /// Takes the shared lock that keeps collectors from running.
    pub fn gc_lock(&self, cancelled: &dyn Fn() -> Result<()>) -> Result<Lock> {
        let path = self.layout.gc_lock();
        make_lock_file(&path, Owner::find(&self.layout)?, &self.layout.state())?;
        let kind = self.layout.lock_kind;
        lock(&self.run, &path, kind, LockMode::Shared, self.lock_timeout, cancelled)
            .context("lock out garbage collectors")
    }

    /// Takes the lock that keeps other restores from running.
    pub fn run_lock(&self, cancelled: &dyn Fn() -> Result<()>) -> Result<Lock> {
        run_lock(&self.run, &self.layout.state(), self.lock_timeout, cancelled)
    }
}

/// Returns whether a path exists.
///
/// # Errors
/// If that cannot be determined.
pub fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("check whether {} exists", path.display()))
}

/// Returns whether a path is a directory.
///
/// # Errors
/// If that cannot be determined.
fn is_directory(path: &Path) -> Result<bool> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("read the metadata of {}", path.display())),
    }
}

/// Keeps other restores out of a directory, by a lock on the directory itself: no other program locks it, and no file
/// is left behind.
pub fn run_lock(
    run: &RunContext,
    directory: &Path,
    timeout: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<Lock> {
    lock(run, directory, LockKind::Flock, LockMode::Exclusive, timeout, cancelled)
        .context("wait for another restore to end")
}

/// Opens a directory for reading names and for placing entries in it.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Checks that the disk of `place` has enough free space. Two percent and 16 MiB are reserved for the database and
/// for directories larger than a block.
pub fn check_space(place: &Path, bytes: u64, files: u64) -> Result<()> {
    let disk = statvfs(place)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = bytes.saturating_add(bytes / 50).saturating_add(16 << 20);
    if bytes > 0 && needed > free {
        bail!(
            anyhow!(
                "not enough space on the disk of {}: {} MiB are needed, {} MiB are free",
                place.display(),
                needed >> 20,
                free >> 20
            )
            .hint("free some, or restore less")
        );
    }
    if disk.f_files > 0 && files > disk.f_favail {
        bail!(
            anyhow!(
                "not enough inodes on the disk of {}: {files} are needed, {} are free",
                place.display(),
                disk.f_favail
            )
            .hint("free some, or restore less")
        );
    }
    Ok(())
}

/// Starts the thread that flushes staged files to the disk while a restore unpacks, if that is `wanted`. `places` are
/// open directories, at least one on each file system that the restore writes to.
pub fn writeback(run: &RunContext, places: Vec<Arc<OwnedFd>>, wanted: bool) -> Result<Writeback> {
    let order = move || {
        let each = |place| syncfs(place).context("write the staged files to the disk");
        places.iter().try_for_each(each)
    };
    Writeback::start(run, wanted.then_some(order))
}

/// Receives the frames of a plan, in order, followed by the commit request. `next` is the first request.
pub fn receive_frames(
    talk: &Conversation,
    next: (Request, MeteredBytes),
    frames: &[FrameId],
    unpackers: &Unpackers,
    writeback: &mut Writeback,
) -> Result<()> {
    let mut next = Some(next);
    let mut receive = || next.take().map_or_else(|| talk.receive(), Ok);
    let mut told = Instant::now();
    for (at, expected) in frames.iter().enumerate() {
        match receive()? {
            (Request::Frame(sent), bytes) if sent == *expected => {
                trace!(number = sent.number, which = ?sent.which, bytes = bytes.len(), "received a frame");
                unpackers.submit(sent, bytes)?;
                let Unpacked { items, bytes } = unpackers.progress();
                let (at, of) = (at + 1, frames.len());
                talk.run.report_progress(format!(
                    "{at} of {of} frames, {items} items and {bytes} bytes unpacked"
                ));
                writeback.written(bytes);
                if told.elapsed() >= TELL_PROGRESS {
                    talk.reply(&Reply::Progress { items, bytes })?;
                    told = Instant::now();
                }
            }
            _ => bail!("protocol error: expected frame {}", expected.number),
        }
    }
    match receive()? {
        (Request::Commit, _) => Ok(()),
        _ => bail!("protocol error: expected `Commit` after the last frame"),
    }
}
