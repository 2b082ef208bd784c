//! Packing: trees on disk to frames, in parallel, in a fixed order and in bounded memory.
//!
//! One thread walks the trees and plans frames, each worker reads and compresses whole frames, and the caller's
//! thread receives them in order. A frame in flight has a claim on a limited amount of memory, so if the caller
//! is slow, all threads slow down instead of filling the memory.

use super::access_times::unnoticed;
use super::compress::Compressor;
use super::frames::{Job, Piece, Planner, Sizes};
use super::hardlink_groups::{Shares, shared_files};
use super::tar_header::{Attributes, Member, MemberKind};
use super::walk::{CONFINED, Fidelity, WalkedMember, walk};
use super::{Continuation, DatabaseEntry, Digest, ItemEntry};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{Mode, OFlags, openat2};
use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use storecache_runtime::memory::{ByteSemaphore, FRAME, LONG_FRAME, Packing, Permit};
use storecache_runtime::{RunContext, threads};

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
    /// When the item was last used, in seconds since 1970.
    pub used: Option<u64>,
}

pub struct PackOptions {
    /// Compression level of zstd.
    pub level: i32,
    /// Use large frames over several items, with a search at long distance. Readers do not depend on it.
    pub long: bool,
    /// Whether members get a store's canonical attributes or keep their own.
    pub canonical: bool,
    /// Tar bytes of a frame that several small items, or several shared contents, are combined in. With 0, each
    /// item has its own frame, and shared contents are combined only up to a small size. Readers do not depend
    /// on it.
    pub together: u64,
    pub memory: Packing,
}

impl PackOptions {
    fn sizes(&self) -> Sizes {
        match self.long {
            true => Sizes::long(self.memory.largest),
            false => Sizes::short(self.together, self.memory.largest),
        }
    }
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

/// Progress of a save once a frame is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub items: u64,
    /// Tar bytes.
    pub raw: u64,
}

/// The result of packing, apart from the frames.
pub struct Packed {
    pub items: Vec<ItemEntry>,
    pub database: Option<DatabaseEntry>,
    /// Names of items that do not exist.
    pub missing: Vec<String>,
    /// Sockets, fifos and devices, which were skipped.
    pub left_out: Vec<String>,
}

/// Packs a database file, given by archive path, directory and name, and then `inputs` in the given order. Each
/// frame goes to `sink`, in order, on the calling thread, and is reported to `run` as progress.
///
/// # Errors
/// The first error of reading, compressing or `sink`. No frame follows after it.
pub fn pack(
    run: &RunContext,
    database: Option<(String, Arc<OwnedFd>, Vec<u8>)>,
    inputs: Vec<PackInput>,
    options: &PackOptions,
    sink: &mut dyn FnMut(Frame) -> Result<()>,
) -> Result<Packed> {
    let threads = options.memory.threads.max(1);
    let memory = ByteSemaphore::new(options.memory.in_flight);
    // The claims on memory limit the number of frames in flight, not these capacities.
    let (jobs_in, jobs) = bounded::<Planned>(4 * threads);
    let (frames_in, frames) = bounded::<Result<Made>>(threads);

    thread::scope(|scope| {
        let planning = (memory.clone(), jobs_in);
        let planner = threads::start_in(scope, "to plan frames", move || {
            plan(database, inputs, options, &planning.0, &planning.1)
        })?;
        let workers = threads::some(threads, || {
            let (jobs, frames) = (jobs.clone(), frames_in.clone());
            threads::start_in(scope, "to pack", move || work(options, &jobs, &frames))
        });
        // Only the workers hold these now, so that each side notices when the other has ended.
        drop((jobs, frames_in));

        let written = workers.and_then(|_| deliver(run, &frames, sink));
        drop(frames);
        memory.close();
        let planned = planner.join().map_err(|_| anyhow!("the planning thread panicked"))?;
        // If a later stage fails, it closes the channels, and the planner's own error is only a consequence.
        written?;
        planned
    })
}

