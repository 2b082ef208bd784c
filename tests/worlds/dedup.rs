//! Tests of stores whose daemon has hard-linked equal files of several items: each content is saved once, and
//! every item can be extracted without the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::snapshot_builder::{self, frame_bytes, open_bytes};
use crate::support::world_runs::{assert_same, flags, record_state, restore, run, save};
use crate::support::{Backend, Fixture, PackageManager, Role, World, poll, procfs, tree_digest};
use rustix::process::Signal;
use storecache_entry::Digest;
use storecache_runtime::RunContext;
use storecache_runtime::memory::Packing;
use storecache_snapshot::{
    Frame, Head, Index, ItemEntry, Opened, Origin, PackInput, PackOptions, SnapshotWriter,
    StoreFacts, pack,
};

const MIB: usize = 1 << 20;

/// Returns content that does not compress and that depends on `seed`.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    });
    words.take(length).collect()
}

/// Returns the files of items to be added, by item and path in it (no path for an item that is a file), and the
/// total size of the distinct contents.
fn items() -> (Vec<(String, Vec<u8>)>, usize) {
    let three = noise(1, 3 * MIB);
    let flat = noise(2, MIB);
    let pair = noise(3, MIB);
    let run = noise(4, 100 << 10);
    let mut unique = three.len() + flat.len() + pair.len() + run.len();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut put = |path: &str, content: &[u8]| files.push((path.to_owned(), content.to_owned()));
    for path in ["three-a/blob", "three-b/data/blob", "three-c/deep/er/blob"] {
        put(path, &three);
    }
    for item in ["three-a", "three-b", "three-c"] {
        put(&format!("{item}/own"), item.as_bytes());
    }
    for path in ["flat-a", "flat-b", "holder/flat"] {
        put(path, &flat);
    }
    for path in ["pair-a/x", "pair-a/y", "pair-b/below/x", "pair-b/y", "pair-b/z"] {
        put(path, &pair);
    }
    for path in ["pair-a/bin/run", "pair-b/bin/run"] {
        put(path, &run);
    }
    for number in 0..100 {
        let content = noise(1000 + number, 10_000);
        unique += content.len();
        put(&format!("many-a/{number}"), &content);
        put(&format!("many-b/{number}"), &content);
        if number % 2 == 0 {
            put(&format!("many-c/even/{number}"), &content);
        }
    }
    (files, unique)
}

/// Adds items with these files to the store of a world, which links equal files.
#[track_caller]
fn add(world: &World, files: &[(String, Vec<u8>)]) {
    let made = Path::new("/tmp/made");
    let mut names = BTreeSet::new();
    for (path, content) in files {
        let host = world.host(made.join(path));
        fs::create_dir_all(host.parent().unwrap()).unwrap();
        fs::write(&host, content).unwrap();
        let mode = if path.ends_with("/run") { 0o755 } else { 0o644 };
        fs::set_permissions(host, Permissions::from_mode(mode)).unwrap();
        names.insert(path.split('/').next().unwrap());
    }
    let paths: String = names.iter().map(|name| format!("{}/{name} ", made.display())).collect();
    world.add_files(&paths);
    if world.package_manager() == PackageManager::Nix {
        world.nix(["nix-store", "--optimise"]).ok();
    }
}

/// Returns the one valid path with that name.
#[track_caller]
fn item(world: &World, name: &str) -> String {
    let mut found = world.valid_paths().into_iter().filter(|path| path[44..] == *name);
    found.next().unwrap_or_else(|| panic!("no item is called {name}"))
}

/// Saves the store in full and returns the bytes of the entry's file.
fn saved(world: &World) -> Vec<u8> {
    let saved = run(world, "runner", "save", &["--full"]);
    let name = format!("{}.tar.zst", saved["entry"].as_str().unwrap());
    fs::read(world.backend().host_path().join(name)).unwrap()
}

/// Returns every file of the valid items that the store may link, with its inode.
fn inodes(world: &World) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = world.valid_paths().into_iter().map(PathBuf::from).collect();
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(world.host(&path)).unwrap();
        if metadata.is_dir() {
            let entries = fs::read_dir(world.host(&path)).unwrap();
            waiting.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        } else if metadata.is_file() && metadata.size() >= 8192 {
            found.insert(path, metadata.ino());
        }
    }
    found
}

