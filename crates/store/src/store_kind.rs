//! The kinds of store, and the systems they are for.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A package store with a database, or plain directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Guix,
    Nix,
    Plain,
}

impl StoreKind {
    pub const ALL: [StoreKind; 3] = [StoreKind::Guix, StoreKind::Nix, StoreKind::Plain];

    /// The item directories of stores that have a database.
    pub const STORE_DIRS: [&str; 2] = ["/gnu/store", "/nix/store"];

    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix",
            StoreKind::Nix => "nix",
            StoreKind::Plain => "plain",
        }
    }
}

impl StoreKind {
    /// The program that prints the version of the package manager, as the last word of the first line of
    /// `--version`. A plain store does not have one.
    pub fn program(self) -> Option<&'static str> {
        match self {
            StoreKind::Guix => Some("guix"),
            StoreKind::Nix => Some("nix-store"),
            StoreKind::Plain => None,
        }
    }

    /// Whether it is a store of items with a database and a daemon, and not a set of directories that the user names.
    pub fn has_database(self) -> bool {
        match self {
            StoreKind::Guix | StoreKind::Nix => true,
            StoreKind::Plain => false,
        }
    }

    /// The package manager's command that checks the database; empty if the kind has no database.
    pub fn verify_command(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix gc --verify",
            StoreKind::Nix => "nix-store --verify",
            StoreKind::Plain => "",
        }
    }

    /// The package manager's command that deletes unused items; empty if the kind has no items.
    pub fn gc_command(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix gc",
            StoreKind::Nix => "nix-store --gc",
            StoreKind::Plain => "",
        }
    }

    /// Name of the package manager, for messages.
    pub fn package_manager(self) -> &'static str {
        match self {
            StoreKind::Guix => "Guix",
            StoreKind::Nix => "Nix",
            StoreKind::Plain => "no package manager",
        }
    }

    /// Name of the daemon's program and of its service in a shepherd; empty if the kind has no daemon.
    pub fn daemon(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix-daemon",
            StoreKind::Nix => "nix-daemon",
            StoreKind::Plain => "",
        }
    }

    /// The names that systemd may know the daemon by; sockets first. Sources: guix 1.5 `etc/guix-daemon.service.in`;
    /// `NixOS/nix:misc/systemd`, `DeterminateSystems/nix-installer`.
    pub fn units(self) -> &'static [&'static str] {
        match self {
            StoreKind::Guix => &["guix-daemon.service"],
            StoreKind::Nix => {
                &["nix-daemon.socket", "determinate-nixd.socket", "nix-daemon.service"]
            }
            StoreKind::Plain => &[],
        }
    }

    /// A shell command that starts the daemon without a supervisor; empty if the kind has no daemon.
    pub fn start_command(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix-daemon --build-users-group=guixbuild &",
            StoreKind::Nix => "nix-daemon &",
            StoreKind::Plain => "",
        }
    }

    /// Parses a name as returned by [`StoreKind::name`].
    pub fn parse(name: &str) -> Result<Self> {
        StoreKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("unknown kind of store: {name:?}"))
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the system of this machine as Nix and Guix name it, such as `x86_64-linux`.
pub fn system() -> String {
    system_of(std::env::consts::ARCH, std::env::consts::OS)
}

/// Returns every system that storecache may run on.
pub fn systems() -> Vec<String> {
    // As the standard library names them.
    const CPUS: [&str; 8] =
        ["x86_64", "aarch64", "x86", "arm", "riscv64", "powerpc64", "s390x", "loongarch64"];
    const KERNELS: [&str; 3] = ["linux", "macos", "freebsd"];
    CPUS.iter().flat_map(|cpu| KERNELS.map(|kernel| system_of(cpu, kernel))).collect()
}

fn system_of(cpu: &str, kernel: &str) -> String {
    let cpu = match cpu {
        "x86" => "i686",
        "powerpc64" => "powerpc64le",
        other => other,
    };
    format!("{cpu}-{kernel}")
}
