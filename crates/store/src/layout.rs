//! The directories and files of a store.

use super::filesystem_root::directory_in_root;
use super::{ItemName, LockKind, StoreKind};
use anyhow::{Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::geteuid;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use storecache_runtime::advice::WithAdvice;

/// The directories of a Nix or Guix store. Strings are paths as programs inside the store's own root see them;
/// methods return paths as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub kind: StoreKind,
    /// File-system root that the store belongs to.
    pub root: PathBuf,
    pub store_dir: &'static str,
    pub state_dir: &'static str,
    /// The schema version of the database. It is the same for every current version of Nix, and Guix has never
    /// changed its own. Source: `NixOS/nix:src/libstore/local-store.cc`, guix 1.5 `guix/store/schema.sql`.
    pub schema: u64,
    /// The kind of lock that the programs of this store use.
    pub lock_kind: LockKind,
    /// Real paths of the directories, see [`Layout::resolved`].
    resolved: Option<Directories>,
}

/// Real paths of the directories of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directories {
    store: PathBuf,
    state: PathBuf,
    database: PathBuf,
    gc_roots: PathBuf,
    socket: PathBuf,
}

impl Directories {
    /// Refuses links by which the owner of the state directory could make this process write elsewhere. The
    /// directory of the socket is not checked, because nothing is written there.
    fn check_links(&self) -> Result<()> {
        // Without a state directory there is no store, which is reported where it is used.
        let Ok(owner) = self.state.metadata().map(|state| state.uid()) else { return Ok(()) };
        if [0, geteuid().as_raw()].contains(&owner) {
            return Ok(());
        }
        match [&self.database, &self.gc_roots].into_iter().find(|it| !it.starts_with(&self.state)) {
            None => Ok(()),
            Some(outside) => bail!(
                "a link in {} leads to {}, but the directory belongs to user {owner}; replace the \
                 link with a directory of that user",
                self.state.display(),
                outside.display()
            ),
        }
    }
}

impl Layout {
    /// Returns the layout of a kind of store below `root`.
    ///
    /// # Errors
    /// If `kind` is `plain`, which does not have one.
    pub fn new(kind: StoreKind, root: &Path) -> Result<Self> {
        let root = root.to_owned();
        match kind {
            StoreKind::Nix => Ok(Layout {
                kind,
                root,
                store_dir: "/nix/store",
                state_dir: "/nix/var/nix",
                schema: 10,
                lock_kind: LockKind::Flock,
                resolved: None,
            }),
            StoreKind::Guix => Ok(Layout {
                kind,
                root,
                store_dir: "/gnu/store",
                state_dir: "/var/guix",
                schema: 7,
                lock_kind: LockKind::OpenFileDescription,
                resolved: None,
            }),
            StoreKind::Plain => bail!("a plain store has no database"),
        }
    }

    /// Resolves the real paths of the directories. Symbolic links are followed inside the root, so that none
    /// leads out of it, and only once.
    ///
    /// # Errors
    /// If a link is dangling inside the root, or leads out of a state directory whose owner is neither root nor
    /// the user of this process.
    pub fn resolved(mut self) -> Result<Self> {
        let find = |path: PathBuf| directory_in_root(&self.root, &path);
        let state = Path::new(self.state_dir);
        let found = Directories {
            store: find(self.store_dir.into())?,
            state: find(state.into())?,
            database: find(state.join("db"))?,
            gc_roots: find(state.join("gcroots/storecache"))?,
            socket: find(state.join("daemon-socket"))?,
        };
        found.check_links()?;
        self.resolved = Some(found);
        Ok(self)
    }

    fn place(&self, choose: impl Fn(&Directories) -> &PathBuf, written: &str) -> PathBuf {
        self.resolved.as_ref().map_or_else(|| self.on_disk(written), |found| choose(found).clone())
    }