/// Returns the sets of paths that are hard links of one file.
fn hard_linked_sets(inodes: &BTreeMap<PathBuf, u64>) -> BTreeSet<BTreeSet<&Path>> {
    let mut names: BTreeMap<u64, BTreeSet<&Path>> = BTreeMap::new();
    for (path, inode) in inodes {
        names.entry(*inode).or_default().insert(path);
    }
    names.into_values().filter(|names| names.len() > 1).collect()
}

/// Returns the digests of the data frames, without those of the database.
fn frames(snapshot: &[u8]) -> Vec<Digest> {
    let Index { frames, database, .. } = open_bytes(snapshot).unwrap().index;
    let first = database.unwrap().frames.1 as usize + 1;
    frames[first..].iter().map(|frame| frame.sha256).collect()
}

#[test]
fn shared_content_is_saved_once_and_linked_again_on_restore() {
    let (files, unique) = items();
    let unique = unique as f64;
    for role in [Role::Guix, Role::GuixOld, Role::Mid] {
        let world = World::new(role);
        world.start_daemon();
        add(&world, &files);
        let before = record_state(&world);
        let linked = inodes(&world);
        // The daemon has linked three blobs, flat files, pairs, programs, and many small files.
        assert_eq!(hard_linked_sets(&linked).len(), 4 + 100, "{role:?}");

        let snapshot = saved(&world);
        let size = snapshot.len() as f64;
        assert!(size < 1.2 * unique, "{role:?}: {size} bytes of {unique}");
        snapshot_builder::check(&snapshot).unwrap();
        assert_eq!(frames(&saved(&world)), frames(&snapshot), "{role:?}: saved again");

        world.wipe_store();
        let restored = restore(&world);
        assert_eq!(restored["items"]["restored"], before.references.len(), "{role:?}");
        let unpacked = restored["bytes"]["unpacked"].as_f64().unwrap();
        assert!(unpacked < 1.2 * unique, "{role:?}: {unpacked} bytes of {unique}");
        assert_same(&before, &record_state(&world));
        assert_eq!(hard_linked_sets(&inodes(&world)), hard_linked_sets(&linked), "{role:?}");
        world.verify_store();
        assert_eq!(frames(&saved(&world)), frames(&snapshot), "{role:?}: what was restored");
    }
}

#[test]
fn delta_shares_content_among_the_items_it_adds() {
    for role in [Role::Guix, Role::Mid] {
        let world = World::new(role);
        world.start_daemon();
        add(&world, &items().0);
        let base = save(&world);
        // The first content is in the base, the second is new and in two items.
        let (old, new) = (noise(1, 3 * MIB), noise(5, 2 * MIB));
        let more = [("new-a/old", &old), ("new-a/new", &new), ("new-b/new", &new)];
        let more: Vec<_> = more.map(|(path, it)| (path.to_owned(), it.clone())).into();
        add(&world, &more);
        let before = record_state(&world);
        let delta = run(&world, "runner", "save", &["--rebase-at", "1"]);
        assert_eq!(delta["base"]["entry"], base["entry"], "{role:?}: {delta}");
        let size = delta["bytes"]["snapshot"].as_u64().unwrap() as usize;
        assert!(size < (old.len() + new.len()) * 6 / 5, "{role:?}: {size}");

        world.wipe_store();
        restore(&world);
        assert_same(&before, &record_state(&world));
        let inodes = inodes(&world);
        let of = |name: &str, file: &str| inodes[&Path::new(&item(&world, name)).join(file)];
        assert_eq!(of("new-a", "new"), of("new-b", "new"), "{role:?}");
        assert_eq!(of("three-a", "blob"), of("three-b", "data/blob"), "{role:?}");
        world.verify_store();
    }
}

