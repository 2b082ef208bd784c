//! Small inputs that expand to much or claim to: frames, indexes, heads, seek tables, and millions of members.
//! The tests measure the memory of a run over all its processes.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use storecache_entry::Digest;
use storecache_snapshot::{Frame, Head, Index, ItemEntry};

use super::tar_blocks::header;
use crate::support::Output;
use crate::support::extract_dir::{ExtractDir, head, parts, try_unpack};
use crate::support::plain_env::{PlainEnv, binary};
use crate::support::resource_usage::{memory, run_measured};
use crate::support::snapshot_builder::{
    self, directory, file, frame, item, open_bytes, seek_table, skippable, with_index_json,
};

const MIB: u64 = 1 << 20;
/// The memory that a run may take without `--memory`.
const DEFAULT_MEMORY: u64 = 256 * MIB;
/// Tar bytes of the largest frame.
const LARGEST_FRAME: usize = 64 << 20;

/// Returns a plain-directory fixture that has saved the directory `/it` and deleted it.
fn place() -> PlainEnv {
    let place = PlainEnv::new();
    place.write("/it/file", "content\n");
    place.save(&["/it"]);
    place.remove("/it");
    place
}

/// Runs a verb on the fixture's snapshot, and also returns the run's peak memory in bytes.
fn run(place: &PlainEnv, verb: &str) -> (Output, u64) {
    let mut command = Command::new(binary());
    command.args([verb, "--store", "plain", "--key", "test", "--threads=2", "--root"]);
    command.arg(place.root()).args(["--backend", &format!("dir:{}", place.entries().display())]);
    command.args(["--json", "--quiet"]).env_remove("GITHUB_EVENT_PATH");
    if verb == "restore" {
        command.args(["--path", "/it"]);
    }
    let (output, takings) = run_measured(&mut command);
    (output, memory(&takings))
}

/// Asserts that a restore of the file from `write` fails with these words, takes at most `limit` bytes of
/// memory, and leaves nothing behind.
#[track_caller]
fn refuses_within(what: &str, words: &str, limit: u64, write: impl FnOnce(&Path)) {
    let place = place();
    write(&place.snapshot());
    let (output, taken) = run(&place, "restore");
    assert_eq!(output.code(), 1, "{what}: {output}");
    assert!(output.stdout.contains(words), "{what}: {output}");
    assert!(!output.stderr.contains("panicked"), "{what}: {output}");
    println!("{what}: {} of {} MiB", taken / MIB, limit / MIB);
    assert!(taken <= limit, "{what}: {} of {} MiB", taken / MIB, limit / MIB);
    assert_eq!(below(&place), [""; 0], "{what}");
}

/// Returns the names below the fixture's root, into which nothing was restored.
fn below(place: &PlainEnv) -> Vec<String> {
    let names = place.tree("/").into_keys().filter(|path| !path.as_os_str().is_empty());
    names.map(|path| path.display().to_string()).collect()
}

/// Returns a snapshot of one small file, as the item `it`.
fn small() -> Vec<u8> {
    let tar = [directory(b"it"), file(b"it/file", b"x")].concat();
    parts(vec![frame(&tar), frame(&[0; 1024])], vec![item("it", (0, 0), 2)]).build()
}

#[test]
fn decompression_bomb_in_the_index_takes_no_memory() {
    let spaces = [&b"{"[..], &vec![b' '; 512 << 20]].concat();
    let bytes = with_index_json(&small(), &spaces);
    assert!(bytes.len() < 64 << 10);
    refuses_within("spaces", "does not decompress", 96 * MIB, |path| {
        fs::write(path, bytes).unwrap()
    });
}

/// Returns JSON with names that do not compress, so that the compression ratio does not give it away.
fn dense_json(count: usize, entry: impl Fn(&mut String, u64)) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut json = String::with_capacity(count * 64);
    json.push_str("{\"format\":1,\"items\":[");
    for number in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if number > 0 {
            json.push(',');
        }
        entry(&mut json, state);
    }
    json.push_str("]}");
    json.into_bytes()
}

