//! Unpacking: frames to files below open directories, in parallel, without trusting the snapshot.
//!
//! Each worker processes a whole frame: it checks its digest, decodes it and creates its files. Frames may
//! arrive in any order. [`ArchiveCheck`] has accepted every member, and no member leaves the directory of its
//! target (see [`super::confined_fs`]). Hard links inside an item and the attributes of directories are made last.
//! Links lead only to files that this extraction has written.

use super::after_extraction::{Deferred, finish_directories};
use super::archive_check::{ArchiveCheck, Piece};
use super::confined_fs::{
    CreatedAs, Name, create, finish_file, identity, make_symlink, parent_of, reopen,
};
use super::error_class::blamed;
use super::extraction_targets::{Target, Targets, Wanted};
use super::index::escape_path;
use super::relink::{Relinker, Twin};
use super::tar_header::{Attributes, Member, MemberKind};
use super::{Index, read_frame};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use storecache_runtime::memory::{ByteSemaphore, FRAME, Unpacking};
use storecache_runtime::{RunContext, threads};

/// Amount of data that was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpacked {
    pub items: u64,
    /// Bytes of file content. A file with several links counts once.
    pub bytes: u64,
}

/// A pool of threads that writes the wanted items, from frames in any order.
pub struct Unpacker {
    shared: Arc<Shared>,
    frames: Option<Sender<Submitted>>,
    workers: Vec<JoinHandle<()>>,
}

/// The number of a frame, and its compressed bytes.
type Submitted = (u32, Box<dyn AsRef<[u8]> + Send>);

struct Shared {
    run: RunContext,
    index: Arc<Index>,
    check: ArchiveCheck<Arc<Index>>,
    targets: Targets,
    /// Owner and group of all members. With `None`, members keep their own attributes.
    owner: Option<(u32, u32)>,
    /// Memory for decoded frames that are larger than usual.
    large: ByteSemaphore,
    deferred: Mutex<Deferred>,
    failure: Mutex<Option<anyhow::Error>>,
    failed: AtomicBool,
    bytes: AtomicU64,
    items_done: AtomicU64,
}

impl Unpacker {
    /// Starts the workers. `wanted` maps positions in `index.items` to targets. With an `owner`, members get
    /// canonical attributes and that user and group. Without, they get the attributes that the snapshot
    /// recorded. Each frame is reported to `run` as progress.
    pub fn new(
        run: &RunContext,
        index: &Arc<Index>,
        wanted: impl IntoIterator<Item = (usize, Target)>,
        owner: Option<(u32, u32)>,
        memory: &Unpacking,
    ) -> Result<Self> {
        let targets = Targets::new(index, wanted)?;
        let shared = Arc::new(Shared {
            run: run.clone(),
            index: Arc::clone(index),
            check: ArchiveCheck::new(Arc::clone(index), targets.positions()),
            targets,
            owner,
            large: ByteSemaphore::new(memory.large),
            deferred: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            items_done: AtomicU64::new(0),
        });
        let wanted = memory.threads.max(1);
        // The caller limits the memory of submitted frames.
        let (frames, queue) = bounded::<Submitted>(wanted + 1);
        let workers = threads::some(wanted, || {
            let (shared, queue) = (Arc::clone(&shared), queue.clone());
            threads::start("to unpack", move || shared.work(&queue))
        })?;
        Ok(Unpacker { shared, frames: Some(frames), workers })
    }

    /// Submits a frame. Waits while all workers are busy. The bytes are dropped when the frame is unpacked.
    ///
    /// # Errors
    /// The first error of any worker.
    pub fn submit(&self, number: u32, compressed: impl AsRef<[u8]> + Send + 'static) -> Result<()> {
        let compressed = Box::new(compressed);
        let sent = self.frames.as_ref().map(|frames| frames.send((number, compressed)));
        match sent {
            Some(Ok(())) if !self.shared.failed.load(Ordering::Relaxed) => Ok(()),
            _ => Err(self.shared.take_failure()),
        }
    }

