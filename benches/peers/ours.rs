//! The program under test, as a user would run it on the Nix store below a root.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::shell::sh;
use crate::support::{Role, place};

/// The key of all entries but those that a part says otherwise of.
pub const KEY: &str = "bench";

/// A command line of `storecache VERB`. Its report is on standard output.
pub fn storecache(verb: &str, root: &Path, entries: &Path, key: &str) -> String {
    let program = place::binary();
    let (program, root, entries) = (program.display(), root.display(), entries.display());
    format!(
        "{program} {verb} --store nix --root {root} --daemon none --backend dir:{entries} --key {key} \
         --quiet --json"
    )
}

/// Makes an empty directory the root of a store as it is after the installation of Nix: nothing in it, and no
/// database.
///
/// # Errors
/// If it cannot be copied there.
pub fn install(root: &Path) -> Result<()> {
    let pristine = Role::New.root().join("nix");
    sh(&format!("cp -a {} {}", pristine.display(), root.display())).map(drop)
}

/// Saves the closures of these items alone, in full.
///
/// # Errors
/// If it fails.
pub fn save_some(root: &Path, entries: &Path, key: &str, items: &[&str]) -> Result<()> {
    let mut line = format!("{} --full", storecache("save", root, entries, key));
    for item in items {
        write!(line, " --roots /nix/store/{item}")?;
    }
    sh(&line).map(drop)
}
