//! The check of an archive against its index, which every reader of a snapshot performs.
//!
//! `verify` and `restore` must come to the same verdict, so both read frames through [`ArchiveCheck`]. It
//! accepts an archive only if `zstd -dc | tar -x` unpacks the members that it returns, and nothing else:
//!
//! - A file that a frame leaves open continues at the start of the next frame of the index, at that offset.
//! - Blocks of zeros, where tar stops reading, appear only at the end of the last frame.
//! - No path appears twice, and every path with members below it is a directory and a member itself.
//! - Members come depth first. GNU tar sets mode and time of a directory when it leaves that directory, so a
//!   member that comes later would change the time, or could not be created. Files that items share come before
//!   all other members.
//! - A hard link comes after its target, which is a file or a symbolic link of the same item.
//! - Members of a store have the attributes that a restore gives them.
//!
//! Frames may be checked in any order and in parallel. Each frame is checked against its own entry of the index
//! and against the `continues` of the next entry, so two neighbors that pass also fit together. A restore that
//! downloads only some frames trusts the index about the others, as it trusts the index about their digests:
//! whether they match the index cannot be known without downloading all of them. From the frames that it
//! downloads, a restore installs what a restore of all frames would install, unless the latter refuses the
//! snapshot.

use super::index::{escape_path, unescape_path};
use super::memory_cap::MemoryCap;
use super::tar_header::{
    Attributes, Member, MemberKind, components, decode, prefixes, take_content,
};
use super::{Continuation, FrameEntry, Index, SnapshotError};
use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory limit for the records of members of incomplete items, in bytes.
const MEMBERS_LIMIT: u64 = 512 << 20;
/// Memory that one member takes: a hash, and another one while hashes are sorted.
const MEMBER: u64 = 32;

/// Checks the frames of one file.
pub struct ArchiveCheck<I> {
    index: I,
    tracker: Tracker,
}

impl<I: Borrow<Index>> ArchiveCheck<I> {
    /// `complete` are the positions of the items that have to be complete in the end. The caller will check all
    /// of their frames.
    pub fn new(index: I, complete: impl IntoIterator<Item = usize>) -> Self {
        let tracker = Tracker::new(index.borrow(), complete);
        ArchiveCheck { index, tracker }
    }

    /// Returns a reader of the tar bytes of a frame. The frame is checked once the reader has reached its end.
    pub fn frame<'a>(
        &'a self,
        number: u32,
        raw: &'a [u8],
    ) -> Result<FrameReader<'a>, SnapshotError> {
        let index = self.index.borrow();
        let entry = index.frames.get(number as usize).ok_or_else(|| {
            SnapshotError::damaged(format!("frame {number}: the index has no such frame"))
        })?;
        let tracker = &self.tracker;
        Ok(FrameReader {
            index,
            tracker,
            number,
            entry,
            rest: raw,
            pieces: 0,
            open: None,
            last: None,
        })
    }

    /// Checks that all items are complete, after all frames were read.
    ///
    /// # Errors
    /// If an item is not complete, or if its frames do not follow each other.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        self.tracker.finish(self.index.borrow())
    }
}

/// A part of a frame.
pub enum Piece<'r> {
    /// The next part of the database.
    Database(&'r [u8]),
    /// A member of an item, with all of its content that lies in this frame.
    Member {
        /// Position in the index.
        item: usize,
        member: Member,
        content: &'r [u8],
        /// Whether this was the last missing member of the item.
        completes: bool,
    },
    /// The continuation of a file of an item.
    Part { item: usize, path: Vec<u8>, offset: u64, content: &'r [u8] },
}

/// The owner of a path: the database or an item.
enum Home {
    Database,
    Item {
        position: usize,
        /// Length of the item's own archive path.
        top: usize,
    },
}

/// A file whose content continues in the next frame.
#[derive(PartialEq, Eq)]
struct OpenFile {
    path: Vec<u8>,
    offset: u64,
    size: u64,
}

/// The previous member, which decides where the next one may lie.
struct Last {
    path: Vec<u8>,
    is_directory: bool,
    item: Option<usize>,
}

impl Last {
    /// Whether tar has not left this directory yet.
    fn is_in(&self, directory: &[u8]) -> bool {
        is_in(&self.path, self.is_directory, directory)
    }
}

fn is_in(path: &[u8], is_directory: bool, directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some([]) => is_directory,
        Some([b'/', ..]) => true,
        _ => false,
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b"", |slash| &path[..slash])
}

