//! Writes the seed inputs of the fuzzers: parts of snapshots of real stores, and forged ones with every kind
//! of member.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use storecache_entry::Digest;
use storecache_snapshot::{
    Base, BaseItem, Continuation, DatabaseEntry, FrameEntry, Index, ItemEntry, ProfileFacts,
};

use super::fixture_cache::{Fixture, Role};
use super::golden;
use super::programs;
use super::snapshot_builder::{
    SnapshotParts, directory, file, frame_bytes, hard_link, item, long_named_file, open_bytes,
    symlink,
};
use super::world::World;
use super::world_runs::{self, report};

/// Number of items of a real store in a seed, and the highest size of their frames.
const ITEMS: usize = 6;
const FRAME: u64 = 4096;
/// Messages of a recorded conversation whose JSON is longer are left out.
const MAX_MESSAGE: usize = 1500;

/// Writes the seeds again, except those of the target `orders`, which are written by hand.
pub fn write(seeds: &Path) {
    for target in ["head", "index", "frames", "database", "protocol"] {
        let _ = fs::remove_dir_all(seeds.join(target));
    }
    let store = |target: &str, name: &str, bytes: &[u8]| {
        let path = seeds.join(target).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for name in ["format-1-nix", "format-1-deduplicated", "format-1-plain"] {
        let snapshot = golden::read(name);
        store("head", name, &head(&snapshot));
        store("index", name, &[b"f", &snapshot[..]].concat());
        store("index", &format!("{name}-json"), &[b"j", &json(&snapshot)[..]].concat());
        store("index", &format!("{name}-body"), &[b"b", &body(&snapshot)[..]].concat());
    }
    store("head", "full", &full_head(&golden::read("format-1-nix")));
    store("index", "delta", &delta(&golden::read("format-1-nix")));
    store("frames", "forged", &forged(0));
    store("frames", "forged-plain", &forged(1 | 2 | 8));
    for (role, name) in [(Role::Old, "nix-old"), (Role::New, "nix-new"), (Role::Guix, "guix")] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let (requests, replies) = conversation(&world);
        let saved = fs::read_dir(world.backend().host_path()).unwrap();
        let mut files = saved.map(|entry| entry.unwrap().path());
        let snapshot = files.find(|path| path.extension().is_some_and(|e| e == "zst"));
        let snapshot = fs::read(snapshot.expect("a snapshot")).unwrap();
        store("head", name, &head(&snapshot));
        store("frames", name, &excerpt(&snapshot));
        store("database", name, &small_database(&SnapshotParts::new(&snapshot).database()));
        if role != Role::Old {
            store("protocol", &format!("{name}-requests"), &requests);
            store("protocol", &format!("{name}-replies"), &replies);
        }
    }
}

fn head(snapshot: &[u8]) -> Vec<u8> {
    open_bytes(snapshot).unwrap().head.to_bytes().unwrap()
}

/// A head with fields that are not set in most heads.
fn full_head(snapshot: &[u8]) -> Vec<u8> {
    let mut head = open_bytes(snapshot).unwrap().head;
    head.cold_seconds = Some(12.5);
    head.watched_since = Some(head.created.clone());
    let profile = |name: &str| ProfileFacts { name: name.into(), item: "a-profile".into() };
    head.profiles = vec![profile("per-user/runner/profile"), profile("default")];
    head.to_bytes().unwrap()
}

fn json(snapshot: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&open_bytes(snapshot).unwrap().index).unwrap()
}

fn body(snapshot: &[u8]) -> Vec<u8> {
    let bytes = open_bytes(snapshot).unwrap().index_bytes;
    bytes[4..bytes.len() - 36].to_vec()
}

/// The index of a delta that has all of its items in its base, followed by the index of the base.
fn delta(base: &[u8]) -> Vec<u8> {
    let base = open_bytes(base).unwrap().index;
    let items = base.items.iter().map(|item| BaseItem {
        name: item.name.clone(),
        nar_hash: item.nar_hash.clone().unwrap(),
        used: Some(1),
    });
    let on = Base { entry: "k".into(), index: base.head, items: items.collect() };
    let end = FrameEntry { at: base.head_bytes, ..base.frames.last().unwrap().clone() };
    let mut delta = Index { format: 2, base: Some(on), ..base.clone() };
    (delta.frames, delta.items, delta.database) = (vec![end], Vec::new(), None);
    let text = |index: &Index| serde_json::to_vec(index).unwrap();
    [b"j", &text(&delta)[..], b"\0", &text(&base)].concat()
}

/// The first items of a snapshot that have a small frame for themselves, with these frames.
fn excerpt(snapshot: &[u8]) -> Vec<u8> {
    let mut index = open_bytes(snapshot).unwrap().index;
    let raw = |index: &Index, number: usize| {
        let frame = frame_bytes(snapshot, index, number);
        zstd::bulk::decompress(frame, index.frames[number].raw as usize).unwrap()
    };
    let mut tar = Vec::new();
    let mut frames: Vec<FrameEntry> = Vec::new();
    let mut items = Vec::new();
    for item in &index.items {
        let (first, last) = item.frames;
        let alone = index.items.iter().filter(|other| other.is_in(first)).count() == 1;
        let frame = &index.frames[first as usize];
        let suits = first == last && item.shared.is_empty() && alone && frame.raw <= FRAME;
        if suits && items.len() < ITEMS {
            tar.extend(raw(&index, first as usize));
            let number = frames.len() as u32;
            frames.push(FrameEntry { sha256: index.head, ..frame.clone() });
            items.push(ItemEntry { frames: (number, number), ..item.clone() });
        }
    }
    assert_eq!(items.len(), ITEMS);
    frames.push(FrameEntry { sha256: index.head, ..index.frames.last().unwrap().clone() });
    tar.extend([0; 1024]);
    (index.frames, index.items, index.database) = (frames, items, None);
    input(0, &index, &tar)
}

