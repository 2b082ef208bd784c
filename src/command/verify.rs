//! `verify`: a snapshot to the last byte, without touching a store.

use super::inspect::open;
use super::{Ending, cancel, or_json};
use crate::backend::ReadAt;
use crate::options::Look;
use crate::report::{self, Progress};
use crate::snapshot::{Opened, Verifier, write_database};
use crate::store::{Layout, SnapshotDatabase, StoreKind};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Reads every frame and checks digests, members, index and database against each other.
pub fn verify(options: &Look) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Look) -> Result<Ending> {
    let started = Instant::now();
    let cancelled = cancel::on_signals()?;
    let (name, opened, mut reader) = open(options)?;
    let index = &opened.index;
    let mut progress = Progress::new(options.output.quiet);
    progress.phase("verify", index.frames.iter().map(|f| f.size).sum(), None);

    let mut verifier = Verifier::new(index)?;
    reader.expect(&index.frames.iter().map(|f| f.at..f.at + f.size).collect::<Vec<_>>());
    let mut read = 0;
    for (number, frame) in (0..).zip(&index.frames) {
        if cancelled.load(Ordering::Relaxed) {
            bail!("cancelled by a signal");
        }
        let mut bytes = vec![0; usize::try_from(frame.size)?];
        reader.read_at(frame.at, &mut bytes).with_context(|| format!("read frame {number}"))?;
        verifier.frame(number, &bytes).with_context(|| format!("{name} is damaged"))?;
        read += frame.size;
        progress.at(read, None);
    }
    let verified = verifier.finish().with_context(|| format!("{name} is damaged"))?;
    let rows = database_rows(&opened, reader.as_mut())
        .with_context(|| format!("{name} is damaged: its database"))?;
    drop(progress);

    let seconds = started.elapsed().as_secs_f64();
    if options.output.json {
        let object = json!({
            "snapshot": name,
            "ok": true,
            "items": verified.items,
            "files": verified.members,
            "database_rows": rows,
            "bytes": { "snapshot": opened.length, "content": verified.bytes },
            "seconds": { "total": seconds },
        });
        report::answer(object)?;
    } else {
        report::answer(format!(
            "{name}: whole; {}, {}, {} of content, {}",
            report::plural(verified.items, "item"),
            report::plural(verified.members, "member"),
            report::bytes(verified.bytes),
            report::seconds(seconds),
        ))?;
    }
    Ok(Ending::Done)
}

/// Checks the database of a store's snapshot: whole, and with a row of the same hash for every item.
/// Gives back how many rows it has; none where the store has no database.
fn database_rows(opened: &Opened, reader: &mut dyn ReadAt) -> Result<Option<usize>> {
    let index = &opened.index;
    if index.database.is_none() {
        return Ok(None);
    }
    let layout = Layout::of(StoreKind::parse(&opened.head.store.kind)?, Path::new("/"))?;
    let mut file = tempfile::NamedTempFile::new()?;
    write_database(index, &mut file, |number| -> Result<Vec<u8>> {
        let frame = index.frames.get(number as usize).context("no such frame")?;
        let mut bytes = vec![0; usize::try_from(frame.size)?];
        reader.read_at(frame.at, &mut bytes)?;
        Ok(bytes)
    })?;
    let rows = SnapshotDatabase::open(file.path(), &layout)?.items()?;
    let hashes: HashMap<&str, &str> =
        rows.iter().map(|row| (row.name.as_str(), row.nar_hash.as_str())).collect();
    for item in &index.items {
        match hashes.get(item.name.as_str()) {
            None => bail!("{} has no row", item.name),
            Some(hash) if item.nar_hash.as_deref() != Some(hash) => {
                bail!("{} has another hash there than in the index", item.name)
            }
            Some(_) => {}
        }
    }
    Ok(Some(rows.len()))
}
