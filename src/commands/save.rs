//! `save`: decide, freeze, pack, write, delete superseded entries, report.

use super::delta_base::DeltaBase;
use super::job_state::State;
use super::open_entry::{BaseGone, OpenEntry};
use super::policy::{self, Newest};
use super::resolve::{book_skipped, find};
use super::session::{Session, enter, failure, reported, tell_skipped};
use super::trust::{self, Untrusted};
use super::{Conclusion, cancel, profiles, quarantine, retention, summary_file};
use crate::action;
use crate::config::{Baseline, JobStatus, Policy, Save, Signing, Trust};
use crate::report::{self, BaseUse, Growth, Outcome, Progress};
use anyhow::{Context, Result, bail};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;
use storecache_backend::{Backend, EntryName, Refused, Written};
use storecache_entry::{Digest, Ladder};
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::protocol::{Phase, Reply, Request, SaveRequest};
use storecache_runtime::liveness;
use storecache_snapshot::{DELTA, FULL, Frame, Head, Origin, SnapshotWriter, StoreFacts};
use storecache_store::StoreKind;

/// Why an item is left out with `--max-size`.
const BEHIND: &str = "used least recently, and the maximum size has no room for all";

/// Saves the store that the options name, if the policy finds it worthwhile.
pub fn save(options: &Save) -> Result<Conclusion> {
    attempt(options).1.map(|()| Conclusion::Done)
}

/// As [`save`], with the report in any case.
pub(super) fn attempt(options: &Save) -> (Outcome, Result<()>) {
    let clocks = cancel::start_clocks(&options.clocks);
    let empty = Outcome {
        command: "save",
        dry_run: options.dry_run,
        saved: Some(false),
        ..Outcome::default()
    };
    let state = OnceCell::new();
    let run = |outcome: &mut Outcome| {
        let state = state.get_or_init(|| State::find(options, outcome));
        clocks.and_then(|()| run(options, state.as_ref(), outcome)).map_err(|e| failure(outcome, e))
    };
    let leave = |outcome: &mut Outcome| {
        let restore = state.get().and_then(Option::as_ref).map(|state| &state.restore);
        summary_file::append(options.summary.as_deref(), restore, Some(&outcome.clone()), outcome);
    };
    reported(&options.output, empty, run, leave, tell)
}

