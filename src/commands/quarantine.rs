//! Quarantine of entries that failed their checks: they are moved aside with the reason or, if that is not
//! possible, remembered.

use super::job_state::State;
use crate::config::Quarantine;
use anyhow::Context;
use jiff::Timestamp;
use storecache_backend::{Backend, Denylist, EntryName, QuarantineList, Quarantined};
use storecache_entry::Ladder;
use storecache_runtime::advice::{Advice, in_one_line};
use tracing::debug;

/// Moves an entry aside or else remembers it. Returns what was done.
pub fn condemn(
    backend: &dyn Backend,
    options: &Quarantine,
    name: &EntryName,
    (phase, reason, size): (&str, &str, Option<u64>),
) -> Quarantined {
    let mut bad = Quarantined {
        entry: name.to_string(),
        key: name.key.clone(),
        reason: reason.to_owned(),
        phase: phase.to_owned(),
        when: Timestamp::now().to_string(),
        tool: concat!("storecache ", env!("CARGO_PKG_VERSION")).into(),
        size: size.or_else(|| Some(backend.open(name).ok()?.size())),
        file: None,
        problem: None,
    };
    match backend.set_aside(name, &bad) {
        Ok(file) => bad.file = file,
        Err(e) => bad.problem = Some(in_one_line(e.as_ref())),
    }
    let remember = || {
        let list =
            options.denylist.as_ref().context("no home directory for the list of bad entries")?;
        list.remember(backend.identify(name), &bad)
    };
    if bad.file.is_none()
        && let Err(e) = remember()
    {
        let problem = bad.problem.map(|problem| format!("{problem}; "));
        let problem = problem.unwrap_or_default();
        bad.problem =
            Some(format!("{problem}it could not be recorded either: {}", in_one_line(e.as_ref())));
    }
    debug!(
        entry = bad.entry,
        file = bad.file.as_ref().map(|file| file.display().to_string()),
        problem = bad.problem,
        "quarantined an entry"
    );
    bad
}

/// Returns the existing entries that must not be tried again, with the reasons.
pub fn known(backend: &dyn Backend, options: &Quarantine) -> Vec<(EntryName, Quarantined)> {
    let list = options.denylist.as_ref();
    list.map(|list| list.known(backend, options.keep)).unwrap_or_default()
}

/// Returns entries that a save must treat as absent: known bad entries, and those that the restore of this
/// job found to be bad.
pub fn bad(backend: &dyn Backend, options: &Quarantine, state: Option<&State>) -> Vec<EntryName> {
    let known = known(backend, options).into_iter().map(|(name, _)| name);
    let found = state.into_iter().flat_map(|state| &state.restore.quarantined);
    let found = found.filter(|bad| bad.file.is_none());
    known.chain(found.filter_map(|bad| EntryName::parse(&bad.entry))).collect()
}

/// Returns the known bad entries under the ladder, as they are reported.
pub fn met(known: &[(EntryName, Quarantined)], ladder: &Ladder) -> Vec<(String, String)> {
    let leads = |key: &str| ladder.rungs.iter().any(|rung| rung.holds(key));
    let met = known.iter().filter(|(name, _)| leads(&name.key));
    met.map(|(name, bad)| (name.to_string(), format!("found bad at {}: {}", bad.when, bad.reason)))
        .collect()
}

/// Deletes quarantined entries after their retention time, at most once an hour. Failures are retried the
/// next time.
pub fn sweep(backend: &dyn Backend, options: &Quarantine) {
    if let Some(keep) = options.keep {
        let _ = backend.sweep(keep);
    }
    if let Some(list) = &options.denylist {
        let _ = list.sweep(options.keep);
    }
}

/// Returns the quarantined files of a place, and the remembered bad entries of it.
///
/// # Errors
/// If the files cannot be listed.
pub fn list(
    place: &(impl QuarantineList + ?Sized),
    denylist: Option<&Denylist>,
) -> anyhow::Result<Vec<Quarantined>> {
    let mut all = place.quarantined()?;
    all.extend(denylist.into_iter().flat_map(|list| list.entries_of(place)));
    Ok(all)
}

/// Describes what happened to the bad entries of a run, and what to do; `None` if `bad` is empty.
pub fn advice(bad: &[Quarantined]) -> Option<Advice> {
    let first = bad.first()?;
    let (kept, hint) = match &first.file {
        Some(file) if file.to_str().is_some_and(|file| file.contains("://")) => (
            format!("{} is marked as bad, and runs skip it from now on", first.entry),
            format!("check a copy of {} with `storecache verify`", file.display()),
        ),
        Some(file) => {
            let file = file.display();
            (
                format!("{} is quarantined as {file}", first.entry),
                format!("check it with `storecache verify {file}`"),
            )
        }
        None => {
            let problem = first.problem.iter().map(|why| format!(" ({why})")).collect::<String>();
            let entry = &first.entry;
            (
                format!("{entry} stays{problem}, and is skipped if this user has a record of it"),
                "delete it, or save again".into(),
            )
        }
    };
    let more = bad.len() - 1;
    let kept = match more {
        0 => kept,
        more => format!("{kept}; the same applies to {more} more"),
    };
    Some(Advice { notes: vec![kept], hint: Some(hint) })
}
