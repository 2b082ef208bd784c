//! The readers of a snapshot: `verify` and `restore`, through the functions that the programs call, and tar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use storecache_root_helper::consistency_checks::{check_database, check_kind};
use storecache_runtime::RunContext;
use storecache_runtime::memory::Unpacking;
use storecache_snapshot::{Opened, Target, Unpacker, Verifier, write_database};
use storecache_store::{
    ItemName, Layout, LiveDatabase, Merge, Owner, Rows, SnapshotDatabase, SnapshotRows, StoreKind,
    choose,
};

use crate::support::snapshot_builder::{frame_bytes, open_bytes};
use crate::support::{Entry, tree_digest};

pub type Tree = BTreeMap<PathBuf, Entry>;

/// Checks a snapshot as `storecache verify` does.
pub fn verify(bytes: &[u8]) -> Result<()> {
    let Opened { head, index, .. } = open_bytes(bytes)?;
    check_kind(StoreKind::parse(head.store.kind.raw())?, &index)?;
    let mut verifier = Verifier::new(&index)?;
    for number in 0..index.frames.len() {
        verifier.frame(number as u32, frame_bytes(bytes, &index, number))?;
    }
    verifier.finish()?;
    let place = tempfile::tempdir()?;
    read_database(bytes, place.path()).map(drop)
}

/// Returns the database of a snapshot and its checked rows.
fn read_database(bytes: &[u8], place: &Path) -> Result<(SnapshotDatabase, SnapshotRows)> {
    let Opened { head, index, .. } = open_bytes(bytes)?;
    let layout = Layout::new(StoreKind::parse(head.store.kind.raw())?, Path::new("/"))?;
    let path = place.join("snapshot.sqlite");
    let mut file = File::create(&path)?;
    write_database(&index, &mut file, |number| {
        anyhow::Ok(frame_bytes(bytes, &index, number as usize))
    })?;
    let database = SnapshotDatabase::open(&path, &layout)?;
    let rows = check_database(&database, &index, None)?;
    Ok((database, rows))
}

/// Restores all items into an empty store, and returns its files.
pub fn restore(bytes: &[u8]) -> Result<Tree> {
    restore_some(bytes, &|_| true)
}

/// Restores some of the items, as into a store that has the others.
pub fn restore_some(bytes: &[u8], chosen: &dyn Fn(&str) -> bool) -> Result<Tree> {
    let Opened { head, index, .. } = open_bytes(bytes)?;
    check_kind(StoreKind::parse(head.store.kind.raw())?, &index)?;
    let place = tempfile::tempdir()?;
    let (database, rows) = read_database(bytes, place.path())?;
    let items: Vec<ItemName> = rows.items.iter().map(|item| item.name.clone()).collect();
    let packed = |name: &ItemName| index.holds(name.as_str());
    let mut wanted = choose(&items, &rows.references, &Default::default(), &packed).wanted;
    let all = wanted.len();
    wanted.retain(|name| chosen(name.as_str()));
    let rows = Rows::read(&database, &wanted, None)?;

    let root = place.path().join("root");
    let layout = Layout::new(StoreKind::Nix, &root)?;
    fs::create_dir_all(layout.store())?;
    let directory = Arc::new(OwnedFd::from(File::open(layout.store())?));
    let position = |name: &ItemName| index.items.iter().position(|item| item.name == name.as_str());
    let positions: Vec<usize> = wanted.iter().filter_map(position).collect();
    let targets = positions.iter().map(|&at| {
        let name = index.items[at].name.clone();
        (at, Target { directory: Arc::clone(&directory), name })
    });
    let shared = Arc::new(index.clone());
    let unpacker =
        Unpacker::new(&RunContext::default(), &shared, targets, Some((0, 0)), &Unpacking::on(2))?;
    for number in index.frames_of(positions.iter().copied()) {
        unpacker.submit(number, frame_bytes(bytes, &index, number as usize).to_vec())?;
    }
    unpacker.finish()?;
    if wanted.len() == all {
        fs::create_dir_all(layout.database_dir())?;
        LiveDatabase::create_if_missing(&layout, Owner::find(&layout)?)?;
        let merge = Merge::begin(&layout, &rows, false, &|| Ok(()))?;
        merge.insert(&layout, &rows)?;
        merge.commit(&layout)?;
    }
    Ok(tree(&layout.store()))
}

fn tree(store: &Path) -> Tree {
    let mut tree = if store.is_dir() { tree_digest(store) } else { Tree::new() };
    tree.remove(Path::new(""));
    tree
}

/// Returns the store that `zstd -dc | PROGRAM -x` makes, or `None` if there is no such program.
pub fn tar(program: &str, bytes: &[u8]) -> Option<Result<Tree, String>> {
    tar_tree(program, bytes, |top| comparable(program, tree(&top.join("nix/store"))))
}

/// Returns the tree as far as the program restores it. bsdtar does not set the time of a directory that it had
/// to create for a shared file, before the directory's own member.
pub fn comparable(program: &str, mut tree: Tree) -> Tree {
    if program == "bsdtar" {
        let directories = tree.values_mut().filter(|entry| entry.mode & 0o170000 == 0o040000);
        directories.for_each(|entry| entry.mtime = (0, 0));
    }
    tree
}

/// Returns the first difference between two trees.
pub fn difference<T: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<PathBuf, T>,
    other: &BTreeMap<PathBuf, T>,
) -> Option<String> {
    let paths = one.keys().chain(other.keys());
    let mut differ = paths.filter(|path| one.get(*path) != other.get(*path));
    let path = differ.next()?;
    Some(format!("{path:?}: {:?} and {:?}", one.get(path), other.get(path)))
}

/// As [`tar`], for a snapshot that the program must accept.
#[track_caller]
pub fn unpack(program: &str, bytes: &[u8]) -> Option<Tree> {
    tar(program, bytes).map(Result::unwrap)
}

/// Unpacks a snapshot with a program, and returns the result of `look` at the files.
pub fn tar_tree<T>(
    program: &str,
    bytes: &[u8],
    look: impl FnOnce(&Path) -> T,
) -> Option<Result<T, String>> {
    let installed = Command::new(program).arg("--version").output().is_ok();
    let unpacked = || try_tar(program, bytes, look).map_err(|e| format!("{program}: {e:#}"));
    installed.then(unpacked)
}

fn try_tar<T>(program: &str, bytes: &[u8], look: impl FnOnce(&Path) -> T) -> Result<T> {
    let mut tar_bytes = Vec::new();
    zstd::Decoder::new(bytes)?.read_to_end(&mut tar_bytes)?;
    let place = tempfile::tempdir()?;
    let mut tar = Command::new(program)
        .args(["-x", "-p", "--numeric-owner", "-f", "-", "-C"])
        .arg(place.path())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = tar.stdin.take().context("no pipe")?;
    // The program does not read what is behind the end of the archive.
    let _ = input.write_all(&tar_bytes);
    drop(input);
    let done = tar.wait_with_output()?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(look(place.path()))
}
