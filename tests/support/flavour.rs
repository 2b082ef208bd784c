//! What differs between the two kinds of store.

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Nix,
    Guix,
}

/// A directory that is private to each world.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Its path inside.
    pub inside: &'static str,
    /// What it is called in a fixture.
    pub name: &'static str,
}

impl Flavour {
    /// As the program under test calls it.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Nix => "nix",
            Flavour::Guix => "guix",
        }
    }

    pub fn store(self) -> &'static str {
        match self {
            Flavour::Nix => "/nix/store",
            Flavour::Guix => "/gnu/store",
        }
    }

    pub fn state(self) -> &'static str {
        match self {
            Flavour::Nix => "/nix/var/nix",
            Flavour::Guix => "/var/guix",
        }
    }

    /// The name of the daemon, also of its service.
    pub fn daemon(self) -> &'static str {
        match self {
            Flavour::Nix => "nix-daemon",
            Flavour::Guix => "guix-daemon",
        }
    }

    /// What store and state lie in.
    pub fn trees(self) -> &'static [Tree] {
        match self {
            Flavour::Nix => &[Tree { inside: "/nix", name: "nix" }],
            Flavour::Guix => &[
                Tree { inside: "/gnu", name: "gnu" },
                Tree { inside: "/var/guix", name: "var-guix" },
            ],
        }
    }
}
