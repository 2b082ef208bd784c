//! A small Nix store, and the program's snapshot of it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rusqlite::Connection;
use storecache_snapshot::nar_digest;
use storecache_store::{Layout, LiveDatabase, Owner, StoreKind};
use tempfile::TempDir;

use crate::support::plain_env::storecache;

pub struct Saved {
    pub bytes: Vec<u8>,
    /// Names of the items with files.
    pub names: Vec<String>,
    /// The item with a row and no files.
    pub missing: String,
    /// Name of the saved file.
    file: String,
}

/// Results of the two programs, and the state after the restore.
pub struct Run {
    /// The output if the program refused the snapshot.
    pub verify: Result<String, String>,
    pub restore: Result<String, String>,
    /// Whether the snapshot was quarantined as damaged.
    pub set_aside: bool,
    /// The number of items in the store afterwards.
    pub items: usize,
}

static SAVED: LazyLock<Saved> = LazyLock::new(Saved::new);

pub const LIB: &str = "11111111111111111111111111111111-lib";
pub const APP: &str = "22222222222222222222222222222222-app";
pub const LONG: &str = "33333333333333333333333333333333-long";
pub const ONE: &str = "44444444444444444444444444444444-one";
pub const TWO: &str = "55555555555555555555555555555555-two";
pub const DERIVATION: &str = "66666666666666666666666666666666-app.drv";
const LINK: &str = "77777777777777777777777777777777-link";
pub const MISSING: &str = "88888888888888888888888888888888-missing";

impl Saved {
    pub fn get() -> &'static Saved {
        &SAVED
    }

    fn new() -> Saved {
        assert!(rustix::process::geteuid().is_root(), "run this as root");
        let place = tempfile::tempdir().unwrap();
        let layout = Layout::new(StoreKind::Nix, &place.path().join("root")).unwrap();
        fs::create_dir_all(layout.database_dir()).unwrap();
        LiveDatabase::create_if_missing(&layout, Owner::find(&layout).unwrap()).unwrap();
        fill(&layout.store());
        let names = [LIB, APP, LONG, ONE, TWO, DERIVATION, LINK];
        register(&layout, &names);
        let entries = place.path().join("entries");
        let done = storecache(flags("save", &layout.root, &entries));
        assert!(done.status.success(), "{done}");
        let file = fs::read_dir(&entries).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|ending| ending == "zst").then_some(path)
        });
        let file = file.expect("a snapshot");
        Saved {
            bytes: fs::read(&file).unwrap(),
            file: file.file_name().unwrap().to_str().unwrap().to_owned(),
            names: names.map(str::to_owned).to_vec(),
            missing: MISSING.to_owned(),
        }
    }

    /// Verifies and restores a file with the programs, into an empty store.
    pub fn run(&self, bytes: &[u8]) -> Run {
        let place = tempfile::tempdir().unwrap();
        let (root, entries) = (place.path().join("root"), place.path().join("entries"));
        fs::create_dir_all(root.join("nix/var/nix")).unwrap();
        fs::create_dir(&entries).unwrap();
        let file = entries.join(&self.file);
        fs::write(&file, bytes).unwrap();
        let verdict = |words: Vec<String>| {
            let done = storecache(words);
            match done.status.success() {
                true => Ok(String::new()),
                false => Err(format!("{}{}", done.stdout, done.stderr)),
            }
        };
        let verify = verdict(vec!["verify".into(), file.display().to_string()]);
        let mut words = flags("restore", &root, &entries);
        words.extend(["--fail-on-miss", "--sync", "never"].map(str::to_owned));
        let restore = verdict(words);
        let store = fs::read_dir(root.join("nix/store")).into_iter().flatten();
        let set_aside = restore.is_err() && !file.exists();
        Run { verify, restore, set_aside, items: store.count() }
    }
}

