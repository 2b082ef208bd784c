//! Downloads of an entry for a restore, which are fetched ahead in parallel ranges.

use super::ReadAt;
use super::http_client::RetryingClient;
use anyhow::Result;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::iter::once;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use storecache_runtime::memory::{ByteSemaphore, Permit};
use tokio::task::JoinHandle;
use tracing::{debug, trace};

/// Parallel ranges of a read that was not announced. Such reads are for indexes, which go into one buffer.
const DIRECT: usize = 4;

/// Bytes to fetch from the end of an entry when any part of them is read: the index is there.
const TAIL: u64 = 256 << 10;

/// Size of the first announced ranges, in bytes. All ranges on their way share the link, and unpacking cannot begin
/// before the first range is complete. Two ranges have this size, the next two have twice the size, and so on up to
/// the maximum.
const FIRST: u64 = 1 << 20;

/// Maximum number of ranges on their way, as long as there is memory for them.
const PARALLEL: usize = 32;

/// The largest gap between two wanted ranges that is fetched along with them. A request that is one of eight costs an
/// eighth of the 30 ms that a blob server takes to answer a request; at 1 Gbit/s that is 0.5 MB.
const GAP: u64 = 512 << 10;

/// The bytes of such gaps may add this fraction of the wanted bytes, shortest gaps first: 1/10. Bytes are counted and
/// paid for, and on a slower link they cost more time.
const WASTE: u64 = 10;

/// One entry on a remote server.
pub trait Source: Send + Sync + 'static {
    fn wire(&self) -> &RetryingClient;

    /// The bytes that all readers of a backend may fetch ahead together.
    fn ahead(&self) -> &ByteSemaphore;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Downloads all bytes of a range.
    fn range(&self, range: Range<u64>) -> impl Future<Output = Result<Vec<u8>, Lost>> + Send;

    /// Downloads the whole entry, as one stream, into an unnamed file.
    fn spool(&self) -> impl Future<Output = Result<Spooled>> + Send;
}

/// An entry that was downloaded as one stream.
pub struct Spooled {
    pub file: File,
    /// In bytes.
    pub size: u64,
    /// Whether the server marked the end of the entry. Otherwise the connection ended there.
    pub stated: bool,
}

/// Why a range could not be downloaded.
pub enum Lost {
    NoRanges,
    Failed(anyhow::Error),
}

pub struct Reader<S> {
    source: Arc<S>,
    size: u64,
    /// Maximum size of one request, in bytes.
    range: u64,
    /// Parts that stay in memory: the head, and the tail after it was read.
    kept: Vec<(u64, Vec<u8>)>,
    /// Ranges that were not requested yet, in the order of reading.
    planned: VecDeque<Range<u64>>,
    coming: VecDeque<Coming>,
    /// The whole entry, if the server does not support ranges.
    whole: Option<File>,
    /// Whether the size is certain; see [`ReadAt::size_is_stated`].
    stated: bool,
}

/// A requested range.
struct Coming {
    range: Range<u64>,
    bytes: State,
    _claim: Option<Permit>,
}

enum State {
    Asked(Task),
    Here(Vec<u8>),
}

