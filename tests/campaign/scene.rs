//! A store that has a part of what a snapshot holds, and what must be true of it after any fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::runs::{self, leftovers};
use crate::support::{Entry, Fixture, Flavour, Role, World, corpus, poll, procfs};

/// What hangs for so long hangs for ever.
const FOREVER: Duration = Duration::from_secs(60);
/// What is promised for the time from a fault to a running daemon.
const PROMISED: Duration = Duration::from_secs(5);
/// The greetings of the worker protocol, client's and daemon's.
const GREETINGS: [u64; 2] = [0x6e69_7863, 0x6478_696f];

/// What each item is, as its store's own program found right.
type Items = BTreeMap<String, (BTreeSet<String>, BTreeMap<PathBuf, Entry>)>;

pub struct Scene {
    pub world: World,
    pub what: String,
    /// All that the snapshot holds.
    pub whole: Items,
    /// What stays throughout.
    pub old: BTreeSet<String>,
    /// What was put into the store directory by others.
    others: BTreeSet<String>,
}

impl Scene {
    /// A world with a snapshot of all of its store, of which then only items stay that refer to none.
    pub fn new(role: Role, container: bool) -> Scene {
        let plan = World::build(role).fixture(Fixture::Small);
        let world = if container { plan.container().start() } else { plan.start() };
        if !container {
            world.start_daemon();
        }
        world.verify_store();
        // Some MB will do: all of it is looked at after each fault.
        runs::run(&world, "runner", "save", &["--full", "--max-size", "6M"]);
        world.wipe_store();
        runs::restore(&world);
        let whole: Items = items(&world);
        let leaves = corpus::leaves(&world);
        let old = leaves.into_iter().step_by(2).collect();
        let what = format!("{}, systemd: {container}", role.name());
        let others = BTreeSet::new();
        let mut scene = Scene { world, what, whole, old, others };
        let _ = fs::remove_file(scene.gcroots().join("fixture"));
        scene.others = scene.debris();
        scene.forget_the_new();
        scene.judge();
        scene
    }

    /// Paths of what a restore brings.
    pub fn new_items(&self) -> impl Iterator<Item = &String> {
        self.whole.keys().filter(|path| !self.old.contains(*path))
    }

    fn gcroots(&self) -> PathBuf {
        self.world.host(self.world.state()).join("gcroots")
    }

    pub fn our_roots(&self) -> PathBuf {
        self.gcroots().join("storecache")
    }

    /// Takes away what a restore brings, faster than a collector: rows, items, roots.
    pub fn forget_the_new(&self) {
        self.world.wait_until_idle();
        let file = self.world.host(self.world.state()).join("db/db.sqlite");
        let mut database = Connection::open(file).unwrap();
        database.busy_timeout(FOREVER).unwrap();
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
        let _ = fs::remove_dir_all(self.our_roots());
    }

    /// The outer pid of the daemon, which is not systemd.
    pub fn daemon(&self) -> u32 {
        let socket = Path::new(self.world.state()).join("daemon-socket/socket");
        poll::until("the daemon to run", FOREVER, || {
            assert!(self.world.daemon_answers(), "{}: {}", self.what, self.world.daemon_log());
            let pids = procfs::listeners(self.world.init(), &socket);
            pids.into_iter().find(|&pid| pid != self.world.init()).ok_or("nobody listens")
        })
    }

    /// Whether a daemon greets.
    pub fn is_greeted(&self) -> bool {
        self.greet().is_ok()
    }

