//! A store with a part of a snapshot's items, and the invariants that hold after any fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::world_runs::{self, leftovers};
use crate::support::{Entry, Fixture, PackageManager, Role, World, poll, procfs, store_content};

/// A process that hangs for this long is taken to hang forever.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);
/// The documented limit for the time from a fault to a running daemon.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
/// The greetings of the worker protocol, client's and daemon's.
const GREETINGS: [u64; 2] = [0x6e69_7863, 0x6478_696f];

/// References and files of each item, from a store that its package manager has verified.
type Items = BTreeMap<String, (BTreeSet<String>, BTreeMap<PathBuf, Entry>)>;

pub struct CampaignStore {
    pub world: World,
    pub what: String,
    /// All items of the snapshot.
    pub whole: Items,
    /// The items that stay in the store throughout.
    pub old: BTreeSet<String>,
    /// Names in the store directory that are not valid from the start.
    others: BTreeSet<String>,
}

impl CampaignStore {
    /// Creates a world with a snapshot of its store, and then removes all items except some without
    /// references.
    pub fn new(role: Role, container: bool) -> CampaignStore {
        let plan = World::build(role).fixture(Fixture::Small);
        let world = if container { plan.container().start() } else { plan.start() };
        if !container {
            world.start_daemon();
        }
        world.verify_store();
        // A few MB are enough, because all of the store is compared after each fault.
        world_runs::run(&world, "runner", "save", &["--full", "--max-size", "6M"]);
        world.wipe_store();
        world_runs::restore(&world);
        let whole: Items = items(&world);
        let leaves = store_content::leaves(&world);
        let old = leaves.into_iter().step_by(2).collect();
        let what = format!("{}, systemd: {container}", role.name());
        let others = BTreeSet::new();
        let mut scene = CampaignStore { world, what, whole, old, others };
        let _ = fs::remove_file(scene.gcroots().join("fixture"));
        scene.others = scene.invalid_names();
        scene.remove_new_items();
        scene.verify_store_content();
        scene
    }

    /// Paths of the items that a restore adds.
    pub fn new_items(&self) -> impl Iterator<Item = &String> {
        self.whole.keys().filter(|path| !self.old.contains(*path))
    }

    fn gcroots(&self) -> PathBuf {
        self.world.host(self.world.state()).join("gcroots")
    }

    pub fn storecache_roots(&self) -> PathBuf {
        self.gcroots().join("storecache")
    }

