//! What has to wait until every file of an extraction is there.

use super::SnapshotError;
use super::clash::blamed_link;
use super::member::Attributes;
use super::place::{finish_file, last, open_parent, parent_of, set_attributes};
use super::targets::{Targets, Wanted};
use crate::threads;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Hard links, and files in several frames. By archive path.
#[derive(Default)]
pub struct Deferred {
    /// Path and target.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    long_files: HashMap<Vec<u8>, LongFile>,
}

/// A file in several frames: it is whole when its header was seen and every byte written.
#[derive(Default)]
pub struct LongFile {
    /// Size in bytes.
    pub header: Option<(u64, Attributes)>,
    pub written: u64,
    pub created: bool,
}

impl Deferred {
    pub fn link(&mut self, path: &[u8], target: &[u8]) {
        self.links.push((path.to_vec(), target.to_vec()));
    }

    pub fn long_file(&mut self, path: &[u8]) -> &mut LongFile {
        self.long_files.entry(path.to_vec()).or_default()
    }

    /// Does all of it.
    pub fn finish(self, targets: &Targets) -> Result<()> {
        for (path, long) in self.long_files {
            let damaged = |what| bail!(SnapshotError::damaged(format!("{}: {what}", shown(&path))));
            let Some((size, attributes)) = long.header else {
                return damaged("its beginning is missing");
            };
            let (parent, name) = targets.locate(&path)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(openat(&parent, &name, flags, Mode::empty())?);
            if long.written != size || file.metadata()?.len() != size {
                return damaged("parts of it are missing");
            }
            finish_file(&file, attributes, &mut None)?;
        }
        for (path, target) in self.links {
            let (from, from_name) =
                targets.locate(&target).map_err(blamed_link).with_context(|| shown(&path))?;
            let (to, to_name) = targets.locate(&path)?;
            linkat(&from, &from_name, &to, &to_name, AtFlags::empty())
                .map_err(|e| blamed_link(e.into()))
                .with_context(|| shown(&path))?;
        }
        Ok(())
    }
}

/// Gives directories their attributes, once all is in them; on so many threads.
pub fn finish_directories(targets: &Targets, wanted: usize) -> Result<()> {
    let items: Vec<&Wanted> = targets.all().collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            finish_directories_of(item)?;
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let start = || threads::start_in(scope, "to finish directories", work);
        let workers = threads::some(wanted, start)?;
        let panicked = |_| anyhow!("a thread that finishes directories panicked");
        workers.into_iter().try_for_each(|worker| worker.join().map_err(panicked)?)
    })
}

fn finish_directories_of(item: &Wanted) -> Result<()> {
    let mut directories = item.take_directories();
    // Deepest first: a directory that lost its bits may refuse what is below it.
    directories.sort_unstable_by(|a, b| b.0.cmp(&a.0));
    if let Some(twice) = directories.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        bail!(SnapshotError::damaged(format!("{} appears twice", shown(&twice[0].0))));
    }
    let mut opened: Option<(&[u8], OwnedFd)> = None;
    for (path, attributes) in &directories {
        let parent = match opened.take() {
            // Neighbours mostly have the same one.
            Some((known, parent)) if known == parent_of(path) => parent,
            _ => open_parent(item.target.directory.as_fd(), path)?,
        };
        let name = Path::new(OsStr::from_bytes(last(path)));
        set_attributes(&parent, name, *attributes, true).with_context(|| shown(path))?;
        opened = Some((parent_of(path), parent));
    }
    Ok(())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
