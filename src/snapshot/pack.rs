//! Packing: trees on disk to frames, in parallel, in a fixed order and in bounded memory.
//!
//! One thread walks and plans, each worker reads and compresses whole frames, and the caller's
//! thread gets them in order. A frame in flight holds a token; there are few tokens, so a slow
//! reader of frames slows everything down instead of filling memory.

use super::access_times::unnoticed;
use super::frames::{FRAME, Job, Piece, Planner};
use super::member::{Attributes, Kind, Member};
use super::sharing::{Shares, shared_files};
use super::walk::{CONFINED, Fidelity, Found, walk};
use super::{Continuation, DatabaseEntry, Digest, ItemEntry};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{Mode, OFlags, openat2};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use zstd::zstd_safe::CParameter;

/// The compressor looks this far back, 64 MiB, where content repeats: over the largest frame. Every
/// zstd decodes it without being asked to (`zstd.1`: from 27 on there may be limits).
const WINDOW_LOG: u32 = 26;

/// One item to pack.
pub struct PackInput {
    pub name: String,
    pub archive_path: String,
    /// Directory that holds the item.
    pub base: Arc<OwnedFd>,
    /// The item's name in that directory.
    pub file_name: Vec<u8>,
    pub nar_size: Option<u64>,
    pub nar_hash: Option<String>,
    /// When it was used last, in seconds since 1970.
    pub used: Option<u64>,
}

pub struct PackOptions {
    /// Compression level of zstd.
    pub level: i32,
    pub threads: usize,
    /// Whether members get a store's canonical attributes or keep their own.
    pub canonical: bool,
    /// Tar bytes of a frame that small items share; with 0 each has its own. No reader depends on it.
    pub together: u64,
}

/// A compressed frame.
#[derive(Clone)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub raw: u64,
    pub sha256: Digest,
    pub continues: Option<Continuation>,
    pub progress: Progress,
}

/// How much is done once a frame is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub items: u64,
    /// Tar bytes.
    pub raw: u64,
}

/// What was packed, apart from the frames.
pub struct Packed {
    pub items: Vec<ItemEntry>,
    pub database: Option<DatabaseEntry>,
    /// Names of items that were not there.
    pub missing: Vec<String>,
    /// Sockets, fifos and devices that were passed over.
    pub left_out: Vec<String>,
}

/// Packs a database file, given by archive path, directory and name, and then `inputs` in the
/// order given. Each frame goes to `sink`, in order, on the calling thread.
///
/// # Errors
/// The first error of reading, compressing or of `sink`; then no more frames follow.
pub fn pack(
    database: Option<(String, Arc<OwnedFd>, Vec<u8>)>,
    inputs: Vec<PackInput>,
    options: &PackOptions,
    sink: &mut dyn FnMut(Frame) -> Result<()>,
) -> Result<Packed> {
    let threads = options.threads.max(1);
    let window = threads * 2 + 2;
    let (tokens, spent) = bounded::<()>(window);
    let (jobs_in, jobs) = bounded::<Job>(window);
    let (frames_in, frames) = bounded::<Result<(u32, Frame)>>(window);

    thread::scope(|scope| {
        let planner = scope.spawn(move || plan(database, inputs, options, &tokens, jobs_in));
        for _ in 0..threads {
            let (jobs, frames) = (jobs.clone(), frames_in.clone());
            let level = options.level;
            scope.spawn(move || work(level, &jobs, &frames));
        }
        // Only the workers hold these now, so that each side notices when the other has gone.
        drop((jobs, frames_in));

        let written = deliver(&frames, &spent, sink);
        drop((frames, spent));
        let planned = planner.join().map_err(|_| anyhow!("the planning thread panicked"))?;
        // A failure downstream closes the channels; the planner's own error only follows from it.
        written?;
        planned
    })
}

/// Frames arrive in any order and leave in theirs.
fn deliver(
    frames: &Receiver<Result<(u32, Frame)>>,
    spent: &Receiver<()>,
    sink: &mut dyn FnMut(Frame) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut raw = 0;
    for frame in frames {
        let (number, frame) = frame?;
        early.insert(number, frame);
        while let Some(mut frame) = early.remove(&next) {
            raw += frame.raw;
            frame.progress.raw = raw;
            sink(frame)?;
            next += 1;
            let _ = spent.try_recv();
        }
    }
    Ok(())
}