#[test]
fn restore_does_not_link_to_live_files_of_equal_content() {
    let (files, _) = items();
    for role in [Role::Guix, Role::GuixOld] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        add(&world, &files);
        save(&world);
        // These items are not in the snapshot but have the same content as items in it.
        let stranger = |path: &str, like: &str| {
            let (_, content) = files.iter().find(|(path, _)| path == like).unwrap();
            (path.to_owned(), content.clone())
        };
        add(&world, &[stranger("stranger/blob", "three-a/blob"), stranger("alone", "flat-a")]);
        let before = record_state(&world);
        for lost in [
            &["three-b"][..],
            &["three-a", "three-c", "flat-a", "pair-b", "many-a"],
            &["three-b", "flat-a", "flat-b", "holder", "pair-a", "many-b", "many-c"],
        ] {
            world.sh("rm -rf /var/guix/gcroots/storecache");
            let mut words = vec!["guix".to_owned(), "gc".to_owned(), "--delete".to_owned()];
            words.extend(lost.iter().map(|name| item(&world, name)));
            world.nix(words).ok();
            let live = inodes(&world);

            let restored = restore(&world);
            assert_eq!(restored["items"]["restored"], lost.len(), "{role:?} {lost:?}");
            assert_same(&before, &record_state(&world));
            let now = inodes(&world);
            let alive: BTreeSet<u64> = live.values().copied().collect();
            for (path, inode) in &now {
                match live.get(path) {
                    Some(was) => assert_eq!(was, inode, "{} was touched", path.display()),
                    None => assert!(!alive.contains(inode), "{} is not its own", path.display()),
                }
            }
            world.verify_store();
        }
        // Two files that were restored together are linked to each other, but not to a live file with the same
        // content.
        let now = inodes(&world);
        let inode = |name: &str, file: &str| now[&Path::new(&item(&world, name)).join(file)];
        assert_eq!(inode("flat-b", ""), inode("holder", "flat"));
        assert_ne!(inode("flat-b", ""), inode("alone", ""));
        assert_eq!(inode("many-b", "4"), inode("many-c", "even/4"));
    }
}

/// Extracts members from these tar bytes with GNU tar.
#[track_caller]
fn tar(mut input: File, into: &Path, names: &[&str]) {
    input.rewind().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--same-permissions", "--numeric-owner", "--directory"]).arg(into);
    let run = tar.args(names).stdin(input).env("LANG", "C.UTF-8").output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.is_empty(), "{names:?}: {said}");
}

/// Returns the tar bytes of these frames.
fn raw_frames(snapshot: &[u8], index: &Index, frames: &[u32]) -> File {
    let mut raw = tempfile::tempfile().unwrap();
    for &number in frames {
        let compressed = frame_bytes(snapshot, index, number as usize);
        raw.write_all(&zstd::decode_all(compressed).unwrap()).unwrap();
    }
    raw
}

/// Asserts that zstd and GNU tar alone can extract the whole store of a snapshot, and each item of it.
#[track_caller]
fn assert_plain_archive(world: &World, snapshot: &[u8]) {
    let Opened { index, .. } = open_bytes(snapshot).unwrap();
    let original = |item: &ItemEntry| world.tree_digest(&format!("/{}", index.archive_path(item)));

    let scratch = Backend::new();
    let whole = scratch.host_path().join("tar");
    let file = scratch.host_path().join("tar.zst");
    fs::write(&file, snapshot).unwrap();
    let zstd = Command::new("zstd").arg("-qdo").arg(&whole).arg(&file).status().unwrap();
    assert!(zstd.success());
    let into = scratch.host_path().join("whole");
    fs::create_dir(&into).unwrap();
    tar(File::open(&whole).unwrap(), &into, &[]);
    let entries = fs::read_dir(into.join(&index.items_under)).unwrap();
    assert_eq!(entries.count(), index.items.len());
    for item in &index.items {
        let found = tree_digest(into.join(index.archive_path(item)));
        assert_eq!(found, original(item), "{}", item.name);
        for (path, entry) in found {
            let expected: &[u32] = match entry.mode & 0o170000 {
                0o120000 => &[0o777],
                0o040000 => &[0o555],
                _ => &[0o444, 0o555],
            };
            let shown = path.display();
            assert!(expected.contains(&(entry.mode & 0o7777)), "{shown}: {:o}", entry.mode);
            assert_eq!(entry.mtime, (1, 0), "{shown}");
        }
    }

    assert_contents_are_stored_once(snapshot, &index);

    // Extract each item from its own frames, and some items from the whole archive.
    let sharing = (0..index.items.len()).filter(|&at| !index.items[at].shared.is_empty());
    let sharing: Vec<usize> = sharing.collect();
    assert!(sharing.len() > 10);
    for (nth, &at) in sharing.iter().enumerate() {
        let item = &index.items[at];
        let path = index.archive_path(item);
        let mut archives = vec![raw_frames(snapshot, &index, &index.frames_of([at]))];
        if nth % sharing.len().div_ceil(5) == 0 {
            archives.push(File::open(&whole).unwrap());
        }
        for archive in archives {
            let scratch = Backend::new();
            tar(archive, &scratch.host_path(), &[&path]);
            let store = scratch.host_path().join(&index.items_under);
            assert_eq!(fs::read_dir(store).unwrap().count(), 1);
            let found = tree_digest(scratch.host_path().join(&path));
            assert_eq!(found, original(item), "{} alone", item.name);
        }
    }

    let listed = Command::new("tar").args(["--list", "--verbose", "--file"]).arg(&whole).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let links: Vec<&str> = listed.lines().filter(|line| line.starts_with('h')).collect();
    assert!(links.len() > 2, "links inside an item are kept");
    for line in links {
        let under = format!("{}/", index.items_under);
        let items: Vec<&str> =
            line.match_indices(&under).map(|(at, _)| &line[at + under.len()..][..32]).collect();
        assert!(items.len() == 2 && items[0] == items[1], "{line}");
    }
}

