//! Steps that have to wait until every file of an extraction is written.

use super::SnapshotError;
use super::confined_fs::{
    Identity, Name, finish_directory, finish_file, link, open_parent, parent_of, reopen,
};
use super::error_class::blamed_link;
use super::extraction_targets::{Targets, Wanted};
use super::tar_header::Attributes;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use storecache_runtime::threads;

/// Hard links, and files in several frames, by archive path.
#[derive(Default)]
pub struct Deferred {
    links: Vec<Link>,
    long_files: HashMap<Vec<u8>, LongFile>,
}

/// Archive paths of a hard link and of its target.
type Link = (Box<[u8]>, Box<[u8]>);

/// A file in several frames. It is complete when its header was seen and every byte was written once.
#[derive(Default)]
pub struct LongFile {
    /// Size in bytes, and attributes.
    pub header: Option<(u64, Attributes)>,
    /// Offset and length of each part.
    pub parts: Vec<(u64, u64)>,
    /// Set once the file was created.
    pub made: Option<Identity>,
}

impl LongFile {
    fn is_whole(&mut self, size: u64) -> bool {
        self.parts.sort_unstable();
        let end = self.parts.iter().try_fold(0, |end, &(offset, length)| {
            (offset == end).then(|| end.saturating_add(length))
        });
        end == Some(size)
    }
}

impl Deferred {
    pub fn link(&mut self, path: &[u8], target: &[u8]) {
        self.links.push((path.into(), target.into()));
    }

    pub fn long_file(&mut self, path: &[u8]) -> &mut LongFile {
        self.long_files.entry(path.to_vec()).or_default()
    }

    /// Completes files in several frames, and makes hard links.
    pub fn finish(self, targets: &Targets) -> Result<()> {
        for (path, mut long) in self.long_files {
            let damaged = |what| bail!(SnapshotError::damaged(format!("{}: {what}", shown(&path))));
            let (Some((size, attributes)), Some(made)) = (long.header, long.made) else {
                return damaged("its beginning is missing");
            };
            if !long.is_whole(size) {
                return damaged("its parts do not add up to the whole file");
            }
            let (parent, below) = targets.locate(&path)?;
            let file =
                reopen(parent.as_fd(), Name::parse(&below), made).with_context(|| shown(&path))?;
            if file.metadata()?.len() != size {
                return damaged("parts of it are missing");
            }
            finish_file(&file, attributes, &mut None)?;
        }
        for (path, target) in &self.links {
            let (from, old) =
                targets.locate(target).map_err(blamed_link).with_context(|| shown(path))?;
            let (to, new) = targets.locate(path)?;
            link(from.as_fd(), Name::parse(&old), to.as_fd(), Name::parse(&new))
                .map_err(|e| blamed_link(e.into()))
                .with_context(|| shown(path))?;
        }
        Ok(())
    }
}

/// Sets the attributes of directories once their contents are complete, on up to `wanted` threads.
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
    // Deepest first: a directory whose permission bits are removed may deny access to directories below it.
    let directories = item.take_directories()?;
    let mut opened: Option<(&[u8], OwnedFd)> = None;
    for (path, attributes) in &directories {
        let parent = match opened.take() {
            // Neighbors mostly have the same parent.
            Some((known, parent)) if known == parent_of(path) => parent,
            _ => open_parent(item.target.directory.as_fd(), path)?,
        };
        finish_directory(parent.as_fd(), Name::parse(path), *attributes)
            .with_context(|| shown(path))?;
        opened = Some((parent_of(path), parent));
    }
    Ok(())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
