//! The differences between the two kinds of store.

/// The package manager of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageManager {
    Nix,
    Guix,
}

/// A directory that is private to each world.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Its path in the world.
    pub inside: &'static str,
    /// Its name in a fixture.
    pub name: &'static str,
}

impl PackageManager {
    /// The name that the program under test uses.
    pub fn name(self) -> &'static str {
        match self {
            PackageManager::Nix => "nix",
            PackageManager::Guix => "guix",
        }
    }

    pub fn store(self) -> &'static str {
        match self {
            PackageManager::Nix => "/nix/store",
            PackageManager::Guix => "/gnu/store",
        }
    }

    pub fn state(self) -> &'static str {
        match self {
            PackageManager::Nix => "/nix/var/nix",
            PackageManager::Guix => "/var/guix",
        }
    }

    /// The name of the daemon and of its service.
    pub fn daemon(self) -> &'static str {
        match self {
            PackageManager::Nix => "nix-daemon",
            PackageManager::Guix => "guix-daemon",
        }
    }

    /// The trees that hold store and state.
    pub fn trees(self) -> &'static [Tree] {
        match self {
            PackageManager::Nix => &[Tree { inside: "/nix", name: "nix" }],
            PackageManager::Guix => &[
                Tree { inside: "/gnu", name: "gnu" },
                Tree { inside: "/var/guix", name: "var-guix" },
            ],
        }
    }
}