/// Asserts that the shared frames are about as large as if they held each content once.
#[track_caller]
fn assert_contents_are_stored_once(snapshot: &[u8], index: &Index) {
    let shared = index.items.iter().flat_map(|item| item.shared.clone());
    let shared: Vec<u32> = shared.collect::<BTreeSet<_>>().into_iter().collect();
    let packed: u64 = shared.iter().map(|&number| index.frames[number as usize].size).sum();
    let mut contents = BTreeSet::new();
    for number in shared {
        let mut raw = raw_frames(snapshot, index, &[number]);
        raw.rewind().unwrap();
        for member in tar::Archive::new(raw).entries().unwrap() {
            let mut content = Vec::new();
            member.unwrap().read_to_end(&mut content).unwrap();
            contents.insert(content);
        }
    }
    let once: usize =
        contents.iter().map(|content| zstd::bulk::compress(content, 3).unwrap().len()).sum();
    assert!(packed as f64 <= 1.05 * once as f64, "{packed} bytes of {once}");
}

#[test]
fn zstd_and_tar_rebuild_a_deduplicated_guix_store() {
    let world = World::with_fixture(Role::GuixOld, Fixture::Small);
    world.start_daemon();
    add(&world, &items().0);
    assert_plain_archive(&world, &saved(&world));
}

#[test]
fn zstd_and_tar_rebuild_an_optimised_nix_store() {
    let world = World::with_fixture(Role::Old, Fixture::Optimised);
    let snapshot = saved(&world);
    assert_plain_archive(&world, &snapshot);
    let links = inodes(&world);
    world.wipe_store();
    restore(&world);
    assert_eq!(hard_linked_sets(&inodes(&world)), hard_linked_sets(&links));
}

#[test]
fn files_linked_during_a_save_are_restored() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let (files, _) = items();
    add(&world, &files);
    // Some of the files are linked already, the others will be.
    let copies: Vec<_> =
        files.iter().map(|(path, content)| (format!("more-{path}"), content.clone())).collect();
    for (path, content) in &copies {
        let host = world.host(Path::new("/tmp/more").join(path));
        fs::create_dir_all(host.parent().unwrap()).unwrap();
        fs::write(host, content).unwrap();
    }
    world.command(["sh", "-c", "nix-store --add /tmp/more/*"]).through_daemon().ok();
    let before = record_state(&world);
    let links = inodes(&world);
    let saving = world.storecache_as("runner", ["save"].into_iter().chain(flags(&world))).spawn();
    let soon = Duration::from_secs(60);
    poll::until("the save to begin", soon, || {
        let mut processes = procfs::processes_in_namespace(world.init()).into_iter();
        if processes.any(procfs::has_unnamed_file) { Ok(()) } else { Err("not yet") }
    });
    saving.signal(Signal::STOP);
    world.nix(["nix-store", "--optimise"]).ok();
    assert_ne!(hard_linked_sets(&inodes(&world)), hard_linked_sets(&links));
    saving.signal(Signal::CONT);
    saving.wait(soon).ok();
    world.wipe_store();
    restore(&world);
    assert_same(&before, &record_state(&world));
    world.verify_store();
}

/// Returns a directory with items that have these files of zeros in common, as hard links.
fn linked(files: &[String], size: u64, items: usize) -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..items).map(|number| format!("item-{number}")).collect();
    for name in &names {
        let top = directory.path().join(name);
        fs::create_dir(&top).unwrap();
        for file in files {
            if name == &names[0] {
                File::create(top.join(file)).unwrap().set_len(size).unwrap();
            } else {
                fs::hard_link(directory.path().join(&names[0]).join(file), top.join(file)).unwrap();
            }
        }
    }
    (directory, names)
}

