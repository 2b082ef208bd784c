//! `verify`: checks every byte of a snapshot, without access to a store.

use super::inspect::open_found;
use super::open_entry::OpenEntry;
use super::{Conclusion, cancel, or_json, trust};
use crate::config::Look;
use crate::report::{self, Progress};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Instant;
use storecache_backend::EntryName;
use storecache_root_helper::consistency_checks::{check_database, check_kind};
use storecache_root_helper::protocol::{FrameId, SnapshotRole};
use storecache_runtime::RunContext;
use storecache_snapshot::{SnapshotError, Verified, Verifier};
use storecache_store::StoreKind;

/// Reads every frame and checks digests, members, index and database against each other.
pub fn verify(context: &RunContext, options: &Look) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Look) -> Result<Conclusion> {
    let started = Instant::now();
    cancel::on_signals(context)?;
    let (mut entry, backend) = open_found(context, options)?;
    let name = entry.name.clone();
    let mut signatures = Vec::new();
    for file in [&entry].into_iter().chain(entry.base.as_deref()) {
        let shown = trust::shown(&file.opened, &options.trust.keys);
        signatures.push(shown.with_context(|| file.name.clone())?);
        // A file may be anywhere, but an entry has to be under its own key.
        let entry = EntryName::parse(&file.name);
        let place = backend.as_deref().zip(entry.as_ref());
        trust::check(&options.trust, place, &file.opened).with_context(|| file.name.clone())?;
    }
    let signatures = signatures.swap_remove(0);
    let mut progress = Progress::new(options.output.quiet);
    let files = entry.base.as_deref().into_iter().chain([&entry]);
    let sizes = files.flat_map(|file| &file.opened.index.frames).map(|frame| frame.size);
    progress.phase("verify", sizes.sum(), None);

    let mut read = 0;
    let mut advance = |count| {
        context.check_canceled()?;
        read += count;
        progress.at(read, None);
        Ok(())
    };
    let base = entry.base.as_deref_mut().map(|base| frames(base, &mut advance)).transpose()?;
    let verified = frames(&mut entry, &mut advance)?;
    let rows = database_rows(&mut entry).map_err(|error| match error.is::<SnapshotError>() {
        // The error itself states what is damaged.
        true => error.context(name.clone()),
        false => error.context(format!("{name} is damaged: its database")),
    })?;
    drop(progress);

    let seconds = started.elapsed().as_secs_f64();
    if options.output.json {
        let mut object = json!({
            "snapshot": name,
            "ok": true,
            "items": verified.items,
            "files": verified.members,
            "database_rows": rows,
            "bytes": { "snapshot": entry.opened.length, "content": verified.bytes },
            "seconds": { "total": seconds },
        });
        if !signatures.is_empty() {
            object["signatures"] = trust::as_json(&signatures);
        }
        if let Some(reference) = &entry.opened.index.base {
            object["base"] = json!({
                "entry": reference.entry,
                "items": reference.items.len(),
                "ok": base.is_some(),
            });
        }
        report::answer_json(&object)?;
    } else {
        report::answer(format!(
            "{name}: intact; {}, {}, {} of content, {}",
            report::plural(verified.items, "item"),
            report::plural(verified.members, "member"),
            report::bytes(verified.bytes),
            report::seconds(seconds),
        ))?;
        if !signatures.is_empty() {
            report::answer(format!("signed by {}", trust::in_words(&signatures)))?;
        }
        if let Some(reference) = &entry.opened.index.base {
            let items = report::plural(reference.items.len() as u64, "item");
            let state = if base.is_some() { "intact too" } else { "missing, so not checked" };
            report::answer(format!("{items} more in its base {}, {state}", reference.entry))?;
        }
    }
    Ok(Conclusion::Done)
}

/// Checks all frames of one file.
fn frames(file: &mut OpenEntry, advance: &mut dyn FnMut(u64) -> Result<()>) -> Result<Verified> {
    let index = file.opened.index.clone();
    let name = file.name.clone();
    let kind = StoreKind::parse(file.opened.head.store.kind.raw());
    kind.and_then(|kind| check_kind(kind, &index)).with_context(|| name.clone())?;
    let ids = (0..index.frames.len() as u32)
        .map(|number| FrameId { which: SnapshotRole::Entry, number })
        .collect::<Vec<_>>();
    let mut verifier = Verifier::new(&index)?;
    file.expect(&ids);
    for id in ids {
        let bytes = file.frame(id)?;
        verifier.frame(id.number, &bytes).with_context(|| name.clone())?;
        advance(bytes.len() as u64)?;
    }
    verifier.finish().with_context(|| name)
}

/// Checks the database of a snapshot against the index. Returns its number of rows; `None` if the store has
/// no database.
fn database_rows(entry: &mut OpenEntry) -> Result<Option<usize>> {
    let Some((_file, database)) = entry.database()? else { return Ok(None) };
    let base = entry.base.as_ref().map(|base| &base.opened.index);
    let rows = check_database(&database, &entry.opened.index, base)?;
    Ok(Some(rows.items.len()))
}