/// An input of the target `frames`.
fn input(flags: u8, index: &Index, tar: &[u8]) -> Vec<u8> {
    [&[flags][..], &serde_json::to_vec(index).unwrap(), b"\0", tar].concat()
}

/// A database, a file in two frames, links of both kinds, a long name, and a file that two items share.
fn forged(flags: u8) -> Vec<u8> {
    let one = format!("{}-one", "a".repeat(32));
    let two = format!("{}-two", "b".repeat(32));
    let at = |path: &str| format!("nix/store/{path}").into_bytes();
    let long_name = long_named_file(&at(&format!("{one}/{}", "n".repeat(120))));
    // Equal files are linked if attributes are canonical and the size is at least 8 KiB.
    let twin = vec![b't'; if flags & 1 == 0 { 8192 } else { 600 }];
    let large = file(&at(&format!("{one}/large")), &[b'l'; 1536]);
    let frames = [
        file(b"nix/var/nix/db/db.sqlite", b"database\n"),
        [file(&at(&format!("{one}/twin")), &twin), file(&at(&format!("{two}/twin")), &twin)]
            .concat(),
        [
            directory(&at(&one)),
            long_name,
            symlink(&at(&format!("{one}/link")), b"../../outside"),
            large[..1024].to_vec(),
        ]
        .concat(),
        [
            large[1024..].to_vec(),
            hard_link(&at(&format!("{one}/again")), &at(&format!("{one}/large"))),
        ]
        .concat(),
        [directory(&at(&two)), directory(&at(&format!("{two}/below")))].concat(),
        vec![0; 1024],
    ];
    let entry = |raw: &Vec<u8>| FrameEntry {
        at: 0,
        size: 0,
        raw: raw.len() as u64,
        sha256: Digest::hash(b""),
        continues: None,
    };
    let mut index = Index {
        format: 1,
        head: Digest::hash(b""),
        head_bytes: 0,
        archive: Digest::hash(b""),
        frames: frames.iter().map(entry).collect(),
        database: Some(DatabaseEntry {
            path: "nix/var/nix/db/db.sqlite".into(),
            frames: (0, 0),
            size: 9,
        }),
        items_under: "nix/store".into(),
        items: vec![
            ItemEntry { shared: vec![1], ..item(&one, (2, 3), 6) },
            ItemEntry { shared: vec![1], ..item(&two, (4, 4), 3) },
        ],
        base: None,
        rows_only: None,
    };
    let path = format!("nix/store/{one}/large");
    index.frames[3].continues = Some(Continuation { path, offset: 512, size: 1536 });
    input(flags, &index, &frames.concat())
}

/// A few rows of a real database, on small pages.
fn small_database(content: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sqlite");
    fs::write(&path, content).unwrap();
    let connection = Connection::open(&path).unwrap();
    // Keeps two derivations that have outputs, two of the outputs, and a few other rows.
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF;
             CREATE TEMP TABLE kept AS SELECT id FROM ValidPaths WHERE id IN
                 (SELECT reference FROM Refs GROUP BY reference HAVING referrer = reference LIMIT 3)
                 OR id IN (SELECT drv FROM DerivationOutputs LIMIT 2)
                 OR path IN (SELECT path FROM DerivationOutputs LIMIT 2)
                 OR id IN (SELECT id FROM ValidPaths LIMIT 4);
             DELETE FROM Refs WHERE referrer NOT IN kept OR reference NOT IN kept;
             DELETE FROM DerivationOutputs WHERE drv NOT IN kept;
             DELETE FROM ValidPaths WHERE id NOT IN kept;
             PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM;",
        )
        .unwrap();
    drop(connection);
    fs::read(path).unwrap()
}

/// Records the messages of the user process and the root helper in a save and a restore that has nothing to
/// do.
fn conversation(world: &World) -> (Vec<u8>, Vec<u8>) {
    let listener = world.host("/usr/local/bin/sudo");
    let script = "#!/bin/bash\n\
         tee -a /tmp/requests | /usr/bin/sudo \"$@\" | tee -a /tmp/replies\nexit ${PIPESTATUS[1]}\n";
    fs::create_dir_all(listener.parent().unwrap()).unwrap();
    programs::write(&listener, script);
    for verb in ["save", "restore"] {
        report(&world_runs::attempt(world, "runner", verb, &[]).ok());
    }
    let said = |name: &str| short_messages(&fs::read(world.host(format!("/tmp/{name}"))).unwrap());
    (said("requests"), said("replies"))
}

/// Keeps the first message of each kind, with at most 64 bytes of its payload.
fn short_messages(mut stream: &[u8]) -> Vec<u8> {
    let mut kinds = std::collections::BTreeSet::new();
    let mut kept = Vec::new();
    while let Some((lengths, rest)) = stream.split_first_chunk::<8>() {
        let length = |at: usize| {
            u32::from_be_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]])
                as usize
        };
        let (json, rest) = rest.split_at(length(0));
        let (payload, rest) = rest.split_at(length(4));
        stream = rest;
        let kind: Vec<u8> = json.iter().copied().filter(u8::is_ascii_alphabetic).take(8).collect();
        if json.len() <= MAX_MESSAGE && kinds.insert(kind) {
            let payload = &payload[..payload.len().min(64)];
            kept.extend((json.len() as u32).to_be_bytes());
            kept.extend((payload.len() as u32).to_be_bytes());
            kept.extend_from_slice(json);
            kept.extend_from_slice(payload);
        }
    }
    kept
}