/// A reader of the members of one frame.
pub struct FrameReader<'a> {
    index: &'a Index,
    tracker: &'a Tracker,
    number: u32,
    entry: &'a FrameEntry,
    rest: &'a [u8],
    /// Number of pieces that were read.
    pieces: u32,
    open: Option<OpenFile>,
    last: Option<Last>,
}

impl<'a> FrameReader<'a> {
    /// Returns the next piece, or `None` at the end of the frame.
    ///
    /// # Errors
    /// If the frame does not match the index. The message names the frame and the member.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'a>>, SnapshotError> {
        self.read().map_err(|error| match error {
            SnapshotError::Damaged(what) => {
                SnapshotError::Damaged(format!("frame {}: {what}", self.number))
            }
            other => other,
        })
    }

    fn read(&mut self) -> Result<Option<Piece<'a>>, SnapshotError> {
        if let Some(continues) = self.entry.continues.as_ref().filter(|_| self.pieces == 0) {
            return self.part(continues).map(Some);
        }
        let left = self.rest.len();
        let member = decode(&mut self.rest).map_err(|error| match (error, &self.last) {
            (SnapshotError::Damaged(what), Some(last)) => {
                SnapshotError::Damaged(format!("{what}, after {}", escape_path(&last.path)))
            }
            (error, _) => error,
        })?;
        match member {
            Some(member) => self.member(member).map(Some),
            None => self.end(left > 0).map(|()| None),
        }
    }

    fn is_last(&self) -> bool {
        self.number as usize + 1 == self.index.frames.len()
    }

    fn begins_database(&self) -> bool {
        self.index.database.as_ref().is_some_and(|database| database.frames.0 == self.number)
    }

    /// Reads the rest of the file that the previous frame left open.
    fn part(&mut self, continues: &Continuation) -> Result<Piece<'a>, SnapshotError> {
        let path = unescape_path(&continues.path).ok_or_else(|| {
            SnapshotError::damaged("the path of the continued file does not parse")
        })?;
        if self.begins_database() {
            return Err(SnapshotError::damaged("the database is not the first member"));
        }
        let home = self.tracker.home(self.index, self.number, &path)?;
        let offset = continues.offset;
        let content = take_content(&mut self.rest, offset, continues.size)
            .map_err(|error| named(error, &path))?;
        self.pieces += 1;
        self.leave_open(&path, offset + content.len() as u64, continues.size);
        let item = match home {
            Home::Database => None,
            Home::Item { position, .. } => Some(position),
        };
        self.last = Some(Last { path: path.clone(), is_directory: false, item });
        let Some(item) = item else { return Ok(Piece::Database(content)) };
        self.tracker.count_bytes(self.index, item, content.len())?;
        Ok(Piece::Part { item, path, offset, content })
    }

    fn member(&mut self, member: Member) -> Result<Piece<'a>, SnapshotError> {
        let refused = |what: &str| {
            Err(SnapshotError::damaged(format!("{}: {what}", escape_path(&member.path))))
        };
        let home = self.tracker.home(self.index, self.number, &member.path)?;
        let content = take_content(&mut self.rest, 0, member.content())
            .map_err(|error| named(error, &member.path))?;
        self.leave_open(&member.path, content.len() as u64, member.content());
        let at = self.pieces;
        self.pieces += 1;
        let (position, top) = match home {
            Home::Database => {
                let size = self.index.database.as_ref().map(|database| database.size);
                if at > 0
                    || !self.begins_database()
                    || Some(member.kind.clone()) != size.map(MemberKind::File)
                {
                    return refused("the database does not match the index");
                }
                self.last = Some(Last { path: member.path, is_directory: false, item: None });
                return Ok(Piece::Database(content));
            }
            Home::Item { position, top } => (position, top),
        };
        if at == 0 && self.begins_database() {
            return refused("the database is not the first member");
        }
        let executable = member.attributes.mode & 0o100 != 0;
        if self.index.database.is_some()
            && member.attributes != Attributes::canonical(&member.kind, executable)
        {
            return refused("mode, owner or time is not valid for a file in a store");
        }
        if let MemberKind::HardLink(target) = &member.kind
            && !is_below(&member.path[..top], target)
        {
            return refused("a hard link points outside its item");
        }
        if !self.index.items[position].shares(self.number) && member.path.len() > top {
            match &self.last {
                Some(last) if !last.is_in(parent(&member.path)) => {
                    return refused("it does not follow its directory");
                }
                Some(_) => {}
                None => self.tracker.begin(position, self.number, &member.path)?,
            }
        }
        let part = (self.number, content.len());
        let completes = self.tracker.book(self.index, (position, top), part, &member)?;
        let is_directory = member.kind == MemberKind::Directory;
        let path = member.path.clone();
        self.last = Some(Last { path, is_directory, item: Some(position) });
        Ok(Piece::Member { item: position, member, content, completes })
    }

    fn leave_open(&mut self, path: &[u8], offset: u64, size: u64) {
        let open = || OpenFile { path: path.to_vec(), offset, size };
        self.open = (offset < size).then(open);
    }

    /// Checks the end of the frame. `marked` is true if blocks of zeros end it.
    fn end(&mut self, marked: bool) -> Result<(), SnapshotError> {
        if marked && !self.is_last() {
            return Err(SnapshotError::damaged("the archive ends before its last frame"));
        }
        if self.pieces == 0 && self.begins_database() {
            return Err(SnapshotError::damaged("the database is not the first member"));
        }
        let next = self.index.frames.get(self.number as usize + 1);
        let next = next.and_then(|next| next.continues.as_ref());
        match (&self.open, next) {
            (None, None) => {}
            (None, Some(next)) => {
                return Err(SnapshotError::damaged(format!(
                    "it ends with a complete file, but the next frame continues {}",
                    next.path
                )));
            }
            (Some(open), _) if self.is_last() => {
                return Err(SnapshotError::damaged(format!(
                    "{} is incomplete",
                    escape_path(&open.path)
                )));
            }
            (Some(open), next) => {
                if !next.is_some_and(|next| open.is_continued_by(next)) {
                    return Err(SnapshotError::damaged(format!(
                        "it ends within {} at byte {}, but the next frame does not continue it \
                         there",
                        escape_path(&open.path),
                        open.offset
                    )));
                }
                self.tracker.home(self.index, self.number + 1, &open.path)?;
            }
        }
        match self.last.take() {
            Some(last) => self.tracker.end(self.index, self.number, last),
            None => Ok(()),
        }
    }
}

