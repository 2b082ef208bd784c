//! Bad input causes a clear error and no changes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::Role;
use crate::support::bad_snapshot_env::{BadSnapshotEnv, InvalidSnapshot, with_database};
use crate::support::extract_dir::{ExtractDir, continuation, head, parts, try_unpack};
use crate::support::plain_env::{PlainEnv, PlainTree, plain_tree, storecache};
use crate::support::snapshot_builder::{
    self, SnapshotParts, check, directory, file, frame, hard_link, item, open_bytes, symlink,
};
use crate::support::world_runs::{attempt, report};
use proptest::prelude::*;
use storecache_entry::Digest;
use storecache_snapshot::{
    Base, BaseItem, Continuation, Frame, Head, Index, ItemEntry, Opened, SnapshotError, inherited,
};

/// A small snapshot of a plain directory.
fn small_snapshot() -> Vec<u8> {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "some content\n");
    place.write("/srv/a/below/other", "more\n");
    place.save(&["/srv/a"]);
    fs::read(place.snapshot()).unwrap()
}

#[test]
fn snapshot_truncated_at_any_byte_is_refused() {
    let bytes = small_snapshot();
    check(&bytes).unwrap();
    for length in 0..bytes.len() {
        let refused = check(&bytes[..length]);
        assert!(refused.is_err(), "the first {length} bytes were accepted");
    }
}

#[test]
fn snapshot_with_any_byte_flipped_is_refused() {
    let mut bytes = small_snapshot();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xFF] {
            bytes[at] ^= mask;
            assert!(check(&bytes).is_err(), "byte {at} with {mask:#x} was accepted");
            bytes[at] ^= mask;
        }
    }
    check(&bytes).unwrap();
}

#[test]
fn snapshot_with_a_byte_added_or_removed_is_refused() {
    let bytes = small_snapshot();
    for at in 0..=bytes.len() {
        let (before, after) = bytes.split_at(at);
        assert!(check(&[before, b"\0", after].concat()).is_err(), "at {at}");
        if !after.is_empty() {
            assert!(check(&[before, &after[1..]].concat()).is_err(), "at {at}");
        }
    }
}

#[test]
fn newer_format_is_refused_with_its_number() {
    let mut parts = SnapshotParts::new(&small_snapshot());
    parts.head.format = 3;
    let refused = check(&parts.build()).unwrap_err();
    assert!(matches!(refused, SnapshotError::NewerFormat { found: 3, .. }));
    let text = refused.to_string();
    assert!(text.contains("format 3") && text.contains("up to 2"), "{text}");
}

proptest! {
    #[test]
    fn delta_joins_only_a_complete_matching_base(
        own in proptest::collection::vec(0_u8..6, 0..4),
        taken in proptest::collection::vec((0_u8..6, 0_u8..3), 0..6),
        held in proptest::collection::vec((0_u8..6, 0_u8..3), 0..6),
        right in any::<bool>(),
        nested in any::<bool>(),
    ) {
        let named = |name: &u8, hash: Option<&u8>| ItemEntry {
            nar_hash: hash.map(|hash| format!("sha256:{hash}")),
            ..item(&format!("it-{name}"), (0, 0), 1)
        };
        let index = |items: Vec<ItemEntry>, base: Option<Base>| {
            let mut head = head();
            if let Some(base) = &base {
                (head.format, head.base) = (2, Some(base.entry.as_str().into()));
            }
            let frames = vec![frame(&[0; 1024])];
            open_bytes(&SnapshotParts { head, base, ..parts(frames, items) }.build())
        };
        let on = |index: Digest, items: &[(u8, u8)]| Base {
            entry: "k".into(),
            index,
            items: items.iter().map(|(name, hash)| BaseItem {
                name: format!("it-{name}"),
                nar_hash: format!("sha256:{hash}"),
                used: None,
            }).collect(),
        };
        let nested = nested.then(|| on(Digest::hash(b""), &[]));
        let chain = nested.is_some();
        let base = index(held.iter().map(|(n, h)| named(n, Some(h))).collect(), nested);
        let Ok(base) = base else { return Ok(()) };
        let identity = if right { Index::identity(&base.index_bytes).unwrap() } else { Digest::hash(b"") };
        let delta = index(own.iter().map(|n| named(n, None)).collect(), Some(on(identity, &taken)));
        let names: Vec<u8> = own.iter().copied().chain(taken.iter().map(|(n, _)| *n)).collect();
        let distinct = names.iter().collect::<BTreeSet<_>>().len() == names.len();
        prop_assert_eq!(delta.is_ok(), distinct);
        let Ok(delta) = delta else { return Ok(()) };
        let joined = inherited(&delta.index, &base.index, &base.index_bytes);
        let twice = held.iter().collect::<BTreeSet<_>>().len() < held.len();
        let all = taken.iter().all(|item| held.contains(item));
        prop_assert_eq!(joined.is_ok(), right && !chain && !twice && all);
        for (name, at) in joined.unwrap_or_default() {
            prop_assert_eq!(name, &base.index.items[at].name);
        }
    }
}

#[test]
fn head_ignores_unknown_fields() {
    let bytes = small_snapshot();
    let opened = open_bytes(&bytes).unwrap();
    let mut head = serde_json::to_value(&opened.head).unwrap();
    head["colour"] = "blue".into();
    head["store"]["colour"] = "blue".into();
    let head = Head::from_bytes(head.to_string().as_bytes()).unwrap();
    assert_eq!(head, opened.head);
}

/// Asserts that these members of the item `it` are refused, although the index has the correct number of
/// them.
#[track_caller]
fn assert_refused(what: &str, members: &[Vec<u8>]) {
    let entry = item("it", (0, 0), members.len() as u64);
    let (yard, refused) = try_unpack(parts(vec![frame(&members.concat())], vec![entry]));
    let error = match refused {
        Ok(_) => panic!("{what}: was unpacked"),
        Err(error) => format!("{error:#}"),
    };
    assert!(!error.contains("panicked"), "{what}: {error}");
    yard.assert_untouched_outside();
}

