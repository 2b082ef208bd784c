//! Directories that are replaced while an item is unpacked, and directories that existed before.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use storecache_runtime::RunContext;
use storecache_runtime::memory::Unpacking;
use storecache_snapshot::{Index, Target, Unpacker};

use crate::support::extract_dir::{ExtractDir, continuation, parts};
use crate::support::snapshot_builder::{
    SnapshotParts, directory, file, frame, hard_link, item, open_bytes,
};

/// Returns an unpacker of the item `it` into a test directory.
fn unpacker(yard: &ExtractDir, index: &Index) -> Unpacker {
    let target = Arc::new(OwnedFd::from(fs::File::open(yard.target()).unwrap()));
    let target = Target { directory: target, name: "it".into() };
    let memory = Unpacking::on(2);
    Unpacker::new(
        &RunContext::default(),
        &Arc::new(index.clone()),
        [(0, target)],
        Some((0, 0)),
        &memory,
    )
    .unwrap()
}

/// Replaces a directory or file by a symbolic link to the outside, and keeps the original.
fn replace_by_symlink(yard: &ExtractDir, path: &str, target: &str) {
    let place = yard.target().join(path);
    let aside = yard.target().join("aside");
    std::os::unix::fs::symlink(target, &aside).unwrap();
    exchange(&aside, &place);
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Waits until all members were processed.
fn wait_for(unpacker: &Unpacker, bytes: u64) {
    while unpacker.progress().bytes < bytes {
        thread::yield_now();
    }
}

#[test]
fn directory_replaced_by_a_symlink_is_not_finished_through_it() {
    let tar = [directory(b"it"), directory(b"it/d"), file(b"it/d/x", b"x")].concat();
    let bytes = parts(vec![frame(&tar)], vec![item("it", (0, 0), 3)]).build();
    for place in ["it/d", "it"] {
        let yard = ExtractDir::new();
        let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
        unpacker.submit(0, frame(&tar).bytes).unwrap();
        wait_for(&unpacker, 1);
        let up = if place == "it" { "../outside" } else { "../../outside" };
        replace_by_symlink(&yard, place, up);
        assert!(unpacker.finish().is_err(), "{place}");
        yard.assert_untouched_outside();
    }
}

#[test]
fn directory_replaced_by_a_symlink_gets_no_more_files() {
    let first = [directory(b"it"), directory(b"it/d"), file(b"it/d/x", b"x")].concat();
    for second in [
        file(b"it/d/y", b"y"),
        file(b"it/d/e/y", b"y"),
        directory(b"it/d/e"),
        crate::support::snapshot_builder::symlink(b"it/d/l", b"x"),
    ] {
        let entry = item("it", (0, 1), 4);
        let bytes = parts(vec![frame(&first), frame(&second)], vec![entry]).build();
        let yard = ExtractDir::new();
        let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
        // With one thread: a thread that has opened the directory before may still put files into it.
        unpacker.submit(0, frame(&first).bytes).unwrap();
        wait_for(&unpacker, 1);
        replace_by_symlink(&yard, "it/d", "../../outside");
        let _ = unpacker.submit(1, frame(&second).bytes);
        assert!(unpacker.finish().is_err());
        yard.assert_untouched_outside();
    }
}

#[test]
fn replaced_file_gets_no_more_of_its_frames() {
    let whole = file(b"it/long", &[7; 2048]);
    let (first, second) = whole.split_at(512 + 1024);
    let first = [directory(b"it"), first.to_vec()].concat();
    let mut rest = frame(second);
    rest.continues = continuation("it/long", 1024, 2048);
    let frames = vec![frame(&first), rest];
    let bytes = parts(frames, vec![item("it", (0, 1), 2)]).build();
    let frames = SnapshotParts::new(&bytes).frames;
    for (what, put) in [
        ("a link", put_link as fn(&Path, &Path)),
        ("a hard link", put_hard_link),
        ("a fifo", put_fifo),
        ("nothing", |place, _| fs::remove_file(place).unwrap()),
    ] {
        // Replace the file before the next part is submitted, or before the unpacker finishes.
        for early in [true, false] {
            let yard = ExtractDir::new();
            let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
            unpacker.submit(0, frames[0].bytes.clone()).unwrap();
            wait_for(&unpacker, 1024);
            if !early {
                unpacker.submit(1, frames[1].bytes.clone()).unwrap();
                wait_for(&unpacker, 2048);
            }
            put(&yard.target().join("it/long"), &yard.target().join("../bystander"));
            if early {
                let _ = unpacker.submit(1, frames[1].bytes.clone());
            }
            assert!(unpacker.finish().is_err(), "{what}");
            yard.assert_untouched_outside();
        }
    }
}

fn put_link(place: &Path, victim: &Path) {
    fs::remove_file(place).unwrap();
    std::os::unix::fs::symlink(victim, place).unwrap();
}

fn put_hard_link(place: &Path, victim: &Path) {
    fs::remove_file(place).unwrap();
    fs::hard_link(victim, place).unwrap();
}

fn put_fifo(place: &Path, _: &Path) {
    fs::remove_file(place).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, place, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn hard_link_is_not_created_through_a_swapped_directory() {
    let tar = [
        directory(b"it"),
        directory(b"it/d"),
        file(b"it/first", b"x"),
        hard_link(b"it/d/new", b"it/first"),
    ]
    .concat();
    let bytes = parts(vec![frame(&tar)], vec![item("it", (0, 0), 4)]).build();
    let yard = ExtractDir::new();
    let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
    unpacker.submit(0, frame(&tar).bytes).unwrap();
    wait_for(&unpacker, 1);
    replace_by_symlink(&yard, "it/d", "../../outside");
    assert!(unpacker.finish().is_err());
    yard.assert_untouched_outside();
}

/// Another thread keeps exchanging a directory with a link to the outside, while thousands of members are
/// unpacked below it.
#[test]
fn directory_swapped_repeatedly_never_leads_outside() {
    let mut frames = vec![[directory(b"it"), directory(b"it/d"), file(b"it/d/x", b"x")].concat()];
    for number in 0..40 {
        let member = |nth: u32| {
            let name = format!("it/d/{number}-{nth}");
            let inside = format!("{name}/file");
            [directory(name.as_bytes()), file(inside.as_bytes(), b"y")].concat()
        };
        frames.push((0..50).flat_map(member).collect());
    }
    let members = 3 + 40 * 50 * 2;
    let entry = item("it", (0, frames.len() as u32 - 1), members);
    let frames: Vec<_> = frames.iter().map(|tar| frame(tar)).collect();
    let bytes = parts(frames.clone(), vec![entry]).build();
    let index = open_bytes(&bytes).unwrap().index;
    let mut refused = 0;
    for _ in 0..10 {
        let yard = ExtractDir::new();
        let unpacker = unpacker(&yard, &index);
        unpacker.submit(0, frames[0].bytes.clone()).unwrap();
        wait_for(&unpacker, 1);
        let link = yard.target().join("aside");
        std::os::unix::fs::symlink("../../outside", &link).unwrap();
        let stop = AtomicBool::new(false);
        let failed = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    exchange(&link, &yard.target().join("it/d"));
                }
            });
            let each = (1..).zip(&frames[1..]);
            let sent = each.map(|(at, frame)| unpacker.submit(at, frame.bytes.clone()));
            let sent: anyhow::Result<()> = sent.collect();
            let failed = sent.and_then(|()| unpacker.finish().map(drop)).is_err();
            stop.store(true, Ordering::Relaxed);
            failed
        });
        refused += u32::from(failed);
        yard.assert_untouched_outside();
    }
    assert!(refused > 0, "no path was replaced");
}

