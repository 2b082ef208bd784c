//! An open entry, with its base if it is a delta.

use super::open_error::{Defect, OpenError, Unusable};
use super::{resolve, trust};
use crate::config::Trust;
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use storecache_backend::{Backend, BackendError, EntryName, Gone, ReadAt};
use storecache_entry::Digest;
use storecache_root_helper::protocol::{FrameId, SnapshotRole};
use storecache_snapshot::{
    FrameEntry, Head, Opened, SnapshotError, inherited, open_head, write_database,
};
use storecache_store::{Layout, SnapshotDatabase, StoreKind};
use tempfile::NamedTempFile;

/// An entry of which head and index are read.
pub struct OpenEntry {
    /// The name that the backend or the user gave.
    pub name: String,
    pub opened: Opened,
    /// Trusted keys that have signed the entry, if signatures were checked.
    pub signed_by: Vec<String>,
    reader: Box<dyn ReadAt>,
    /// The base, if this entry is a delta. A base never has a base itself.
    pub base: Option<Box<OpenEntry>>,
}

impl OpenEntry {
    /// Opens an entry and, for a delta, its base. Adds the bytes read to `downloaded`.
    ///
    /// # Errors
    /// If the entry or its base cannot be opened, is not trusted, or if the base is one of the known `bad` entries.
    pub fn open(
        backend: &dyn Backend,
        name: &EntryName,
        (bad, trust): (&[EntryName], &Trust),
        downloaded: &mut u64,
    ) -> Result<Self, OpenError> {
        let reader = backend.open(name)?;
        let mut entry = Self::read(name.to_string(), reader, downloaded)?;
        entry.signed_by = trust::check(trust, Some((backend, name)), &entry.opened)?;
        let Some(base) = entry.base_name().map_err(|e| entry.unusable(e))? else {
            return Ok(entry);
        };
        if bad.contains(&base) {
            return Err(OpenError::BaseGone { base, state: "damaged".into() });
        }
        let reader = match backend.open(&base) {
            Ok(reader) => reader,
            Err(BackendError::Gone(Gone { found, .. })) => {
                let state = found.map(|found| format!("{found}, not a snapshot"));
                return Err(OpenError::BaseGone { base, state: state.unwrap_or("gone".into()) });
            }
            Err(e) => return Err(anyhow!(e).context(format!("open its base {base}")).into()),
        };
        let opened = match Self::read(base.to_string(), reader, downloaded) {
            Ok(opened) => opened,
            Err(source) => return Err(OpenError::UnusableBase { base, source }),
        };
        if let Err(source) = trust::check(trust, Some((backend, &base)), &opened.opened) {
            return Err(OpenError::UntrustedBase { base, source });
        }
        entry.put_on(opened).map_err(|e| entry.unusable(e))?;
        Ok(entry)
    }

    /// The error that this entry cannot be used.
    pub fn unusable(&self, error: SnapshotError) -> Unusable {
        let (name, size) = (self.name.clone(), self.opened.length);
        Unusable { name, size, source: Defect::Snapshot(error) }
    }

    /// Opens the snapshot that `reader` reads, without its base.
    pub fn read(
        name: String,
        mut reader: Box<dyn ReadAt>,
        downloaded: &mut u64,
    ) -> Result<Self, Unusable> {
        match resolve::open(reader.as_mut(), downloaded) {
            Ok(opened) => Ok(OpenEntry { name, opened, signed_by: Vec::new(), reader, base: None }),
            Err(error) => {
                let (stated, size) = (reader.size_is_stated(), reader.size());
                let defect = if stated { Defect::Snapshot } else { Defect::PossiblyTruncated };
                Err(Unusable { name, size, source: defect(error) })
            }
        }
    }

    /// Checks that the index has the parts that a store of this kind requires, before anything else is
    /// downloaded. A snapshot for another kind of store is not damaged.
    pub fn check_parts(&self, kind: StoreKind) -> Result<(), Unusable> {
        let Opened { head, index, .. } = &self.opened;
        if head.store.kind != kind.name() {
            return Ok(());
        }
        let what = match kind {
            StoreKind::Plain => {
                index.base.as_ref().map(|_| "a snapshot of plain directories has a base")
            }
            StoreKind::Guix | StoreKind::Nix => match index.database {
                Some(_) => None,
                None => Some("the snapshot has no database"),
            },
        };
        what.map_or(Ok(()), |what| Err(self.unusable(SnapshotError::Damaged(what.into()))))
    }

    /// Name of the entry that this entry is a delta on.
    pub fn base_name(&self) -> Result<Option<EntryName>, SnapshotError> {
        self.opened.head.base.as_ref().map(|base| parse(base.raw())).transpose()
    }

    /// Sets `base` as the base that this entry names.
    ///
    /// # Errors
    /// If `base` does not match the reference in this entry.
    pub fn put_on(&mut self, base: OpenEntry) -> Result<(), SnapshotError> {
        inherited(&self.opened.index, &base.opened.index, &base.opened.index_bytes)?;
        if !same_store(&self.opened.head, &base.opened.head) {
            let what = format!("its base {} is from a different store", base.name);
            return Err(SnapshotError::WrongBase(what));
        }
        self.base = Some(Box::new(base));
        Ok(())
    }

    /// Total size of the files of this entry in bytes.
    pub fn size(&self) -> u64 {
        let base = self.base.as_ref().map_or(0, |base| base.opened.length);
        self.opened.length + base
    }

    /// Announces which frames will be read next.
    pub fn expect(&mut self, frames: &[FrameId]) {
        let of = |which| frames.iter().filter(move |frame| frame.which == which);
        if let Some(base) = &mut self.base {
            base.expect_own(of(SnapshotRole::Base).map(|frame| frame.number));
        }
        self.expect_own(of(SnapshotRole::Entry).map(|frame| frame.number));
    }