#[test]
fn harmless_members_are_unpacked() {
    let members = [
        directory(b"it"),
        file(b"it/file", b"content"),
        hard_link(b"it/same", b"it/file"),
        symlink(b"it/out", b"../../outside"),
    ];
    let entry = item("it", (0, 0), 4);
    let (yard, unpacked) = try_unpack(parts(vec![frame(&members.concat())], vec![entry]));
    assert_eq!(unpacked.unwrap().items, 1);
    assert_eq!(fs::read(yard.target().join("it/same")).unwrap(), b"content");
    yard.assert_untouched_outside();
}

#[test]
fn member_names_outside_the_item_are_refused() {
    for path in [
        "/it/x",
        "../x",
        "it/../x",
        "it/../../bystander",
        "it/..",
        "./it/x",
        "it/./x",
        "it//x",
        "it/",
        "",
        "/",
        ".",
        "..",
        "other/x",
        "it2",
        "item/x",
        "bystander",
    ] {
        let members = [directory(b"it"), file(path.as_bytes(), b"x")];
        assert_refused(path, &members);
        assert_refused(path, &[directory(b"it"), symlink(path.as_bytes(), b"it")]);
    }
    for path in ["../d", "/tmp/d", "it/../d"] {
        assert_refused(path, &[directory(b"it"), directory(path.as_bytes())]);
    }
    let long =
        snapshot_builder::member(b"././@LongLink", b'L', b"", b"it/a\0/../../../bystander\0");
    let members = [directory(b"it"), [long, file(b"it/a", b"x")].concat()];
    assert_refused("a zero byte in a long name", &members);
    let long = snapshot_builder::member(b"././@LongLink", b'L', b"", b"../../bystander\0");
    let members = [directory(b"it"), [long, file(b"it/a", b"x")].concat()];
    assert_refused("a long name", &members);
}

#[test]
fn unpack_never_writes_through_a_symlink() {
    for target in ["..", "../..", "../../outside", "/tmp", "."] {
        let link = symlink(b"it/link", target.as_bytes());
        let below = file(b"it/link/new", b"x");
        assert_refused(target, &[directory(b"it"), link.clone(), below]);
        let below = directory(b"it/link/new");
        assert_refused(target, &[directory(b"it"), link.clone(), below]);
        let deep = file(b"it/link/a/b", b"x");
        assert_refused(target, &[directory(b"it"), link, deep]);
    }
    let link = symlink(b"it", b"../outside");
    assert_refused("the item", &[link.clone(), file(b"it/secret", b"x")]);
    assert_refused("the item", &[link.clone(), file(b"it/new", b"x")]);
    assert_refused("the item", &[link, directory(b"it")]);
    let link = symlink(b"it/file", b"../../bystander");
    let members = [directory(b"it"), link, file(b"it/file", b"x")];
    assert_refused("a file over a link", &members);
}

#[test]
fn hard_links_outside_their_item_are_refused() {
    for target in [
        "../bystander",
        "../../bystander",
        "/etc/passwd",
        "it/../../bystander",
        "it/..",
        "it/.",
        "other",
        "other/file",
        "it2/file",
        "",
        "it/missing",
        "it",
        "it/directory",
        "it/self",
        "it/out/secret",
    ] {
        let members = [
            directory(b"it"),
            directory(b"it/directory"),
            symlink(b"it/out", b"../../outside"),
            hard_link(b"it/self", target.as_bytes()),
        ];
        assert_refused(target, &members);
    }
    assert_refused("the item itself", &[hard_link(b"it", b"other")]);
}

#[test]
fn hard_link_to_another_existing_item_is_refused() {
    let one = [directory(b"it"), hard_link(b"it/file", b"other/file")];
    let other = [directory(b"other"), file(b"other/file", b"x")];
    let tar = [one.concat(), other.concat()].concat();
    let items = vec![item("it", (0, 0), 2), item("other", (0, 0), 2)];
    let (_yard, refused) = try_unpack(parts(vec![frame(&tar)], items));
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("hard link"), "{error}");
}

#[test]
fn duplicate_member_names_are_refused() {
    let top = || directory(b"it");
    let name = b"it/name";
    let kinds = || {
        [
            file(name, b"x"),
            directory(name),
            symlink(name, b"elsewhere"),
            hard_link(name, b"it/first"),
        ]
    };
    for one in kinds() {
        for other in kinds() {
            let first = file(b"it/first", b"first");
            let members = [top(), first, one.clone(), other];
            assert_refused("two of one name", &members);
        }
    }
    assert_refused("below a file", &[top(), file(name, b"x"), file(b"it/name/y", b"y")]);
    assert_refused("the item twice", &[top(), top()]);
    assert_refused("the item twice", &[file(b"it", b"x"), file(b"it", b"y")]);
}

#[test]
fn unsupported_member_types_are_refused() {
    for kind in *b"3467ADMNSVXgZ" {
        let odd = snapshot_builder::member(b"it/odd", kind, b"", b"");
        assert_refused(&format!("type {}", kind as char), &[directory(b"it"), odd]);
    }
    for record in ["path=../x", "linkpath=/etc", "size=99", "uid=0", "mtime=x", "mtime=1.5"] {
        let record = format!("{} {record}\n", record.len() + 4);
        let pax = snapshot_builder::member(b"././@PaxHeader", b'x', b"", record.as_bytes());
        let members = [directory(b"it"), [pax, file(b"it/a", b"x")].concat()];
        assert_refused(&record, &members);
    }
    let mut bad_sum = file(b"it/a", b"x");
    bad_sum[0] ^= 1;
    assert_refused("a wrong checksum", &[directory(b"it"), bad_sum]);
    let content = snapshot_builder::member(b"it/d", b'5', b"", b"content");
    assert_refused("a directory with content", &[directory(b"it"), content]);
    assert_refused("a link to nowhere", &[directory(b"it"), symlink(b"it/l", b"")]);
}