    /// Returns how much is written so far.
    pub fn progress(&self) -> Unpacked {
        Unpacked {
            items: self.shared.items_done.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// Waits for the workers, then makes hard links and finishes directories.
    ///
    /// # Errors
    /// If any frame failed, or if an item is not complete.
    pub fn finish(mut self) -> Result<Unpacked> {
        drop(self.frames.take());
        let threads = self.workers.len();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                bail!("an unpacking thread panicked");
            }
        }
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(self.shared.take_failure());
        }
        self.shared.complete(threads)
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // The owner of an unfinished unpacker removes the directory next. No worker may still be writing into
        // it then.
        self.shared.failed.store(true, Ordering::Relaxed);
        drop(self.frames.take());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// State that a worker keeps from frame to frame.
struct Worker {
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
    /// The directory of the last file. Neighbors in a frame mostly share it.
    last_parent: Option<Parent>,
}

/// A directory in which files are created.
struct Parent {
    key: Vec<u8>,
    directory: Arc<OwnedFd>,
    /// Attributes of the last file in it at its creation.
    born: Option<CreatedAs>,
}

/// The item that a member belongs to.
struct Home<'a> {
    wanted: &'a Wanted,
    /// Whether the item has copies of other items' files in this frame.
    shares: bool,
}

impl Shared {
    fn work(&self, queue: &Receiver<Submitted>) {
        let mut worker = match zstd::bulk::Decompressor::new() {
            Ok(decompressor) => Worker { decompressor, raw: Vec::new(), last_parent: None },
            Err(e) => return self.fail(anyhow!(e).context("start a zstd decoder")),
        };
        for (number, compressed) in queue {
            // After a failure the queue is drained, so that `submit` does not wait for a free slot.
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(e) = self.frame(&mut worker, number, (*compressed).as_ref()) {
                self.fail(e);
            }
        }
    }

    fn frame(&self, worker: &mut Worker, number: u32, compressed: &[u8]) -> Result<()> {
        let entry =
            self.index.frames.get(number as usize).context("the index has no such frame")?;
        let _claim = (entry.raw > FRAME).then(|| self.large.take(entry.raw));
        let mut raw = std::mem::take(&mut worker.raw);
        read_frame(&mut worker.decompressor, number, entry, compressed, &mut raw)?;
        let mut pieces = self.check.frame(number, &raw)?;
        let mut twins = Relinker::default();
        while let Some(piece) = pieces.next_piece()? {
            match piece {
                Piece::Database(_) => {}
                Piece::Part { item, path, offset, content } => {
                    if let Some(home) = self.home_of(number, item) {
                        self.long_part(worker, &home, &path, offset, content)
                            .map_err(blamed)
                            .with_context(|| escape_path(&path))?;
                    }
                }
                Piece::Member { item, member, content, completes } => {
                    let Some(home) = self.home_of(number, item) else { continue };
                    if completes {
                        self.items_done.fetch_add(1, Ordering::Relaxed);
                    }
                    self.member(worker, &mut twins, &home, &member, content)
                        .map_err(blamed)
                        .with_context(|| escape_path(&member.path))?;
                }
            }
        }
        let all = self.index.frames.len();
        self.run.report_progress(format!("frame {number} of {all} unpacked"));
        raw.clear();
        raw.shrink_to(FRAME as usize);
        worker.raw = raw;
        Ok(())
    }

