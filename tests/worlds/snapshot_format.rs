//! Tests of the snapshot format against other programs and against the index.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::golden;
use crate::support::plain_env::{PlainEnv, output, plain_tree, set_mtime, storecache};
use crate::support::snapshot_builder::{self, SnapshotParts, frame_bytes, open_bytes, sha256};
use crate::support::world_runs::{attempt, report};
use crate::support::{Backend, Entry, Fixture, Role, World, tree_digest};
use serde_json::Value;
use storecache_entry::Digest;
use storecache_runtime::RunContext;
use storecache_runtime::memory::Packing;
use storecache_snapshot::{
    DatabaseEntry, Frame, FrameEntry, Head, Index, ItemEntry, Opened, Origin, PackInput,
    PackOptions, SnapshotWriter, StoreFacts, pack,
};

type Tree = BTreeMap<PathBuf, Entry>;

const TOOL: &str = "/opt/tool";

/// A program that unpacks the tar archive on its standard input into a directory.
struct Extractor {
    name: &'static str,
    command: fn(&Path) -> Command,
}

const EXTRACTORS: [Extractor; 3] = [
    Extractor {
        name: "GNU tar",
        command: |into| {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--same-permissions", "--numeric-owner"]);
            // GNU tar warns of times before 1970 as implausible, and sets them nevertheless.
            tar.args(["--same-owner", "--warning=no-timestamp", "--directory"]).arg(into);
            tar
        },
    },
    Extractor {
        name: "bsdtar",
        command: |into| {
            let mut tar = Command::new("bsdtar");
            tar.args(["-x", "-p", "--numeric-owner", "-f", "-", "-C"]);
            tar.arg(into);
            tar
        },
    },
    Extractor {
        name: "tarfile",
        command: |into| {
            let mut python = Command::new("python3");
            python.arg(support_file("check_tarfile.py"));
            python.arg("extract").arg(into);
            python
        },
    },
];

fn support_file(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("support").join(name)
}

/// Returns a world whose store was saved, and the file of the entry.
fn saved_store(role: Role, fixture: Fixture) -> (World, PathBuf) {
    let world = World::with_fixture(role, fixture);
    let saved = report(&attempt(&world, "root", "save", &[]).ok());
    assert!(saved["items"]["saved"].as_u64().unwrap() > 30);
    let entry = saved["entry"].as_str().unwrap();
    let file = world.backend().host_path().join(format!("{entry}.tar.zst"));
    (world, file)
}

fn saved_tool() -> (PlainEnv, PathBuf) {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let file = place.snapshot();
    (place, file)
}

/// Decompresses the file with zstd into a command, asserts that it succeeds, and returns what it prints.
#[track_caller]
fn decompress_into(file: &Path, command: Command) -> Vec<u8> {
    let mut zstd = Command::new("zstd");
    zstd.arg("-dc").arg(file).stdout(Stdio::piped());
    let mut zstd = zstd.spawn().expect("cannot run zstd");
    let printed = run_with_input(Stdio::from(zstd.stdout.take().unwrap()), command);
    assert!(zstd.wait().unwrap().success());
    printed
}

#[track_caller]
fn run_with_input(input: Stdio, mut command: Command) -> Vec<u8> {
    let name = command.get_program().to_owned();
    let run = command.stdin(input).env("LANG", "C.UTF-8").output();
    let run = run.unwrap_or_else(|e| panic!("cannot run {}: {e}", name.display()));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}: {said}", name.display());
    assert_eq!(said, "", "{}", name.display());
    run.stdout
}

/// Returns all tar bytes of the file.
fn tar_bytes(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A member as its bytes lie in the archive, extensions included.
struct RawMember {
    path: Vec<u8>,
    kind: tar::EntryType,
    target: Option<Vec<u8>>,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    /// Types of all headers of the member.
    headers: Vec<u8>,
    /// Offset of its first byte, and of the first byte after its padding.
    bytes: (u64, u64),
}

fn raw_members(tar_bytes: &[u8]) -> Vec<RawMember> {
    let mut members = Vec::new();
    let mut archive = tar::Archive::new(tar_bytes);
    let mut raw = tar::Archive::new(tar_bytes);
    let mut headers = raw.entries().unwrap().raw(true).map(|entry| {
        let entry = entry.unwrap();
        let kind = entry.header().entry_type().as_byte();
        (entry.raw_header_position(), kind)
    });
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let mut taken = Vec::new();
        let mut start = None;
        for (at, kind) in headers.by_ref() {
            start.get_or_insert(at);
            taken.push(kind);
            if at == entry.raw_header_position() {
                break;
            }
        }
        let path = entry.path_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        let size = header.entry_size().unwrap();
        let end = entry.raw_file_position() + size.next_multiple_of(512);
        members.push(RawMember {
            path,
            kind: header.entry_type(),
            target: entry.link_name_bytes().map(|target| target.to_vec()),
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime: header.mtime().unwrap(),
            headers: taken,
            bytes: (start.unwrap(), end),
        });
    }
    members
}