#[test]
fn members_must_match_the_frames_and_counts_in_the_index() {
    let frames = || {
        let one = [directory(b"it"), file(b"it/a", b"a")].concat();
        vec![frame(&one), frame(&file(b"it/b", b"b"))]
    };
    let (_yard, unpacked) = try_unpack(parts(frames(), vec![item("it", (0, 1), 3)]));
    unpacked.unwrap();
    for entry in [
        item("it", (0, 0), 3),
        item("it", (1, 1), 3),
        item("it", (0, 1), 2),
        item("it", (0, 1), 4),
        item("other", (0, 1), 3),
        item("i", (0, 1), 3),
        item("it/a", (0, 1), 3),
    ] {
        let shown = format!("{entry:?}");
        let (yard, refused) = try_unpack(parts(frames(), vec![entry]));
        assert!(refused.is_err(), "{shown}");
        yard.assert_untouched_outside();
    }
    let twice = vec![item("it", (0, 1), 3), item("it", (0, 1), 3)];
    let (_yard, refused) = try_unpack(parts(frames(), twice));
    assert!(format!("{:#}", refused.unwrap_err()).contains("begins before the end"));
}

type IndexChange = fn(&mut Index);

/// A name, and a change to an index.
type IndexForgery = (&'static str, IndexChange);

#[test]
fn inconsistent_index_is_not_opened() {
    let entry = item("it", (0, 0), 1);
    let good = parts(vec![frame(&file(b"it", b"x")), frame(&[0; 1024])], vec![entry]).build();
    assert_eq!(snapshot_builder::with_index(&good, |_| ()), good);
    let lies: [IndexForgery; 16] = [
        ("frames beyond the last", |it| it.items[0].frames = (0, 2)),
        ("frames backwards", |it| it.items[0].frames = (1, 0)),
        ("frames far away", |it| it.items[0].frames = (0, u32::MAX)),
        ("a newer format", |it| it.format = 2),
        ("no format", |it| it.format = 0),
        ("a frame at another offset", |it| it.frames[1].at += 1),
        ("a longer frame", |it| it.frames[0].size += 1),
        ("an endless frame", |it| it.frames[1].size = u64::MAX),
        ("a larger frame", |it| it.frames[1].raw = u64::MAX),
        ("one frame less", |it| drop(it.frames.pop())),
        ("no frames", |it| it.frames.clear()),
        ("one frame more", |it| it.frames.push(it.frames[1].clone())),
        ("another digest of a frame", |it| it.frames[0].sha256 = it.head),
        ("another digest of all", |it| it.archive = it.head),
        ("another head", |it| it.head = it.archive),
        ("a longer head", |it| it.head_bytes += 1),
    ];
    for (what, lie) in lies {
        let bytes = snapshot_builder::with_index(&good, lie);
        assert!(open_bytes(&bytes).is_err(), "{what}");
    }
}

#[test]
fn frame_with_unexpected_size_or_content_is_refused() {
    let entry = || vec![item("it", (0, 0), 1)];
    let content = vec![0; 65 << 20];
    let (_yard, refused) = try_unpack(parts(vec![frame(&file(b"it", &content))], entry()));
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("too large"), "{error}");

    let honest = || frame(&file(b"it", b"content"));
    for raw in [0, 512, 1023, 1025, 64 << 20, u32::MAX.into()] {
        let lying = Frame { raw, ..honest() };
        let (_yard, refused) = try_unpack(parts(vec![lying], entry()));
        assert!(refused.is_err(), "{raw} bytes were accepted");
    }
    for bytes in [b"".to_vec(), b"no zstd".to_vec(), vec![0x28, 0xB5, 0x2F, 0xFD]] {
        let sha256 = storecache_entry::Digest::hash(&bytes);
        let odd = Frame { bytes, sha256, ..honest() };
        let (_yard, refused) = try_unpack(parts(vec![odd], entry()));
        assert!(refused.is_err());
    }
}

/// The frames of a file of 2048 bytes in two frames; `continues` is the index entry of the second.
fn long_file(continues: Option<Continuation>) -> Vec<Frame> {
    let whole = file(b"it/long", &[7; 2048]);
    let (first, second) = whole.split_at(512 + 1024);
    let first = [directory(b"it"), first.to_vec()].concat();
    let second = Frame { continues, ..frame(second) };
    vec![frame(&first), second]
}

#[test]
fn file_in_two_frames_continues_at_the_exact_offset() {
    let entry = || vec![item("it", (0, 1), 2)];
    let good = continuation("it/long", 1024, 2048);
    let (yard, unpacked) = try_unpack(parts(long_file(good), entry()));
    unpacked.unwrap();
    assert_eq!(fs::read(yard.target().join("it/long")).unwrap(), [7; 2048]);
    for bad in [
        None,
        continuation("it/long", 512, 2048),
        continuation("it/long", 0, 1024),
        continuation("it/long", 1536, 2048),
        continuation("it/long", 4096, 2048),
        continuation("it/long", u64::MAX, u64::MAX),
        continuation("it/long", 1, 2048),
        continuation("it/other", 1024, 2048),
        continuation("it", 1024, 2048),
        continuation("it/../../bystander", 1024, 2048),
        continuation("it/%2E%2E/%2E%2E/bystander", 1024, 2048),
        continuation("/bystander", 1024, 2048),
        continuation("%zz", 1024, 2048),
        continuation("", 1024, 2048),
    ] {
        let shown = format!("{bad:?}");
        let (yard, refused) = try_unpack(parts(long_file(bad), entry()));
        assert!(refused.is_err(), "{shown}");
        yard.assert_untouched_outside();
    }
}