    /// # Errors
    /// Why there is no greeting.
    fn greet(&self) -> std::io::Result<()> {
        let socket = self.world.host(self.world.state()).join("daemon-socket/socket");
        let mut stream = UnixStream::connect(&socket)?;
        // That one connection hangs says little: the next client is to be answered in time.
        stream.set_read_timeout(Some(PROMISED / 3))?;
        stream.write_all(&GREETINGS[0].to_le_bytes())?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        if answer == GREETINGS[1].to_le_bytes() {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("{answer:?} is no greeting")))
        }
    }

    /// Waits until nothing of ours runs any more; gives back the longest time from `since` on in which no daemon
    /// greeted. Where `somebody` is left to see to it, that is at most what is promised.
    pub fn settle(&self, since: Instant, somebody: bool, what: &str) -> Duration {
        let (mut seen, mut longest) = (since, Duration::ZERO);
        poll::until("all processes of ours to end", FOREVER, || {
            let asked = Instant::now();
            let greeting = self.greet();
            let greeted = greeting.is_ok();
            if greeted || somebody {
                longest = longest.max(seen.elapsed());
            }
            assert!(
                longest <= PROMISED,
                "{what}: no daemon for {longest:?}; the last time {greeting:?} in {:?}\n{}",
                asked.elapsed(),
                self.witnesses()
            );
            if greeted {
                seen = Instant::now();
            }
            match self.processes() {
                ours if ours.is_empty() && (greeted || !somebody) => Ok(()),
                ours => Err(format!("{what}: {ours:?}, the daemon greets: {greeted}")),
            }
        });
        longest
    }

    /// Who runs and waits for what, who holds locks, and what the daemon said last.
    fn witnesses(&self) -> String {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let mut told = String::new();
        for pid in procfs::companions(self.world.init()) {
            let command = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
            let wait = read(format!("/proc/{pid}/wchan"));
            let inner = procfs::pids(pid).unwrap_or_default();
            told += &format!("{inner:?} {:.80} waits in {wait:?}\n", command);
        }
        told += &read("/proc/locks".into());
        told += &read(format!("/proc/{}/net/unix", self.world.init()));
        let log = self.world.daemon_log();
        let last = log.lines().rev().take(20).collect::<Vec<_>>();
        told + &last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Our processes, and what they run.
    fn processes(&self) -> Vec<String> {
        let commands = procfs::companions(self.world.init()).into_iter().filter_map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            Some(command.replace('\0', " "))
        });
        commands
            .filter(|command| {
                let program = command.split(' ').next().unwrap_or_default();
                let name = Path::new(program).file_name().unwrap_or_default();
                ["storecache", "storecache-guardian", "storecache-deputy", "sudo", "systemctl"]
                    .iter()
                    .any(|it| name == *it)
            })
            .collect()
    }

    /// The store has its old content or the whole of the snapshot, to the last byte, and nothing else;
    /// gives back whether it is whole.
    pub fn check(&self, what: &str) -> bool {
        let now = items(&self.world);
        let valid: BTreeSet<&String> = now.keys().collect();
        let is_whole = valid.len() == self.whole.len();
        let expected: BTreeSet<&String> =
            if is_whole { self.whole.keys().collect() } else { self.old.iter().collect() };
        assert_eq!(valid, expected, "{what}: neither all nor what was there");
        for (path, item) in &now {
            assert_eq!(item, &self.whole[path], "{what}: {path}");
        }
        is_whole
    }

    /// Nothing is left: no staging, no copy of a database, no process, no lock, no item without a row, no
    /// root without an item.
    pub fn is_clean(&self, what: &str) {
        assert_eq!(leftovers(&self.world), [""; 0], "{what}");
        assert_eq!(self.debris(), self.others, "{what}: items that are not valid");
        let valid = self.world.valid_paths();
        let roots = fs::read_dir(self.our_roots()).into_iter().flatten().flatten();
        for root in roots {
            let item = fs::read_link(root.path()).unwrap();
            assert!(
                valid.contains(item.to_str().unwrap()),
                "{what}: {} leads nowhere",
                item.display()
            );
        }
    }

    /// What lies in the store and is not valid.
    fn debris(&self) -> BTreeSet<String> {
        let valid = self.world.valid_paths();
        let store = self.world.store();
        let mut names = self.world.store_listing();
        names.retain(|name| !valid.contains(&format!("{store}/{name}")));
        names
    }

    /// Has Nix or Guix hash all that is valid.
    pub fn judge(&self) {
        if self.world.flavour() == Flavour::Guix {
            // Who asks its daemon for it.
            self.daemon();
        }
        self.world.verify_store();
    }

    /// The next restore brings the whole.
    pub fn restores(&self, what: &str) {
        let run = runs::attempt(&self.world, "runner", "restore", &[]);
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
