//! The directory in which `scripts/roots` keeps the roots and fixtures.

use std::env;
use std::path::{Path, PathBuf};

use super::package_manager::PackageManager;

/// The root file system of a world, by the generation of its Nix or Guix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Debian bookworm, Nix 2.8: an idle database is one file, without a WAL. Builds are not sandboxed.
    Old,
    /// Debian trixie, Nix 2.26: an idle database has an empty WAL beside it.
    Mid,
    /// Debian sid, Nix 2.34: an idle database may lie wholly in the WAL.
    New,
    /// Debian sid, Guix 1.5 as installed: the daemon runs as the user `guix-daemon`, who owns the store.
    Guix,
    /// As [`Role::Guix`], but the daemon runs as root, which owns the store, and has build users.
    GuixRoot,
    /// Debian bullseye, Guix 1.2: the daemon runs as root and deduplicates files of any size.
    GuixOld,
}

/// The content of a world's store when the world starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// The closure of `t.nix` and 60 packages, or 400 packages (33,000 files) for [`Role::Old`]. For
    /// [`Role::Guix`]: the closure of `build.scm`, 60 packages, and Guile with its libraries.
    Full,
    /// The closure of `t.nix` or `build.scm` and a dozen packages.
    Small,
    /// `Full` after `nix-store --optimise`: hard links across items. Only for [`Role::Old`].
    Optimised,
}

impl Role {
    /// The roles with Nix.
    pub const ALL: [Role; 3] = [Role::Old, Role::Mid, Role::New];

    /// The roles with Guix.
    pub const GUIX: [Role; 3] = [Role::Guix, Role::GuixRoot, Role::GuixOld];

    pub fn package_manager(self) -> PackageManager {
        match self {
            Role::Old | Role::Mid | Role::New => PackageManager::Nix,
            Role::Guix | Role::GuixRoot | Role::GuixOld => PackageManager::Guix,
        }
    }

    /// The user who owns the store and runs the daemon.
    pub fn owner(self) -> &'static str {
        if self == Role::Guix { "guix-daemon" } else { "root" }
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Old => "nix-old",
            Role::Mid => "nix-mid",
            Role::New => "nix-new",
            Role::Guix => "guix",
            Role::GuixRoot => "guix-root",
            Role::GuixOld => "guix-old",
        }
    }

    /// The root directory. All worlds share it, so it must not be written to.
    pub fn root(self) -> PathBuf {
        let name = if self == Role::GuixRoot { Role::Guix.name() } else { self.name() };
        found(directory().join("roots").join(name))
    }

    /// The systemd drop-in for the service of the daemon, if it needs one.
    pub fn drop_in(self) -> Option<PathBuf> {
        let name = match self {
            Role::Old | Role::Mid | Role::New => return None,
            Role::Guix => "guix.conf",
            Role::GuixRoot => "guix-root.conf",
            Role::GuixOld => "guix-old.conf",
        };
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name))
    }

    /// The directory of a fixture: the trees of its [`PackageManager`], and `t.nix` and `inputs.json` or `build.scm`
    /// and `inputs.scm`. It must not be written to.
    pub fn fixture(self, fixture: Fixture) -> PathBuf {
        let exists = match fixture {
            Fixture::Full => !matches!(self, Role::GuixRoot | Role::GuixOld),
            Fixture::Small => true,
            Fixture::Optimised => self == Role::Old,
        };
        assert!(exists, "there is no fixture {fixture:?} of {self:?}");
        let suffix = match fixture {
            Fixture::Full => "",
            Fixture::Small => "-small",
            Fixture::Optimised => "-optimised",
        };
        found(directory().join("fixtures").join(format!("{}{suffix}", self.name())))
    }
}

/// The cache directory, by the rule at the top of `scripts/roots`.
pub fn directory() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = set("STORECACHE_TEST_CACHE") {
        return chosen;
    }
    if set("SUDO_USER").is_some() {
        return PathBuf::from("/var/cache/storecache-test");
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .expect("neither XDG_CACHE_HOME nor HOME is set")
        .join("storecache-test")
}

fn found(path: PathBuf) -> PathBuf {
    if !path.is_dir() {
        panic!("run ./scripts/roots first");
    }
    path
}
