//! Checks of a store by independent programs: Nix or Guix itself, its database, and the file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::fixture_cache::{Fixture, Role};
use super::package_manager::PackageManager;
use super::tree::{Entry, tree_digest};
use super::world::World;

/// The database row of one valid path. Guix has no `ultimate`, `sigs` and `ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub hash: String,
    pub time: i64,
    pub deriver: Option<String>,
    pub nar_size: Option<i64>,
    pub ultimate: bool,
    pub sigs: Option<String>,
    pub ca: Option<String>,
    pub references: BTreeSet<String>,
}

impl World {
    /// Lets Nix or Guix hash everything valid, and panics if it reports a problem or unregisters a path,
    /// which is how it repairs a store. Nix does this as root on the store directly, beside the daemon; this
    /// empties the WAL, also in [`Role::New`]. Guix uses the daemon.
    #[track_caller]
    pub fn verify_store(&self) {
        let before = self.valid_paths();
        let command: &[_] = match self.package_manager() {
            PackageManager::Nix => &["nix-store", "--verify", "--check-contents"],
            PackageManager::Guix => &["guix", "gc", "--verify=contents"],
        };
        let output = self.command(command).timeout(Duration::from_secs(300)).ok();
        let complaints = ["error", "warning", "modified", "disappeared", "fix"];
        let clean = !complaints.iter().any(|word| output.stderr.contains(word));
        assert!(clean, "the store is not sound:\n{output}");
        assert_eq!(before, self.valid_paths(), "verifying has forgotten paths:\n{output}");
    }

    /// The current database, including the WAL, opened read-only. `None` before the first client of a fresh
    /// store. Leaves no new file beside the database.
    pub fn database(&self) -> Option<Connection> {
        let file = self.host(self.state()).join("db/db.sqlite");
        if !file.exists() {
            return None;
        }
        // Without a WAL, no process has the database open: SQLite need not look for writers, and `immutable`
        // keeps it from creating a WAL.
        let mode =
            if file.with_extension("sqlite-wal").exists() { "mode=ro" } else { "immutable=1" };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let database =
            Connection::open_with_flags(format!("file:{}?{mode}", file.display()), flags).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        Some(database)
    }

    /// All rows of the database, by path.
    #[track_caller]
    pub fn registrations(&self) -> BTreeMap<String, Registration> {
        let Some(database) = self.database() else {
            return BTreeMap::new();
        };
        let snapshot = database.unchecked_transaction().unwrap();
        let nix_only = match self.package_manager() {
            PackageManager::Nix => "ultimate, sigs, ca",
            PackageManager::Guix => "null, null, null",
        };
        let query = format!(
            "select path, hash, registrationTime, deriver, narSize, {nix_only} from ValidPaths"
        );
        let mut statement = snapshot.prepare(&query).unwrap();
        let rows = statement.query_map([], |row| {
            let registration = Registration {
                hash: row.get(1)?,
                time: row.get(2)?,
                deriver: row.get(3)?,
                nar_size: row.get(4)?,
                ultimate: row.get::<_, Option<i64>>(5)? == Some(1),
                sigs: row.get(6)?,
                ca: row.get(7)?,
                references: BTreeSet::new(),
            };
            Ok((row.get::<_, String>(0)?, registration))
        });
        let mut found: BTreeMap<_, _> = rows.unwrap().map(Result::unwrap).collect();

        let query = "select a.path, b.path from Refs join ValidPaths a on a.id = referrer \
                     join ValidPaths b on b.id = reference";
        let mut statement = snapshot.prepare(query).unwrap();
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        for (referrer, reference) in rows.unwrap().map(Result::unwrap) {
            found.get_mut(&referrer).unwrap().references.insert(reference);
        }
        found
    }

    #[track_caller]
    pub fn valid_paths(&self) -> BTreeSet<String> {
        self.registrations().into_keys().collect()
    }

    #[track_caller]
    pub fn references(&self, path: &str) -> BTreeSet<String> {
        let found = self.registrations().remove(path);
        found.unwrap_or_else(|| panic!("{path} is not valid")).references
    }

    #[track_caller]
    pub fn references_of_all(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = self.registrations().into_iter();
        all.map(|(path, registration)| (path, registration.references)).collect()
    }

    /// The rows that map a derivation to its outputs: path of the `.drv`, output name, path.
    #[track_caller]
    pub fn derivation_outputs(&self) -> BTreeSet<(String, String, String)> {
        let Some(database) = self.database() else {
            return BTreeSet::new();
        };
        let query = "select v.path, o.id, o.path from DerivationOutputs o join ValidPaths v on v.id = o.drv";
        let mut statement = database.prepare(query).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The names of everything in the store, hidden or not, valid or not.
    pub fn store_listing(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.host(self.store())) else {
            return BTreeSet::new();
        };
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// The files of a tree of this world; see [`tree_digest`].
    #[track_caller]
    pub fn tree_digest(&self, path: &str) -> BTreeMap<PathBuf, Entry> {
        tree_digest(self.host(path))
    }

    /// Panics unless Nix or Guix, through the daemon and with builds disabled, finds the closure of this
    /// fixture's `t.nix` or `build.scm` in this store. Returns the path of `top`.
    #[track_caller]
    pub fn assert_nothing_to_build(&self, role: Role, fixture: Fixture) -> String {
        let recipe = role.fixture(fixture);
        let inside = self.host("/tmp/recipe");
        fs::create_dir_all(&inside).unwrap();
        let names = match role.package_manager() {
            PackageManager::Nix => ["t.nix", "inputs.json"],
            PackageManager::Guix => ["build.scm", "inputs.scm"],
        };
        for name in names {
            fs::copy(recipe.join(name), inside.join(name)).unwrap();
        }
        let (words, state) = match role.package_manager() {
            PackageManager::Nix => (
                "nix-build /tmp/recipe/t.nix -A top --no-out-link --max-jobs 0 --option substitute false",
                "nix/var/nix",
            ),
            PackageManager::Guix => ("guix repl -- /tmp/recipe/build.scm check", "var-guix"),
        };
        let output = self.command(words.split(' ')).through_daemon().ok();
        let expected = fs::read_link(recipe.join(state).join("gcroots/fixture")).unwrap();
        assert_eq!(output.stdout.trim(), expected.to_str().unwrap());
        output.stdout.trim().to_owned()
    }
}
