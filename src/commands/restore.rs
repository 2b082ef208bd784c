//! `restore`: look up, plan, download, have the root helper stage and commit, report.

use super::entry_fallback::{EntryFallback, Verdict};
use super::job_state::{RestoreStart, State};
use super::open_entry::OpenEntry;
use super::resolve::{book_skipped, find};
use super::session::{Session, enter, failure, reported, tell_skipped};
use super::summary_file;
use super::{Conclusion, cancel, profiles, quarantine, require};
use crate::config::Restore;
use crate::report::{self, BaseUse, Hit, Outcome, Progress, Seconds};
use anyhow::{Result, anyhow, bail};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Instant;
use storecache_backend::{Backend, EntryName, Refused};
use storecache_entry::{Digest, Ladder};
use storecache_key::Key;
use storecache_root_helper::client::{self, Cancelled, RootFailure, RootHelperProcess};
use storecache_root_helper::protocol::{
    FrameId, Phase, Plan, Reply, Request, RestoreRequest, Restored, SnapshotRole,
};
use storecache_runtime::liveness::TimedOut;
use storecache_snapshot::SnapshotError;

/// Restores items that are missing from the store from the best entry that the ladder finds.
pub fn restore(options: &Restore) -> Result<Conclusion> {
    let (outcome, done) = attempt(options);
    done.map(|()| ending(&outcome, options.fail_on_miss))
}

/// The ending of a restore that did not fail.
pub(super) fn ending(outcome: &Outcome, fail_on_miss: bool) -> Conclusion {
    let missed = outcome.hit == Hit::Miss || !require::met(outcome);
    if missed && fail_on_miss { Conclusion::Miss } else { Conclusion::Done }
}

/// As [`restore`], with the report in any case.
pub(super) fn attempt(options: &Restore) -> (Outcome, Result<()>) {
    let clocks = cancel::start_clocks(&options.clocks);
    let empty = Outcome { command: "restore", dry_run: options.dry_run, ..Outcome::default() };
    let begun = RefCell::new(RestoreStart::default());
    let run = |outcome: &mut Outcome| {
        let done = clocks.and_then(|()| run(options, &mut begun.borrow_mut(), outcome));
        done.map_err(|e| {
            if committed(&e) || (!options.dry_run && outcome.items.restored > 0) {
                return failure(outcome, e);
            }
            outcome.hit = Hit::Miss;
            let line = failure(outcome, e);
            let kept = quarantine::told(outcome).map(|kept| format!("; {kept}"));
            let kept = kept.unwrap_or_default();
            let tried = match (&outcome.cut, outcome.passed_over.len()) {
                (Some(_), skipped @ 1..) => {
                    let entries = report::plural(skipped as u64, "entry");
                    format!("; {entries} had been skipped by then")
                }
                _ => String::new(),
            };
            outcome.undoing = client::is_still_undoing();
            let store = if outcome.undoing {
                "and the root helper is still undoing its changes: after that, the store will be \
                 as it was"
            } else {
                "the store is as it was"
            };
            anyhow!("{line}{tried}; nothing was restored, {store}{kept}")
        })
    };
    let leave = |outcome: &mut Outcome| {
        State::leave(options, begun.take(), outcome);
        summary_file::append(options.summary.as_deref(), Some(&outcome.clone()), None, outcome);
    };
    reported(&options.output, empty, run, leave, tell)
}

/// Whether the root helper failed only after the items had become valid.
fn committed(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<RootFailure>();
    failure.is_some_and(|failure| failure.phase.is_after_commit())
}

fn run(options: &Restore, begun: &mut RestoreStart, outcome: &mut Outcome) -> Result<()> {
    let Restore { store, key, backends, output, .. } = options;
    enter(&mut outcome.phase, Phase::Start);
    profiles::check(options.profiles, store)?;
    let mut session =
        Session::begin(store, key, backends, output, options.memory.traffic, outcome)?;
    begun.ingredients = session.key.digests();
    if options.state.is_some() {
        begun.baseline = Some(valid(&mut session.root)?);
    }
    begun.restored = restore_items(&mut session, options, outcome)?;
    require::check(&mut session.root, &options.require, outcome)
}

/// Names of the ingredients whose digests differ from those of a snapshot. Empty if only the version differs.
fn moved(ours: &BTreeMap<String, Digest>, theirs: &BTreeMap<String, Digest>) -> Vec<String> {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let names = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    names.cloned().collect()
}