#[test]
fn file_parts_that_overlap_and_leave_a_hole_are_refused() {
    let whole = file(b"it/long", &[7; 4096]);
    let first = [directory(b"it"), whole[..512 + 1024].to_vec()].concat();
    // Three parts of 1024 bytes each: the total size is correct, and the last part is at the end of the file.
    let part =
        |offset| Frame { continues: continuation("it/long", offset, 4096), ..frame(&[7; 1024]) };
    for (offsets, right) in [([1024, 2048, 3072], true), ([1024, 1024, 3072], false)] {
        let frames = [frame(&first)].into_iter().chain(offsets.map(part)).collect();
        let (_yard, unpacked) = try_unpack(parts(frames, vec![item("it", (0, 3), 2)]));
        assert_eq!(unpacked.is_ok(), right, "{offsets:?}");
    }
}

#[test]
fn swapped_or_missing_frames_are_refused() {
    let frames = || {
        let one = [directory(b"it"), file(b"it/a", b"a")].concat();
        let other = [directory(b"other"), file(b"other/b", b"b")].concat();
        vec![frame(&one), frame(&other)]
    };
    let items = || vec![item("it", (0, 0), 2), item("other", (1, 1), 2)];
    let swapped = frames().into_iter().rev().collect();
    let (yard, refused) = try_unpack(parts(swapped, items()));
    assert!(format!("{:#}", refused.unwrap_err()).contains("contradicts the index"));
    yard.assert_untouched_outside();
    let index = open_bytes(&parts(frames(), items()).build()).unwrap().index;
    let yard = ExtractDir::new();
    let refused = yard.unpack(&index, &frames()[..1], None, 1).unwrap_err();
    assert!(format!("{refused:#}").contains("other has 0 of 2 members"), "{refused:#}");
}

#[test]
fn file_continuation_is_not_written_through_a_symlink() {
    let first = [directory(b"it"), symlink(b"it/long", b"../../bystander")].concat();
    let second = Frame { continues: continuation("it/long", 512, 1024), ..frame(&[7; 512]) };
    let entry = item("it", (0, 1), 2);
    let (yard, refused) = try_unpack(parts(vec![frame(&first), second], vec![entry]));
    assert!(refused.is_err());
    yard.assert_untouched_outside();
}

#[test]
fn unpack_drops_setuid_bits_and_foreign_owners() {
    let mut program = file(b"it", b"#!/bin/sh\n");
    let mut header = tar::Header::from_byte_slice(&program[..512]).clone();
    header.set_mode(0o6777);
    header.set_uid(1234);
    header.set_mtime(99);
    header.set_cksum();
    program[..512].copy_from_slice(header.as_bytes());
    let bytes = parts(vec![frame(&program)], vec![item("it", (0, 0), 1)]).build();
    let yard = ExtractDir::new();
    let Opened { index, .. } = open_bytes(&bytes).unwrap();
    let frames = SnapshotParts::new(&bytes).frames;
    yard.unpack(&index, &frames, Some((0, 0)), 1).unwrap();
    let entry = &plain_tree(&yard.target().join("it"))[Path::new("")].entry;
    assert_eq!(entry.mode & 0o7777, 0o555);
    assert_eq!((entry.uid, entry.mtime), (0, (1, 0)));
}

/// Opens, verifies and unpacks a snapshot. Every step may fail, but must not panic or write outside of the
/// target.
fn assert_survives(bytes: &[u8]) {
    let _ = check(bytes);
    let Ok(Opened { index, .. }) = open_bytes(bytes) else {
        return;
    };
    let yard = ExtractDir::new();
    let frames = SnapshotParts::new(bytes).frames;
    if let Err(error) = yard.unpack(&index, &frames, Some((0, 0)), 2) {
        assert!(!format!("{error:#}").contains("panicked"), "{error:#}");
    }
    yard.assert_untouched_outside();
}

/// Two items that share a file and have a copy each in frame 0.
fn shared_frame_parts() -> SnapshotParts {
    let copies = [file(b"it/file", &[7; 8192]), file(b"other/file", &[7; 8192])].concat();
    let own = [directory(b"it"), directory(b"other"), vec![0; 1024]];
    let frames = [copies].iter().chain(&own).map(|tar| frame(tar)).collect();
    let shares = |name, own| ItemEntry { shared: vec![0], ..item(name, (own, own), 2) };
    parts(frames, vec![shares("it", 1), shares("other", 2)])
}

#[test]
fn shared_frame_is_used_only_by_items_that_list_it() {
    let good = shared_frame_parts().build();
    check(&good).unwrap();
    let frames = SnapshotParts::new(&good).frames;
    // In a store, equal files are linked. In a plain directory, they stay separate files.
    for (owner, files) in [(Some((0, 0)), 1), (None, 2)] {
        let yard = ExtractDir::new();
        yard.unpack(&open_bytes(&good).unwrap().index, &frames, owner, 2).unwrap();
        let paths = ["it/file", "other/file"].map(|path| yard.target().join(path));
        assert!(paths.iter().all(|path| fs::read(path).unwrap() == [7; 8192]));
        let inodes = paths.iter().map(|path| fs::metadata(path).unwrap().ino());
        assert_eq!(inodes.collect::<BTreeSet<_>>().len(), files);
    }
    let lies: [(&str, IndexChange, &str); 9] = [
        ("behind its own", |it| it.items[0].shared = vec![2], "not in order"),
        ("beyond the last", |it| it.items[0].shared = vec![4], "not in order"),
        ("far away", |it| it.items[0].shared = vec![0, u32::MAX], "not in order"),
        ("twice", |it| it.items[0].shared = vec![0, 0], "not in order"),
        ("backwards", |it| it.items[1].shared = vec![1, 0], "not in order"),
        (
            "only a frame that does not exist",
            |it| (it.items[0].frames, it.items[0].shared) = ((4, 4), vec![4]),
            "no frames 4 to 4",
        ),
        ("not named", |it| it.items[0].shared.clear(), "in frame 0"),
        ("another's", |it| it.items[1].shared = vec![1], "in frame 0"),
        (
            "an item before another",
            |it| (it.items[1].frames, it.items[1].shared) = ((0, 0), vec![]),
            "begins before the end",
        ),
    ];
    for (what, lie, word) in lies {
        let bytes = snapshot_builder::with_index(&good, lie);
        let refused = check(&bytes).unwrap_err().to_string();
        assert!(refused.contains(word), "{what}: {refused}");
        let Ok(Opened { index, .. }) = open_bytes(&bytes) else {
            continue;
        };
        let yard = ExtractDir::new();
        let error = format!("{:#}", yard.unpack(&index, &frames, None, 2).unwrap_err());
        assert!(error.contains(word), "{what}: {error}");
        yard.assert_untouched_outside();
    }
}