impl OpenFile {
    fn is_continued_by(&self, next: &Continuation) -> bool {
        let path = unescape_path(&next.path);
        (path.as_deref(), next.offset, next.size) == (Some(&self.path[..]), self.offset, self.size)
    }
}

/// Whether a path lies below the archive path `item`, and is not the item itself.
fn is_below(item: &[u8], path: &[u8]) -> bool {
    let below = path.strip_prefix(item).and_then(|rest| rest.strip_prefix(b"/"));
    below.is_some_and(|below| !below.is_empty()) && components(path).is_ok()
}

fn named(error: SnapshotError, path: &[u8]) -> SnapshotError {
    match error {
        SnapshotError::Damaged(what) => {
            SnapshotError::Damaged(format!("{}: {what}", escape_path(path)))
        }
        other => other,
    }
}

/// Records, for each item, the members in the frames that were read so far.
struct Tracker {
    /// Position of each item, by archive path.
    items: HashMap<Vec<u8>, usize>,
    complete: HashMap<usize, Mutex<ItemState>>,
    /// Random keys of the path hashes, so that no snapshot can contain paths that were chosen to collide.
    keys: [RandomState; 2],
    borders: Mutex<Borders>,
    /// Memory for directories, links, files in several frames, and the ends of frames.
    kept: MemoryCap,
    members: MemoryCap,
}

#[derive(Default)]
struct ItemState {
    seen: u64,
    bytes: u64,
    /// Members of the item by frame, in order, until all of them were seen.
    members: BTreeMap<u32, Vec<Seen>>,
    /// Directories of files that the item shares.
    needed: HashSet<Box<[u8]>>,
    links: Vec<Link>,
}

/// The hash of a path, with the type of its member in the two lowest bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen(u128);

impl Seen {
    fn hash(self) -> u128 {
        self.0 >> 2
    }