#[test]
fn index_with_a_million_items_is_refused_in_bounded_memory() {
    let json = dense_json((1 << 20) + 10, |json, random| {
        json.push_str(&format!(
            "{{\"name\":\"{random:016x}{random:016x}\",\"frames\":[0,0],\"files\":1,\"disk\":1}}"
        ));
    });
    let bytes = with_index_json(&small(), &json);
    refuses_within("items", "a list of over 1048576", 512 * MIB, |path| {
        fs::write(path, bytes).unwrap();
    });
    let json = dense_json(2 << 20, |json, random| {
        let shared = "7,".repeat(20);
        json.push_str(&format!("{{\"name\":\"{random:032x}\",\"shared\":[{shared}7]}}"));
    });
    let bytes = with_index_json(&small(), &json);
    refuses_within("a long index", "does not decompress", 256 * MIB, |path| {
        fs::write(path, bytes).unwrap();
    });
}

#[test]
fn oversized_heads_and_seek_tables_are_refused() {
    refuses_within("a head of 1 GiB", "does not begin with a head", 64 * MIB, |path| {
        let mut file = File::create(path).unwrap();
        file.write_all(&[&0x184D_2A53u32.to_le_bytes()[..], &(1u32 << 30).to_le_bytes()].concat())
            .unwrap();
        file.set_len(2 << 30).unwrap();
    });
    let head = small()[..open_bytes(&small()).unwrap().index.head_bytes as usize].to_vec();
    let sparse = |path: &Path, footer: &[u8]| {
        let mut file = File::create(path).unwrap();
        file.write_all(&head).unwrap();
        file.set_len(40 << 30).unwrap();
        file.seek(SeekFrom::End(-(footer.len() as i64))).unwrap();
        file.write_all(footer).unwrap();
    };
    let footer = |count: u32| [&count.to_le_bytes()[..], &[0, 0xB1, 0xEA, 0x92, 0x8F]].concat();
    for count in [u32::MAX, 1 << 30, (1 << 20) + 3] {
        refuses_within("a table", "the seek table has too many", 64 * MIB, |path| {
            sparse(path, &footer(count));
        });
    }
    // A seek table of zeros, and a seek table whose last frame, the index, is larger than allowed.
    refuses_within("a table of holes", "seek table", 64 * MIB, |path| {
        sparse(path, &footer(1 << 20))
    });
    refuses_within("an index of 4 GiB", "the index is too large", 64 * MIB, |path| {
        sparse(path, &seek_table(&[(head.len() as u64, 0), (u32::MAX.into(), 0)]));
    });
}

/// Returns JSON that has caused failures in other readers, to be used as a value.
fn odd_values() -> Vec<(&'static str, String)> {
    vec![
        ("deep", format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000))),
        ("deep and open", "{\"a\":".repeat(500_000)),
        ("beyond all numbers", "1e400".into()),
        ("below all numbers", "-1e400".into()),
        ("a fraction", "1.5".into()),
        ("negative", "-1".into()),
        ("2^64", "18446744073709551616".into()),
        ("a long number", "9".repeat(1_000_000)),
        ("a long string", format!("\"{}\"", "x".repeat(4 << 20))),
        ("a lone surrogate", "\"\\ud800\"".into()),
        ("a zero", "\"\\u0000\"".into()),
        ("nothing", "null".into()),
        ("an object", "{}".into()),
    ]
}

