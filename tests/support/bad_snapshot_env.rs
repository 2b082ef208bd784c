//! A store that is offered bad snapshots and must stay unchanged.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::Value;

use super::message_log::cause;
use super::snapshot_builder::SnapshotParts;
use super::world_runs::{StoreState, assert_same, attempt, record_state, report, save, staging};
use super::{Fixture, Role, World};

/// A name, a change to a snapshot, and texts that the error must contain.
pub type InvalidSnapshot = (&'static str, fn(&mut SnapshotParts), &'static [&'static str]);

/// Returns the snapshot with its database changed by this SQL.
pub fn with_database(good: &[u8], sql: &str) -> Vec<u8> {
    let mut parts = SnapshotParts::new(good);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sqlite");
    fs::write(&path, parts.database()).unwrap();
    let database = Connection::open(&path).unwrap();
    let script = format!("PRAGMA foreign_keys = OFF; PRAGMA journal_mode = DELETE; {sql}");
    database.execute_batch(&script).unwrap();
    drop(database);
    parts.replace_database(&fs::read(&path).unwrap());
    parts.build()
}

/// A world with a daemon, one item of its own, and a good snapshot of a larger store.
pub struct BadSnapshotEnv {
    pub world: World,
    pub good: Vec<u8>,
    before: StoreState,
    listing: BTreeSet<String>,
    pid: Option<u32>,
}

impl BadSnapshotEnv {
    pub fn new(role: Role) -> BadSnapshotEnv {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let saved = save(&world);
        let name = format!("{}.tar.zst", saved["entry"].as_str().unwrap());
        let file = world.backend().host_path().join(name);
        let good = fs::read(&file).unwrap();
        // Leaves no older entry to fall back to.
        fs::remove_file(file).unwrap();
        world.wipe_store();
        world.sh("mkdir /tmp/mine && echo mine >/tmp/mine/file");
        world.nix(["nix-store", "--add", "/tmp/mine"]).ok();
        BadSnapshotEnv {
            before: record_state(&world),
            listing: world.store_listing(),
            pid: world.daemon_pid(),
            world,
            good,
        }
    }

    /// The file of an entry that is newer than all others.
    pub fn newest(&self) -> PathBuf {
        let entries = self.world.backend().host_path();
        entries.join("test.29991231T235959.000000Z.tar.zst")
    }

    /// Asserts that these bytes are refused; see [`BadSnapshotEnv::assert_newest_refused`]. Returns the reason.
    #[track_caller]
    pub fn assert_refused(&self, what: &str, bytes: &[u8]) -> String {
        fs::write(self.newest(), bytes).unwrap();
        self.assert_newest_refused(what)
    }

    /// Asserts that each change makes a snapshot that is refused with the given texts.
    #[track_caller]
    pub fn assert_all_refused(&self, forgeries: &[InvalidSnapshot]) {
        for (what, change, words) in forgeries {
            let mut parts = self.parts();
            change(&mut parts);
            let reason = self.assert_refused(what, &parts.build());
            for word in *words {
                assert!(reason.contains(word), "{what}: {reason}");
            }
        }
    }

    /// Asserts that a restore fails with one clear error and leaves everything unchanged. Returns the reason.
    #[track_caller]
    pub fn assert_newest_refused(&self, what: &str) -> String {
        let failed = attempt(&self.world, "runner", "restore", &[]);
        assert_eq!(failed.code(), 1, "{what}: {failed}");
        let report: Value = report(&failed);
        assert_eq!(report["hit"], "miss", "{what}: {failed}");
        assert_eq!(report["items"]["restored"], 0, "{what}: {failed}");
        let reason = report["reason"].as_str().unwrap().to_owned();
        let mut lines = failed.stderr.lines();
        let error = lines.find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.ends_with(cause(&reason)), "{what}: {failed}");
        assert!(failed.stderr.contains("nothing was restored"), "{what}: {failed}");
        assert_eq!(failed.stderr.matches("error: ").count(), 1, "{what}: {failed}");
        self.assert_untouched(what);
        reason
    }

    /// Asserts that a restore counts the file with the name of the newest entry as absent, warns about it
    /// with the text `what`, and leaves everything unchanged.
    #[track_caller]
    pub fn assert_newest_skipped(&self, what: &str) {
        let report = report(&attempt(&self.world, "runner", "restore", &[]).ok());
        assert_eq!(report["hit"], "miss", "{what}: {report}");
        assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{what}: {report}");
        assert!(report["warnings"][0].as_str().unwrap().contains(what), "{report}");
        self.assert_untouched(what);
    }

    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        let world = &self.world;
        assert_eq!(staging(world), [""; 0], "{what}");
        assert_eq!(world.store_listing(), self.listing, "{what}");
        assert_same(&self.before, &record_state(world));
        assert_eq!(world.daemon_pid(), self.pid, "{what}: the daemon was restarted");
    }

    pub fn parts(&self) -> SnapshotParts {
        SnapshotParts::new(&self.good)
    }
}

impl Drop for BadSnapshotEnv {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.world.daemon_answers());
            self.world.verify_store();
        }
    }
}