#[test]
fn shared_frame_members_outside_their_item_are_refused() {
    for (what, copies, own) in [
        (
            "a link to another item",
            [file(b"it/file", b"x"), hard_link(b"other/file", b"it/file")].concat(),
            directory(b"it"),
        ),
        (
            "a file through a link",
            [file(b"it/link/new", b"x"), file(b"other/file", b"x")].concat(),
            [directory(b"it"), symlink(b"it/link", b"../../outside")].concat(),
        ),
        (
            "a file of a third item",
            [file(b"third/file", b"x"), file(b"other/file", b"x")].concat(),
            [directory(b"it"), file(b"it/file", b"x")].concat(),
        ),
        (
            "a file that is there already",
            [file(b"it/file", &[7; 8192]), file(b"it/file", &[7; 8192])].concat(),
            directory(b"it"),
        ),
    ] {
        let mut parts = shared_frame_parts();
        (parts.frames[0], parts.frames[1]) = (frame(&copies), frame(&own));
        let bytes = parts.build();
        let frames = SnapshotParts::new(&bytes).frames;
        for owner in [Some((0, 0)), None] {
            let yard = ExtractDir::new();
            let refused = yard.unpack(&open_bytes(&bytes).unwrap().index, &frames, owner, 2);
            assert!(refused.is_err(), "{what}");
            yard.assert_untouched_outside();
        }
    }
}

/// The seed of the fuzzers: a shared file, an item with links, and a file in two frames.
fn seed() -> SnapshotParts {
    let mut frames = shared_frame_parts().frames[..1].to_vec();
    frames.extend(long_file(continuation("it/long", 1024, 2048)));
    let links = [
        directory(b"other"),
        symlink(b"other/out", b"../../outside"),
        file(b"other/one", b"content"),
        hard_link(b"other/same", b"other/one"),
    ];
    frames.push(frame(&links.concat()));
    frames.push(frame(&[0; 1024]));
    let shares = |entry: ItemEntry| ItemEntry { shared: vec![0], ..entry };
    parts(frames, vec![shares(item("it", (1, 2), 3)), shares(item("other", (3, 3), 5))])
}

#[test]
fn fuzz_seed_is_a_valid_snapshot() {
    let bytes = seed().build();
    check(&bytes).unwrap();
    let (_yard, unpacked) = try_unpack(seed());
    unpacked.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn corrupted_snapshots_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = seed().build();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_survives(&bytes);
    }

    #[test]
    fn corrupted_members_with_valid_digests_never_panic(
        which in 0..5usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        names in any::<bool>(),
    ) {
        let mut parts = seed();
        let mut tar = snapshot_builder::raw_bytes(&parts.frames[which]);
        for (at, byte) in changes {
            // With `names`, changes the first byte of a block, where headers have names. Checksums of headers are
            // corrected, so that they do not reject every change.
            let at = if names { at.index(tar.len() / 512) * 512 } else { at.index(tar.len()) };
            tar[at] = byte;
            let block = &mut tar[at / 512 * 512..][..512];
            let mut header = tar::Header::from_byte_slice(block).clone();
            if header.as_gnu().is_some() {
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let continues = parts.frames[which].continues.clone();
        parts.frames[which] = Frame { continues, ..frame(&tar) };
        assert_survives(&parts.build());
    }

    #[test]
    fn forged_indexes_never_panic(
        frames in (0..5u32, 0..5u32),
        shared in proptest::collection::vec(0..6u32, 0..3),
        files in any::<u64>(),
        disk in any::<u64>(),
        name in "(it|other|\\.\\.|/|[a-z]{0,3}|\\PC{0,4})(/[a-z.]{0,3}){0,2}",
        under in "(|it|\\.\\.|/|nix/store)",
        which in 0..5usize,
        raw in any::<u32>(),
        offset in any::<u64>(),
        size in any::<u64>(),
    ) {
        let mut parts = seed();
        let (first, last) = (frames.0.min(frames.1), frames.0.max(frames.1));
        parts.items[0] = ItemEntry { disk, shared, ..item(&name, (first, last), files) };
        parts.items_under = under;
        if which % 2 == 0 {
            parts.frames[which].raw = raw.into();
        } else {
            parts.frames[which].continues = continuation(&name, offset, size);
        }
        assert_survives(&parts.build());
    }
}

#[test]
fn restore_with_a_flipped_byte_leaves_the_store_unchanged() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let index = open_bytes(&patient.good).unwrap().index;
    let frame = |number: usize| index.frames[number].at as usize;
    let count = index.frames.len();
    let length = patient.good.len();
    let index_at = frame(count - 1) + index.frames[count - 1].size as usize;
    let table_at = length - 9 - 8 * (count + 2) - 8;
    for (what, at) in [
        ("the magic of the head", 0),
        ("the length of the head", 5),
        ("the head", 100),
        ("the last byte of the head", index.head_bytes as usize - 1),
        ("the magic of the database's frame", frame(0)),
        ("the database", frame(0) + index.frames[0].size as usize / 2),
        ("a frame of items", frame(count / 2) + 100),
        ("the last frame of items", frame(count - 1) - 1),
        ("the magic of the index", index_at),
        ("the length of the index's body", index_at + 8),
        ("the index", (index_at + table_at) / 2),
        ("the digest of the index", table_at - 10),
        ("the length of the signatures", table_at - 1),
        ("the magic of the seek table", table_at),
        ("the seek table", table_at + 8 + 3),
        ("the count of frames", length - 9),
        ("the descriptor", length - 5),
        ("the last magic", length - 1),
    ] {
        let mut bytes = patient.good.clone();
        bytes[at] ^= 0x04;
        patient.assert_refused(what, &bytes);
    }
}

