//! A directory to unpack into, surrounded by files that must stay unchanged.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use storecache_runtime::RunContext;
use storecache_runtime::memory::Unpacking;
use storecache_snapshot::{
    Continuation, Frame, Head, Index, ItemEntry, Origin, StoreFacts, Target, Unpacked, Unpacker,
};

use super::plain_env::{PlainTree, assert_same_tree, plain_tree};
use super::snapshot_builder::{SnapshotParts, open_bytes};

/// The head of a snapshot of a plain directory.
pub fn head() -> Head {
    Head {
        format: 1,
        tool: "forge".into(),
        store: StoreFacts {
            kind: "plain".into(),
            store_dir: Default::default(),
            state_dir: Default::default(),
            system: "x86_64-linux".into(),
            version: Default::default(),
            schema: None,
            migrations: Vec::new(),
            owner: Default::default(),
        },
        key: "forged".into(),
        base: None,
        ingredients: Default::default(),
        origin: Origin::default(),
        created: "2026-01-01T00:00:00Z".into(),
        items: 1,
        nar_bytes: 0,
        cold_seconds: None,
        watched_since: None,
        profiles: Vec::new(),
    }
}

/// A directory to unpack into, surrounded by files that must stay unchanged.
pub struct ExtractDir {
    directory: tempfile::TempDir,
    before: PlainTree,
}

impl ExtractDir {
    pub fn new() -> ExtractDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("target")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), "secret\n").unwrap();
        fs::write(directory.path().join("bystander"), "bystander\n").unwrap();
        let mut yard = ExtractDir { directory, before: PlainTree::new() };
        yard.before = yard.outside();
        yard
    }

    pub fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub fn outside(&self) -> PlainTree {
        let mut tree = plain_tree(self.directory.path());
        tree.retain(|path, _| !path.starts_with("target"));
        tree
    }

    /// Unpacks all items of an index from its frames.
    pub fn unpack(
        &self,
        index: &Index,
        frames: &[Frame],
        owner: Option<(u32, u32)>,
        threads: usize,
    ) -> anyhow::Result<Unpacked> {
        let target = OwnedFd::from(fs::File::open(self.target()).unwrap());
        let target = Arc::new(target);
        let targets = index.items.iter().enumerate().map(|(at, item)| {
            let directory = Arc::clone(&target);
            let name = item.name.clone();
            (at, Target { directory, name })
        });
        let index = Arc::new(index.clone());
        let unpacker =
            Unpacker::new(&RunContext::default(), &index, targets, owner, &Unpacking::on(threads))?;
        for (number, frame) in (0..).zip(frames) {
            unpacker.submit(number, frame.bytes.clone())?;
        }
        unpacker.finish()
    }

    #[track_caller]
    pub fn assert_untouched_outside(&self) {
        assert_same_tree(&self.before, &self.outside());
    }
}

/// A snapshot of these frames and items.
pub fn parts(frames: Vec<Frame>, items: Vec<ItemEntry>) -> SnapshotParts {
    let items_under = String::new();
    let (database, base, rows_only) = (None, None, None);
    SnapshotParts { head: head(), frames, items_under, items, database, base, rows_only }
}

/// Unpacks a forged snapshot with correct digests.
pub fn try_unpack(parts: SnapshotParts) -> (ExtractDir, anyhow::Result<Unpacked>) {
    let yard = ExtractDir::new();
    let frames = parts.frames.clone();
    let unpacked = match open_bytes(&parts.build()) {
        Ok(opened) => yard.unpack(&opened.index, &frames, None, 2),
        Err(refused) => Err(refused.into()),
    };
    (yard, unpacked)
}

impl ExtractDir {
    /// Asserts that everything in the item `it` is as in a store: owned by root, not writable, without
    /// special bits, at time 1.
    #[track_caller]
    pub fn assert_canonical(&self) {
        for (path, found) in plain_tree(&self.target().join("it")) {
            let entry = &found.entry;
            let link = entry.mode & 0o170000 == 0o120000;
            let mode = entry.mode & 0o7777;
            assert!(link || mode == 0o444 || mode == 0o555, "{}: {mode:o}", path.display());
            assert_eq!((entry.uid, found.gid), (0, 0), "{}", path.display());
            assert_eq!(entry.mtime, (1, 0), "{}", path.display());
        }
    }
}

/// The index entry for a frame that continues a file.
pub fn continuation(path: &str, offset: u64, size: u64) -> Option<Continuation> {
    let path = path.to_owned();
    Some(Continuation { path, offset, size })
}