fn run(options: &Save, state: Option<&State>, outcome: &mut Outcome) -> Result<()> {
    let Save { store, key, backends, output, policy, .. } = options;
    enter(&mut outcome.phase, Phase::Start);
    profiles::check(options.profiles, store)?;
    outcome.seconds.job = state.and_then(State::job_seconds);
    outcome.job_status = policy.job_status.map(|status| status.name().to_owned());
    // A job that ended early does not show how long a whole job takes.
    let whole = matches!(policy.job_status, None | Some(JobStatus::Success));
    outcome.seconds.cold = state.filter(|_| whole).and_then(State::cold_seconds);
    let origin = action::origin();
    let Signing { keys, trust } = &options.signing;
    let reason = policy::before_all(policy);
    if let Some(reason) =
        reason.or_else(|| trust::before_all(policy.policy, &options.signing, &origin))
    {
        outcome.key = state.map(|state| state.restore.key.clone()).unwrap_or_default();
        outcome.reason = Some(reason);
        return Ok(());
    }
    let key = state.map_or_else(|| key.clone(), |state| state.key(key));
    let Session { mut root, key, backend, mut progress, .. } =
        Session::begin(store, &key, backends, output, options.memory.traffic, outcome)?;
    // A save uses a single backend, so that a delta is stored beside its base.
    let chosen = backend.to_write();
    outcome.warnings.extend(backend.warnings());
    let backend = match chosen {
        Ok(chosen) => chosen.unwrap_or(backend),
        Err(e) => return not_saved(e.downcast::<Refused>()?, policy.policy, outcome),
    };
    outcome.backend = backend.describe();
    if let Err(refused) = backend.can_write() {
        return not_saved(refused, policy.policy, outcome);
    }

    progress.fold("save: look for existing entries");
    let looking = Instant::now();
    let exact = Ladder { rungs: key.ladder.rungs[..1].to_vec() };
    // The contents of a plain directory may change while its name stays the same.
    let delta = options
        .delta
        .filter(|_| StoreKind::parse(&outcome.store).is_ok_and(StoreKind::has_database));
    let needed = delta.is_some() || policy.policy == Policy::Auto;
    let bad = quarantine::bad(backend.as_ref(), &options.quarantine, state);
    if !options.dry_run {
        quarantine::sweep(backend.as_ref(), &options.quarantine);
    }
    let mut seen = bad.clone();
    let found = look(backend.as_ref(), &exact, needed, (&bad, trust), &mut seen, outcome)?;
    // The cache service may have turned out to use another version of the protocol than expected.
    outcome.backend = backend.describe();
    book_skipped(backend.as_ref(), outcome);
    let newest = found.as_ref().map(|(name, opened)| (name, opened));
    let newest = Newest::read(policy, newest, &bad, state, outcome);
    let foundation = match (delta, options.delta) {
        (Some(_), _) => DeltaBase::find(backend.as_ref(), found, (&bad, trust), state, outcome),
        (None, None) => {
            let reason = Some("--full was given".into());
            outcome.base = Some(BaseUse { reason, ..BaseUse::default() });
            None
        }
        (None, Some(_)) => None,
    };
    outcome.seconds.lookup = looking.elapsed().as_secs_f64();

    enter(&mut outcome.phase, Phase::Pack);
    progress.fold("save: freeze, pack and write");
    let profiles = profiles::find(options, outcome);
    let request = SaveRequest {
        level: options.level,
        long: options.long,
        memory: options.memory.packing,
        leave_out: baseline(options, state),
        known: newest.as_ref().map(|newest| newest.holds.clone()).unwrap_or_default(),
        restored: state.map(|state| state.restored.clone()).unwrap_or_default(),
        roots: options.roots.clone(),
        max_size: options.max_size,
        base: foundation.as_ref().map(|foundation| foundation.items.clone()),
    };
    root.holds(options.memory.frames);
    root.send(&Request::Save(request), &[])?;
    let reply = root.receive()?.0;
    let Reply::Frozen { items, nar_bytes, facts, left_out, outside, behind, growth, own, used } =
        reply
    else {
        bail!("unexpected reply from the root helper (expected `Frozen`)");
    };
    outcome.items.outside = outside;
    outcome.items.skipped = behind.len() as u64;
    outcome.skipped.extend(behind.into_iter().map(|name| (name, BEHIND.to_owned())));
    outcome.items.baseline = left_out;
    outcome.items.used = used.map(|used| used.used);
    outcome.items.unused = used.map(|used| used.unused);
    outcome.bytes.unused = used.map(|used| used.unused_bytes);
    if newest.is_some() {
        outcome.growth = Some(Growth { items: growth.items, bytes: growth.nar_bytes });
    }
    if let Some(reason) = policy::after_freeze(policy, newest.as_ref(), items, growth) {
        outcome.reason = Some(reason);
        return Ok(());
    }
    let ingredients = state.map_or_else(|| key.digests(), |state| state.ingredients.clone());
    let cold_seconds = outcome.seconds.cold;
    let watched_since = used.and_then(|_| watched_since(options, state?));
    let facts = head(&key.text, ingredients, facts, origin, items, nar_bytes);
    let mut head =
        Head { profiles, cold_seconds, watched_since: watched_since.map(Into::into), ..facts };
    let foundation = foundation
        .zip(delta)
        .filter(|(foundation, delta)| foundation.carries(delta, own, &head, outcome))
        .map(|(foundation, _)| foundation);
    let to_pack = own.filter(|_| foundation.is_some());
    let (items, nar_bytes) =
        to_pack.map_or((items, nar_bytes), |own| (own.items, own.nar_bytes.unwrap_or(nar_bytes)));
    if let Some(foundation) = &foundation {
        head.format = DELTA;
        head.base = Some(foundation.name().into());
        progress.detail(|| format!("a delta on {}", foundation.name()));
    }
    progress.detail(|| format!("{} to pack", report::plural(items, "item")));
    progress.phase("pack", nar_bytes, Some(items));
    let entry = EntryName::after(&key.text, &seen);
    if options.dry_run {
        let out = std::io::sink();
        let out = SnapshotWriter::new(out, &head)?.signed_with(keys);
        pack(&mut root, out, &head, foundation.as_ref(), &mut progress, outcome)?;
        return Ok(());
    }
    // The root helper has reported its phase; from here on it waits for this process.
    liveness::enter(outcome.phase);
    let writer = match backend.create(&entry) {
        Ok(writer) => writer,
        Err(e) => return not_saved(e.downcast::<Refused>()?, policy.policy, outcome),
    };
    let out = SnapshotWriter::new(writer, &head)?.signed_with(keys);
    let writer = pack(&mut root, out, &head, foundation.as_ref(), &mut progress, outcome)?;
    let others = policy::overtaken(policy, backend.as_ref(), &exact, &seen, trust, head.items);
    if let Some(name) = others {
        drop(writer);
        return not_saved(Refused::Taken(name.to_string()), policy.policy, outcome);
    }
    let uploading = Instant::now();
    let Written { entry: written, sync } = writer.finish()?;
    outcome.seconds.sync = sync.as_secs_f64();
    outcome.seconds.upload += uploading.elapsed().as_secs_f64() - outcome.seconds.sync;
    outcome.bytes.uploaded = written.size;
    outcome.entry = Some(written.name.to_string());
    outcome.saved = Some(true);
    outcome.signed_by = keys.iter().map(|key| key.name().to_owned()).collect();
    if let Some(keep) = options.keep {
        retention::retain(backend.as_ref(), &written, keep, &bad, outcome);
    }
    Ok(())
}