    /// Returns `None` for an item that is not wanted.
    fn home_of(&self, frame: u32, item: usize) -> Option<Home<'_>> {
        let shares = self.index.items.get(item)?.shares(frame);
        Some(Home { wanted: self.targets.get(item)?, shares })
    }

    fn member<'r>(
        &self,
        worker: &mut Worker,
        twins: &mut Relinker<'r>,
        home: &Home<'_>,
        member: &Member,
        content: &'r [u8],
    ) -> Result<()> {
        let attributes = self.attributes(member);
        let Home { wanted, shares } = *home;
        let path = wanted.path(&member.path);
        match &member.kind {
            MemberKind::Directory => {
                let parent = &worker.parent(wanted, &path)?.directory;
                wanted.make_directory(parent, &path, attributes)?;
            }
            MemberKind::Symlink(target) => {
                let parent = worker.parent(wanted, &path)?.directory.as_fd();
                make_symlink(parent, Name::parse(&path), target, attributes)?;
            }
            MemberKind::HardLink(target) => {
                self.deferred().link(&member.path, target);
            }
            MemberKind::File(size) if content.len() as u64 == *size => {
                let Parent { directory, born, .. } = worker.parent(wanted, &path)?;
                let parent = Arc::clone(directory);
                let twin = Twin { content, mode: attributes.mode, parent, path };
                // In plain directories, which keep attributes, equal files may have different ones.
                if shares && self.owner.is_some() && twins.link(&twin) {
                    return Ok(());
                }
                let file = create(twin.parent.as_fd(), Name::parse(&twin.path), attributes.mode)?;
                file.write_all_at(content, 0)?;
                self.bytes.fetch_add(*size, Ordering::Relaxed);
                finish_file(&file, attributes, born)?;
                twins.wrote(twin);
            }
            MemberKind::File(size) => {
                self.deferred().long_file(&member.path).header = Some((*size, attributes));
                self.long_part(worker, home, &member.path, 0, content)?;
            }
        }
        Ok(())
    }

    /// Writes one frame's part of a file in several frames.
    fn long_part(
        &self,
        worker: &mut Worker,
        home: &Home<'_>,
        archive_path: &[u8],
        offset: u64,
        part: &[u8],
    ) -> Result<()> {
        let path = home.wanted.path(archive_path);
        let parent = worker.parent(home.wanted, &path)?.directory.as_fd();
        let file = {
            let mut deferred = self.deferred();
            let long = deferred.long_file(archive_path);
            long.parts.push((offset, part.len() as u64));
            match long.made {
                Some(made) => reopen(parent, Name::parse(&path), made)?,
                None => {
                    let file = create(parent, Name::parse(&path), 0o600)?;
                    long.made = Some(identity(&file)?);
                    file
                }
            }
        };
        file.write_all_at(part, offset)?;
        self.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn complete(&self, threads: usize) -> Result<Unpacked> {
        self.check.finish()?;
        std::mem::take(&mut *self.deferred()).finish(&self.targets).map_err(blamed)?;
        finish_directories(&self.targets, threads).map_err(blamed)?;
        let bytes = self.bytes.load(Ordering::Relaxed);
        Ok(Unpacked { items: self.targets.len() as u64, bytes })
    }

    fn attributes(&self, member: &Member) -> Attributes {
        match self.owner {
            None => member.attributes,
            Some((uid, gid)) => {
                let executable = member.attributes.mode & 0o100 != 0;
                Attributes { uid, gid, ..Attributes::canonical(&member.kind, executable) }
            }
        }
    }

    fn deferred(&self) -> MutexGuard<'_, Deferred> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: anyhow::Error) {
        self.failed.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take_failure(&self) -> anyhow::Error {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().unwrap_or_else(|| anyhow!("unpacking was stopped"))
    }
}

impl Worker {
    /// Opens the directory that `path` lies in.
    fn parent(&mut self, wanted: &Wanted, path: &[u8]) -> Result<&mut Parent> {
        let target = wanted.target.directory.as_raw_fd();
        let key = [&target.to_ne_bytes(), parent_of(path)].concat();
        let known = self.last_parent.take().filter(|known| known.key == key);
        let parent = match known {
            Some(known) => known,
            None => {
                let directory = Arc::new(wanted.open_parent(path)?);
                Parent { key, directory, born: None }
            }
        };
        Ok(self.last_parent.insert(parent))
    }
}