#[test]
fn flipped_byte_in_the_last_frame_is_harmless() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let index = open_bytes(&patient.good).unwrap().index;
    let last = index.frames.last().unwrap();
    let mut bytes = patient.good.clone();
    bytes[(last.at + last.size / 2) as usize] ^= 1;
    assert!(check(&bytes).is_err());
    fs::write(patient.newest(), &bytes).unwrap();
    // No item needs that frame: it is either not read, or it makes the restore fail.
    let output = attempt(&patient.world, "runner", "restore", &[]);
    if output.code() == 0 {
        let restored = report(&output)["items"]["restored"].as_u64().unwrap();
        assert_eq!(restored as usize, index.items.len());
    } else {
        patient.assert_untouched("the end of the archive");
    }
}

#[test]
fn restore_of_a_truncated_file_leaves_the_store_unchanged() {
    let patient = BadSnapshotEnv::new(Role::New);
    let index = open_bytes(&patient.good).unwrap().index;
    let length = patient.good.len();
    let end = index.frames.last().unwrap();
    let end = (end.at + end.size) as usize;
    let head = index.head_bytes as usize;
    for cut in [
        0,
        1,
        7,
        8,
        head / 2,
        head,
        head + 1,
        end / 2,
        end,
        end + 8,
        length - 100,
        length - 9,
        length - 1,
    ] {
        let reason = patient.assert_refused(&format!("{cut} bytes"), &patient.good[..cut]);
        let clear = reason.contains("truncated") || reason.contains("not a storecache snapshot");
        assert!(clear, "{cut} bytes: {reason}");
    }
    let longer = [&patient.good[..], b"and more"].concat();
    patient.assert_refused("bytes after the end", &longer);
}

#[test]
fn files_that_are_not_snapshots_are_not_restored() {
    let patient = BadSnapshotEnv::new(Role::Old);
    let text = "just a text, though it has the name of an entry\n".repeat(100);
    let reason = patient.assert_refused("a text", text.as_bytes());
    assert!(reason.contains("not a storecache snapshot"), "{reason}");
    patient.assert_refused("an empty file", b"");
    let tar = file(b"nix/store/x", b"x");
    let plain = zstd::bulk::compress(&tar, 3).unwrap();
    let reason = patient.assert_refused("another tar.zst", &plain);
    assert!(reason.contains("not a storecache snapshot"), "{reason}");
    // The head of a gzip file.
    let gzip = [&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3][..], &[7; 500]].concat();
    let reason = patient.assert_refused("gzip", &gzip);
    assert!(reason.contains("not a storecache snapshot"), "{reason}");
    fs::remove_file(patient.newest()).unwrap();
    fs::create_dir(patient.newest()).unwrap();
    patient.assert_newest_skipped("a directory");
    fs::remove_dir(patient.newest()).unwrap();
    std::os::unix::fs::symlink("nowhere", patient.newest()).unwrap();
    patient.assert_newest_skipped("a symbolic link");
}

#[test]
fn snapshot_for_another_store_or_system_is_refused() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let forgeries: [InvalidSnapshot; 9] = [
        ("newer format", |it| it.head.format = 3, &["format 3", "up to 2"]),
        (
            "other system",
            |it| it.head.store.system = "m68k-linux".into(),
            &["system", "m68k-linux", "x86_64-linux"],
        ),
        (
            "other store directory",
            |it| it.head.store.store_dir = "/gnu/store".into(),
            &["store directory", "/gnu/store", "/nix/store"],
        ),
        ("items in another directory", |it| it.items_under = "gnu/store".into(), &["gnu/store"]),
        ("plain", |it| it.head.store.kind = "plain".into(), &["store kind", "plain", "nix"]),
        ("guix", |it| it.head.store.kind = "guix".into(), &["store kind", "guix", "nix"]),
        ("unknown kind", |it| it.head.store.kind = "snap".into(), &["store kind", "snap", "nix"]),
        ("newer schema", |it| it.head.store.schema = Some(11), &["schema 11", "schema 10"]),
        ("no database", SnapshotParts::remove_database, &["no database"]),
    ];
    patient.assert_all_refused(&forgeries);
}

#[test]
fn index_that_misdescribes_items_is_refused() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let forgeries: [InvalidSnapshot; 8] = [
        (
            "an item twice",
            |it| {
                let at = it.items.iter().position(|item| item.frames.0 == item.frames.1).unwrap();
                it.items.insert(at, it.items[at].clone());
            },
            &["twice"],
        ),
        ("items out of order", |it| it.items.reverse(), &["begins before the end"]),
        ("an item in other frames", |it| it.items[3].frames = (0, 0), &["before the end"]),
        ("an item with more members", |it| it.items[3].files += 1, &["members"]),
        ("an item with fewer members", |it| it.items[3].files -= 1, &["members"]),
        (
            "items under each other's names",
            |it| {
                let name = it.items[4].name.clone();
                it.items[4].name = std::mem::replace(&mut it.items[3].name, name);
            },
            &["index"],
        ),
        ("a longer database", |it| it.database.as_mut().unwrap().size += 1, &["database"]),
        (
            "a database at another path",
            |it| it.database.as_mut().unwrap().path = "nix/var/nix/db/other".into(),
            &["database"],
        ),
    ];
    patient.assert_all_refused(&forgeries);
}