fn opened(file: &Path) -> (Vec<u8>, Opened) {
    let bytes = fs::read(file).unwrap();
    let opened = open_bytes(&bytes).unwrap();
    (bytes, opened)
}

/// Returns the name of the item that a member of a Nix store belongs to, and `None` for the database.
fn item_of(path: &[u8]) -> Option<&str> {
    let below = path.strip_prefix(b"nix/store/")?;
    let name = below.split(|&byte| byte == b'/').next()?;
    Some(std::str::from_utf8(name).unwrap())
}

/// Compares trees. Without `nanoseconds`, times may differ by less than a microsecond, and the times of
/// symbolic links are not compared.
#[track_caller]
fn assert_same(expected: &Tree, found: &Tree, nanoseconds: bool, what: &str) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(expected), names(found), "{what}");
    for (path, expected) in expected {
        let mut found = found[path].clone();
        let nanos =
            |(seconds, nanos): (i64, i64)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let apart = (nanos(found.mtime) - nanos(expected.mtime)).abs();
        let is_link = expected.mode & 0o170000 == 0o120000;
        if !nanoseconds && (apart < 1000 || is_link) {
            found.mtime = expected.mtime;
        }
        assert_eq!(expected, &found, "{what}: {}", path.display());
    }
}

#[test]
fn zstd_and_tar_accept_every_snapshot() {
    let (_world, store) = saved_store(Role::Mid, Fixture::Small);
    let (_place, plain) = saved_tool();
    for file in [&store, &plain] {
        output(Command::new("zstd").arg("-qt").arg(file)).ok();
        let mut list = Command::new("tar");
        list.args(["--list", "--quoting-style=escape"]);
        let names = String::from_utf8(decompress_into(file, list)).unwrap();
        assert_eq!(
            names.lines().count(),
            raw_members(&tar_bytes(file)).len(),
            "tar lists every member"
        );
        // Programs that support zstd themselves read the file as it is.
        output(Command::new("bsdtar").arg("-tf").arg(file)).ok();
        output(Command::new("tar").args(["--zstd", "-tf"]).arg(file)).ok();
    }
}

#[test]
fn every_extractor_rebuilds_the_same_nix_store() {
    let (world, file) = saved_store(Role::Mid, Fixture::Small);
    let items = world.valid_paths();
    let originals: BTreeMap<_, _> =
        items.iter().map(|path| (path, world.tree_digest(path))).collect();
    for judge in &EXTRACTORS {
        let scratch = Backend::new();
        let into = scratch.host_path();
        decompress_into(&file, (judge.command)(&into));
        let listed: BTreeSet<_> = fs::read_dir(into.join("nix/store"))
            .unwrap()
            .map(|entry| format!("/nix/store/{}", entry.unwrap().file_name().display()))
            .collect();
        assert_eq!(listed, items, "{}", judge.name);
        for (path, original) in &originals {
            let found = tree_digest(into.join(path.trim_start_matches('/')));
            let exact = judge.name != "tarfile";
            assert_same(original, &found, exact, &format!("{}, {path}", judge.name));
        }
        let shapes = items.iter().find(|path| path.ends_with("-shapes")).unwrap();
        let shapes = into.join(shapes.trim_start_matches('/'));
        let inode = |name| fs::metadata(shapes.join(name)).unwrap().ino();
        assert_eq!(inode("one"), inode("same-inode"), "{}", judge.name);

        let database = into.join("nix/var/nix/db/db.sqlite");
        let database = rusqlite::Connection::open(database).unwrap();
        let count = "select count(*) from ValidPaths";
        let rows: i64 = database.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, items.len() as i64);
    }
}