/// Returns the newest entry of the key, opened, if it is `needed`. A delta without its base counts as absent,
/// and so does an untrusted entry. Adds every entry that is found to `seen`, which contains the `bad` entries
/// already.
fn look(
    backend: &dyn Backend,
    exact: &Ladder,
    needed: bool,
    (bad, trust): (&[EntryName], &Trust),
    seen: &mut Vec<EntryName>,
    outcome: &mut Outcome,
) -> Result<Option<(EntryName, Result<OpenEntry>)>> {
    loop {
        let found = match find(backend, exact, seen) {
            // A run may be allowed to write but not to read.
            Err(e) if e.is::<Refused>() => return Ok(None),
            found => found?,
        };
        let Some((name, hit)) = found else { return Ok(None) };
        outcome.hit = hit;
        outcome.matched_key = Some(name.key.clone());
        seen.push(name.clone());
        if !needed {
            return Ok(None);
        }
        match OpenEntry::open(backend, &name, (bad, trust), &mut 0) {
            Err(e) if e.is::<BaseGone>() || e.is::<Untrusted>() => {
                outcome.passed_over.push((name.to_string(), format!("{e:#}")));
            }
            opened => return Ok(Some((name, opened))),
        }
    }
}

/// Records why the backend does not accept an entry. This is an error if the policy requires a save, unless
/// another run writes the same entry.
fn not_saved(refused: Refused, policy: Policy, outcome: &mut Outcome) -> Result<()> {
    if policy != Policy::Auto && !matches!(refused, Refused::Taken(_)) {
        return Err(refused.into());
    }
    outcome.reason = Some(refused.to_string());
    Ok(())
}

/// Names of the items from before the restore, if they are to be left out. The list is empty for plain
/// directories, which are never left out because a restore may have changed them.
fn baseline(options: &Save, state: Option<&State>) -> Vec<String> {
    match options.baseline {
        Baseline::Include => Vec::new(),
        Baseline::Exclude => state.and_then(|state| state.baseline.clone()).unwrap_or_default(),
    }
}

/// End of the restore, if all saved items from before that time were restored. For any other item it is not
/// known whether it was read.
fn watched_since(options: &Save, state: &State) -> Option<String> {
    let nothing_before = || state.baseline.as_ref().is_some_and(Vec::is_empty);
    let alone = options.baseline == Baseline::Exclude || nothing_before();
    alone.then(|| state.when.clone())
}