/// A frame to be made.
struct Planned {
    job: Job,
    claim: Permit,
}

/// A finished frame, which may have to wait for earlier ones.
struct Made {
    number: u32,
    frame: Frame,
    /// Held until the frame is written.
    claim: Permit,
}

/// Passes the frames, which arrive in any order, to `sink` in the order of their numbers.
fn deliver(
    run: &RunContext,
    frames: &Receiver<Result<Made>>,
    sink: &mut dyn FnMut(Frame) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut raw = 0;
    for made in frames {
        let made = made?;
        early.insert(made.number, made);
        while let Some(Made { mut frame, claim, .. }) = early.remove(&next) {
            raw += frame.raw;
            run.report_progress(format!("{next} frames packed, {raw} bytes"));
            frame.progress.raw = raw;
            sink(frame)?;
            drop(claim);
            next += 1;
        }
    }
    Ok(())
}

fn plan(
    database: Option<(String, Arc<OwnedFd>, Vec<u8>)>,
    inputs: Vec<PackInput>,
    options: &PackOptions,
    memory: &ByteSemaphore,
    jobs: &Sender<Planned>,
) -> Result<Packed> {
    let fidelity = if options.canonical { Fidelity::Canonical } else { Fidelity::AsFound };
    let mut packed =
        Packed { items: Vec::new(), database: None, missing: Vec::new(), left_out: Vec::new() };
    let usual = if options.long { LONG_FRAME } else { FRAME };
    let mut planner = Planner::new(options.sizes(), |job: Job| {
        // A worker keeps its read buffer for the next frame, unless the frame is larger than usual. So only a
        // larger frame claims memory for this buffer too.
        let bytes = if job.raw > usual { 2 * job.raw } else { job.raw };
        let claim = memory.take(bytes).ok_or(Stopped)?;
        jobs.send(Planned { job, claim }).map_err(|_| Stopped)
    });
    let stopped = |Stopped| anyhow!("packing was stopped");

    if let Some((archive_path, base, file_name)) = database {
        let size = File::from(open_below(&base, &file_name)?).metadata()?.len();
        let member = Member {
            path: archive_path.clone().into_bytes(),
            kind: MemberKind::File(size),
            // The daemon writes to its database, so this file keeps a write bit.
            attributes: Attributes { mode: 0o644, uid: 0, gid: 0, mtime: (1, 0) },
        };
        let frames =
            planner.file(&base, WalkedMember { member, path: file_name }).map_err(stopped)?;
        packed.database = Some(DatabaseEntry { path: archive_path, frames, size });
    }
    let mut shares = Shares::default();
    if fidelity == Fidelity::Canonical {
        for file in shared_files(&inputs, options.memory.threads.max(1))? {
            let content = file.content(&inputs);
            if content.fits(options.memory.largest) {
                let frames = planner.content(content).map_err(stopped)?;
                shares.book(file, &frames);
            }
        }
    }
    for (position, input) in inputs.into_iter().enumerate() {
        let share = shares.take(position);
        planner.begin_item();
        let mut each = |found| planner.member_of_item(&input.base, found).map_err(stopped);
        let (name, path) = (&input.file_name, &input.archive_path);
        let walked = walk(&input.base, name, path, fidelity, &share.files, &mut each)?;
        let Some(walked) = walked else {
            packed.missing.push(input.name);
            continue;
        };
        let own = walked.members;
        let files = own + share.files.len() as u64;
        packed.left_out.extend(walked.left_out);
        if files == 0 {
            continue;
        }
        let fingerprint = (fidelity == Fidelity::AsFound).then_some(walked.fingerprint);
        let mut frames = planner.end_item(&input.base).map_err(stopped)?;
        if own == 0 {
            // The item is a single file that other items share.
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

/// Error: frames are no longer received.
struct Stopped;

fn work(options: &PackOptions, jobs: &Receiver<Planned>, frames: &Sender<Result<Made>>) {
    let usual = if options.long { LONG_FRAME } else { FRAME };
    let mut buffer = Vec::new();
    let mut compressor = Compressor::new(options.level, options.long);
    for Planned { job, mut claim } in jobs {
        let number = job.number;
        let made = match &mut compressor {
            Ok(compressor) => make(compressor, &mut buffer, job),
            Err(e) => Err(anyhow!("{e:#}")),
        };
        // Release the memory of a large frame now instead of at the end.
        buffer.clear();
        buffer.shrink_to(usual as usize + 1);
        let failed = made.is_err();
        let made = made.map(|frame| {
            claim.shrink_to(frame.bytes.len() as u64);
            Made { number, frame, claim }
        });
        if frames.send(made).is_err() || failed {
            return;
        }
    }
}

fn make(compressor: &mut Compressor, buffer: &mut Vec<u8>, job: Job) -> Result<Frame> {
    // Reserves the exact size, because a growing buffer would double. The extra byte is explained below.
    buffer.reserve_exact(job.raw as usize + 1);
    let mut last = None;
    for piece in job.pieces {
        match piece {
            Piece::Bytes(bytes) => buffer.extend_from_slice(&bytes),
            Piece::File { base, path, offset, length, whole, padding } => {
                let start = buffer.len();
                let end = start + length as usize;
                // One more byte, to detect a file that has grown.
                buffer.resize(end + padding.max(1), 0);
                let file = read_part(&base, &path, offset, whole, &mut buffer[start..=end])
                    .with_context(|| shown(&path))?;
                buffer.truncate(end + padding);
                let content = start..end;
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
    let bytes = compressor.frame(buffer, job.repeats)?;
    Ok(Frame {
        sha256: Digest::hash(&bytes),
        bytes,
        raw: job.raw,
        continues: job.continues,
        progress: Progress { items: job.items_done, raw: 0 },
    })
}

/// The last file that was read. While it is open, its inode number cannot be reused.
struct Last {
    base: Arc<OwnedFd>,
    file: File,
    /// Position in the buffer.
    content: Range<usize>,
    padded: Range<usize>,
}

impl Last {
    /// Checks that `path` is this file, or an equal one.
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

/// Fills `into` except for its last byte, which is there to detect a file that has grown, and stays zero.
/// Returns the file, still open.
fn read_part(
    base: &OwnedFd,
    path: &[u8],
    offset: u64,
    whole: u64,
    into: &mut [u8],
) -> Result<File> {
    let file = File::from(open_below(base, path)?);
    let part = into.len() - 1;
    let is_last = offset + part as u64 == whole;
    let into = if is_last { into } else { &mut into[..part] };
    let mut read = 0;
    loop {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        }
        // A short read of a regular file means its end, so no further call is needed to detect that.
        if read == part {
            break;
        }
    }
    match read.cmp(&part) {
        Less => bail!("it became shorter while it was read"),
        Greater => bail!("it became longer while it was read"),
        Equal => Ok(file),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_file_size_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("file"), b"0123456789").unwrap();
        let base = OwnedFd::from(File::open(place.path()).unwrap());
        let read = |offset: u64, length: usize, whole| {
            let mut into = vec![0; length + 1];
            let told = read_part(&base, b"file", offset, whole, &mut into);
            told.map(|_| into).map_err(|e| e.to_string())
        };
        assert_eq!(read(0, 10, 10).unwrap(), b"0123456789\0");
        assert_eq!(read(6, 4, 10).unwrap(), b"6789\0");
        assert_eq!(read(0, 4, 10).unwrap(), b"0123\0", "others read the rest");
        assert!(read(6, 5, 11).unwrap_err().contains("shorter"));
        assert!(read(6, 3, 9).unwrap_err().contains("longer"));
    }
}