#[test]
fn every_extractor_rebuilds_the_same_plain_directory() {
    let (place, file) = saved_tool();
    let original = place.tree(TOOL);
    for judge in &EXTRACTORS {
        let scratch = Backend::new();
        let into = scratch.host_path();
        decompress_into(&file, (judge.command)(&into));
        let found = plain_tree(&into.join("opt/tool"));
        let entries = |tree: &crate::support::plain_env::PlainTree| -> Tree {
            let entries = tree.iter();
            entries.map(|(path, it)| (path.clone(), it.entry.clone())).collect()
        };
        let mut expected = entries(&original);
        if judge.name == "bsdtar" {
            expected.values_mut().for_each(as_libarchive_reads_time);
        }
        let exact = judge.name != "tarfile";
        assert_same(&expected, &entries(&found), exact, judge.name);
        for (path, expected) in &original {
            let found = &found[path];
            let shown = format!("{}: {}", judge.name, path.display());
            assert_eq!(found.gid, expected.gid, "{shown}");
            assert_eq!(found.same_file_as, expected.same_file_as, "{shown}");
        }
    }
}

/// Returns the time that libarchive reads: it parses the two sides of the point in `-86400.25` as separate
/// numbers, and so adds the quarter of a second to that second instead of subtracting it. No other form would
/// avoid this: pax headers have no other field for a fraction of a second.
/// Source: `libarchive/libarchive:libarchive/archive_read_support_format_tar.c`, `pax_time`.
fn as_libarchive_reads_time(entry: &mut Entry) {
    let (seconds, nanos) = entry.mtime;
    if seconds < 0 && nanos > 0 {
        entry.mtime = (seconds + 1, 1_000_000_000 - nanos);
    }
}

/// Returns what Python's tarfile reads of each member, by path: type, mode, owner, group, time, pax headers.
fn python_list(file: &Path) -> BTreeMap<PathBuf, Value> {
    let mut python = Command::new("python3");
    python.arg(support_file("check_tarfile.py")).arg("list");
    let printed = String::from_utf8(decompress_into(file, python)).unwrap();
    let rows = printed.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        let hex = row[0].as_str().unwrap().as_bytes();
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        let name = hex.chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1]));
        (PathBuf::from(std::ffi::OsString::from_vec(name.collect())), row)
    });
    rows.collect()
}

#[test]
fn member_times_and_owners_match_what_python_reads() {
    let (place, file) = saved_tool();
    let listed = python_list(&file);
    let original = place.tree(TOOL);
    assert_eq!(listed.len(), original.len());
    for (path, expected) in original {
        let inside = match path.as_os_str().is_empty() {
            true => PathBuf::from("opt/tool"),
            false => Path::new("opt/tool").join(&path),
        };
        let row = &listed[&inside];
        let shown = format!("{}: {row}", path.display());
        assert_eq!(row[2], expected.entry.mode & 0o7777, "{shown}");
        assert_eq!(row[3], expected.entry.uid, "{shown}");
        assert_eq!(row[4], expected.gid, "{shown}");
        let (seconds, nanos) = expected.entry.mtime;
        let time = seconds as f64 + nanos as f64 / 1e9;
        assert!((row[5].as_f64().unwrap() - time).abs() < 1e-6, "{shown}");
        // Only a time ever needs a pax header.
        let extended = row[6].as_array().unwrap();
        assert!(extended.iter().all(|name| name == "mtime"), "{shown}");
    }
}

#[test]
fn members_of_a_nix_store_are_canonical() {
    let (world, file) = saved_store(Role::New, Fixture::Small);
    let members = raw_members(&tar_bytes(&file));
    assert_eq!(members[0].path, b"nix/var/nix/db/db.sqlite");
    assert_eq!(members[0].mode, 0o644);
    let parts = |member: &RawMember| -> Vec<Vec<u8>> {
        let parts = member.path.split(|&byte| byte == b'/');
        parts.map(<[u8]>::to_vec).collect()
    };
    assert!(members[1..].is_sorted_by(|a, b| parts(a) < parts(b)));
    for member in &members {
        let shown = OsStr::from_bytes(&member.path).display();
        assert_eq!(member.owner, (0, 0), "{shown}");
        assert_eq!(member.mtime, 1, "{shown}");
        assert!(!member.path.starts_with(b"/"), "{shown}");
        assert!(
            member.headers.iter().all(|kind| b"0125KL".contains(kind)),
            "{shown}: {:?}",
            member.headers
        );
    }
    for member in &members[1..] {
        let shown = OsStr::from_bytes(&member.path);
        let expected = match member.kind {
            tar::EntryType::Directory => 0o555,
            tar::EntryType::Symlink => 0o777,
            _ => {
                let on_disk = world.host(Path::new("/").join(shown));
                fs::metadata(on_disk).unwrap().mode() & 0o7777
            }
        };
        assert_eq!(member.mode, expected, "{}", shown.display());
        assert!([0o444, 0o555, 0o777].contains(&member.mode));
    }
    let kinds: BTreeSet<u8> = members.iter().flat_map(|m| m.headers.clone()).collect();
    assert_eq!(kinds, b"0125L".iter().copied().collect(), "all kinds are in use");
}