fn flags(verb: &str, root: &Path, entries: &Path) -> Vec<String> {
    let backend = format!("dir:{}", entries.display());
    let root = root.display().to_string();
    let words = [
        verb,
        "--root",
        &root,
        "--store",
        "nix",
        "--daemon",
        "none",
        "--key",
        "test",
        "--backend",
        &backend,
    ];
    words.map(str::to_owned).to_vec()
}

fn fill(store: &Path) {
    let at = |name: &str| store.join(name);
    let write = |path: PathBuf, content: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write(at(LIB).join("lib/a.so"), b"library\n");
    write(at(LIB).join("lib/deep/er/file"), b"deep\n");
    write(at(LIB).join("share/text"), b"text\n");
    fs::hard_link(at(LIB).join("lib/a.so"), at(LIB).join("lib/b.so")).unwrap();
    symlink("../share/text", at(LIB).join("lib/text")).unwrap();
    let long_name = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    write(at(APP).join(long_name), b"long name\n");
    write(at(APP).join(std::ffi::OsStr::from_bytes(b"caf\xE9\n")), b"odd name\n");
    symlink(format!("/nix/store/{LIB}/lib"), at(APP).join("out")).unwrap();
    symlink("t".repeat(150), at(APP).join("to-long")).unwrap();
    fs::create_dir(at(APP).join("empty")).unwrap();
    // Takes three frames, but compresses to almost nothing.
    write(at(LONG).join("file"), &[7; (9 << 20) + 100]);
    write(at(LONG).join("last"), b"last\n");
    // Shared through a hard link.
    write(at(ONE).join("bin/program"), &[1; 9000]);
    fs::create_dir_all(at(TWO).join("bin")).unwrap();
    fs::hard_link(at(ONE).join("bin/program"), at(TWO).join("bin/program")).unwrap();
    write(at(TWO).join("own"), b"own\n");
    write(at(DERIVATION), b"Derive()\n");
    symlink(format!("/nix/store/{APP}"), at(LINK)).unwrap();
}

/// Registers items as a daemon does, and one more that is not on the disk.
fn register(layout: &Layout, names: &[&str]) {
    let connection = Connection::open(layout.database()).unwrap();
    let store = fs::File::open(layout.store()).unwrap();
    let insert = |name: &str, hash: String, size: i64| {
        let sql =
            "INSERT INTO ValidPaths (path, hash, registrationTime, narSize) VALUES (?1, ?2, 1, ?3)";
        connection.execute(sql, (format!("/nix/store/{name}"), hash, size)).unwrap();
    };
    for (number, name) in names.iter().enumerate() {
        let digest = nar_digest(&store, name, &mut |_| Ok(())).unwrap();
        insert(name, format!("sha256:{digest}"), 1000 + number as i64);
    }
    insert(MISSING, format!("sha256:{}", "0a".repeat(32)), 5);
    for (referrer, reference) in [(APP, LIB), (LIB, LIB), (LINK, APP), (ONE, LIB)] {
        let sql = "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b \
             WHERE a.path = '/nix/store/' || ?1 AND b.path = '/nix/store/' || ?2";
        assert_eq!(connection.execute(sql, (referrer, reference)).unwrap(), 1);
    }
    let sql = "INSERT INTO DerivationOutputs SELECT id, 'out', '/nix/store/' || ?2 FROM ValidPaths \
         WHERE path = '/nix/store/' || ?1";
    assert_eq!(connection.execute(sql, (DERIVATION, APP)).unwrap(), 1);
}

/// Runs SQL on a database and returns the changed database.
pub fn with_sql(database: &[u8], sql: &str) -> Vec<u8> {
    try_with_sql(database, sql).unwrap_or_else(|e| panic!("{e}: {sql}"))
}

pub fn try_with_sql(database: &[u8], sql: &str) -> rusqlite::Result<Vec<u8>> {
    let place: TempDir = tempfile::tempdir().unwrap();
    let path = place.path().join("db.sqlite");
    fs::write(&path, database).unwrap();
    let connection = Connection::open(&path)?;
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    connection.execute_batch(sql)?;
    drop(connection);
    Ok(fs::read(&path).unwrap())
}
