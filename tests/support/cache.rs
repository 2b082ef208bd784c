//! Where `scripts/roots` keeps the roots and fixtures.

use std::env;
use std::path::PathBuf;

/// The root that a world runs on, by the generation of its Nix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Debian bookworm, Nix 2.8: an idle database is one file, the WAL gone. Builds unsandboxed.
    Old,
    /// Debian trixie, Nix 2.26: an idle database has an empty WAL beside it.
    Mid,
    /// Debian sid, Nix 2.34: an idle database may lie wholly in the WAL.
    New,
}

/// What the store of a world holds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// The closure of `t.nix` beside 60 packages, or 400 (33,000 files) for [`Role::Old`].
    Full,
    /// The closure of `t.nix` beside a dozen packages.
    Small,
    /// `Full` after `nix-store --optimise`: hard links across items. Only for [`Role::Old`].
    Optimised,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Old, Role::Mid, Role::New];

    pub fn name(self) -> &'static str {
        match self {
            Role::Old => "nix-old",
            Role::Mid => "nix-mid",
            Role::New => "nix-new",
        }
    }

    /// The root directory; shared by all worlds, never to be written.
    pub fn root(self) -> PathBuf {
        found(directory().join("roots").join(self.name()))
    }

    /// The directory of a fixture, with `nix/`, `t.nix` and `inputs.json` in it; never to be written.
    pub fn fixture(self, fixture: Fixture) -> PathBuf {
        let exists = fixture != Fixture::Optimised || self == Role::Old;
        assert!(exists, "there is no optimised fixture of {self:?}");
        let suffix = match fixture {
            Fixture::Full => "",
            Fixture::Small => "-small",
            Fixture::Optimised => "-optimised",
        };
        found(directory().join("fixtures").join(format!("{}{suffix}", self.name())))
    }
}

/// The cache directory, by the rule in the head of `scripts/roots`.
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