#[test]
fn item_with_hostile_members_and_valid_digests_is_refused() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let (hurt, other) = (patient.parts().item_in_its_own_frame(), 5);
    assert_ne!(hurt, other);
    let name = |at: usize| format!("nix/store/{}", patient.parts().items[at].name);
    let outside = "/tmp/outside";
    patient.world.sh(&format!("mkdir {outside}"));
    let through = symlink(format!("{}/link", name(hurt)).as_bytes(), outside.as_bytes());
    let written = file(format!("{}/link/new", name(hurt)).as_bytes(), b"x");
    let foreign = hard_link(format!("{}/link", name(hurt)).as_bytes(), b"nix/var/nix/db/db.sqlite");
    let climbing = file(format!("{}/../../var/x", name(hurt)).as_bytes(), b"x");
    for (what, more) in [
        ("through a link", [through, written].concat()),
        ("to the database", foreign),
        ("upwards", climbing),
        ("into another item", file(format!("{}/x", name(other)).as_bytes(), b"x")),
        ("beside the store", file(b"nix/var/nix/x", b"x")),
    ] {
        let mut parts = patient.parts();
        let top = directory(name(hurt).as_bytes());
        let members = [top, more].concat();
        let number = parts.items[hurt].frames.0;
        parts.frames[number as usize] = frame(&members);
        parts.items[hurt].files = 1000;
        let reason = patient.assert_refused(what, &parts.build());
        assert!(reason.contains(&format!("frame {number}: ")), "{what}: {reason}");
        assert_eq!(patient.world.sh(&format!("ls -A {outside}")).stdout, "");
    }
}

#[test]
fn invalid_database_is_refused() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let real = patient.parts().database();
    let mut torn = real.clone();
    let middle = torn.len() / 2;
    torn[4096..middle].fill(0xAA);
    for (what, content) in [
        ("empty", vec![]),
        ("text", b"no database at all\n".repeat(300)),
        ("half", real[..middle].to_vec()),
        ("torn", torn),
    ] {
        let mut parts = patient.parts();
        parts.replace_database(&content);
        let reason = patient.assert_refused(what, &parts.build());
        assert!(reason.contains("database"), "{what}: {reason}");
    }
    for (sql, word) in [
        ("DROP TABLE Refs", "Refs"),
        ("DROP TABLE DerivationOutputs", "DerivationOutputs"),
        ("ALTER TABLE ValidPaths RENAME TO Others", "ValidPaths"),
        (
            "ALTER TABLE ValidPaths RENAME TO Others; CREATE VIEW ValidPaths AS SELECT * FROM Others",
            "ValidPaths",
        ),
    ] {
        let reason = patient.assert_refused(sql, &with_database(&patient.good, sql));
        assert!(reason.contains(word), "{sql}: {reason}");
    }
}

#[test]
fn database_with_invalid_rows_is_refused() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let one = "WHERE id = (SELECT min(id) FROM ValidPaths)";
    for path in [
        "/etc/passwd",
        "/nix/store",
        "/nix/store/",
        "/nix/store/../../etc/passwd",
        "/nix/store/..",
        "/nix/store/.links",
        "/nix/store/short-name",
        "/gnu/store/00000000000000000000000000000000-x",
        "/nix/store/00000000000000000000000000000000-x/bin",
        "/nix/store//00000000000000000000000000000000-x",
        "nix/store/00000000000000000000000000000000-x",
        "",
    ] {
        let sql = format!("UPDATE ValidPaths SET path = '{path}' {one}");
        let reason = patient.assert_refused(path, &with_database(&patient.good, &sql));
        assert!(reason.contains(&format!("{path:?}")), "{reason}");
    }
    for sql in [
        format!("UPDATE ValidPaths SET path = x'ff00' {one}"),
        format!("UPDATE ValidPaths SET hash = x'ff00' {one}"),
        "UPDATE Refs SET reference = 999999 WHERE rowid = (SELECT min(rowid) FROM Refs)".into(),
    ] {
        patient.assert_refused(&sql, &with_database(&patient.good, &sql));
    }
}

#[test]
fn restore_refuses_an_unsupported_live_schema() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let world = &patient.world;
    fs::write(patient.newest(), &patient.good).unwrap();
    for (schema, words) in [
        ("11", &["schema 11", "schema 10"][..]),
        ("9", &["schema 9", "schema 10"]),
        ("ten", &["schema does not contain a number"]),
        ("", &["schema"]),
    ] {
        world.sh(&format!("printf '{schema}' >/nix/var/nix/db/schema"));
        let reason = patient.assert_newest_refused(schema);
        for word in words {
            assert!(reason.contains(word), "{schema}: {reason}");
        }
        let failed = attempt(world, "runner", "save", &[]);
        if failed.code() != 0 {
            assert!(report(&failed)["reason"].as_str().unwrap().contains("schema"));
        }
    }
    world.sh("printf 10 >/nix/var/nix/db/schema");
    fs::write(patient.newest(), &patient.good).unwrap();
}

/// A root with the directories of a Nix store and this content as its database.
fn root_with_database(content: &[u8]) -> PlainEnv {
    let place = PlainEnv::new();
    for directory in ["/nix/store", "/nix/var/nix/db"] {
        fs::create_dir_all(place.host(directory)).unwrap();
    }
    fs::write(place.host("/nix/var/nix/db/schema"), "10").unwrap();
    fs::write(place.host("/nix/var/nix/db/db.sqlite"), content).unwrap();
    place
}

