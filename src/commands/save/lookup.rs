//! Looks up what exists under the key of a save.

use super::SaveRun;
use crate::commands::delta_base::DeltaBase;
use crate::commands::open_entry::OpenEntry;
use crate::commands::open_error::OpenError;
use crate::commands::quarantine;
use crate::commands::resolve::{LookupNotes, find};
use crate::commands::save_policy::Newest;
use crate::commands::session::Session;
use crate::config::{Policy, Save};
use crate::report::BaseUse;
use anyhow::{Result, anyhow};
use std::time::Instant;
use storecache_backend::{Backend, BackendError, EntryName};
use storecache_entry::Ladder;
use storecache_runtime::advice::{causes, in_one_line};
use tracing::debug;

/// The entries of the key.
pub struct Existing {
    /// The first rung of the ladder.
    pub exact: Ladder,
    /// Entries that count as absent because they failed their checks.
    pub bad: Vec<EntryName>,
    /// The entries that were found, and the bad ones.
    pub seen: Vec<EntryName>,
    /// The newest entry, if the save is to be compared with it.
    pub newest: Option<Newest>,
    /// The snapshot that the save may become a delta on.
    pub base: Option<DeltaBase>,
}

/// An entry, and the result of opening it.
type OpenedEntry = (EntryName, Result<OpenEntry, OpenError>);

impl SaveRun<'_> {
    /// Finds the newest entry of the key, and a base for a delta.
    pub fn look_up(&mut self, backend: &dyn Backend, session: &mut Session) -> Result<Existing> {
        let Save { policy, quarantine, dry_run, .. } = self.options;
        session.progress.fold("save: look for existing entries");
        let looking = Instant::now();
        let exact = Ladder { rungs: session.key.ladder.rungs[..1].to_vec() };
        let bad = quarantine::bad(backend, quarantine, self.state);
        if !dry_run {
            quarantine::sweep(backend, quarantine);
        }
        let is_plain = !session.request.kind.has_database();
        let (seen, newest) = self.find_newest(backend, &exact, &bad, is_plain)?;
        // The cache service may have turned out to use another version of the protocol than expected.
        self.found.run.backend = backend.describe();
        let opened = newest.as_ref().map(|(name, opened)| (name, opened));
        let known = Newest::read(&self.found.run.context, policy, opened, &bad, self.state)
            .unwrap_or_else(|e| {
                self.found.run.warnings.push(e.to_string());
                None
            });
        let base = self.find_base(backend, newest, &bad, is_plain);
        self.found.lookup_seconds = looking.elapsed().as_secs_f64();
        Ok(Existing { exact, bad, seen, newest: known, base })
    }

    /// Returns the newest entry of the key, opened, if it is needed, and the names of all entries that were seen,
    /// including the `bad` ones. A delta without its base counts as absent, and so does an untrusted entry.
    fn find_newest(
        &mut self,
        backend: &dyn Backend,
        exact: &Ladder,
        bad: &[EntryName],
        is_plain: bool,
    ) -> Result<(Vec<EntryName>, Option<OpenedEntry>)> {
        let Save { policy, delta, signing, .. } = self.options;
        let is_needed = policy.policy == Policy::Auto || delta.is_some() && !is_plain;
        let mut seen = bad.to_vec();
        loop {
            let (found, notes) = match find(backend, exact, &seen) {
                // A run may be allowed to write but not to read.
                Err(BackendError::Refused(_)) => return Ok((seen, None)),
                found => found?,
            };
            let notes = LookupNotes::new(&notes, &self.found.passed_over);
            self.found.run.warnings.extend(notes.warnings);
            self.found.passed_over.extend(notes.skipped);
            let Some((name, hit)) = found else { return Ok((seen, None)) };
            self.found.hit = hit;
            self.found.matched_key = Some(name.key.clone());
            seen.push(name.clone());
            if !is_needed {
                return Ok((seen, None));
            }
            match OpenEntry::open(backend, &name, (bad, &signing.trust), &mut 0) {
                Err(
                    e @ (OpenError::BaseGone { .. }
                    | OpenError::Untrusted(_)
                    | OpenError::UntrustedBase { .. }),
                ) => {
                    let reason = causes(&e);
                    debug!(entry = %name, reason, "skip an entry");
                    self.found.passed_over.push((name.to_string(), reason));
                }
                opened => return Ok((seen, Some((name, opened)))),
            }
        }
    }

    /// Returns the snapshot that the save may become a delta on.
    fn find_base(
        &mut self,
        backend: &dyn Backend,
        newest: Option<OpenedEntry>,
        bad: &[EntryName],
        is_plain: bool,
    ) -> Option<DeltaBase> {
        let checks = (bad, &self.options.signing.trust);
        let reason = match self.options.delta {
            None => anyhow!("--full was given"),
            // The contents of a plain directory may change while its name stays the same.
            Some(_) if is_plain => return None,
            Some(_) => match DeltaBase::find(backend, newest, checks, self.state) {
                Ok(base) => {
                    debug!(
                        entry = base.name(),
                        items = base.items.len(),
                        "found a base for a delta"
                    );
                    return Some(base);
                }
                Err(reason) => reason,
            },
        };
        let reason = Some(in_one_line(reason.as_ref()));
        debug!(reason, "the save has no base for a delta");
        self.found.base = Some(BaseUse { reason, ..BaseUse::default() });
        None
    }
}