/// A download that is aborted when this value is dropped.
struct Task(JoinHandle<Result<Vec<u8>, Lost>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S: Source> Reader<S> {
    /// Creates a reader of ranges. `head` is the beginning of the entry, which was already downloaded.
    pub fn ranges(source: S, head: Vec<u8>, range: u64) -> Self {
        let size = source.size();
        let kept = vec![(0, head)];
        let (planned, coming) = Default::default();
        let source = Arc::new(source);
        Reader { source, size, range, kept, planned, coming, whole: None, stated: true }
    }

    pub fn whole(source: S, all: Spooled, range: u64) -> Self {
        let Spooled { file, size, stated } = all;
        let (kept, planned, coming) = Default::default();
        let source = Arc::new(source);
        Reader { source, size, range, kept, planned, coming, whole: Some(file), stated }
    }

    /// Requests planned ranges until enough of them are on their way. Other readers may have used up the bytes that
    /// may be fetched ahead, so at least one range is always requested.
    fn ask_ahead(&mut self) {
        if self.whole.is_some() {
            return;
        }
        while self.coming.len() < PARALLEL
            && let Some(range) = self.planned.front().cloned()
        {
            let claim = self.source.ahead().try_take(range.end - range.start);
            if claim.is_none() && !self.coming.is_empty() {
                return;
            }
            self.planned.pop_front();
            let bytes = State::Asked(ask(&self.source, range.clone()));
            self.coming.push_back(Coming { range, bytes, _claim: claim });
        }
    }

    /// Copies the bytes from `at` on out of the next planned range. Returns how many bytes it copied: 0 if `at` is
    /// not in that range.
    fn take_planned(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, Lost> {
        // Drop ranges before `at`: they will not be read.
        while self.coming.front().is_some_and(|coming| coming.range.end <= at) {
            self.coming.pop_front();
        }
        if self.coming.is_empty() {
            while self.planned.front().is_some_and(|range| range.end <= at) {
                self.planned.pop_front();
            }
        }
        let planned = self.coming.front().map(|coming| &coming.range).or(self.planned.front());
        if !planned.is_some_and(|range| range.contains(&at)) {
            return Ok(0);
        }
        self.ask_ahead();
        let Some(Coming { range, bytes, .. }) = self.coming.front_mut() else { return Ok(0) };
        if let State::Asked(task) = bytes {
            *bytes = State::Here(wait(self.source.wire(), task)?);
        }
        let State::Here(bytes) = bytes else { return Ok(0) };
        let from = (at - range.start) as usize;
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Lost> {
        let end = at + buffer.len() as u64;
        if let Some((from, bytes)) = self.kept_from(&(at..end)) {
            let inside = (at - from) as usize;
            buffer.copy_from_slice(&bytes[inside..inside + buffer.len()]);
            return Ok(());
        }
        // The end of the range may be in memory already, as with an index that is longer than the tail.
        let mut buffer = buffer;
        if let Some((from, bytes)) = self.kept_end_of(&(at..end)) {
            let (before, behind) = buffer.split_at_mut((from - at) as usize);
            behind.copy_from_slice(&bytes[..behind.len()]);
            buffer = before;
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.take_planned(at + filled as u64, &mut buffer[filled..])? {
                0 => return self.directly(at + filled as u64, &mut buffer[filled..]),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Returns the part in memory that contains all of a range, with its offset.
    fn kept_from(&self, range: &Range<u64>) -> Option<&(u64, Vec<u8>)> {
        self.kept
            .iter()
            .find(|(from, bytes)| *from <= range.start && range.end <= from + bytes.len() as u64)
    }

    /// Returns the part in memory that contains the end of a range, but not its beginning.
    fn kept_end_of(&self, range: &Range<u64>) -> Option<&(u64, Vec<u8>)> {
        self.kept
            .iter()
            .find(|(from, bytes)| range.contains(from) && range.end <= from + bytes.len() as u64)
    }

    /// Downloads a range that was not planned, at once and in parallel requests.
    fn directly(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Lost> {
        let source = &self.source;
        let end = at + buffer.len() as u64;
        let tail = self.size.saturating_sub(TAIL);
        if at >= tail {
            let task = ask(source, tail..self.size);
            let bytes = wait(source.wire(), &mut { task })?;
            let inside = (at - tail) as usize;
            buffer.copy_from_slice(&bytes[inside..inside + buffer.len()]);
            self.kept.push((tail, bytes));
            return Ok(());
        }
        let mut left = cut(once(at..end), self.range, self.range).into_iter();
        let mut coming: VecDeque<Task> = VecDeque::new();
        let mut filled = 0;
        while filled < buffer.len() {
            while coming.len() < DIRECT
                && let Some(range) = left.next()
            {
                coming.push_back(ask(source, range));
            }
            let Some(mut task) = coming.pop_front() else { break };
            let bytes = wait(source.wire(), &mut task)?;
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
        }
        Ok(())
    }
}

impl<S: Source> ReadAt for Reader<S> {
    fn size(&self) -> u64 {
        self.size
    }

    fn size_is_stated(&self) -> bool {
        self.stated
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size {
            let text = format!("truncated: got {} of {end} bytes", self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        if buffer.is_empty() {
            return Ok(());
        }
        if self.whole.is_none() {
            match self.fill(offset, buffer) {
                Ok(()) => return Ok(()),
                Err(Lost::Failed(e)) => return Err(io::Error::other(e)),
                Err(Lost::NoRanges) => self.take_whole().map_err(io::Error::other)?,
            }
        }
        match &self.whole {
            Some(file) => file.read_exact_at(buffer, offset),
            None => Err(io::Error::other("no data is available")),
        }
    }

    fn expect(&mut self, ranges: &[Range<u64>]) {
        let missing = ranges.iter().filter(|range| {
            !range.is_empty() && range.end <= self.size && self.kept_from(range).is_none()
        });
        let missing = missing.map(|range| match self.kept_end_of(range) {
            Some((from, _)) => range.start..*from,
            None => range.clone(),
        });
        self.planned = cut(join(missing), FIRST, self.range);
        debug!(
            wanted = ranges.len(),
            requests = self.planned.len(),
            bytes = self.planned.iter().map(|range| range.end - range.start).sum::<u64>(),
            "planned the requests for ranges of an entry"
        );
        self.coming.clear();
        self.ask_ahead();
    }
}

impl<S: Source> Reader<S> {
    /// Downloads the whole entry as one stream, after the server stopped serving ranges.
    fn take_whole(&mut self) -> Result<()> {
        debug!("download the whole entry, because the server stopped serving ranges");
        self.coming.clear();
        self.planned.clear();
        let Spooled { file, size, .. } = self.source.wire().wait(self.source.spool())??;
        anyhow::ensure!(size == self.size, "truncated: got {size} of {} bytes", self.size);
        self.whole = Some(file);
        Ok(())
    }
}

fn ask<S: Source>(source: &Arc<S>, range: Range<u64>) -> Task {
    let asked = Arc::clone(source);
    trace!(from = range.start, to = range.end, "request a range of an entry");
    Task(source.wire().runtime().spawn(async move { asked.range(range).await }))
}

fn wait(wire: &RetryingClient, task: &mut Task) -> Result<Vec<u8>, Lost> {
    let done = wire.wait(&mut task.0).map_err(|e| Lost::Failed(e.into()))?;
    done.map_err(|e| Lost::Failed(e.into()))?
}

/// Joins ranges, which stay in the order of reading, where one request is cheaper than two; see [`GAP`] and
/// [`WASTE`].
fn join(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let ranges: Vec<Range<u64>> = ranges.collect();
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let gap = |before: &Range<u64>, behind: &Range<u64>| behind.start.checked_sub(before.end);
    let mut gaps: Vec<(u64, usize)> = ranges
        .windows(2)
        .enumerate()
        .filter_map(|(at, pair)| Some((gap(&pair[0], &pair[1])?, at + 1)))
        .filter(|(gap, _)| *gap <= GAP)
        .collect();
    gaps.sort_unstable();
    let mut allowed = wanted / WASTE;
    let mut joins = vec![false; ranges.len()];
    for (gap, at) in gaps {
        match allowed.checked_sub(gap) {
            Some(rest) => allowed = rest,
            None => break,
        }
        joins[at] = true;
    }
    let mut joined: Vec<Range<u64>> = Vec::new();
    for (range, joins) in ranges.into_iter().zip(joins) {
        match joined.last_mut() {
            Some(last) if joins => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// Splits ranges into pieces. The first pieces have `first` bytes; the size doubles after every second piece, up to
/// `most`.
fn cut(
    ranges: impl IntoIterator<Item = Range<u64>>,
    first: u64,
    most: u64,
) -> VecDeque<Range<u64>> {
    let mut pieces = VecDeque::new();
    for mut range in ranges {
        while !range.is_empty() {
            let doublings = u32::try_from(pieces.len() / 2).unwrap_or(u32::MAX);
            let size = first.saturating_mul(2_u64.saturating_pow(doublings)).min(most).max(1);
            let end = range.end.min(range.start.saturating_add(size));
            pieces.push_back(range.start..end);
            range.start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_fills_the_shortest_gaps_up_to_a_tenth() {
        let joined = |ranges: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let joined = join(ranges.iter().map(|&(start, end)| start..end));
            joined.into_iter().map(|range| (range.start, range.end)).collect()
        };
        assert_eq!(joined(&[(0, 10), (10, 20), (20, 30)]), [(0, 30)], "neighbours cost nothing");
        let apart = [(0, 1000), (1050, 2000), (2300, 3000)];
        assert_eq!(joined(&apart), [(0, 2000), (2300, 3000)]);
        assert_eq!(joined(&[(0, 1000), (1050, 2000), (2200, 4000)]), [(0, 4000)]);
        let far = 100 * GAP;
        assert_eq!(joined(&[(0, far), (far + GAP + 1, 2 * far)]).len(), 2, "a request is cheaper");
        // Ranges in descending order are read as they are.
        assert_eq!(joined(&[(50, 60), (10, 20)]), [(50, 60), (10, 20)]);
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn cut_starts_small_and_covers_the_requested_ranges() {
        let sizes = |ranges: &[Range<u64>], most| -> Vec<u64> {
            cut(ranges.to_vec(), FIRST, most).iter().map(|range| range.end - range.start).collect()
        };
        let whole = 7..7 + 32 * FIRST;
        let mega = [1, 1, 2, 2, 4, 4, 8, 8, 2].map(|count| count * FIRST);
        assert_eq!(sizes(std::slice::from_ref(&whole), 8 * FIRST), mega);
        assert_eq!(sizes(&[5..6, 10..13], 1), [1; 4], "however little memory there is");
        let pieces = cut(vec![3..4, whole.clone()], FIRST, 8 * FIRST);
        let mut at = whole.start;
        for piece in pieces.iter().skip(1) {
            assert_eq!(piece.start, at);
            at = piece.end;
        }
        assert_eq!((pieces[0].clone(), at), (3..4, whole.end));
    }
}