#[test]
fn unreadable_store_is_not_saved() {
    for (content, word) in [
        (&b"no database at all, but long enough to be one. "[..], "db.sqlite"),
        (b"", "ValidPaths"),
    ] {
        let place = root_with_database(&content.repeat(100));
        let root = place.root().display().to_string();
        let backend = format!("dir:{}", place.entries().display());
        let words = ["save", "--json", "--store", "nix", "--key", "k", "--daemon", "none"];
        let before = place.tree("/nix");
        let failed = storecache(words.iter().chain(&["--root", &root, "--backend", &backend]));
        assert_eq!(failed.fails().code(), 1);
        let failed = storecache(words.iter().chain(&["--root", &root, "--backend", &backend]));
        let reason = report(&failed)["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(word), "{reason}");
        assert_eq!(failed.errors().len(), 1, "{failed}");
        assert_eq!(fs::read_dir(place.entries()).unwrap().count(), 0);
        let names = |tree: &PlainTree| tree.keys().cloned().collect::<Vec<_>>();
        let mut after = place.tree("/nix");
        after.remove(Path::new("var/nix/gc.lock"));
        assert_eq!(names(&before), names(&after));
    }
}

#[test]
fn missing_root_is_named_and_not_created() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "x\n");
    place.save(&["/srv/a"]);
    let root = place.root().join("nowhere").display().to_string();
    let backend = format!("dir:{}", place.entries().display());
    for store in [&["nix"][..], &["auto"], &["plain", "--path", "/srv/a"]] {
        for verb in ["save", "restore"] {
            let mut words = vec![verb, "--json", "--key", "test", "--root", &root];
            words.extend(["--backend", &backend, "--store"]);
            words.extend(store);
            let failed = storecache(&words);
            assert_eq!(failed.code(), 1, "{failed}");
            let reason = report(&failed)["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains(&root), "{failed}");
            assert!(!Path::new(&root).exists(), "{failed}");
        }
    }
}

#[test]
fn too_deep_directories_are_neither_saved_nor_restored() {
    let place = PlainEnv::new();
    fs::create_dir_all(place.host("/srv/a")).unwrap();
    let script = "cd \"$0\"; i=0; while [ $i -lt 600 ]; do mkdir d; cd d; i=$((i+1)); done";
    let mut shell = std::process::Command::new("sh");
    assert!(shell.arg("-c").arg(script).arg(place.host("/srv/a")).status().unwrap().success());
    let failed = place.attempt("save", &["/srv/a"], &["--json"]);
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stdout.contains("nested too deeply"), "{failed}");

    let place = PlainEnv::new();
    place.write("/srv/a/file", "x\n");
    place.save(&["/srv/a"]);
    place.remove("/srv/a");
    // A chain of directories, and then a much deeper file whose parent directories are missing.
    let mut tar = directory(b"srv/a");
    let mut name = "srv/a".to_owned();
    while name.len() + 2 <= 98 {
        name.push_str("/d");
        tar.extend(directory(name.as_bytes()));
    }
    let deepest = [name.as_bytes(), &b"/d".repeat(460)].concat();
    tar.extend(snapshot_builder::long_named_file(&deepest));
    let entry = item("srv/a", (0, 0), 2000);
    fs::write(place.snapshot(), parts(vec![frame(&tar)], vec![entry]).build()).unwrap();
    let failed = place.attempt("restore", &["/srv/a"], &["--json"]);
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stdout.contains("does not follow its directory"), "{failed}");
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn plain_store_refuses_a_snapshot_of_another_kind_or_system() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "x\n");
    place.save(&["/srv/a"]);
    let newest = place.snapshot();
    let good = fs::read(&newest).unwrap();
    place.remove("/srv/a");
    let forgeries: [InvalidSnapshot; 5] = [
        ("nix", |it| it.head.store.kind = "nix".into(), &["store kind", "nix", "plain"]),
        (
            "other system",
            |it| it.head.store.system = "m68k-linux".into(),
            &["system", "m68k-linux"],
        ),
        ("items in another directory", |it| it.items_under = "nix/store".into(), &["plain"]),
        ("an item twice", |it| it.items.push(it.items[0].clone()), &["twice"]),
        ("newer format", |it| it.head.format = 7, &["format 7"]),
    ];
    for (what, change, words) in forgeries {
        let mut parts = SnapshotParts::new(&good);
        change(&mut parts);
        fs::write(&newest, parts.build()).unwrap();
        let failed = place.attempt("restore", &["/srv/a"], &["--json"]);
        assert_eq!(failed.code(), 1, "{what}: {failed}");
        let reason = report(&failed)["reason"].as_str().unwrap().to_owned();
        for word in words {
            assert!(reason.contains(word), "{what}: {reason}");
        }
        assert!(!place.host("/srv/a").exists(), "{what}");
        assert_eq!(place.leftovers(), [""; 0]);
    }
}

#[test]
fn plain_restore_touches_only_requested_directories() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "x\n");
    place.save(&["/srv/a"]);
    let mut parts = SnapshotParts::new(&fs::read(place.snapshot()).unwrap());
    for name in ["../outside", "/etc", "srv", "srv/a/../b", "srv/./c", "", "."] {
        parts.items.push(item(name, (0, 0), 1));
    }
    fs::write(place.snapshot(), parts.build()).unwrap();
    place.remove("/srv/a");
    let before = place.tree("/");
    let restored = place.attempt("restore", &["/srv/a"], &["--json"]);
    if restored.code() == 0 {
        assert_eq!(report(&restored)["items"]["restored"], 1);
        place.remove("/srv/a");
    }
    let names = |tree: &PlainTree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&place.tree("/")));
    assert_eq!(place.leftovers(), [""; 0]);
}
