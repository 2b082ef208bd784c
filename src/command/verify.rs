//! `verify`: a snapshot to the last byte, without touching a store.

use super::inspect::open;
use super::{Ending, cancel};
use crate::options::Look;
use crate::report::{self, Progress};
use crate::snapshot::Verifier;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Reads every frame and checks digests, members and index against each other.
pub fn verify(options: &Look) -> Result<Ending> {
    let started = Instant::now();
    let cancelled = cancel::on_signals()?;
    let (name, opened, mut reader) = open(options)?;
    let index = &opened.index;
    let mut progress = Progress::new(options.output.quiet);
    progress.phase("verify", index.frames.iter().map(|f| f.size).sum(), None);

    let mut verifier = Verifier::new(index)?;
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
    drop(progress);

    let seconds = started.elapsed().as_secs_f64();
    if options.output.json {
        let object = json!({
            "snapshot": name,
            "ok": true,
            "items": verified.items,
            "files": verified.members,
            "bytes": { "snapshot": opened.length, "content": verified.bytes },
            "seconds": { "total": seconds },
        });
        println!("{object}");
    } else {
        println!(
            "{name}: whole; {}, {}, {} of content, {}",
            report::plural(verified.items, "item"),
            report::plural(verified.members, "member"),
            report::bytes(verified.bytes),
            report::seconds(seconds),
        );
    }
    Ok(Ending::Done)
}