fn plan(
    database: Option<(String, Arc<OwnedFd>, Vec<u8>)>,
    inputs: Vec<PackInput>,
    options: &PackOptions,
    tokens: &Sender<()>,
    jobs: Sender<Job>,
) -> Result<Packed> {
    let fidelity = if options.canonical { Fidelity::Canonical } else { Fidelity::AsFound };
    let mut packed =
        Packed { items: Vec::new(), database: None, missing: Vec::new(), left_out: Vec::new() };
    let mut planner = Planner::new(options.together, |job| {
        tokens.send(()).and_then(|()| jobs.send(job).map_err(|_| crossbeam_channel::SendError(())))
    });
    let stopped = |_| anyhow!("packing was stopped");

    if let Some((archive_path, base, file_name)) = database {
        let size = File::from(open_below(&base, &file_name)?).metadata()?.len();
        let member = Member {
            path: archive_path.clone().into_bytes(),
            kind: Kind::File(size),
            // The daemon writes to its database, so this one keeps a write bit.
            attributes: Attributes { mode: 0o644, uid: 0, gid: 0, mtime: (1, 0) },
        };
        let frames = planner.file(&base, Found { member, path: file_name }).map_err(stopped)?;
        packed.database = Some(DatabaseEntry { path: archive_path, frames, size });
    }
    let mut shares = Shares::default();
    if fidelity == Fidelity::Canonical {
        for file in shared_files(&inputs, options.threads.max(1))? {
            let content = file.content(&inputs);
            if content.fits() {
                let frames = planner.content(content).map_err(stopped)?;
                shares.book(file, &frames);
            }
        }
    }
    for (position, input) in inputs.into_iter().enumerate() {
        let share = shares.take(position);
        let walked =
            walk(&input.base, &input.file_name, &input.archive_path, fidelity, &share.files)?;
        let Some(walked) = walked else {
            packed.missing.push(input.name);
            continue;
        };
        let own = walked.members.len() as u64;
        let files = own + share.files.len() as u64;
        packed.left_out.extend(walked.left_out);
        if files == 0 {
            continue;
        }
        let fingerprint = (fidelity == Fidelity::AsFound).then_some(walked.fingerprint);
        let mut frames = planner.item(&input.base, walked.members).map_err(stopped)?;
        if own == 0 {
            // A file that is an item, as other items are.
            frames = (share.frames[0], share.frames[0]);
        }
        packed.items.push(ItemEntry {
            name: input.name,
            frames,
            shared: share.frames,
            files,
            disk: walked.disk + share.disk,
            nar_size: input.nar_size,
            nar_hash: input.nar_hash,
            used: input.used,
            fingerprint,
        });
    }
    planner.finish().map_err(stopped)?;
    Ok(packed)
}

fn work(level: i32, jobs: &Receiver<Job>, frames: &Sender<Result<(u32, Frame)>>) {
    let mut buffer = Vec::new();
    let mut compressor = zstd::bulk::Compressor::new(level);
    for job in jobs {
        let number = job.number;
        let frame = compressor
            .as_mut()
            .map_err(|e| anyhow!("zstd level {level}: {e}"))
            .and_then(|compressor| compress(compressor, &mut buffer, job));
        let failed = frame.is_err();
        if frames.send(frame.map(|frame| (number, frame))).is_err() || failed {
            return;
        }
    }
}

fn compress(
    compressor: &mut zstd::bulk::Compressor<'_>,
    buffer: &mut Vec<u8>,
    job: Job,
) -> Result<Frame> {
    buffer.clear();
    let mut last = None;
    for piece in job.pieces {
        match piece {
            Piece::Bytes(bytes) => buffer.extend_from_slice(&bytes),
            Piece::File { base, path, offset, length, whole, padding } => {
                let start = buffer.len();
                buffer.resize(start + length as usize, 0);
                let file = read_part(&base, &path, offset, whole, &mut buffer[start..])
                    .with_context(|| shown(&path))?;
                let content = start..buffer.len();
                buffer.resize(buffer.len() + padding, 0);
                last = Some(Last { base, file, content, padded: start..buffer.len() });
            }
            Piece::Again(path) => {
                let last = last.as_ref().context("no file to repeat")?;
                last.check(&path, buffer).with_context(|| shown(&path))?;
                buffer.extend_from_within(last.padded.clone());
            }
            Piece::Alias(path) => {
                let last = last.as_ref().context("no file to repeat")?;
                last.check(&path, buffer).with_context(|| shown(&path))?;
            }
        }
    }
    // Only where it pays: a search that far back takes memory, and time.
    let window = if job.repeats { WINDOW_LOG } else { 0 };
    compressor.set_parameter(CParameter::EnableLongDistanceMatching(job.repeats))?;
    compressor.set_parameter(CParameter::WindowLog(window))?;
    let bytes = compressor.compress(buffer).context("compress a frame")?;
    // One large frame shall not cost its memory until the end.
    buffer.shrink_to(FRAME as usize);
    Ok(Frame {
        sha256: Digest::of(&bytes),
        bytes,
        raw: job.raw,
        continues: job.continues,
        progress: Progress { items: job.items_done, raw: 0 },
    })
}

/// The file that was read last. As long as it is open, no other file gets its inode.
struct Last {
    base: Arc<OwnedFd>,
    file: File,
    /// Where in the buffer it is.
    content: Range<usize>,
    padded: Range<usize>,
}

impl Last {
    /// Checks that `path` is this file, or one that is equal to it.
    fn check(&self, path: &[u8], buffer: &[u8]) -> Result<()> {
        let mut other = File::from(open_below(&self.base, path)?);
        let (mine, its) = (self.file.metadata()?, other.metadata()?);
        if (mine.dev(), mine.ino()) == (its.dev(), its.ino()) {
            return Ok(());
        }
        let executable = |metadata: &Metadata| metadata.mode() & 0o100 != 0;
        if its.is_file() && its.len() == mine.len() && executable(&its) == executable(&mine) {
            let mut content = Vec::with_capacity(self.content.len());
            other.read_to_end(&mut content)?;
            if content == buffer[self.content.clone()] {
                return Ok(());
            }
        }
        bail!("it changed while it was packed; save again")
    }
}

/// Gives back the file, still open.
fn read_part(
    base: &OwnedFd,
    path: &[u8],
    offset: u64,
    whole: u64,
    into: &mut [u8],
) -> Result<File> {
    let file = File::from(open_below(base, path)?);
    file.read_exact_at(into, offset).context("it became shorter while it was read")?;
    if offset + into.len() as u64 == whole && file.metadata()?.len() != whole {
        bail!("its size changed while it was read");
    }
    Ok(file)
}

fn open_below(base: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let name = Path::new(std::ffi::OsStr::from_bytes(path));
    let open = |flags| openat2(base, name, flags, Mode::empty(), CONFINED);
    unnoticed(flags, open).with_context(|| shown(path))
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
