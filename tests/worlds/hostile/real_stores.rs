//! Malicious archives and databases through the whole program, into a real Nix: the store is unchanged, and the
//! daemon still works.

use rusqlite::{Connection, OpenFlags};

use super::archive::{Archive, Harmless, Refused};
use super::archives;
use super::tar_blocks::BLOCK;
use crate::support::bad_snapshot_env::{BadSnapshotEnv, with_database};
use crate::support::extract_dir::parts;
use crate::support::plain_env::PlainEnv;
use crate::support::snapshot_builder::frame;
use crate::support::world_runs::{restore, save};
use crate::support::{Fixture, Role, World};

/// Archives with names that stay short enough below a store item.
const CHOSEN: [&str; 18] = [
    "dots",
    "dots at the end",
    "absolute",
    "name of another item",
    "file through a link",
    "mode through a link",
    "link over a directory",
    "hard link out, and a file over it",
    "hard link through a link",
    "hard link to a hard link",
    "character device",
    "fifo",
    "sparse file of old",
    "directory that is not a member",
    "member behind the end",
    "archive in an archive",
    "negative size",
    "time with two signs",
];

/// Returns the archive with `item` in the place of `it`, in names and targets.
fn moved(tar: &[u8], item: &str) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for block in tar.chunks_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        for field in [0..100, 157..257] {
            let text = block[field.clone()].to_vec();
            if text.starts_with(b"it/") || text[..3] == *b"it\0" {
                let moved = [item.as_bytes(), &text[2..]].concat();
                block[field].copy_from_slice(&moved[..100]);
            }
        }
        // With the modes of a store; otherwise the archive would be refused for them.
        let mode: Option<&[u8]> = match block[156] {
            b'0' | b'1' => Some(b"0000444\0"),
            b'2' => Some(b"0000777\0"),
            b'5' => Some(b"0000555\0"),
            _ => None,
        };
        if let Some(mode) = mode {
            block[100..108].copy_from_slice(mode);
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    }
    tar
}

#[test]
fn nix_store_is_unchanged_after_hostile_archives() {
    let patient = BadSnapshotEnv::new(Role::Mid);
    let archives = archives();
    for name in CHOSEN {
        let archive = archives.iter().find(|archive| archive.name == name).expect(name);
        let mut parts = patient.parts();
        let at = parts.item_in_its_own_frame();
        let hostile = &mut parts.items[at];
        let item = format!("nix/store/{}", hostile.name);
        (hostile.files, hostile.disk) = (1000, 1 << 20);
        let number = hostile.frames.0 as usize;
        parts.frames[number] = frame(&moved(&archive.tar, &item));
        let reason = patient.assert_refused(name, &parts.build());
        let Refused(words) = archive.fate else { panic!("{name}") };
        assert!(reason.to_lowercase().contains(&words.to_lowercase()), "{name}: {reason}");
    }
}

#[test]
fn plain_directories_are_unchanged_after_hostile_archives() {
    let place = PlainEnv::new();
    place.write("/it/file", "content\n");
    place.write("/outside/secret", "secret\n");
    place.write("/bystander", "bystander\n");
    place.save(&["/it"]);
    place.remove("/it");
    let listed = |place: &PlainEnv| {
        let mut tree = place.tree("/");
        // Its times change, because staging is created and deleted in it.
        tree.remove(std::path::Path::new(""));
        tree
    };
    let before = listed(&place);
    // A refused snapshot is moved to the quarantine, so each run needs a new file.
    let snapshot = place.snapshot();
    // Every third one, because each is a run of the whole program.
    for Archive { name, tar, fate, .. } in archives().iter().step_by(3) {
        let members = match fate {
            Refused(_) => 1000,
            Harmless(members) => *members,
        };
        let entry = crate::support::snapshot_builder::item("it", (0, 0), members);
        std::fs::write(&snapshot, parts(vec![frame(tar)], vec![entry]).build()).unwrap();
        let output = place.attempt("restore", &["/it"], &["--json", "--threads", "2"]);
        assert!(!output.stderr.contains("panicked"), "{name}: {output}");
        match fate {
            Refused(_) => assert_eq!(output.code(), 1, "{name}: {output}"),
            Harmless(_) => {
                assert_eq!(output.code(), 0, "{name}: {output}");
                place.remove("/it");
            }
        }
        assert_eq!(listed(&place), before, "{name}");
    }
}

/// Returns the SQL of the schema of a world's database.
fn schema(world: &World) -> Vec<String> {
    let path = world.host("/nix/var/nix/db/db.sqlite");
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement =
        connection.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY 1").unwrap();
    let sql = statement.query_map([], |row| row.get(0)).unwrap();
    sql.map(Result::unwrap).collect()
}

#[test]
fn foreign_schema_does_not_enter_the_live_database() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let saved = save(&world);
    let name = format!("{}.tar.zst", saved["entry"].as_str().unwrap());
    let entry = world.backend().host_path().join(name);
    let evil = with_database(
        &std::fs::read(&entry).unwrap(),
        "CREATE TRIGGER evil AFTER INSERT ON ValidPaths BEGIN DELETE FROM Refs; END;
         CREATE TRIGGER worse AFTER INSERT ON Refs BEGIN DELETE FROM ValidPaths; END;
         CREATE VIEW evil_view AS SELECT load_extension('/tmp/evil.so');
         CREATE INDEX evil_index ON ValidPaths(abs(id));
         CREATE TABLE evil_table (x DEFAULT (abs(-9223372036854775807 - 1)));
         UPDATE ValidPaths SET ultimate = 1;",
    );
    std::fs::write(&entry, evil).unwrap();
    world.wipe_store();
    let before = schema(&world);
    let report = restore(&world);
    assert_eq!(report["items"]["restored"], saved["items"]["saved"], "{report}");
    assert_eq!(schema(&world), before);
    let path = world.host("/nix/var/nix/db/db.sqlite");
    let live = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = |sql: &str| live.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM ValidPaths WHERE ultimate = 1"), 0);
    assert!(count("SELECT count(*) FROM Refs") > 0);
    drop(live);
    assert!(world.daemon_answers());
    world.verify_store();
}

#[test]
fn nix_store_is_unchanged_after_hostile_databases() {
    let patient = BadSnapshotEnv::new(Role::New);
    for (what, sql, words) in [
        (
            "a computed column",
            "ALTER TABLE ValidPaths ADD COLUMN evil AS (abs(-9223372036854775807 - 1))",
            "computed",
        ),
        (
            "a virtual table",
            "ALTER TABLE Refs RENAME TO r; CREATE VIRTUAL TABLE Refs USING fts5(referrer, reference)",
            "virtual table",
        ),
        ("no hash", "UPDATE ValidPaths SET hash = 'sha256:'", "hash"),
        ("times before 1970", "UPDATE ValidPaths SET registrationTime = -1", "registrationTime"),
        (
            "an output outside of the store",
            "INSERT INTO DerivationOutputs SELECT id, 'evil', '/etc/passwd' FROM ValidPaths",
            "output",
        ),
    ] {
        let reason = patient.assert_refused(what, &with_database(&patient.good, sql));
        assert!(reason.contains(words), "{what}: {reason}");
    }
}