/// Packs items of a store and calls `each` with every frame.
fn packed(
    directory: &Path,
    names: &[String],
    each: &mut dyn FnMut(&Frame),
) -> anyhow::Result<Vec<u8>> {
    let base = Arc::new(OwnedFd::from(File::open(directory).unwrap()));
    let inputs = names.iter().map(|name| PackInput {
        name: name.clone(),
        archive_path: format!("nix/store/{name}"),
        base: Arc::clone(&base),
        file_name: name.clone().into_bytes(),
        nar_size: None,
        nar_hash: None,
        used: None,
    });
    let store = StoreFacts {
        kind: "nix".into(),
        store_dir: "/nix/store".into(),
        state_dir: Default::default(),
        system: Default::default(),
        version: Default::default(),
        schema: None,
        migrations: Vec::new(),
        owner: Default::default(),
    };
    let head = Head {
        format: 1,
        tool: "test".into(),
        store,
        key: "test".into(),
        base: None,
        ingredients: BTreeMap::new(),
        origin: Origin::default(),
        created: "2026-01-01T00:00:00Z".into(),
        items: names.len() as u64,
        nar_bytes: 0,
        cold_seconds: None,
        watched_since: None,
        profiles: Vec::new(),
    };
    let mut writer = SnapshotWriter::new(Vec::new(), &head).unwrap();
    let options = PackOptions {
        level: 1,
        long: false,
        canonical: true,
        together: MIB as u64,
        memory: Packing::on(1),
    };
    let mut sink = |frame: Frame| {
        each(&frame);
        Ok(writer.frame(frame)?)
    };
    let packed = pack(&RunContext::default(), None, inputs.collect(), &options, &mut sink)?;
    Ok(writer.finish("nix/store", packed.items, packed.database, None, None).unwrap().0)
}

#[test]
fn file_replaced_during_packing_is_unchanged_or_an_error() {
    let files: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let other = [vec![0; MIB - 1], vec![1]].concat();
    for (content, mode, fine) in
        [(vec![0; MIB], 0o644, true), (other, 0o644, false), (vec![0; MIB], 0o755, false)]
    {
        let (directory, items) = linked(&files, MIB as u64, 2);
        let mut seen = 0;
        let packed = packed(directory.path(), &items, &mut |_| {
            seen += 1;
            if seen == 1 {
                // By now the packer knows all links and has read few files.
                let new = directory.path().join("new");
                fs::write(&new, &content).unwrap();
                fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
                fs::rename(new, directory.path().join("item-1/19")).unwrap();
            }
        });
        match packed {
            Ok(snapshot) => {
                assert!(fine);
                snapshot_builder::check(&snapshot).unwrap();
                assert_eq!(seen, files.len() + 2);
            }
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!fine, "{error}");
                assert!(error.contains("item-1/19") && error.contains("it changed"), "{error}");
            }
        }
    }
}

#[test]
fn many_copies_span_frames_and_the_largest_are_not_shared() {
    // Either two copies fit a frame of 64 MiB, or two copies do not and the file is not shared.
    for (size, shared) in [(25 << 20, &[&[0][..], &[0], &[1]][..]), (33 << 20, &[&[], &[]])] {
        let (directory, names) = linked(&["file".to_owned()], size, shared.len());
        let snapshot = packed(directory.path(), &names, &mut |_| ()).unwrap();
        snapshot_builder::check(&snapshot).unwrap();
        let Opened { index, .. } = open_bytes(&snapshot).unwrap();
        let found: Vec<&[u32]> = index.items.iter().map(|item| &item.shared[..]).collect();
        assert_eq!(found, shared, "{size}");
        assert!(index.frames.iter().all(|frame| frame.raw <= 64 << 20));
        let scratch = Backend::new();
        let all: Vec<u32> = (0..index.frames.len() as u32).collect();
        tar(raw_frames(&snapshot, &index, &all), &scratch.host_path(), &[]);
        for item in &index.items {
            assert!(item.disk >= size);
            let made = directory.path().join(&item.name).join("file");
            let found = scratch.host_path().join("nix/store").join(&item.name).join("file");
            assert!(fs::read(found).unwrap() == fs::read(made).unwrap(), "{}", item.name);
        }
    }
}