fn moved_in_words(moved: &[String]) -> String {
    match moved {
        [] => "the snapshot has a different key for the same files".into(),
        some => format!("{} changed since the snapshot", some.join(", ")),
    }
}

/// The items that are valid now: the baseline of this job.
fn valid(root: &mut RootHelperProcess) -> Result<Vec<String>> {
    root.send(&Request::Valid, &[])?;
    match root.receive()?.0 {
        Reply::Valid(names) => Ok(names),
        _ => bail!("unexpected reply from the root helper (expected `Valid`)"),
    }
}

/// The items that a restore made valid, with their last use in seconds since 1970 if the snapshot records it.
type RestoredItems = BTreeMap<String, Option<u64>>;

/// Restores from the best entry, or from the next older one if an entry turns out to be bad.
fn restore_items(
    session: &mut Session,
    options: &Restore,
    outcome: &mut Outcome,
) -> Result<RestoredItems> {
    let Session { root, key, backend, progress, request } = session;
    let backend = backend.as_ref();
    let mut passed = EntryFallback::begin(backend, options, request.kind, &key.ladder, outcome);
    loop {
        outcome.phase = Phase::Lookup.name();
        progress.fold("restore: look for an entry");
        let looking = Instant::now();
        let found = look(backend, &key.ladder, &mut passed, outcome);
        // The cache service may have turned out to use another version of the protocol than expected.
        outcome.backend = backend.describe();
        outcome.warnings.extend(backend.warnings());
        book_skipped(backend, outcome);
        outcome.seconds.lookup += looking.elapsed().as_secs_f64();
        let Some((name, mut entry, hit)) = found? else { return Ok(RestoredItems::new()) };
        let before = outcome.clone();
        let error = match restore_entry(root, key, progress, &mut entry, hit, options, outcome) {
            Ok(brought) => {
                passed.tell(outcome);
                return Ok(brought);
            }
            Err(error) if committed(&error) => return Err(error),
            Err(error) => error,
        };
        let (verdict, error) = passed.judge(&name, Some(&entry), error)?;
        progress.detail(|| format!("{name} cannot be used: {error:#}"));
        // This entry restored nothing, but its costs stay in the report.
        let (phase, downloaded) = (outcome.phase, outcome.bytes.downloaded);
        let seconds = Seconds { download: outcome.seconds.download, ..before.seconds };
        *outcome = Outcome { phase, seconds, ..before };
        outcome.bytes.downloaded = downloaded;
        if let Verdict::Over(unfit) = verdict {
            passed.over(&name, (unfit, error), outcome)?;
        }
        // The root helper undoes its changes before the next attempt.
        root.again(request)?;
    }
}

