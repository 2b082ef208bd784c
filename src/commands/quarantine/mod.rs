//! Quarantine of entries that failed their checks: they are moved aside with the reason or, if that is not
//! possible, remembered.

mod denylist;

use super::job_state::State;
use crate::config::Quarantine;
use crate::report::Quarantined;
use jiff::Timestamp;
use storecache_backend::{Backend, EntryName, QuarantineList, QuarantinedEntry};
use storecache_entry::Ladder;
use storecache_runtime::files::DirPath;

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
    let note = serde_json::to_vec_pretty(&bad).unwrap_or_default();
    match backend.set_aside(name, &note) {
        Ok(file) => bad.file = file,
        Err(e) => bad.problem = Some(format!("{e:#}")),
    }
    if bad.file.is_none()
        && let Err(e) = denylist::remember(backend, name, &bad, options.memory.as_ref())
    {
        let problem = bad.problem.map(|problem| format!("{problem}; "));
        let problem = problem.unwrap_or_default();
        bad.problem = Some(format!("{problem}it could not be recorded either: {e:#}"));
    }
    bad
}

/// Returns the existing entries that must not be tried again, with the reasons.
pub fn known(backend: &dyn Backend, options: &Quarantine) -> Vec<(EntryName, Quarantined)> {
    denylist::of(backend, options)
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
    if let Some(place) = &options.memory {
        let _ = denylist::sweep(place, options.keep);
    }
}

/// Returns the quarantined files of a place, and the remembered bad entries of it.
///
/// # Errors
/// If the files cannot be listed.
pub fn list(
    place: &(impl QuarantineList + ?Sized),
    memory: Option<&DirPath>,
) -> anyhow::Result<Vec<Quarantined>> {
    let mut all: Vec<_> = place.quarantined()?.into_iter().map(noted).collect();
    let remembered = denylist::all(memory).into_iter().filter(|it| place.is_at(&it.place));
    all.extend(remembered.map(|it| it.what));
    Ok(all)
}

/// The report of a quarantined file: name and size are those of the file, everything else is from its note.
fn noted(aside: QuarantinedEntry) -> Quarantined {
    let note: Option<Quarantined> = serde_json::from_slice(&aside.note).ok();
    let lost = || Quarantined { reason: "its note is missing".into(), ..Quarantined::default() };
    Quarantined {
        entry: aside.name.to_string(),
        key: aside.name.key,
        size: Some(aside.size),
        file: Some(aside.file),
        ..note.unwrap_or_else(lost)
    }
}

/// A sentence for people about what happened to the bad entries of a run and what to do; `None` if `bad` is empty.
pub fn advice(bad: &[Quarantined]) -> Option<String> {
    let first = bad.first()?;
    let kept = match &first.file {
        Some(file) if file.to_str().is_some_and(|file| file.contains("://")) => format!(
            "{} is marked as bad, and runs skip it from now on; check a copy of {} with \
             `storecache verify`",
            first.entry,
            file.display()
        ),
        Some(file) => {
            let file = file.display();
            format!(
                "{} is quarantined as {file}; check it with `storecache verify {file}`",
                first.entry
            )
        }
        None => {
            let problem = first.problem.iter().map(|why| format!(" ({why})")).collect::<String>();
            let entry = &first.entry;
            format!(
                "{entry} stays{problem}, and is skipped if this user has a record of it; delete \
                 it, or save again"
            )
        }
    };
    let more = bad.len() - 1;
    Some(match more {
        0 => kept,
        more => format!("{kept}; the same applies to {more} more"),
    })
}