    fn tag(self) -> Tag {
        match self.0 & 3 {
            0 => Tag::Directory,
            1 => Tag::File,
            2 => Tag::Symlink,
            _ => Tag::HardLink,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Directory,
    File,
    Symlink,
    HardLink,
}

/// Number of a frame, and how many members of the item precede this one in that frame.
type Position = (u32, usize);

struct Link {
    path: Box<[u8]>,
    target: Box<[u8]>,
    at: Position,
}

/// Frames that begin or end inside an item, by number.
#[derive(Default)]
struct Borders {
    /// First members of the frames.
    begins: Vec<(u32, Box<[u8]>)>,
    /// Last members of the frames, and whether they are directories.
    ends: HashMap<u32, (Box<[u8]>, bool)>,
}

impl Tracker {
    fn new(index: &Index, complete: impl IntoIterator<Item = usize>) -> Self {
        let paths = index.items.iter().map(|item| index.archive_path(item).into_bytes());
        Tracker {
            items: paths.zip(0..).collect(),
            complete: complete.into_iter().map(|position| (position, Mutex::default())).collect(),
            keys: [RandomState::new(), RandomState::new()],
            borders: Mutex::default(),
            kept: MemoryCap::default(),
            members: MemoryCap::up_to(MEMBERS_LIMIT),
        }
    }

    fn hash(&self, path: &[u8]) -> u128 {
        let [one, other] = self.keys.each_ref().map(|key| u128::from(key.hash_one(path)));
        (one << 64 | other) >> 2
    }

    fn seen(&self, path: &[u8], kind: &MemberKind) -> Seen {
        let tag = match kind {
            MemberKind::Directory => 0,
            MemberKind::File(_) => 1,
            MemberKind::Symlink(_) => 2,
            MemberKind::HardLink(_) => 3,
        };
        Seen(self.hash(path) << 2 | tag)
    }

    fn state(&self, position: usize) -> Option<MutexGuard<'_, ItemState>> {
        let state = self.complete.get(&position)?;
        Some(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what a path in this frame belongs to, according to the index.
    fn home(&self, index: &Index, frame: u32, path: &[u8]) -> Result<Home, SnapshotError> {
        components(path)?;
        let database = index.database.as_ref();
        let database = database.filter(|database| database.path.as_bytes() == path);
        if database.is_some_and(|database| (database.frames.0..=database.frames.1).contains(&frame))
        {
            return Ok(Home::Database);
        }
        for prefix in prefixes(path) {
            if let Some(&position) = self.items.get(prefix)
                && index.items[position].is_in(frame)
            {
                return Ok(Home::Item { position, top: prefix.len() });
            }
        }
        let shown = escape_path(path);
        Err(SnapshotError::damaged(format!(
            "{shown} is in frame {frame}, which contradicts the index"
        )))
    }

    fn borders(&self) -> MutexGuard<'_, Borders> {
        self.borders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the first member of a frame that begins inside an item.
    fn begin(&self, position: usize, frame: u32, path: &[u8]) -> Result<(), SnapshotError> {
        if self.complete.contains_key(&position) {
            self.kept.book(path.len())?;
            self.borders().begins.push((frame, path.into()));
        }
        Ok(())
    }

    /// Records the last member of a frame, if its item continues in the next frame.
    fn end(&self, index: &Index, frame: u32, last: Last) -> Result<(), SnapshotError> {
        let Some(position) = last.item else { return Ok(()) };
        if frame < index.items[position].frames.1 && self.complete.contains_key(&position) {
            self.kept.book(last.path.len())?;
            self.borders().ends.insert(frame, (last.path.into(), last.is_directory));
        }
        Ok(())
    }

    fn count_bytes(
        &self,
        index: &Index,
        position: usize,
        content: usize,
    ) -> Result<(), SnapshotError> {
        let Some(mut state) = self.state(position) else { return Ok(()) };
        state.count_bytes(index, position, content)
    }

    /// Records a member of an item, whose archive path has `top` bytes. Returns true if that was the last
    /// missing member.
    fn book(
        &self,
        index: &Index,
        (position, top): (usize, usize),
        (frame, content): (u32, usize),
        member: &Member,
    ) -> Result<bool, SnapshotError> {
        let Some(mut state) = self.state(position) else { return Ok(false) };
        let item = &index.items[position];
        let path = &member.path[..];
        state.seen += 1;
        if state.seen > item.files {
            return Err(SnapshotError::damaged(format!(
                "{} has more than {} members",
                item.name, item.files
            )));
        }
        state.count_bytes(index, position, content)?;
        self.members.take(MEMBER)?;
        let members = state.members.entry(frame).or_default();
        let at = (frame, members.len());
        members.push(self.seen(path, &member.kind));
        match &member.kind {
            MemberKind::Directory => self.kept.book(path.len())?,
            MemberKind::HardLink(target) => {
                // Once for `links` here, and once for the unpacker, which makes the link.
                self.kept.book(path.len() + target.len())?;
                self.kept.book(path.len() + target.len())?;
                let (path, target) = (path.into(), target[..].into());
                state.links.push(Link { path, target, at });
            }
            MemberKind::File(size) if *size > content as u64 => self.kept.book(path.len())?,
            _ => {}
        }
        if item.shares(frame) {
            for above in prefixes(path).rev().skip(1).take_while(|above| above.len() >= top) {
                if state.needed.contains(above) {
                    break;
                }
                self.kept.book(above.len())?;
                state.needed.insert(above.into());
            }
        }
        let completes = state.seen == item.files;
        if completes {
            self.complete(&item.name, &mut state)?;
        }
        Ok(completes)
    }

    /// Checks an item after all of its members were seen.
    fn complete(&self, name: &str, state: &mut ItemState) -> Result<(), SnapshotError> {
        self.check_paths(state)?;
        let count = state.members.values().map(Vec::len).sum();
        let mut all: Vec<u128> = Vec::with_capacity(count);
        for (_, members) in std::mem::take(&mut state.members) {
            all.extend(members.into_iter().map(Seen::hash));
        }
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(SnapshotError::damaged(format!("a path of {name} appears twice")));
        }
        self.members.give_back(MEMBER * all.len() as u64);
        Ok(())
    }

    /// Checks the targets of hard links, and the directories of shared files.
    fn check_paths(&self, state: &mut ItemState) -> Result<(), SnapshotError> {
        let (links, needed) = (std::mem::take(&mut state.links), std::mem::take(&mut state.needed));
        let targets = links.iter().map(|link| &link.target);
        let asked: HashSet<u128> = targets.chain(&needed).map(|path| self.hash(path)).collect();
        let mut found: HashMap<u128, (Position, Tag)> = HashMap::with_capacity(asked.len());
        for (&frame, members) in state.members.iter().filter(|_| !asked.is_empty()) {
            for (at, seen) in members.iter().enumerate() {
                if asked.contains(&seen.hash()) {
                    found.entry(seen.hash()).or_insert(((frame, at), seen.tag()));
                }
            }
        }
        for link in &links {
            link.check(found.get(&self.hash(&link.target)))?;
        }
        let mut needed: Vec<_> = needed.into_iter().collect();
        needed.sort_unstable();
        for path in needed {
            let what = match found.get(&self.hash(&path)) {
                Some((_, Tag::Directory)) => continue,
                Some(_) => "it contains files but is not a directory",
                None => "it contains files but is not a member itself",
            };
            return Err(SnapshotError::damaged(format!("{}: {what}", escape_path(&path))));
        }
        Ok(())
    }

    fn finish(&self, index: &Index) -> Result<(), SnapshotError> {
        let mut positions: Vec<usize> = self.complete.keys().copied().collect();
        positions.sort_unstable();
        for position in positions {
            let Some(mut state) = self.state(position) else { continue };
            let item = &index.items[position];
            if state.seen != item.files {
                // This check may return a more precise error.
                self.complete(&item.name, &mut state)?;
                return Err(SnapshotError::damaged(format!(
                    "{} has {} of {} members",
                    item.name, state.seen, item.files
                )));
            }
        }
        let borders = self.borders();
        for (frame, path) in &borders.begins {
            let before = frame.checked_sub(1).and_then(|before| borders.ends.get(&before));
            let follows =
                |(last, is_directory): &(Box<[u8]>, bool)| is_in(last, *is_directory, parent(path));
            if !before.is_some_and(follows) {
                return Err(SnapshotError::damaged(format!(
                    "frame {frame}: {}: it does not follow its directory",
                    escape_path(path)
                )));
            }
        }
        Ok(())
    }
}

impl ItemState {
    fn count_bytes(
        &mut self,
        index: &Index,
        position: usize,
        content: usize,
    ) -> Result<(), SnapshotError> {
        self.bytes = self.bytes.saturating_add(content as u64);
        let item = &index.items[position];
        if self.bytes > item.disk {
            return Err(SnapshotError::damaged(format!(
                "{} is larger than the {} bytes stated in the index",
                item.name, item.disk
            )));
        }
        Ok(())
    }
}

impl Link {
    /// Checks the link against the member that was found at its target.
    fn check(&self, found: Option<&(Position, Tag)>) -> Result<(), SnapshotError> {
        let target = escape_path(&self.target);
        let what = match found {
            None => "a hard link to a missing file".to_owned(),
            // A save never writes a link to a link, and the result would depend on the order in which links are
            // made.
            Some((_, Tag::HardLink)) => format!("a hard link to the hard link {target}"),
            Some((_, Tag::Directory)) => format!("a hard link to the directory {target}"),
            Some((at, Tag::File | Tag::Symlink)) if *at > self.at => {
                format!("a hard link precedes its target {target}")
            }
            Some((_, Tag::File | Tag::Symlink)) => return Ok(()),
        };
        Err(SnapshotError::damaged(format!("{}: {what}", escape_path(&self.path))))
    }
}
