//! Where a store lies.

use super::{ItemName, LockKind, StoreKind};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The directories of a Nix or Guix store. Strings are paths as programs inside the store's own
/// root see them; methods give paths as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub kind: StoreKind,
    /// File-system root that the store belongs to.
    pub root: PathBuf,
    pub store_dir: &'static str,
    pub state_dir: &'static str,
    /// The schema of the database that every present version has; Guix has never changed its own.
    /// Source: `NixOS/nix:src/libstore/local-store.cc`, guix 1.5 `guix/store/schema.sql`.
    pub schema: u64,
    /// The kind of lock that its programs take.
    pub lock_kind: LockKind,
}

impl Layout {
    /// The layout of a kind of store below `root`. `plain` has none.
    pub fn of(kind: StoreKind, root: &Path) -> Result<Self> {
        let root = root.to_owned();
        match kind {
            StoreKind::Nix => Ok(Layout {
                kind,
                root,
                store_dir: "/nix/store",
                state_dir: "/nix/var/nix",
                schema: 10,
                lock_kind: LockKind::Flock,
            }),
            StoreKind::Guix => Ok(Layout {
                kind,
                root,
                store_dir: "/gnu/store",
                state_dir: "/var/guix",
                schema: 7,
                lock_kind: LockKind::OpenFileDescription,
            }),
            StoreKind::Plain => bail!("a plain store has no database"),
        }
    }

    /// The store that is there when nobody says which.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn detect(root: &Path) -> Result<StoreKind> {
        let there = |path: &str| root.join(path).is_dir();
        match (there("nix/var/nix"), there("gnu/store") && there("var/guix")) {
            (true, false) => Ok(StoreKind::Nix),
            (false, true) => Ok(StoreKind::Guix),
            (true, true) => bail!(
                "there is a Nix store and a Guix store; say which one with --store nix or --store \
                 guix"
            ),
            (false, false) => bail!(
                "no store found below {}: neither /nix/var/nix nor /gnu/store is there; install \
                 Nix or Guix first, or name directories with --store plain --path DIR",
                root.display()
            ),
        }
    }

    /// A path inside the store's root, as this process sees it.
    pub fn on_disk(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    pub fn store(&self) -> PathBuf {
        self.on_disk(self.store_dir)
    }

    pub fn state(&self) -> PathBuf {
        self.on_disk(self.state_dir)
    }

    pub fn database_dir(&self) -> PathBuf {
        self.state().join("db")
    }

    pub fn database(&self) -> PathBuf {
        self.database_dir().join("db.sqlite")
    }

    /// Archive path of the frozen database.
    pub fn database_archive_path(&self) -> String {
        format!("{}/db/db.sqlite", self.state_dir.trim_start_matches('/'))
    }

    /// Archive path of the directory that holds the items.
    pub fn items_under(&self) -> &str {
        self.store_dir.trim_start_matches('/')
    }

    /// The collector holds this one exclusively; held shared it keeps collectors away while
    /// builds go on (`NixOS/nix:src/libstore/gc.cc`).
    pub fn gc_lock(&self) -> PathBuf {
        self.state().join("gc.lock")
    }

    /// Whoever has the store open holds this one shared (`NixOS/nix:src/libstore/local-store.cc`).
    pub fn big_lock(&self) -> PathBuf {
        self.database_dir().join("big-lock")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("daemon-socket/socket")
    }

    /// The same, as programs inside the store's root see it.
    pub fn socket_inside(&self) -> PathBuf {
        Path::new(self.state_dir).join("daemon-socket/socket")
    }

    /// The path of an item, as the database and the daemon have it.
    pub fn path_of(&self, item: &ItemName) -> String {
        format!("{}/{item}", self.store_dir)
    }

    /// A path that a daemon can be asked about when there is nothing better: no item's.
    pub fn probe(&self) -> String {
        format!("{}/{}-storecache-probe", self.store_dir, "0".repeat(32))
    }

    /// Our own direct roots.
    pub fn roots(&self) -> PathBuf {
        self.state().join("gcroots/storecache")
    }

    /// Number in the database's `schema` file; nothing when there is no file.
    ///
    /// # Errors
    /// When the file holds something else than digits.
    pub fn live_schema(&self) -> Result<Option<u64>> {
        let path = self.database_dir().join("schema");
        // Not what is no file: a fifo would keep us waiting.
        let read = || match path.metadata()?.is_file() {
            true => std::fs::read_to_string(&path),
            false => Ok(String::new()),
        };
        match read() {
            Ok(text) => match text.trim_end().parse() {
                Ok(number) => Ok(Some(number)),
                // What it holds instead is nobody's business.
                Err(_) => bail!("{} holds no number", path.display()),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(anyhow::Error::from(e).context(path.display().to_string())),
        }
    }
}
