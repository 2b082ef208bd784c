//! `save`: freeze, pack, write, report.

use super::Ending;
use super::lookup::find;
use super::profiles;
use super::session::{Session, failure, reported, tell_skipped};
use crate::action;
use crate::backend::EntryName;
use crate::key::{Key, Ladder};
use crate::options::Save;
use crate::privileged::client::RootHalf;
use crate::privileged::protocol::{Phase, Reply, Request, SaveRequest};
use crate::report::{self, Outcome, Progress};
use crate::snapshot::{Digest, FORMAT, Frame, Head, SnapshotWriter, StoreFacts};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::time::Instant;

/// Saves the store that `options` name.
pub fn save(options: &Save) -> Result<Ending> {
    attempt(options).1.map(|()| Ending::Done)
}

/// The same, with the report of it however it ended.
pub(super) fn attempt(options: &Save) -> (Outcome, Result<()>) {
    let empty = Outcome { command: "save", dry_run: options.dry_run, ..Outcome::default() };
    let run = |outcome: &mut Outcome| run(options, outcome).map_err(|e| failure(outcome, e));
    reported(&options.output, empty, run, tell)
}

fn run(options: &Save, outcome: &mut Outcome) -> Result<()> {
    let Save { store, key, backend, output, .. } = options;
    profiles::check(options.profiles, store)?;
    let Session { mut root, key, backend, mut progress } =
        Session::begin(store, key, backend, output, outcome)?;

    progress.fold("save: look for what is there");
    let looking = Instant::now();
    let exact = Ladder { rungs: key.ladder.rungs[..1].to_vec() };
    if let Some((entry, hit)) = find(backend.as_ref(), &exact)? {
        outcome.hit = hit;
        outcome.matched_key = Some(entry.name.key);
    }
    outcome.seconds.lookup = looking.elapsed().as_secs_f64();

    outcome.phase = Phase::Pack.name();
    progress.fold("save: freeze, pack and write");
    let profiles = profiles::find(options, outcome);
    let request = SaveRequest { level: options.level, threads: options.threads };
    root.send(&Request::Save(request), &[])?;
    let (Reply::Frozen { items, nar_bytes, facts }, _) = root.receive()? else {
        bail!("the root half did not freeze the store");
    };
    progress.detail(|| format!("{} to pack", report::plural(items, "item")));
    progress.phase("pack", nar_bytes, Some(items));
    let head = Head { profiles, ..head(&key, facts, items, nar_bytes) };
    let entry = EntryName::new(&key.text);
    root.send(&Request::Pack, &[])?;
    if options.dry_run {
        pack(&mut root, std::io::sink(), &head, &mut progress, outcome)?;
    } else {
        let writer = backend.create(&entry)?;
        let writer = pack(&mut root, writer, &head, &mut progress, outcome)?;
        let uploading = Instant::now();
        let written = writer.finish()?;
        outcome.seconds.upload += uploading.elapsed().as_secs_f64();
        outcome.bytes.uploaded = written.size;
        outcome.entry = Some(written.name.to_string());
    }
    Ok(())
}

/// Takes the frames from the root half and lays out a snapshot of them.
fn pack<W: Write>(
    root: &mut RootHalf,
    out: W,
    head: &Head,
    progress: &mut Progress,
    outcome: &mut Outcome,
) -> Result<W> {
    let packing = Instant::now();
    let mut writing = 0.0;
    let mut snapshot = SnapshotWriter::new(out, head)?;
    loop {
        let (reply, bytes) = root.receive()?;
        match reply {
            Reply::Frame { raw, sha256, continues, items, raw_total } => {
                if Digest::of(&bytes) != sha256 {
                    bail!("a frame was changed on its way from the root half");
                }
                progress.at(raw_total, Some(items));
                outcome.bytes.packed = raw_total;
                let before = Instant::now();
                let frame = Frame { bytes, raw, sha256, continues, progress: Default::default() };
                snapshot.frame(frame).context("write the snapshot")?;
                writing += before.elapsed().as_secs_f64();
            }
            Reply::Packed { items_under, items, database, missing, left_out } => {
                profiles::packed(&head.profiles, &items, outcome);
                outcome.items.saved = items.len() as u64;
                outcome.items.skipped = missing.len() as u64;
                let gone = |name| {
                    (
                        name,
                        "valid in the database, but not on the disk: see nix-store --verify"
                            .to_owned(),
                    )
                };
                let passed = |name| (name, "neither file, directory nor link".to_owned());
                outcome.skipped.extend(missing.into_iter().map(gone));
                outcome.skipped.extend(left_out.into_iter().map(passed));
                let (out, _, length) =
                    snapshot.finish(&items_under, items, database).context("write the snapshot")?;
                outcome.bytes.snapshot = length;
                outcome.seconds.upload = writing;
                outcome.seconds.pack = packing.elapsed().as_secs_f64() - writing;
                return Ok(out);
            }
            _ => bail!("the root half sent something else than a frame"),
        }
    }
}

fn head(key: &Key, store: StoreFacts, items: u64, nar_bytes: u64) -> Head {
    Head {
        format: FORMAT,
        tool: concat!("storecache ", env!("CARGO_PKG_VERSION")).into(),
        store,
        key: key.text.clone(),
        ingredients: key.digests(),
        origin: action::origin(),
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        items,
        nar_bytes,
        profiles: Vec::new(),
    }
}

fn tell(outcome: &Outcome) {
    let Outcome { items, bytes, seconds, .. } = outcome;
    let verb = if outcome.dry_run { "would save" } else { "saved" };
    report::note(format!(
        "storecache: {verb} {} as {} ({} packed into {}) in {}",
        report::plural(items.saved, "item"),
        outcome.entry.as_deref().unwrap_or(&outcome.key),
        report::bytes(bytes.packed),
        report::bytes(bytes.snapshot),
        report::seconds(seconds.total),
    ));
    if !outcome.dry_run {
        report::note(format!("storecache: it is in {}", outcome.backend));
    }
    profiles::tell(outcome);
    tell_skipped(outcome);
}