    /// Removes what a restore adds, faster than a collector would: rows, items, GC roots.
    pub fn remove_new_items(&self) {
        self.world.wait_until_idle();
        let file = self.world.host(self.world.state()).join("db/db.sqlite");
        let mut database = Connection::open(file).unwrap();
        database.busy_timeout(HANG_TIMEOUT).unwrap();
        database.pragma_update(None, "foreign_keys", true).unwrap();
        let transaction = database.transaction().unwrap();
        for sql in [
            "DELETE FROM Refs WHERE referrer IN (SELECT id FROM ValidPaths WHERE path = ?1)",
            "DELETE FROM ValidPaths WHERE path = ?1",
        ] {
            for path in self.new_items() {
                transaction.execute(sql, [path]).unwrap();
            }
        }
        transaction.commit().unwrap();
        drop(database);
        for path in self.new_items() {
            let path = self.world.host(path);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        let _ = fs::remove_dir_all(self.storecache_roots());
    }

    /// The outer pid of the daemon, which is not systemd.
    pub fn daemon(&self) -> u32 {
        let socket = Path::new(self.world.state()).join("daemon-socket/socket");
        poll::until("the daemon to run", HANG_TIMEOUT, || {
            assert!(self.world.daemon_answers(), "{}: {}", self.what, self.world.daemon_log());
            let pids = procfs::listeners(self.world.init(), &socket);
            pids.into_iter().find(|&pid| pid != self.world.init()).ok_or("no process listens")
        })
    }

    /// Whether a daemon sends its greeting.
    pub fn daemon_greets(&self) -> bool {
        self.wait_for_greeting().is_ok()
    }

    /// Connects to the daemon and waits for its greeting.
    ///
    /// # Errors
    /// If the greeting does not arrive; the error has the reason.
    fn wait_for_greeting(&self) -> std::io::Result<()> {
        let socket = self.world.host(self.world.state()).join("daemon-socket/socket");
        let mut stream = UnixStream::connect(&socket)?;
        // One hanging connection is tolerated: the next client must be served in time.
        stream.set_read_timeout(Some(RECOVERY_LIMIT / 3))?;
        stream.write_all(&GREETINGS[0].to_le_bytes())?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        if answer == GREETINGS[1].to_le_bytes() {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("{answer:?} is not a greeting")))
        }
    }

    /// Waits until no process of the run is left. Returns the longest time after `since` in which no daemon
    /// sent a greeting. With `recovers`, a process was left to start the daemon, so this time must not exceed the
    /// limit.
    pub fn wait_until_settled(&self, since: Instant, recovers: bool, what: &str) -> Duration {
        let (mut seen, mut longest) = (since, Duration::ZERO);
        poll::until("all processes of the run to end", HANG_TIMEOUT, || {
            let asked = Instant::now();
            let greeting = self.wait_for_greeting();
            let greeted = greeting.is_ok();
            if greeted || recovers {
                longest = longest.max(seen.elapsed());
            }
            assert!(
                longest <= RECOVERY_LIMIT,
                "{what}: no daemon for {longest:?}; the last attempt returned {greeting:?} after {:?}\n{}",
                asked.elapsed(),
                self.diagnostics()
            );
            if greeted {
                seen = Instant::now();
            }
            match self.processes() {
                ours if ours.is_empty() && (greeted || !recovers) => Ok(()),
                ours => Err(format!("{what}: {ours:?}, the daemon greets: {greeted}")),
            }
        });
        longest
    }

    /// Diagnostics: all processes and what they wait for, locks, sockets, and the end of the daemon's log.
    fn diagnostics(&self) -> String {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let mut report = String::new();
        for pid in procfs::processes_in_namespace(self.world.init()) {
            let command = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
            let wait = read(format!("/proc/{pid}/wchan"));
            let inner = procfs::pids(pid).unwrap_or_default();
            report += &format!("{inner:?} {:.80} waits in {wait:?}\n", command);
        }
        report += &read("/proc/locks".into());
        report += &read(format!("/proc/{}/net/unix", self.world.init()));
        let log = self.world.daemon_log();
        let last = log.lines().rev().take(20).collect::<Vec<_>>();
        report + &last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The command lines of the processes of the run.
    fn processes(&self) -> Vec<String> {
        let commands =
            procfs::processes_in_namespace(self.world.init()).into_iter().filter_map(|pid| {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                Some(command.replace('\0', " "))
            });
        commands
            .filter(|command| {
                let program = command.split(' ').next().unwrap_or_default();
                let name = Path::new(program).file_name().unwrap_or_default();
                [
                    "storecache",
                    "storecache-guardian",
                    "storecache-backup-guardian",
                    "sudo",
                    "systemctl",
                ]
                .iter()
                .any(|it| name == *it)
            })
            .collect()
    }

    /// Asserts that the store has either its old items or all items of the snapshot, identical in every byte,
    /// and nothing else. Returns whether it has all.
    pub fn check(&self, what: &str) -> bool {
        let now = items(&self.world);
        let valid: BTreeSet<&String> = now.keys().collect();
        let is_whole = valid.len() == self.whole.len();
        let expected: BTreeSet<&String> =
            if is_whole { self.whole.keys().collect() } else { self.old.iter().collect() };
        assert_eq!(valid, expected, "{what}: the store has some of the new items");
        for (path, item) in &now {
            assert_eq!(item, &self.whole[path], "{what}: {path}");
        }
        is_whole
    }

    /// Asserts that nothing is left: no staging, no copy of a database, no process, no lock, no item without
    /// a row, and no root without an item.
    pub fn assert_clean(&self, what: &str) {
        assert_eq!(leftovers(&self.world), [""; 0], "{what}");
        assert_eq!(self.invalid_names(), self.others, "{what}: items that are not valid");
        let valid = self.world.valid_paths();
        let roots = fs::read_dir(self.storecache_roots()).into_iter().flatten().flatten();
        for root in roots {
            let item = fs::read_link(root.path()).unwrap();
            assert!(
                valid.contains(item.to_str().unwrap()),
                "{what}: {} is dangling",
                item.display()
            );
        }
    }

    /// Names in the store that are not valid.
    fn invalid_names(&self) -> BTreeSet<String> {
        let valid = self.world.valid_paths();
        let store = self.world.store();
        let mut names = self.world.store_listing();
        names.retain(|name| !valid.contains(&format!("{store}/{name}")));
        names
    }

    /// Lets Nix or Guix hash everything valid.
    pub fn verify_store_content(&self) {
        if self.world.package_manager() == PackageManager::Guix {
            // Guix uses its daemon for that, so the daemon must run.
            self.daemon();
        }
        self.world.verify_store();
    }

    /// Asserts that the next restore makes the store whole.
    pub fn restores(&self, what: &str) {
        let run = world_runs::attempt(&self.world, "runner", "restore", &[]);
        assert!(run.status.success(), "{what}: the next restore: {run}");
        assert!(self.check(what), "{what}: the next restore is not whole: {run}");
    }
}

fn items(world: &World) -> Items {
    let all = world.references_of_all().into_iter();
    all.map(|(path, references)| {
        let tree = world.tree_digest(&path);
        (path, (references, tree))
    })
    .collect()
}