fn restore_entry(
    root: &mut RootHelperProcess,
    key: &Key,
    progress: &mut Progress,
    entry: &mut OpenEntry,
    hit: Hit,
    options: &Restore,
    outcome: &mut Outcome,
) -> Result<RestoredItems> {
    let head = &entry.opened.head;
    outcome.signed_by.clone_from(&entry.signed_by);
    outcome.bytes.snapshot = entry.size();
    outcome.base = head
        .base
        .as_ref()
        .map(|base| BaseUse { entry: Some(base.raw().to_owned()), ..BaseUse::default() });
    outcome.created = Some(head.created.raw().to_owned());
    if hit == Hit::Prefix {
        outcome.moved = moved(&key.digests(), &head.ingredients);
        progress.detail(|| format!("no exact hit: {}", moved_in_words(&outcome.moved)));
    }
    outcome.seconds.cold = head.cold_seconds;
    let found = || {
        let items = report::plural(head.items, "item");
        let on = head.base.iter().map(|base| format!(", a delta on {base}")).collect::<String>();
        format!("{items} in {}, made {}{on}", report::bytes(entry.size()), head.created)
    };
    let name = &entry.name;
    progress.detail(|| format!("{} entry {name}: {}", hit.name(), found()));
    if options.lookup_only {
        outcome.hit = hit;
        outcome.reason = Some(format!("looked up, not restored: {}", found()));
        return Ok(RestoredItems::new());
    }

    enter(&mut outcome.phase, Phase::Plan);
    progress.fold("restore: plan");
    let mut fetch = Fetch {
        entry,
        downloaded: &mut outcome.bytes.downloaded,
        seconds: &mut outcome.seconds.download,
    };
    let plan = plan(root, options, &mut fetch)?;
    outcome.hit = hit;
    outcome.items.present = plan.present;
    outcome.items.skipped = plan.skipped.len() as u64;
    outcome.skipped.clone_from(&plan.skipped);
    outcome.warnings.extend(plan.warnings.iter().cloned());
    for &FrameId { which, number } in &plan.frames {
        if let Some(frame) = fetch.entry.facts(which, number) {
            options.memory.check(frame.size, frame.raw)?;
        }
    }
    progress.detail(|| {
        let wanted = report::plural(plan.wanted, "item");
        let size = report::bytes(plan.disk_bytes);
        let frames = report::plural(plan.frames.len() as u64, "frame");
        format!("{wanted} ({size}) to restore from {frames}, {} there already", plan.present)
    });
    if plan.wanted == 0 {
        outcome.reason = Some("nothing to do: every item is there already".into());
        if !plan.skipped.is_empty() {
            let left_out = report::plural(plan.skipped.len() as u64, "item");
            outcome.reason =
                Some(format!("nothing to do: {left_out} left out: {}", plan.skipped[0].1));
        }
        profiles::restore(options, &entry.opened, outcome);
        return Ok(RestoredItems::new());
    }
    if options.dry_run {
        outcome.items.restored = plan.wanted;
        outcome.bytes.unpacked = plan.disk_bytes;
        profiles::restore(options, &entry.opened, outcome);
        return Ok(RestoredItems::new());
    }

    enter(&mut outcome.phase, Phase::Unpack);
    progress.fold("restore: fetch, unpack and commit");
    let unpacking = Instant::now();
    progress.phase("restore", plan.disk_bytes, Some(plan.wanted));
    let restored = stage_and_commit(root, &plan, &mut fetch, progress)?;
    let whole = unpacking.elapsed().as_secs_f64();
    outcome.items.restored = restored.items;
    outcome.items.present += restored.overtaken;
    outcome.items.skipped += restored.skipped.len() as u64;
    outcome.skipped.extend(restored.skipped);
    outcome.items.rooted = restored.roots;
    outcome.bytes.unpacked = restored.bytes;
    outcome.daemon = restored.daemon;
    outcome.warnings.extend(restored.warnings);
    outcome.seconds.sync = restored.sync_seconds;
    outcome.seconds.commit = restored.commit_seconds;
    outcome.seconds.downtime = restored.downtime_seconds;
    outcome.seconds.verify = restored.verify_seconds;
    outcome.seconds.content = restored.content_seconds;
    let daemon = restored.commit_seconds.max(restored.downtime_seconds);
    let other = outcome.seconds.download
        + restored.content_seconds.unwrap_or_default()
        + restored.sync_seconds
        + daemon;
    outcome.seconds.unpack = (whole - other).max(0.0);
    profiles::restore(options, &entry.opened, outcome);
    let brought: HashSet<&String> = restored.names.iter().collect();
    let index = &entry.opened.index;
    let inherited = index.base.iter().flat_map(|base| &base.items);
    let own = index.items.iter().map(|item| (&item.name, item.used));
    let items = own.chain(inherited.map(|item| (&item.name, item.used)));
    let items = items.filter(|(name, _)| brought.contains(name));
    Ok(items.map(|(name, used)| (name.clone(), used)).collect())
}