#[test]
fn odd_json_in_head_or_index_never_panics() {
    let good = small();
    let opened = open_bytes(&good).unwrap();
    let head_json = String::from_utf8(opened.head.to_bytes().unwrap()).unwrap();
    let index_json = serde_json::to_string(&opened.index).unwrap();
    assert_eq!(
        open_bytes(&with_index_json(&good, index_json.as_bytes())).unwrap().index,
        opened.index
    );
    for (what, value) in odd_values() {
        for (from, to) in [
            ("\"format\":1", format!("\"format\":{value}")),
            ("\"items\":", format!("\"items\":{value},\"x\":")),
            ("{\"format\"", format!("{{\"colour\":{value},\"format\"")),
        ] {
            let head = head_json.replacen(from, &to, 1);
            let taken = Head::from_bytes(head.as_bytes());
            // Readers ignore unknown fields if they are valid JSON.
            assert!(taken.is_err() || from.starts_with('{'), "{what}: {from}");
            let index = index_json.replacen(from, &to, 1);
            let taken = open_bytes(&with_index_json(&good, index.as_bytes()));
            assert!(taken.is_err() || from.starts_with('{'), "{what}: {from}");
        }
        let item = index_json.replacen("\"files\":2", &format!("\"files\":{value}"), 1);
        assert!(open_bytes(&with_index_json(&good, item.as_bytes())).is_err(), "{what}");
    }
    for (what, from, to) in [
        ("a field twice", "\"format\":1", "\"format\":1,\"format\":1"),
        ("another format after it", "\"format\":1", "\"format\":1,\"format\":2"),
        ("items twice", "\"items\":", "\"items\":[],\"items\":"),
        ("more bytes after it", "}", "} {"),
        ("no UTF-8", "\"format\"", "\"\u{0}\""),
    ] {
        let head = head_json.replacen(from, to, 1);
        assert!(Head::from_bytes(head.as_bytes()).is_err(), "{what}");
        let index = index_json.replacen(from, to, 1);
        assert!(open_bytes(&with_index_json(&good, index.as_bytes())).is_err(), "{what}");
    }
    for bytes in [&b""[..], b"{", b"\xFF\xFE", b"\xEF\xBB\xBF{}", b"null", b"[]", b"0"] {
        assert!(Head::from_bytes(bytes).is_err());
        assert!(open_bytes(&with_index_json(&good, bytes)).is_err());
    }
}

type IndexForgery = (&'static str, fn(&mut Index), &'static str);

#[test]
fn index_with_inconsistent_sizes_is_not_opened() {
    let lies: [IndexForgery; 15] = [
        ("disk overflows", |it| twice(it, |item| item.disk = u64::MAX), "overflow"),
        ("disk overflows a signed sum", |it| twice(it, |item| item.disk = 1 << 63), "overflow"),
        ("files overflow", |it| twice(it, |item| item.files = u64::MAX), "overflow"),
        ("files overflow with headers", |it| it.items[0].files = u64::MAX / 2, "overflow"),
        ("sizes overflow", |it| twice(it, |item| item.nar_size = Some(u64::MAX)), "overflow"),
        ("a frame of no tar", |it| it.frames[0].raw = 0, "whole tar blocks"),
        ("a frame of half a block", |it| it.frames[0].raw = 700, "whole tar blocks"),
        ("a frame over the largest", |it| it.frames[0].raw = (64 << 20) + 512, "too large"),
        ("a frame that compresses to more", |it| it.frames[0].raw = 512, "larger than its content"),
        ("frames that belong to no item", |it| it.frames[0].raw = 64 << 20, "account for"),
        ("an item in an item", |it| it.items.push(item("it/below", (1, 1), 1)), "lies in the item"),
        ("an item twice", |it| it.items.push(item("it", (1, 1), 1)), "twice"),
        ("an item above", |it| it.items[0].name = "../it".into(), "dot component"),
        ("an absolute item", |it| it.items[0].name = "/it".into(), "empty component"),
        ("items above", |it| it.items_under = "nix/../..".into(), "dot component"),
    ];
    // The first frame does not compress.
    let tar = [directory(b"it"), file(b"it/file", &noise(2048))].concat();
    let good = parts(vec![frame(&tar), frame(&[0; 1024])], vec![item("it", (0, 0), 2)]).build();
    open_bytes(&good).unwrap();
    for (what, lie, words) in lies {
        let refused =
            open_bytes(&snapshot_builder::with_index(&good, lie)).unwrap_err().to_string();
        assert!(refused.contains(words), "{what}: {refused}");
    }
}