/// Returns random bytes.
fn random(length: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// Returns random bytes as hexadecimal digits, which compress to half their size.
fn hexadecimal(length: usize, state: u64) -> Vec<u8> {
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[digit as usize]);
    random(length / 2, state).into_iter().flat_map(digits).collect()
}

/// Returns the directories `/opt/0` to `/opt/3`, each with content that all of them have and with content of
/// its own.
fn repetitive_directories() -> (PlainEnv, Vec<String>) {
    let place = PlainEnv::new();
    let paths: Vec<_> = (0..4).map(|number| format!("/opt/{number}")).collect();
    let common = hexadecimal(3 << 20, 99);
    for (number, path) in paths.iter().enumerate() {
        fs::create_dir_all(place.host(path)).unwrap();
        fs::write(place.host(path).join("common"), &common).unwrap();
        fs::write(place.host(path).join("own"), hexadecimal(5 << 19, number as u64 + 1)).unwrap();
        fs::write(place.host(path).join("dense"), random(2 << 20, number as u64 + 7)).unwrap();
        fs::write(place.host(path).join("small"), path).unwrap();
        for name in ["common", "own", "dense", "small", "."] {
            set_mtime(&place.host(path).join(name), 1_500_000_000, 0);
        }
    }
    (place, paths)
}

/// Returns the trees of these paths.
fn trees(root: &Path, paths: &[&str]) -> Vec<Tree> {
    paths.iter().map(|path| tree_digest(root.join(path.trim_start_matches('/')))).collect()
}

/// Saves directories with additional flags and returns the file, its bytes and its index.
fn saved_with(place: &PlainEnv, paths: &[&str], more: &[&str]) -> (PathBuf, Vec<u8>, Index) {
    place.attempt("save", paths, more).ok();
    let file = place.snapshot();
    let (bytes, Opened { index, .. }) = opened(&file);
    (file, bytes, index)
}

#[test]
fn long_frames_span_items_and_every_extractor_reads_them() {
    let (place, paths) = repetitive_directories();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let before = trees(&place.root(), &paths);
    let (_, short, index) = saved_with(&place, &paths, &[]);
    assert!(index.frames.iter().all(|frame| frame.raw <= 4 << 20));
    let (file, long, index) = saved_with(&place, &paths, &["--long"]);
    assert!(index.frames.iter().any(|frame| frame.raw > 8 << 20));
    assert!(index.frames.iter().all(|frame| frame.raw <= 16 << 20));
    let first = index.items[0].frames;
    assert_eq!(first.1, index.items[1].frames.0, "a frame has parts of two items");
    assert!(long.len() + (1 << 20) < short.len(), "content that repeats in several items is found");

    for judge in EXTRACTORS {
        let scratch = tempfile::tempdir().unwrap();
        decompress_into(&file, (judge.command)(scratch.path()));
        assert!(trees(scratch.path(), &paths) == before, "{}", judge.name);
    }
    // storecache itself restores a part of it, and then the rest.
    storecache([OsStr::new("verify"), file.as_os_str()]).ok();
    place.remove("/opt/2");
    let part = place.restore(&paths, &[]);
    assert_eq!(part["items"]["restored"], 1, "{part}");
    assert!(trees(&place.root(), &paths) == before);
    paths.iter().for_each(|path| place.remove(path));
    place.restore(&paths, &["--memory=128M", "--threads=3"]);
    assert!(trees(&place.root(), &paths) == before);
}