    fn expect_own(&mut self, numbers: impl Iterator<Item = u32>) {
        let frames = &self.opened.index.frames;
        let wanted = numbers.filter_map(|number| frames.get(number as usize));
        let ranges: Vec<_> = wanted.map(|frame| frame.at..frame.at + frame.size).collect();
        if !ranges.is_empty() {
            self.reader.expect(&ranges);
        }
    }

    /// The data of a frame in the index.
    pub fn facts(&self, which: SnapshotRole, number: u32) -> Option<&FrameEntry> {
        let file = match which {
            SnapshotRole::Entry => self,
            SnapshotRole::Base => self.base.as_deref()?,
        };
        file.opened.index.frames.get(number as usize)
    }

    /// Reads the compressed bytes of a frame.
    pub fn frame(&mut self, FrameId { which, number }: FrameId) -> Result<Vec<u8>> {
        let file = match which {
            SnapshotRole::Entry => self,
            SnapshotRole::Base => self.base.as_mut().context("there is no base")?,
        };
        let FrameEntry { at, size, .. } =
            file.opened.index.frames.get(number as usize).context("no such frame")?;
        let mut bytes = vec![0; usize::try_from(*size)?];
        file.reader
            .read_at(*at, &mut bytes)
            .with_context(|| format!("read frame {number} of the snapshot {}", file.name))?;
        Ok(bytes)
    }

    /// Reads a frame again and returns whether it matches the index now.
    ///
    /// # Errors
    /// If the frame cannot be read.
    pub fn comes_whole(&self, backend: &dyn Backend, frame: FrameId) -> Result<bool, BackendError> {
        let file = match frame.which {
            SnapshotRole::Entry => self,
            SnapshotRole::Base => self.base.as_deref().context("there is no base")?,
        };
        let facts = self.facts(frame.which, frame.number).context("no such frame")?;
        let name = parse(&file.name).map_err(anyhow::Error::from)?;
        let mut reader = backend.open(&name)?;
        let size = usize::try_from(facts.size).map_err(anyhow::Error::from)?;
        let mut bytes = vec![0; size];
        reader.read_at(facts.at, &mut bytes).map_err(anyhow::Error::from)?;
        Ok(Digest::hash(&bytes) == facts.sha256)
    }

    /// Returns the frozen database and the temporary file that contains it, which is deleted when it is
    /// dropped; `None` for a plain store.
    ///
    /// # Errors
    /// If the database is damaged or cannot be read.
    pub fn database(&mut self) -> Result<Option<(NamedTempFile, SnapshotDatabase)>> {
        let Opened { head, index, .. } = &self.opened;
        let Some(database) = &index.database else { return Ok(None) };
        let layout = Layout::new(StoreKind::parse(head.store.kind.raw())?, Path::new("/"))?;
        let numbers = database.frames.0..=database.frames.1;
        let frames = numbers.map(|number| FrameId { which: SnapshotRole::Entry, number });
        let frames: Vec<_> = frames.collect();
        let index = index.clone();
        self.expect(&frames);
        let mut file = NamedTempFile::new()?;
        write_database(&index, &mut file, |number| -> Result<Vec<u8>> {
            self.frame(FrameId { which: SnapshotRole::Entry, number })
        })?;
        let database = SnapshotDatabase::open(file.path(), &layout)?;
        Ok(Some((file, database)))
    }
}

/// Whether items from one snapshot can become valid in the store of the other.
pub fn same_store(a: &Head, b: &Head) -> bool {
    let identity = |head: &Head| head.cache_version();
    identity(a) == identity(b)
}

/// The role of an entry with respect to deltas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A full snapshot; other entries may be deltas on it.
    Full,
    /// A delta on the entry with this name.
    DeltaOn(EntryName),
    /// Neither full nor a delta: plain directories, and entries that cannot be restored.
    Alone,
}

impl EntryKind {
    /// Reads only the head of an entry.
    pub fn find(backend: &dyn Backend, name: &EntryName) -> Result<Self> {
        let mut reader = match backend.open(name) {
            Err(BackendError::Gone(_)) => return Ok(EntryKind::Alone),
            opened => opened?,
        };
        let head = match open_head(reader.size(), &mut |at, buffer| reader.read_at(at, buffer)) {
            Err(SnapshotError::Io(e)) => return Err(e.into()),
            Err(_) => return Ok(EntryKind::Alone),
            Ok(head) => head,
        };
        Ok(Self::of_head(&head))
    }

    pub fn of_head(head: &Head) -> Self {
        match head.base.as_ref().map(|base| EntryName::parse(base.raw())) {
            Some(Some(base)) => EntryKind::DeltaOn(base),
            None => match StoreKind::parse(head.store.kind.raw()) {
                Ok(StoreKind::Plain) => EntryKind::Alone,
                Ok(StoreKind::Guix | StoreKind::Nix) | Err(_) => EntryKind::Full,
            },
            Some(None) => EntryKind::Alone,
        }
    }

    /// The base, if this is a delta. The base has to be kept as long as the delta.
    pub fn base(&self) -> Option<&EntryName> {
        match self {
            EntryKind::DeltaOn(base) => Some(base),
            EntryKind::Full | EntryKind::Alone => None,
        }
    }
}

fn parse(base: &str) -> Result<EntryName, SnapshotError> {
    EntryName::parse(base).ok_or_else(|| {
        SnapshotError::WrongBase(format!("its base {base:?} is not a valid entry name"))
    })
}