fn twice(index: &mut Index, change: fn(&mut ItemEntry)) {
    let mut other = item("other", (1, 1), 1);
    change(&mut index.items[0]);
    change(&mut other);
    index.items.push(other);
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Returns a frame with these compressed bytes that claims to hold `raw` bytes.
fn raw_frame(bytes: Vec<u8>, raw: u64) -> Frame {
    Frame {
        sha256: Digest::hash(&bytes),
        bytes,
        raw,
        continues: None,
        progress: Default::default(),
    }
}

#[test]
fn invalid_zstd_frames_are_refused() {
    let tar = [directory(b"it"), file(b"it/file", &[7; 100_000])].concat();
    let size = tar.len() as u64;
    let good = zstd::bulk::compress(&tar, 3).unwrap();
    let empty = zstd::bulk::compress(b"", 3).unwrap();
    let half = tar.len() / 1024 * 512;
    let halves = [&tar[..half], &tar[half..]].map(|half| zstd::bulk::compress(half, 3).unwrap());
    let dictionary = b"it/file and some words that come again and again".repeat(40);
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap();
    // A raw dictionary has no number; the frame has references to bytes before its beginning.
    let beyond = with_dictionary.compress(&[&tar[..], &dictionary].concat()).unwrap();
    let beyond_size = size + dictionary.len() as u64;
    let mut numbered = good.clone();
    numbered[4] |= 1;
    numbered.insert(5, 9);
    let mut said = good.clone();
    // The content size in the frame's header.
    let at = if said[4] & 0x20 == 0 { 6 } else { 5 };
    said[at] ^= 1;
    let frames: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("two frames", halves.concat(), size, "not a single zstd frame"),
        ("an empty frame behind", [&good[..], &empty].concat(), size, "not a single zstd frame"),
        ("an empty frame before", [&empty[..], &good].concat(), size, "not a single zstd frame"),
        (
            "many empty frames",
            [&empty.repeat(20)[..], &good].concat(),
            size,
            "not a single zstd frame",
        ),
        (
            "a skippable frame before",
            [&skippable(0x184D_2A50, b"x")[..], &good].concat(),
            size,
            "not a single zstd frame",
        ),
        ("a skippable frame alone", skippable(0x184D_2A50, &[0; 600]), 512, "contains 0"),
        (
            "a skippable frame longer than all",
            [&0x184D_2A50u32.to_le_bytes()[..], &[0xFF; 4]].concat(),
            512,
            "not a single zstd frame",
        ),
        ("bytes behind", [&good[..], b"x"].concat(), size, "not a single zstd frame"),
        ("a dictionary", numbered, size, ""),
        ("a dictionary without a number", beyond, beyond_size, ""),
        ("another size in its header", said, size, "does not decompress"),
        (
            "less than the index says",
            zstd::bulk::compress(&tar[..half], 3).unwrap(),
            size,
            "contains",
        ),
        ("more than the index says", good.clone(), half as u64, "does not decompress"),
        (
            "64 MiB in 512 bytes",
            zstd::bulk::compress(&vec![0; LARGEST_FRAME], 1).unwrap(),
            LARGEST_FRAME as u64 / 2,
            "",
        ),
    ];
    for (what, bytes, raw, words) in frames {
        let mut entry = item("it", (0, 0), 2);
        entry.disk = 1 << 30;
        let (yard, refused) = try_unpack(parts(vec![raw_frame(bytes, raw)], vec![entry]));
        let refused = match refused {
            Ok(_) => panic!("{what} was unpacked"),
            Err(error) => format!("{error:#}"),
        };
        assert!(refused.contains(words), "{what}: {refused}");
        yard.assert_untouched_outside();
    }
}

#[test]
fn zstd_window_of_2_gib_takes_no_memory() {
    let tar = [directory(b"it"), file(b"it/file", b"x"), vec![0; 1024]].concat();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(31).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&tar[..512]).unwrap();
    // After a flush the frame's header cannot have the whole size.
    encoder.flush().unwrap();
    encoder.write_all(&tar[512..]).unwrap();
    let bytes = encoder.finish().unwrap();
    // Window descriptor: 2^(10 + 21).
    assert_eq!((bytes[4] & 0x20, bytes[5] >> 3), (0, 21));
    let place = place();
    let entry = item("it", (0, 0), 2);
    let snapshot = parts(vec![raw_frame(bytes, tar.len() as u64)], vec![entry]).build();
    fs::write(place.snapshot(), snapshot).unwrap();
    let (output, taken) = run(&place, "restore");
    assert_eq!(output.ok().code(), 0);
    assert!(taken < 64 * MIB, "{taken}");
}