    /// Finds the kind of the store below `root`, for a user who did not choose one.
    ///
    /// # Errors
    /// If no store is found, or more than one.
    pub fn detect(root: &Path) -> Result<StoreKind> {
        let there = |path: &str| root.join(path).is_dir();
        match (there("nix/var/nix"), there("gnu/store") && there("var/guix")) {
            (true, false) => Ok(StoreKind::Nix),
            (false, true) => Ok(StoreKind::Guix),
            (true, true) => bail!(
                anyhow!("found both a Nix store and a Guix store")
                    .hint("choose one with --store nix or --store guix")
            ),
            (false, false) => bail!(
                anyhow!(
                    "no store found below {}: neither /nix/var/nix nor /gnu/store exists",
                    root.display()
                )
                .hint(
                    "install Nix or Guix first, or name directories with --store plain --path \
                     DIR"
                )
            ),
        }
    }

    /// Converts a path inside the store's root to the path as this process sees it.
    pub fn on_disk(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    pub fn store(&self) -> PathBuf {
        self.place(|found| &found.store, self.store_dir)
    }

    pub fn state(&self) -> PathBuf {
        self.place(|found| &found.state, self.state_dir)
    }

    pub fn database_dir(&self) -> PathBuf {
        self.place(|found| &found.database, &format!("{}/db", self.state_dir))
    }

    pub fn database(&self) -> PathBuf {
        self.database_dir().join("db.sqlite")
    }

    /// Archive path of the frozen database.
    pub fn database_archive_path(&self) -> String {
        format!("{}/db/db.sqlite", self.state_dir.trim_start_matches('/'))
    }

    /// Archive path of the directory that contains the items.
    pub fn items_under(&self) -> &str {
        self.store_dir.trim_start_matches('/')
    }

    /// Path of the lock that a collector holds exclusively. Held shared, it keeps collectors away while builds
    /// go on (`NixOS/nix:src/libstore/gc.cc`).
    pub fn gc_lock(&self) -> PathBuf {
        self.state().join("gc.lock")
    }

    /// Path of the lock that every process which has the store open holds shared
    /// (`NixOS/nix:src/libstore/local-store.cc`).
    pub fn big_lock(&self) -> PathBuf {
        self.database_dir().join("big-lock")
    }

    /// Path of the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        let directory = format!("{}/daemon-socket", self.state_dir);
        self.place(|found| &found.socket, &directory).join("socket")
    }

    /// Path of the daemon's socket, as programs inside the store's root see it.
    pub fn socket_inside(&self) -> PathBuf {
        Path::new(self.state_dir).join("daemon-socket/socket")
    }

    /// Path of an item, as the database and the daemon have it.
    pub fn path_of(&self, item: &ItemName) -> String {
        format!("{}/{item}", self.store_dir)
    }

    /// A path to ask a daemon about where no real item is known. It does not belong to any item.
    pub fn probe(&self) -> String {
        format!("{}/{}-storecache-probe", self.store_dir, "0".repeat(32))
    }

    /// The directory of storecache's own direct GC roots.
    pub fn roots(&self) -> PathBuf {
        let directory = format!("{}/gcroots/storecache", self.state_dir);
        self.place(|found| &found.gc_roots, &directory)
    }

    /// Reads the number in the database's `schema` file; `None` if the file does not exist.
    ///
    /// # Errors
    /// If the file contains something other than a number.
    pub fn live_schema(&self) -> Result<Option<u64>> {
        let path = self.database_dir().join("schema");
        // Do not follow a link, and do not block on a FIFO.
        let read = || -> std::io::Result<String> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(open(&path, flags, Mode::empty())?);
            let mut text = String::new();
            if file.metadata()?.is_file() {
                // Long enough for any number.
                file.take(64).read_to_string(&mut text)?;
            }
            Ok(text)
        };
        match read() {
            Ok(text) => match text.trim_end().parse() {
                Ok(number) => Ok(Some(number)),
                // Do not quote the content: the user of this program may not be allowed to read the file.
                Err(_) => bail!("{} does not contain a number", path.display()),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(anyhow::Error::from(e).context(path.display().to_string())),
        }
    }
}