/// Receives the frames from the root helper and writes a snapshot of them, which is a delta if there is a
/// `foundation`.
fn pack<W: Write>(
    root: &mut RootHelperProcess,
    mut snapshot: SnapshotWriter<W>,
    head: &Head,
    foundation: Option<&DeltaBase>,
    progress: &mut Progress,
    outcome: &mut Outcome,
) -> Result<W> {
    root.send(&Request::Pack { delta: foundation.is_some() }, &[])?;
    let packing = Instant::now();
    let mut writing = 0.0;
    loop {
        let (reply, bytes) = root.receive()?;
        match reply {
            Reply::Frame { raw, sha256, continues, items, raw_total } => {
                progress.at(raw_total, Some(items));
                outcome.bytes.packed = raw_total;
                let before = Instant::now();
                let (bytes, _claim) = bytes.into_parts();
                let frame = Frame { bytes, raw, sha256, continues, progress: Default::default() };
                snapshot.frame(frame).context("write the snapshot")?;
                writing += before.elapsed().as_secs_f64();
            }
            Reply::Packed {
                items_under,
                items,
                inherited,
                database,
                missing,
                left_out,
                rows_only,
            } => {
                profiles::packed(&head.profiles, &items, &inherited, outcome);
                outcome.items.saved = (items.len() + inherited.len()) as u64;
                outcome.items.inherited = inherited.len() as u64;
                outcome.items.skipped += missing.len() as u64;
                let gone = |name| {
                    (
                        name,
                        "valid in the database, but not on the disk: see nix-store --verify"
                            .to_owned(),
                    )
                };
                let passed = |name| (name, "not a file, directory or link".to_owned());
                outcome.skipped.extend(missing.into_iter().map(gone));
                outcome.skipped.extend(left_out.into_iter().map(passed));
                let base = foundation.map(|foundation| foundation.named(inherited));
                let (out, _, length) = snapshot
                    .finish(&items_under, items, database, base, Some(rows_only))
                    .context("write the snapshot")?;
                outcome.bytes.snapshot = length;
                outcome.seconds.upload = writing;
                outcome.seconds.pack = packing.elapsed().as_secs_f64() - writing;
                return Ok(out);
            }
            _ => bail!("unexpected reply from the root helper (expected `Frame`)"),
        }
    }
}

fn head(
    key: &str,
    ingredients: BTreeMap<String, Digest>,
    store: StoreFacts,
    origin: Origin,
    items: u64,
    nar_bytes: u64,
) -> Head {
    Head {
        format: FULL,
        tool: concat!("storecache ", env!("CARGO_PKG_VERSION")).into(),
        store,
        key: key.into(),
        base: None,
        ingredients,
        origin,
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        items,
        nar_bytes,
        cold_seconds: None,
        watched_since: None,
        profiles: Vec::new(),
    }
}

fn tell(outcome: &Outcome) {
    let Outcome { items, bytes, seconds, .. } = outcome;
    if let Some(reason) = &outcome.reason {
        report::note(format!("storecache: nothing was saved: {reason}"));
        return;
    }
    let verb = if outcome.dry_run { "would save" } else { "saved" };
    report::note(format!(
        "storecache: {verb} {} as {} ({} packed into {}) in {}",
        report::plural(items.saved - items.inherited, "item"),
        outcome.entry.as_deref().unwrap_or(&outcome.key),
        report::bytes(bytes.packed),
        report::bytes(bytes.snapshot),
        report::seconds(seconds.total),
    ));
    if let Some(base) = outcome.base.as_ref().and_then(BaseUse::used) {
        let inherited = report::plural(items.inherited, "item");
        report::note(format!("storecache: {inherited} more are in its base {base}"));
    }
    if !outcome.signed_by.is_empty() {
        report::note(format!("storecache: signed by {}", outcome.signed_by.join(", ")));
    }
    if items.baseline > 0 {
        report::note(format!(
            "storecache: left out {} from before the restore",
            report::plural(items.baseline, "item")
        ));
    }
    if items.outside > 0 {
        report::note(format!(
            "storecache: left out {} outside the closures of --roots",
            report::plural(items.outside, "item")
        ));
    }
    if !outcome.dry_run {
        report::note(format!("storecache: stored in {}", outcome.backend));
    }
    for entry in &outcome.deleted {
        report::note(format!("storecache: deleted {entry}, which is superseded"));
    }
    profiles::tell(outcome);
    tell_skipped(outcome);
}
