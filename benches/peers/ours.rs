//! The program under test, run as by a user, on the Nix store below a root.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::shell::sh;
use crate::support::{Role, plain_env};

/// The key of all entries, unless a part uses another one.
pub const KEY: &str = "bench";

/// Returns a command line of `storecache VERB`, which prints its report to standard output.
pub fn storecache(verb: &str, root: &Path, entries: &Path, key: &str) -> String {
    let program = plain_env::binary();
    let (program, root, entries) = (program.display(), root.display(), entries.display());
    format!(
        "{program} {verb} --store nix --root {root} --daemon none --backend dir:{entries} --key {key} \
         --quiet --json"
    )
}

/// Makes an empty directory the root of a store as after the installation of Nix: without items, and without a
/// database.
///
/// # Errors
/// If it cannot be copied there.
pub fn install(root: &Path) -> Result<()> {
    let pristine = Role::New.root().join("nix");
    sh(&format!("cp -a {} {}", pristine.display(), root.display())).map(drop)
}

/// Saves a full snapshot of the closures of these items.
///
/// # Errors
/// If the save fails.
pub fn save_some(root: &Path, entries: &Path, key: &str, items: &[&str]) -> Result<()> {
    let mut line = format!("{} --full", storecache("save", root, entries, key));
    for item in items {
        write!(line, " --roots /nix/store/{item}")?;
    }
    sh(&line).map(drop)
}
