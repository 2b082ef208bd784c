//! The kinds of store, and the system they are for.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A package store with a database, or any directories at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Guix,
    Nix,
    Plain,
}

impl StoreKind {
    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Guix => "guix",
            StoreKind::Nix => "nix",
            StoreKind::Plain => "plain",
        }
    }
}

impl StoreKind {
    /// The program that tells the version of the package manager, in the last word of the first line
    /// of `--version`; a plain store has none.
    pub fn program(self) -> Option<&'static str> {
        match self {
            StoreKind::Guix => Some("guix"),
            StoreKind::Nix => Some("nix-store"),
            StoreKind::Plain => None,
        }
    }

    /// Parses what [`StoreKind::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        let kinds = [StoreKind::Guix, StoreKind::Nix, StoreKind::Plain];
        kinds
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("{name:?} is no kind of store that this storecache knows"))
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// This machine in the words of Nix and Guix, such as `x86_64-linux`.
pub fn system() -> String {
    let cpu = match std::env::consts::ARCH {
        "x86" => "i686",
        "powerpc64" => "powerpc64le",
        other => other,
    };
    format!("{cpu}-{}", std::env::consts::OS)
}