#[test]
fn incompressible_frames_are_stored_without_compression() {
    let (place, paths) = repetitive_directories();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let before = trees(&place.root(), &paths);
    let frames = |level: &str| {
        let (file, bytes, index) = saved_with(&place, &paths, &[level]);
        let all = (0..index.frames.len()).map(|number| frame_bytes(&bytes, &index, number));
        (file, all.map(<[u8]>::to_vec).collect::<Vec<_>>(), index)
    };
    let (file, deep, index) = frames("--level=12");
    assert_eq!(frames("--level=12").1, deep);
    let (_, quick, _) = frames("--level=1");
    // These frames are equal at any level, so the compressor did not search for matches, and they are not
    // larger than their content.
    let dense = |number: &usize| index.frames[*number].size * 100 > index.frames[*number].raw * 99;
    let stored: Vec<usize> = (0..deep.len()).filter(dense).collect();
    assert!(stored.len() >= 4, "{stored:?}");
    for &number in &stored {
        assert_eq!(deep[number], quick[number]);
        assert!(deep[number].len() as u64 <= index.frames[number].raw + 1024);
    }
    // All other frames are compressed.
    let others = (0..deep.len()).filter(|number| !stored.contains(number));
    let larger = others.filter(|&n| index.frames[n].raw > 1 << 20 && deep[n] == quick[n]);
    assert_eq!(larger.count(), 0);

    let scratch = tempfile::tempdir().unwrap();
    decompress_into(&file, (EXTRACTORS[0].command)(scratch.path()));
    assert!(trees(scratch.path(), &paths) == before);
    paths.iter().for_each(|path| place.remove(path));
    place.restore(&paths, &[]);
    assert!(trees(&place.root(), &paths) == before);
}

#[test]
fn index_lists_the_exact_frames_of_each_item() {
    let (world, file) = saved_store(Role::Mid, Fixture::Small);
    let (bytes, Opened { index, .. }) = opened(&file);
    assert!(index.frames.len() > 10);

    // Each frame, decompressed alone, has its digest and is its part of the archive.
    let mut whole = Vec::new();
    let mut ends = Vec::new();
    for (number, entry) in index.frames.iter().enumerate() {
        let compressed = frame_bytes(&bytes, &index, number);
        assert_eq!(entry.sha256.to_string(), sha256(compressed));
        let raw = zstd::decode_all(compressed).unwrap();
        assert_eq!(raw.len() as u64, entry.raw);
        whole.extend(raw);
        ends.push(whole.len() as u64);
    }
    assert_eq!(whole, tar_bytes(&file));

    let mut found: BTreeMap<&str, (u32, u32, u64)> = BTreeMap::new();
    let members = raw_members(&whole);
    for member in &members {
        let frame_at = |at: u64| ends.partition_point(|&end| end <= at) as u32;
        let (first, last) = (frame_at(member.bytes.0), frame_at(member.bytes.1 - 1));
        let Some(name) = item_of(&member.path) else {
            assert_eq!(index.database.as_ref().unwrap().frames, (first, last));
            continue;
        };
        let item = found.entry(name).or_insert((first, last, 0));
        item.1 = last;
        item.2 += 1;
    }
    let said: BTreeMap<&str, (u32, u32, u64)> = index
        .items
        .iter()
        .map(|item| (item.name.as_str(), (item.frames.0, item.frames.1, item.files)))
        .collect();
    assert_eq!(found, said);
    let registrations = world.registrations();
    for item in &index.items {
        let first = &index.frames[item.frames.0 as usize];
        assert_eq!(first.continues, None, "{} starts inside a file", item.name);
        let row = &registrations[&format!("/nix/store/{}", item.name)];
        assert_eq!(item.nar_hash.as_ref(), Some(&row.hash));
        assert_eq!(item.nar_size, row.nar_size.map(|size| size as u64));
    }
}

#[test]
fn item_can_be_extracted_from_its_frames_alone() {
    let (world, file) = saved_store(Role::Mid, Fixture::Small);
    let (bytes, Opened { index, .. }) = opened(&file);
    for item in &index.items {
        let scratch = Backend::new();
        let into = scratch.host_path();
        unpack_frames(&bytes, &index, item.frames, &item.name, &into);
        let path = index.archive_path(item);
        let found = tree_digest(into.join(&path));
        let original = world.tree_digest(&format!("/{path}"));
        assert_same(&original, &found, true, &path);
    }
}

/// Passes only these frames to GNU tar and extracts one item from them.
fn unpack_frames(bytes: &[u8], index: &Index, frames: (u32, u32), name: &str, into: &Path) {
    let mut input = tempfile::tempfile().unwrap();
    for number in frames.0..=frames.1 {
        let compressed = frame_bytes(bytes, index, number as usize);
        input.write_all(&zstd::decode_all(compressed).unwrap()).unwrap();
    }
    std::io::Seek::rewind(&mut input).unwrap();
    let mut tar = (EXTRACTORS[0].command)(into);
    tar.arg(format!("nix/store/{name}"));
    run_with_input(Stdio::from(input), tar);
}

