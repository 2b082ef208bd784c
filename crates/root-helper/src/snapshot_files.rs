//! The files of a snapshot that is restored into a store: the entry and, if it is a delta, its base.

use super::failure_kind::OfBase;
use super::protocol::{FrameId, SnapshotRole};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use storecache_runtime::RunContext;
use storecache_runtime::memory::{MeteredBytes, Unpacking};
use storecache_snapshot::{Index, ItemEntry, SnapshotError, Target, Unpacked, Unpacker, inherited};
use storecache_store::ItemName;

/// The indexes of both files, and the position of each item.
pub struct Files {
    entry: Arc<Index>,
    base: Option<Arc<Index>>,
    places: HashMap<String, (SnapshotRole, usize)>,
}

impl Files {
    /// Combines the index of the entry with that of its base, which is passed both parsed and as raw bytes.
    ///
    /// # Errors
    /// If the two indexes do not belong together, or an item is listed twice.
    pub fn new(entry: Index, base: Option<(Index, Vec<u8>)>) -> Result<Self> {
        let mut places = HashMap::with_capacity(entry.items.len());
        for (at, item) in entry.items.iter().enumerate() {
            if places.insert(item.name.clone(), (SnapshotRole::Entry, at)).is_some() {
                let twice = format!("the snapshot lists {} twice", item.name);
                bail!(SnapshotError::Damaged(twice));
            }
        }
        if let Some((base, bytes)) = &base {
            for (name, at) in inherited(&entry, base, bytes)? {
                places.insert(name.to_owned(), (SnapshotRole::Base, at));
            }
        }
        Ok(Files { entry: Arc::new(entry), base: base.map(|(base, _)| Arc::new(base)), places })
    }

    /// Returns the index of the entry and the index of its base.
    pub fn indexes(&self) -> (&Index, Option<&Index>) {
        (&self.entry, self.base.as_deref())
    }

    pub fn holds(&self, name: &ItemName) -> bool {
        self.places.contains_key(name.as_str())
    }

    /// Returns the index entries of these items.
    pub fn items<'a>(&'a self, names: &'a [ItemName]) -> impl Iterator<Item = &'a ItemEntry> {
        self.all().into_iter().flat_map(move |(which, index)| {
            self.positions(which, names).map(move |at| &index.items[at])
        })
    }

    /// Returns the frames that are needed to extract these items: first those of the base, then those of the entry.
    pub fn frames(&self, names: &[ItemName]) -> Vec<FrameId> {
        let files = self.all().into_iter();
        let frames = files.flat_map(|(which, index)| {
            let numbers = index.frames_of(self.positions(which, names));
            numbers.into_iter().map(move |number| FrameId { which, number })
        });
        frames.collect()
    }

    /// Starts to extract these items into one directory, with members of the given owner.
    pub fn unpack(
        &self,
        run: &RunContext,
        names: &[ItemName],
        directory: &Arc<OwnedFd>,
        owner: (u32, u32),
        memory: &Unpacking,
    ) -> Result<Unpackers> {
        let mut unpackers = Vec::new();
        for (which, index) in self.all() {
            let mut targets = self
                .positions(which, names)
                .map(|at| {
                    let directory = Arc::clone(directory);
                    (at, Target { directory, name: index.items[at].name.clone() })
                })
                .peekable();
            if targets.peek().is_some() {
                unpackers.push((which, Unpacker::new(run, index, targets, Some(owner), memory)?));
            }
        }
        Ok(Unpackers(unpackers))
    }

    fn all(&self) -> Vec<(SnapshotRole, &Arc<Index>)> {
        let base = self.base.iter().map(|base| (SnapshotRole::Base, base));
        base.chain([(SnapshotRole::Entry, &self.entry)]).collect()
    }

    fn positions<'a>(
        &'a self,
        which: SnapshotRole,
        names: &'a [ItemName],
    ) -> impl Iterator<Item = usize> + 'a {
        let places = names.iter().filter_map(|name| self.places.get(name.as_str()));
        places.filter(move |(of, _)| *of == which).map(|&(_, at)| at)
    }
}

/// The unpackers: one for each file from which anything is extracted.
pub struct Unpackers(Vec<(SnapshotRole, Unpacker)>);

impl Unpackers {
    pub fn one(unpacker: Unpacker) -> Self {
        Unpackers(vec![(SnapshotRole::Entry, unpacker)])
    }

    /// Passes on a frame, see [`Unpacker::submit`].
    pub fn submit(&self, frame: FrameId, compressed: MeteredBytes) -> Result<()> {
        match self.0.iter().find(|(which, _)| *which == frame.which) {
            Some((which, unpacker)) => name_base(*which, unpacker.submit(frame.number, compressed)),
            None => bail!("protocol error: no frame of that file is needed"),
        }
    }

    /// Returns how much is written so far.
    pub fn progress(&self) -> Unpacked {
        sum(self.0.iter().map(|(_, unpacker)| unpacker.progress()))
    }

    /// Finishes all unpackers, see [`Unpacker::finish`].
    pub fn finish(self) -> Result<Unpacked> {
        let done = self.0.into_iter().map(|(which, unpacker)| name_base(which, unpacker.finish()));
        Ok(sum(done.collect::<Result<Vec<_>>>()?.into_iter()))
    }
}

/// Marks an error as one of the given file.
fn name_base<T>(which: SnapshotRole, result: Result<T>) -> Result<T> {
    match which {
        SnapshotRole::Entry => result,
        SnapshotRole::Base => result.context(OfBase),
    }
}

fn sum(all: impl Iterator<Item = Unpacked>) -> Unpacked {
    all.fold(Unpacked::default(), |sum, one| Unpacked {
        items: sum.items + one.items,
        bytes: sum.bytes + one.bytes,
    })
}