/// As on a file system that treats two names as one: a name exists that no member has created.
#[test]
fn existing_names_are_not_taken_for_new_members() {
    let tar = [directory(b"it"), directory(b"it/d"), file(b"it/d/x", b"x")].concat();
    let bytes = parts(vec![frame(&tar)], vec![item("it", (0, 0), 3)]).build();
    let index = open_bytes(&bytes).unwrap().index;
    for there in ["it", "it/d"] {
        let yard = ExtractDir::new();
        let unpacker = unpacker(&yard, &index);
        fs::create_dir_all(yard.target().join(there)).unwrap();
        let _ = unpacker.submit(0, frame(&tar).bytes);
        let refused = unpacker.finish().unwrap_err();
        assert!(format!("{refused:#}").contains("the same name"), "{refused:#}");
        yard.assert_untouched_outside();
    }
    // The directory's member comes after a file in the directory.
    let tar = [directory(b"it"), file(b"it/d/x", b"x"), directory(b"it/d")].concat();
    let bytes = parts(vec![frame(&tar)], vec![item("it", (0, 0), 3)]).build();
    let yard = ExtractDir::new();
    let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
    fs::create_dir_all(yard.target().join("it/d")).unwrap();
    let _ = unpacker.submit(0, frame(&tar).bytes);
    assert!(unpacker.finish().is_err());
    assert!(!yard.target().join("it/d/x").exists());
}

#[test]
fn unpack_does_not_cross_into_another_mount() {
    let first = [directory(b"it"), directory(b"it/d"), file(b"it/d/x", b"x")].concat();
    let second = [directory(b"it/d/e"), file(b"it/d/e/y", b"y")].concat();
    let bytes = parts(vec![frame(&first), frame(&second)], vec![item("it", (0, 1), 5)]).build();
    let yard = ExtractDir::new();
    let unpacker = unpacker(&yard, &open_bytes(&bytes).unwrap().index);
    unpacker.submit(0, frame(&first).bytes).unwrap();
    wait_for(&unpacker, 1);
    let place = yard.target().join("it/d");
    rustix::mount::mount_bind(yard.target().join("../outside"), &place).unwrap();
    let _ = unpacker.submit(1, frame(&second).bytes);
    let refused = unpacker.finish();
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(refused.is_err());
    yard.assert_untouched_outside();
}