#[test]
fn optimised_store_items_can_be_extracted_alone() {
    let (world, file) = saved_store(Role::Old, Fixture::Optimised);
    let scratch = Backend::new();
    let whole = scratch.host_path().join("tar");
    let archive = tar_bytes(&file);
    let members = raw_members(&archive);
    fs::write(&whole, &archive).unwrap();
    let links: Vec<_> =
        members.iter().filter(|member| member.kind == tar::EntryType::Link).collect();
    assert!(links.len() > 100, "the optimiser has linked much inside items");
    for link in &links {
        let target = link.target.as_ref().unwrap();
        assert_eq!(item_of(&link.path), item_of(target));
    }
    // Extract the items with the most links, and the first and last of all.
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for link in links {
        *count.entry(item_of(&link.path).unwrap()).or_default() += 1;
    }
    let mut most: Vec<_> = count.into_iter().collect();
    most.sort_by_key(|&(name, links)| (std::cmp::Reverse(links), name));
    let mut sample: BTreeSet<&str> = most.iter().take(4).map(|&(name, _)| name).collect();
    let names: Vec<_> = members.iter().filter_map(|it| item_of(&it.path)).collect();
    sample.extend([names[0], names[names.len() - 1]]);
    for name in sample {
        let scratch = Backend::new();
        let into = scratch.host_path();
        let mut tar = (EXTRACTORS[0].command)(&into);
        tar.arg(format!("nix/store/{name}"));
        run_with_input(Stdio::from(fs::File::open(&whole).unwrap()), tar);
        let found = tree_digest(into.join("nix/store").join(name));
        let original = world.tree_digest(&format!("/nix/store/{name}"));
        assert_same(&original, &found, true, name);
    }
}

#[test]
fn pyzstd_reads_the_seek_table() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python-peers");
    let python = output(&mut Command::new(script)).ok().lines().remove(0);
    let (_world, store) = saved_store(Role::Mid, Fixture::Small);
    let (_place, plain) = saved_tool();
    for file in [&store, &plain] {
        let judge = support_file("check_seekable.py");
        let judged = output(Command::new(&python).arg(judge).arg(file)).ok();
        // Number of frames, compressed size and decompressed size as pyzstd adds them up. They cover the file
        // up to the seek table itself, which has 8 bytes of header, 8 for each frame and 9 of footer.
        let (bytes, Opened { index, .. }) = opened(file);
        let frames = index.frames.len() + 2;
        let table = 8 + 8 * frames + 9;
        let raw: u64 = index.frames.iter().map(|frame| frame.raw).sum();
        let expected = format!("({frames}, {}, {raw})\n", bytes.len() - table);
        assert_eq!(judged.stdout, expected);
    }
}

/// The input of a golden file: a database and items below a directory, always the same.
struct GoldenInput {
    directory: tempfile::TempDir,
    canonical: bool,
}

impl GoldenInput {
    /// Returns items as in a store. Their attributes do not matter, because members are canonical.
    fn store() -> GoldenInput {
        let mould = GoldenInput { directory: tempfile::tempdir().unwrap(), canonical: true };
        let long = "n".repeat(130);
        mould.write("db.sqlite", b"the frozen database\n");
        mould.write(&format!("{}-file", "0".repeat(32)), b"an item that is a file\n");
        let top = format!("{}-tree", "1".repeat(32));
        mould.write(&format!("{top}/bin/program"), b"#!/bin/sh\n");
        mould.set_mode(&format!("{top}/bin/program"), 0o755);
        mould.write(&format!("{top}/{long}"), b"a long name\n");
        mould.write(&format!("{top}/one"), b"linked\n");
        mould.write(&format!("{top}/empty"), b"");
        // Takes two frames, but compresses to almost nothing.
        mould.write(&format!("{top}/large"), &[0; 5 << 20]);
        let path = |name: &str| mould.path(&format!("{top}/{name}"));
        fs::hard_link(path("one"), path("two")).unwrap();
        symlink(&long, path("to-long")).unwrap();
        symlink("x".repeat(120), path("long-target")).unwrap();
        fs::write(path("").join(OsStr::from_bytes(b"caf\xE9\n")), b"odd bytes\n").unwrap();
        symlink("one", mould.path(&format!("{}-link", "2".repeat(32)))).unwrap();
        mould
    }

