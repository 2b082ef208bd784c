//! Tests that `verify` and `restore` agree on any snapshot, and that accepted snapshots have the content that
//! tar unpacks.
//!
//! [`faults`] lists each fault that a snapshot can have; the programs must refuse each of them. [`mutations`]
//! makes random changes, for which the tests compare the functions that both programs call. The tests need
//! root, but no world.

mod faults;
mod library;
mod mutations;
mod saved_store;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::support::extract_dir::{ExtractDir, parts};
use crate::support::plain_env::plain_tree;
use crate::support::snapshot_builder::{
    self, SnapshotParts, check, directory, frame, item, open_bytes, with_index,
};
use faults::{FAULTS, OLD};
use library::{Tree, comparable, difference, restore, tar, unpack, verify};
use mutations::Mutation;
use saved_store::Saved;

/// Runs the two programs as users do.
#[test]
fn verify_and_restore_refuse_every_named_fault() {
    let saved = Saved::get();
    let good = saved.run(&saved.bytes);
    assert_eq!((good.verify.as_deref(), good.restore.as_deref()), (Ok(""), Ok("")));
    let mut wrong = Vec::new();
    for (name, words, fault) in FAULTS {
        let bytes = fault(&saved.bytes);
        let run = saved.run(&bytes);
        for (program, verdict) in [("verify", &run.verify), ("restore", &run.restore)] {
            match verdict {
                Ok(_) => wrong.push(format!("{name}: {program} accepts it")),
                Err(said) if said.contains(words) => {}
                Err(said) => wrong.push(format!("{name}: {program} says {said}")),
            }
        }
        if run.restore.is_err() && !run.set_aside {
            wrong.push(format!("{name}: restore does not count it as damage"));
        }
        if run.restore.is_err() && run.items > 0 {
            wrong.push(format!("{name}: restore has left items"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The random mutations only run through the library's functions, so these must agree with the programs.
#[test]
fn library_verdicts_are_those_of_the_programs() {
    let saved = Saved::get();
    verify(&saved.bytes).unwrap();
    restore(&saved.bytes).unwrap();
    let mut wrong = Vec::new();
    for (name, words, fault) in FAULTS {
        let bytes = fault(&saved.bytes);
        for (reader, verdict) in
            [("verify", verify(&bytes)), ("restore", restore(&bytes).map(drop))]
        {
            match verdict {
                Ok(()) => wrong.push(format!("{name}: {reader} accepts it")),
                Err(error) if format!("{error:#}").contains(words) => {}
                Err(error) => wrong.push(format!("{name}: {reader}: {error:#}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rows_of_old_snapshots_need_no_mark() {
    let saved = Saved::get();
    let unmarked = with_index(&saved.bytes, |index| index.rows_only = None);
    verify(&unmarked).unwrap();
    restore(&unmarked).unwrap();
    for (name, fault) in OLD {
        let bytes = fault(&unmarked);
        assert!(verify(&bytes).is_ok() && restore(&bytes).is_ok(), "{name}");
    }
}

#[test]
fn saves_mark_rows_without_files() {
    let saved = Saved::get();
    let rows_only = SnapshotParts::new(&saved.bytes).rows_only;
    assert_eq!(rows_only, Some(vec![saved.missing.clone()]));
}

#[test]
fn tar_unpacks_what_restore_installs() {
    let saved = Saved::get();
    let restored = restore(&saved.bytes).unwrap();
    for program in ["tar", "bsdtar"] {
        if let Some(unpacked) = unpack(program, &saved.bytes) {
            let restored = comparable(program, restored.clone());
            assert_eq!(difference(&unpacked, &restored), None, "{program}");
        }
    }
}

/// A restore of some items refuses only snapshots that `verify` refuses, and installs the same files as a
/// restore of all.
#[test]
fn partial_restores_install_what_full_ones_do() {
    let saved = Saved::get();
    let full = restore(&saved.bytes).unwrap();
    for name in &saved.names {
        let part = library::restore_some(&saved.bytes, &|item| item == name).unwrap();
        assert!(!part.is_empty());
        assert!(part.iter().all(|(path, entry)| full.get(path) == Some(entry)), "{name}");
    }
}

/// A member of a plain directory: kind, path, target, size, mode, owner, time.
type Plain = (u8, usize, usize, u16, u32, u16, u32);

/// Returns one of the paths below the item `it`, the last of which has a long name.
fn path(number: usize) -> String {
    let long = format!("it/{}", "n".repeat(150));
    let paths = ["it", "it/a", "it/a/b", "it/a/c", "it/a/c/d", "it/e", "it/f", &long];
    paths[number % paths.len()].to_owned()
}

/// Returns the tar bytes of a member in the form of the format.
fn plain_member((kind, at, to, size, mode, owner, time): Plain) -> Vec<u8> {
    let (path, target) = (path(at), path(to));
    let (kind, name, target, size) = match kind % 6 {
        0 | 1 => (b'5', format!("{path}/"), "", 0),
        2 | 3 => (b'0', path, "", size % 1500),
        4 => (b'2', path, &*target, 0),
        _ => (b'1', path, &*target, 0),
    };
    let long = |kind, text: &str| match text.len() > 100 {
        true => faults::long(kind, text.as_bytes()),
        false => Vec::new(),
    };
    let short = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    let mut bytes =
        snapshot_builder::member(&short(&name), kind, &short(target), &vec![7; size.into()]);
    let mut header = tar_header(&bytes);
    header.set_mode(mode & 0o7777);
    header.set_uid(owner.into());
    header.set_mtime(time.into());
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    [long(b'K', target), long(b'L', &name), bytes].concat()
}

fn tar_header(bytes: &[u8]) -> ::tar::Header {
    ::tar::Header::from_byte_slice(&bytes[..512]).clone()
}

/// Whether an error is about an item of the snapshot that was not restored.
fn is_of_skipped_item(bytes: &[u8], error: &anyhow::Error, restored: &Tree) -> bool {
    let error = format!("{error:#}");
    let mut items = SnapshotParts::new(bytes).items.into_iter().map(|item| item.name);
    items.any(|name| error.contains(&name) && !restored.keys().any(|path| path.starts_with(&name)))
}

/// The item `link` must have one member more than it has, and an item that it refers to refers to an item without
/// files.
#[test]
fn fault_of_an_item_that_restore_skips_is_left_to_verify() {
    let mutations = [(117, 10338, 0, 1_060_434_621), (41, 0, 12987, 1_558_094_858)];
    let bytes = mutations::apply(&Saved::get().bytes, &mutations).unwrap();
    let (error, restored) = (verify(&bytes).unwrap_err(), restore(&bytes).unwrap());
    assert!(format!("{error:#}").contains("-link has 1 of 2 members"), "{error:#}");
    assert!(is_of_skipped_item(&bytes, &error, &restored), "{restored:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: mutations::cases(),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn verdicts_on_mutated_snapshots_are_equal(
        mutations in proptest::collection::vec(any::<Mutation>(), 1..4),
    ) {
        let Some(bytes) = mutations::apply(&Saved::get().bytes, &mutations) else { return Ok(()) };
        let (verified, restored) = (verify(&bytes), restore(&bytes));
        match (verified, restored) {
            (Err(_), Err(_)) => {}
            (Ok(()), Ok(restored)) => {
                for program in ["tar", "bsdtar"] {
                    if let Some(unpacked) = tar(program, &bytes) {
                        let mut unpacked = unpacked.map_err(TestCaseError::fail)?;
                        // Items that refer to an item that was left out are not restored.
                        let item = |path: &Path| path.iter().next().map(PathBuf::from);
                        unpacked.retain(|path, _| {
                            item(path).is_some_and(|item| restored.contains_key(&item))
                        });
                        let restored = comparable(program, restored.clone());
                        prop_assert_eq!(difference(&unpacked, &restored), None, "{}", program);
                    }
                }
            }
            (Ok(()), Err(error)) => prop_assert!(false, "restore alone refuses it: {error:#}"),
            (Err(error), Ok(restored)) => {
                // A restore does not read an item that it skips, such as one whose references are missing.
                let is_skipped = is_of_skipped_item(&bytes, &error, &restored);
                prop_assert!(is_skipped, "verify alone refuses it: {error:#}");
            }
        }
    }

    #[test]
    fn tar_unpacks_plain_directories_as_restore_does(
        members in proptest::collection::vec(any::<Plain>(), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let all: Vec<Vec<u8>> = [directory(b"it")].into_iter()
            .chain(members.iter().map(|member| plain_member(*member))).collect();
        let (first, second) = all.split_at(1 + cut.index(all.len()));
        let mut frames = vec![frame(&first.concat())];
        if !second.is_empty() {
            frames.push(frame(&second.concat()));
        }
        let entry = item("it", (0, frames.len() as u32 - 1), all.len() as u64);
        frames.push(frame(&[0; 1024]));
        let bytes = parts(frames.clone(), vec![entry]).build();
        let yard = ExtractDir::new();
        let index = open_bytes(&bytes).unwrap().index;
        let restored = yard.unpack(&index, &frames, None, 2);
        prop_assert_eq!(check(&bytes).is_ok(), restored.is_ok(), "{:?}", restored);
        if restored.is_ok() {
            let restored = plain_tree(&yard.target().join("it"));
            for program in ["tar", "bsdtar"] {
                let unpacked = library::tar_tree(program, &bytes, |top| plain_tree(&top.join("it")));
                if let Some(unpacked) = unpacked {
                    let unpacked = unpacked.map_err(TestCaseError::fail)?;
                    prop_assert_eq!(difference(&unpacked, &restored), None, "{}", program);
                }
            }
        }
    }

    #[test]
    fn partial_restores_of_mutated_snapshots_refuse_no_more(
        mutations in proptest::collection::vec(any::<Mutation>(), 1..3),
        which in any::<prop::sample::Index>(),
    ) {
        let saved = Saved::get();
        let Some(bytes) = mutations::apply(&saved.bytes, &mutations) else { return Ok(()) };
        let name = which.get(&saved.names);
        let partial = library::restore_some(&bytes, &|item| item == name);
        match (restore(&bytes), partial) {
            (Ok(full), Ok(part)) => {
                prop_assert!(part.iter().all(|(path, entry)| full.get(path) == Some(entry)));
            }
            (Ok(_), Err(error)) => prop_assert!(false, "only a part is refused: {error:#}"),
            (Err(_), _) => {}
        }
    }
}
