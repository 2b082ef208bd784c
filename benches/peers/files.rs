//! Creates the files of a store and nothing else: no archive, no digest, no database. Every restore into the same
//! file system takes at least this time.
//!
//! This program itself creates them, in a separate process, on all processors: items in parallel, zeros of the right
//! size from one buffer, then mode and time.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// The option that makes this program create files.
pub const OPTION: &str = "--make-files";

/// An item, with directories before their contents.
type Item = Vec<Entry>;

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Relative to the store.
    path: PathBuf,
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Directory,
    File { size: u64, executable: bool },
    Link(PathBuf),
}

/// Writes a list of the contents of a store.
///
/// # Errors
/// If the store cannot be read, or the list cannot be written.
pub fn list(store: &Path, list: &Path) -> Result<()> {
    let mut items: Vec<Item> = Vec::new();
    for item in fs::read_dir(store)? {
        let item = item?;
        // Hidden files belong to the daemon, such as `.links`.
        if !item.file_name().as_bytes().starts_with(b".") {
            let mut entries = Vec::new();
            look(store, &item.path(), &mut entries)?;
            items.push(entries);
        }
    }
    Ok(fs::write(list, serde_json::to_vec(&items)?)?)
}

fn look(store: &Path, path: &Path, entries: &mut Item) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Link(fs::read_link(path)?),
        _ => Kind::File { size: metadata.len(), executable: metadata.mode() & 0o100 != 0 },
    };
    entries.push(Entry { path: path.strip_prefix(store)?.to_owned(), kind });
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            look(store, &entry?.path(), entries)?;
        }
    }
    Ok(())
}

/// Creates everything on a list.
///
/// # Errors
/// If a file exists already or cannot be created.
pub fn make(list: &Path, store: &Path) -> Result<()> {
    let items: Vec<Item> = serde_json::from_slice(&fs::read(list)?)?;
    let largest = items.iter().flatten().map(|entry| entry.size()).max().unwrap_or(0);
    let zeros = vec![0; usize::try_from(largest)?];
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            make_item(item, store, &zeros)?;
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let threads = (0..thread::available_parallelism()?.get()).map(|_| scope.spawn(work));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
    })
}

fn make_item(item: &Item, store: &Path, zeros: &[u8]) -> Result<()> {
    let time = UNIX_EPOCH + Duration::from_secs(1);
    for Entry { path, kind } in item {
        let path = store.join(path);
        let made = match kind {
            Kind::Directory => fs::create_dir(&path),
            Kind::Link(target) => symlink(target, &path),
            Kind::File { size, executable } => {
                let mode = if *executable { 0o555 } else { 0o444 };
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(mode).open(&path)?;
                file.write_all_at(&zeros[..usize::try_from(*size)?], 0)?;
                file.set_modified(time)
            }
        };
        made.with_context(|| path.display().to_string())?;
    }
    for Entry { path, .. } in item.iter().rev().filter(|entry| entry.is_directory()) {
        let directory = fs::File::open(store.join(path))?;
        directory.set_permissions(fs::Permissions::from_mode(0o555))?;
        directory.set_modified(time)?;
    }
    Ok(())
}

impl Entry {
    fn size(&self) -> u64 {
        if let Kind::File { size, .. } = self.kind { size } else { 0 }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// Returns the command line that makes this program create the files on a list.
///
/// # Errors
/// If the path of this program is unknown.
pub fn script(list: &Path, store: &Path) -> Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!("{} {OPTION} {} {}", program.display(), list.display(), store.display()))
}

/// Runs a command line of [`script`].
///
/// # Errors
/// As for [`make`].
pub fn run(words: &[String]) -> Result<()> {
    match words {
        [list, store] => make(Path::new(list), Path::new(store)),
        _ => bail!("{OPTION} takes a list and a directory"),
    }
}
