//! Which entries go after a save: older generations of the same key, and nothing else.

use crate::backend::{Backend, EntryName};
use crate::report::Outcome;
use anyhow::Result;
use std::num::NonZeroUsize;

/// Deletes what is older than the newest `keep` generations of the key that was just saved. The entry
/// is there by now, so what fails here is a warning.
pub fn retain(
    backend: &dyn Backend,
    written: &EntryName,
    keep: NonZeroUsize,
    outcome: &mut Outcome,
) {
    if let Err(e) = delete(backend, written, keep, &mut outcome.deleted) {
        outcome.warnings.push(format!("superseded entries stay: {e:#}"));
    }
}

fn delete(
    backend: &dyn Backend,
    written: &EntryName,
    keep: NonZeroUsize,
    deleted: &mut Vec<String>,
) -> Result<()> {
    let generations = backend.entries(&|key| key == written.key)?;
    for entry in generations.iter().skip(keep.get()) {
        // A clock that was set back may make the newest entry look old.
        if entry.name != *written {
            backend.delete(entry)?;
            deleted.push(entry.name.to_string());
        }
    }
    Ok(())
}