/// Returns equal frames of the largest size and the number of their members, over four million.
fn many(member: impl Fn(u32) -> Vec<u8>) -> (Vec<Frame>, u64) {
    let mut tar = Vec::with_capacity(LARGEST_FRAME);
    let mut members = 0;
    while tar.len() < LARGEST_FRAME {
        tar.extend(member(members as u32));
        members += 1;
    }
    let frame = frame(&tar);
    let frames = (4_200_000 / members) as usize + 1;
    let total = frames as u64 * members;
    assert!(total > 4_000_000);
    (vec![frame; frames], total)
}

fn with_top(frames: Vec<Frame>, files: u64) -> Vec<u8> {
    let mut all = vec![frame(&directory(b"it"))];
    all.extend(frames);
    let mut entry = item("it", (0, all.len() as u32 - 1), files + 1);
    entry.disk = 1 << 20;
    parts(all, vec![entry]).build()
}

#[test]
fn four_million_members_are_verified_in_bounded_memory() {
    let each = (LARGEST_FRAME / 512) as u32;
    let frames = (0..4_200_000 / each + 1).map(|number| {
        let names = (number * each..(number + 1) * each).map(|name| format!("it/{name:07}"));
        let tar: Vec<Vec<u8>> = names.map(|name| file(name.as_bytes(), b"")).collect();
        frame(&tar.concat())
    });
    let frames: Vec<Frame> = frames.collect();
    let members = frames.len() as u64 * u64::from(each);
    let place = place();
    fs::write(place.snapshot(), with_top(frames, members)).unwrap();
    let (output, taken) = run(&place, "verify");
    assert_eq!(output.ok().code(), 0);
    println!("verify: {} MiB", taken / MIB);
    assert!(taken <= DEFAULT_MEMORY, "{} MiB", taken / MIB);
}

#[test]
fn four_million_members_are_refused_without_enough_inodes() {
    let (frames, members) = many(|number| file(format!("it/{number:07}").as_bytes(), b""));
    let place = place();
    fs::write(place.snapshot(), with_top(frames, members)).unwrap();
    let root = place.root();
    let options = c"size=64m,nr_inodes=1000";
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &root, "tmpfs", flags, options).unwrap();
    let (output, taken) = run(&place, "restore");
    let left = fs::read_dir(&root).unwrap().count();
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!((output.code(), left), (1, 0), "{output}");
    assert!(output.stdout.contains("not enough inodes"), "{output}");
    assert!(taken <= DEFAULT_MEMORY, "{} MiB", taken / MIB);
}

#[test]
fn four_million_unlisted_members_are_refused_at_once() {
    let (frames, _) = many(|number| header(format!("it/{number:07}"), b'0').bytes(b""));
    let place = place();
    let mut entry = item("it", (0, frames.len() as u32 - 1), 100);
    entry.disk = 4 << 30;
    fs::write(place.snapshot(), parts(frames, vec![entry]).build()).unwrap();
    let (output, taken) = run(&place, "restore");
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stdout.contains("more than 100 members"), "{output}");
    assert!(taken <= DEFAULT_MEMORY, "{} MiB", taken / MIB);
    assert_eq!(below(&place), [""; 0]);
}

#[test]
fn four_million_hard_links_are_refused_in_bounded_memory() {
    let target = format!("it/{}", "t".repeat(90));
    let (frames, members) = many(|number| {
        snapshot_builder::hard_link(format!("it/{number:090}").as_bytes(), target.as_bytes())
    });
    refuses_within("links", "kept in memory", DEFAULT_MEMORY + 256 * MIB, |path| {
        fs::write(path, with_top(frames, members)).unwrap();
    });
}

#[test]
fn content_larger_than_the_index_says_is_not_written() {
    let yard = ExtractDir::new();
    let tar = [directory(b"it"), file(b"it/file", &[7; 8192])].concat();
    let mut entry = item("it", (0, 0), 2);
    entry.disk = 8191;
    let frames = vec![frame(&tar)];
    let index = open_bytes(&parts(frames.clone(), vec![entry]).build()).unwrap().index;
    let refused = yard.unpack(&index, &frames, None, 1).unwrap_err();
    assert!(format!("{refused:#}").contains("larger than the 8191 bytes"), "{refused:#}");
    assert!(!yard.target().join("it/file").exists());
    assert_eq!(head().format, 1);
}