    /// Returns items as in a store whose daemon links equal files.
    fn deduplicated() -> GoldenInput {
        let mould = GoldenInput { directory: tempfile::tempdir().unwrap(), canonical: true };
        mould.write("db.sqlite", b"the frozen database\n");
        let item = |digit: &str, name: &str| format!("{}-{name}", digit.repeat(32));
        let (flat, one, two) = (item("0", "file"), item("1", "one"), item("2", "two"));
        mould.write(&flat, &[b'0'; 8192]);
        mould.write(&format!("{one}/bin/program"), &[b'1'; 9000]);
        mould.set_mode(&format!("{one}/bin/program"), 0o755);
        // Two bytes smaller than the smallest file that is shared.
        mould.write(&format!("{one}/small"), &[b's'; 8190]);
        fs::create_dir(mould.path(&two)).unwrap();
        let link = |from: &str, to: &str| {
            fs::hard_link(mould.path(from), mould.path(&format!("{two}/{to}"))).unwrap();
        };
        link(&flat, "0");
        link(&format!("{one}/bin/program"), "1");
        link(&format!("{one}/bin/program"), "1-again");
        link(&format!("{one}/small"), "small");
        mould
    }

    /// Returns a plain directory with owners, modes and times.
    fn plain() -> GoldenInput {
        let mould = GoldenInput { directory: tempfile::tempdir().unwrap(), canonical: false };
        mould.write("opt/new", b"new\n");
        mould.write("opt/old", b"old\n");
        mould.write("opt/setuid", b"setuid\n");
        symlink("new", mould.path("opt/link")).unwrap();
        for (name, owner, mode, mtime) in [
            ("opt/new", (1001, 1002), 0o640, (1_234_567_890, 123_456_789)),
            ("opt/old", (0, 0), 0o644, (-86_401, 750_000_000)),
            ("opt/setuid", (0, 3_000_000), 0o4755, (1_700_000_000, 0)),
            ("opt", (0, 100), 0o2775, (0, 0)),
        ] {
            chown(mould.path(name), Some(owner.0), Some(owner.1)).unwrap();
            mould.set_mode(name, mode);
            set_mtime(&mould.path(name), mtime.0, mtime.1);
        }
        lchown(mould.path("opt/link"), Some(5), Some(6)).unwrap();
        set_mtime(&mould.path("opt/link"), 1_600_000_000, 1);
        set_mtime(&mould.path("opt"), 0, 0);
        mould
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        self.set_mode(name, 0o644);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Packs the directory as `save` would, with a fixed head.
    fn cast(&self, rows_only: Option<Vec<String>>) -> Vec<u8> {
        let base = Arc::new(OwnedFd::from(fs::File::open(self.directory.path()).unwrap()));
        let names = fs::read_dir(self.directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<_> = names.filter(|name| name != "db.sqlite").collect();
        let (items_under, kind, store_dir) = match self.canonical {
            true => ("nix/store", "nix", "/nix/store"),
            false => ("", "plain", ""),
        };
        let inputs = names.iter().map(|name| PackInput {
            name: name.clone(),
            archive_path: format!("{items_under}/{name}").trim_start_matches('/').to_owned(),
            base: Arc::clone(&base),
            file_name: name.clone().into_bytes(),
            nar_size: self.canonical.then_some(4242),
            nar_hash: self.canonical.then(|| "sha256:00".to_owned()),
            used: None,
        });
        let database = self.canonical.then(|| {
            let path = "nix/var/nix/db/db.sqlite".to_owned();
            (path, Arc::clone(&base), b"db.sqlite".to_vec())
        });
        let head = Head {
            format: 1,
            tool: "storecache 0.1.0".into(),
            store: StoreFacts {
                kind: kind.into(),
                store_dir: store_dir.into(),
                state_dir: store_dir.replace("store", "var/nix").into(),
                system: "x86_64-linux".into(),
                version: "2.26.3".into(),
                schema: self.canonical.then_some(10),
                migrations: vec!["20220326-ca-derivations".into()],
                owner: "root".into(),
            },
            key: "storecache-golden".into(),
            base: None,
            ingredients: BTreeMap::from([("workflow".into(), Digest::hash(b"on: push"))]),
            origin: Origin {
                repository: "owner/name".into(),
                reference: "refs/heads/main".into(),
                commit: "0123456789".into(),
                run: "7".into(),
                trigger: "push".into(),
            },
            created: "2026-01-02T03:04:05Z".into(),
            items: names.len() as u64,
            nar_bytes: 4242,
            cold_seconds: None,
            watched_since: None,
            profiles: Vec::new(),
        };
        let mut writer = SnapshotWriter::new(Vec::new(), &head).unwrap();
        let options = PackOptions {
            level: 3,
            long: false,
            canonical: self.canonical,
            together: 1 << 20,
            memory: Packing::on(2),
        };
        let mut sink = |frame: Frame| Ok(writer.frame(frame)?);
        let packed =
            pack(&RunContext::default(), database, inputs.collect(), &options, &mut sink).unwrap();
        writer.finish(items_under, packed.items, packed.database, None, rows_only).unwrap().0
    }
}

/// Returns the parts of a snapshot that do not depend on the version of the compressor.
fn version_independent_parts(bytes: &[u8]) -> (Head, Vec<Vec<u8>>, String) {
    let Opened { head, mut index, .. } = open_bytes(bytes).unwrap();
    let frames = (0..index.frames.len())
        .map(|number| zstd::decode_all(frame_bytes(bytes, &index, number)).unwrap());
    let frames = frames.collect();
    for frame in &mut index.frames {
        (frame.at, frame.size, frame.sha256) = (0, 0, index.head);
    }
    index.archive = index.head;
    (head, frames, golden::json(&index))
}

/// Compares a new snapshot with its golden file.
///
/// A difference means that the format has changed. Format 1 must not change any more: old snapshots must stay
/// readable, and other versions of storecache read new ones. A new format needs a new number and a golden file
/// of its own (STORECACHE_WRITE_GOLDEN=1 writes it).
#[track_caller]
fn assert_golden(name: &str, cast: &[u8]) {
    if std::env::var_os("STORECACHE_WRITE_GOLDEN").is_some() {
        golden::write(name, cast);
    }
    let golden = golden::read(name);
    snapshot_builder::check(&golden).unwrap();
    let (expected, found) = (version_independent_parts(&golden), version_independent_parts(cast));
    assert_eq!(expected.0, found.0);
    for (number, (expected, found)) in expected.1.iter().zip(&found.1).enumerate() {
        let differs = expected.iter().zip(found).position(|(a, b)| a != b);
        assert_eq!(differs, None, "tar byte of frame {number}");
        assert_eq!(expected.len(), found.len(), "frame {number}");
    }
    assert_eq!(expected.1.len(), found.1.len());
    assert_eq!(expected.2, found.2);

    // From the same frames the writer makes the same file, except for the compression of the index.
    let index = open_bytes(&golden).unwrap().index;
    let again = SnapshotParts::new(&golden).build();
    let frames_end = index.frames.last().map(|frame| frame.at + frame.size).unwrap() as usize;
    assert_eq!(golden[..frames_end], again[..frames_end]);
    assert_eq!(open_bytes(&again).unwrap().index, index);
    assert_eq!(snapshot_builder::with_index(&again, |_| ()), again, "magics and seek table");
}

#[test]
fn format_1_of_a_nix_store_matches_the_golden_file() {
    assert_golden("format-1-nix", &GoldenInput::store().cast(None));
}

#[test]
fn format_1_of_a_deduplicated_store_matches_the_golden_file() {
    assert_golden("format-1-deduplicated", &GoldenInput::deduplicated().cast(None));
}

#[test]
fn format_1_of_a_plain_directory_matches_the_golden_file() {
    assert_golden("format-1-plain", &GoldenInput::plain().cast(None));
}

/// Format 1 with the optional list of rows without items. Programs that do not know the list ignore it.
#[test]
fn format_1_with_rows_only_matches_the_golden_file() {
    let left_out = vec![format!("{}-left-out", "9".repeat(32))];
    assert_golden("format-1-rows-only", &GoldenInput::store().cast(Some(left_out)));
}

/// The index as seen by programs that do not know `rows_only`.
#[derive(serde::Deserialize, serde::Serialize)]
struct IndexBeforeRowsOnly {
    format: u64,
    head: Digest,
    head_bytes: u64,
    archive: Digest,
    frames: Vec<FrameEntry>,
    database: Option<DatabaseEntry>,
    items_under: String,
    items: Vec<ItemEntry>,
}

#[test]
fn older_programs_read_an_index_with_rows_only() {
    let golden = golden::read("format-1-rows-only");
    let mut index = open_bytes(&golden).unwrap().index;
    let before: IndexBeforeRowsOnly = serde_json::from_str(&golden::json(&index)).unwrap();
    assert!(index.rows_only.take().is_some());
    assert_eq!(serde_json::to_value(before).unwrap(), serde_json::to_value(index).unwrap());
}