/// Returns the best entry that can be opened and was not skipped. Otherwise records the reason.
fn look(
    backend: &dyn Backend,
    ladder: &Ladder,
    passed: &mut EntryFallback<'_>,
    outcome: &mut Outcome,
) -> Result<Option<(EntryName, OpenEntry, Hit)>> {
    loop {
        let (name, hit) = match find(backend, ladder, passed.names()) {
            Ok(Some(found)) => found,
            Ok(None) => {
                passed.nothing(outcome)?;
                (outcome.matched_key, outcome.entry) = (None, None);
                let nothing =
                    format!("no entry for the key or its prefixes in {}", outcome.backend);
                outcome.reason = Some(match passed.untrusted() {
                    None => nothing,
                    Some(why) => format!("{nothing} can be used: {why}"),
                });
                return Ok(None);
            }
            Err(e) if e.is::<Refused>() => {
                outcome.reason = Some(e.to_string());
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        outcome.matched_key = Some(name.key.clone());
        outcome.entry = Some(name.to_string());
        let error = match passed.open(ladder, (&name, hit), &mut outcome.bytes.downloaded) {
            Ok(entry) => return Ok(Some((name, entry, hit))),
            Err(error) => error,
        };
        if let (Verdict::Over(unfit), error) = passed.judge(&name, None, error)? {
            passed.over(&name, (unfit, error), outcome)?;
        }
    }
}

/// Sends index and database to the root helper, which returns the frames that it needs.
fn plan(root: &mut RootHelperProcess, options: &Restore, fetch: &mut Fetch<'_>) -> Result<Plan> {
    let opened = &fetch.entry.opened;
    let database = opened.index.database.as_ref().map(|database| database.frames);
    let request = RestoreRequest {
        store: opened.head.store.clone(),
        memory: options.memory.unpacking,
        replace: options.replace,
        verify_content: options.verify_content,
        sync: options.sync,
    };
    root.send(&Request::Restore(request), &opened.index_bytes)?;
    if let Some(base) = &fetch.entry.base {
        root.send(&Request::Base(base.opened.head.store.clone()), &base.opened.index_bytes)?;
    }
    loop {
        match root.receive()?.0 {
            Reply::NeedDatabase => {
                let missing = || SnapshotError::Damaged("the snapshot has no database".into());
                let frames = database.ok_or_else(missing)?;
                for number in frames.0..=frames.1 {
                    let frame = FrameId { which: SnapshotRole::Entry, number };
                    let bytes = fetch.frame(frame)?;
                    root.send(&Request::Frame(frame), &bytes)?;
                }
            }
            Reply::Plan(plan) => return Ok(plan),
            _ => bail!("unexpected reply from the root helper (expected `Plan`)"),
        }
    }
}

/// Sends the frames of the plan, then requests the commit.
fn stage_and_commit(
    root: &mut RootHelperProcess,
    plan: &Plan,
    fetch: &mut Fetch<'_>,
    progress: &mut Progress,
) -> Result<Restored> {
    fetch.entry.expect(&plan.frames);
    for &frame in &plan.frames {
        let bytes = fetch.frame(frame)?;
        root.send(&Request::Frame(frame), &bytes)?;
        while let Some(reply) = root.try_receive()? {
            if let Reply::Progress { items, bytes } = reply {
                progress.at(bytes, Some(items));
            }
        }
    }
    root.send(&Request::Commit, &[])?;
    loop {
        let reply = match root.receive() {
            Err(e) if e.is::<Cancelled>() || e.is::<TimedOut>() => {
                return root.settle().unwrap_or(Err(e));
            }
            reply => reply?.0,
        };
        match reply {
            Reply::Progress { items, bytes } => progress.at(bytes, Some(items)),
            Reply::Restored(restored) => return Ok(restored),
            _ => bail!("unexpected reply from the root helper (expected `Restored`)"),
        }
    }
}

/// Reads frames of an entry, with counts of bytes and time.
struct Fetch<'a> {
    entry: &'a mut OpenEntry,
    downloaded: &'a mut u64,
    seconds: &'a mut f64,
}

impl Fetch<'_> {
    fn frame(&mut self, frame: FrameId) -> Result<Vec<u8>> {
        let started = Instant::now();
        let bytes = self.entry.frame(frame)?;
        *self.downloaded += bytes.len() as u64;
        *self.seconds += started.elapsed().as_secs_f64();
        Ok(bytes)
    }
}

fn tell(outcome: &Outcome) {
    let Outcome { items, bytes, seconds, .. } = outcome;
    let from = outcome.entry.as_deref().unwrap_or_default();
    if items.restored == 0 {
        let reason = outcome.reason.as_deref().unwrap_or("nothing to do");
        report::note(format!("storecache: {}: {reason}", outcome.hit.name()));
        profiles::tell(outcome);
        tell_skipped(outcome);
        require::tell(outcome);
        return;
    }
    let verb = if outcome.dry_run { "would restore" } else { "restored" };
    report::note(format!(
        "storecache: {} hit: {verb} {} ({}) from {from} in {}; {} there before, {} skipped",
        outcome.hit.name(),
        report::plural(items.restored, "item"),
        report::bytes(bytes.unpacked),
        report::seconds(seconds.total),
        items.present,
        items.skipped,
    ));
    if seconds.downtime > 0.0 {
        report::note(format!(
            "storecache: the daemon was down for {}",
            report::seconds(seconds.downtime)
        ));
    }
    profiles::tell(outcome);
    tell_skipped(outcome);
    require::tell(outcome);
}
