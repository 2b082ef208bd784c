//! Restores one entry: plan, fetch its frames, have the root helper stage and commit.

use super::RestoreRun;
use crate::commands::guix_profiles;
use crate::commands::open_entry::OpenEntry;
use crate::commands::open_error::OpenError;
use crate::commands::run_error::RunError;
use crate::commands::session::Session;
use crate::config::Restore;
use crate::report::{self, BaseUse, Hit, Progress};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Instant;
use storecache_entry::Digest;
use storecache_root_helper::HelperError;
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::protocol::{
    FrameId, Phase, Plan, Reply, Request, RestoreRequest, Restored, SnapshotRole,
};
use storecache_snapshot::{Index, SnapshotError};
use tracing::{debug, trace};

impl RestoreRun<'_> {
    pub fn restore_entry(
        &mut self,
        session: &mut Session,
        entry: &mut OpenEntry,
        hit: Hit,
    ) -> Result<(), RunError> {
        let found = self.describe(session, entry, hit);
        if self.options.lookup_only {
            self.found.entry.hit = hit;
            self.found.reason = Some(format!("looked up, not restored: {found}"));
            return Ok(());
        }
        let mut fetch = Fetch { entry, downloaded: 0, seconds: 0.0 };
        let done = self.transfer(session, &mut fetch, hit);
        self.found.downloaded += fetch.downloaded;
        self.found.download_seconds += fetch.seconds;
        done?;
        let skipped = self.found.entry.skipped();
        self.found.entry.profiles = guix_profiles::restore(self.options, &entry.opened, &skipped);
        Ok(())
    }

    /// Records the facts that the head of an entry states. Returns its contents in words.
    fn describe(&mut self, session: &Session, entry: &OpenEntry, hit: Hit) -> String {
        let (name, head) = (&entry.name, &entry.opened.head);
        let facts = &mut self.found.entry;
        facts.signed_by.clone_from(&entry.signed_by);
        facts.snapshot_bytes = entry.size();
        let base = head.base.as_ref().map(|base| base.raw().to_owned());
        facts.base = base.map(|base| BaseUse { entry: Some(base), ..BaseUse::default() });
        facts.created = Some(head.created.raw().to_owned());
        facts.cold_seconds = head.cold_seconds;
        if hit == Hit::Prefix {
            facts.moved = moved(&session.key.digests(), &head.ingredients);
            session.progress.detail(|| format!("no exact hit: {}", moved_in_words(&facts.moved)));
        }
        let items = report::plural(head.items, "item");
        let on = head.base.iter().map(|base| format!(", a delta on {base}")).collect::<String>();
        let size = report::bytes(entry.size());
        let found = format!("{items} in {size}, made {}{on}", head.created);
        session.progress.detail(|| format!("{} entry {name}: {found}", hit.name()));
        found
    }

    /// Has the root helper plan, stage and commit.
    fn transfer(
        &mut self,
        session: &mut Session,
        fetch: &mut Fetch<'_>,
        hit: Hit,
    ) -> Result<(), RunError> {
        let Session { root, progress, .. } = session;
        self.found.run.enter(Phase::Plan);
        progress.fold("restore: plan");
        let plan = plan(root, self.options, fetch)?;
        self.found.entry.hit = hit;
        self.found.entry.plan = Some(plan.clone());
        for &FrameId { which, number } in &plan.frames {
            if let Some(frame) = fetch.entry.facts(which, number) {
                let fits = self.options.memory.check(frame.size, frame.raw);
                fits.map_err(anyhow::Error::from)?;
            }
        }
        debug!(
            wanted = plan.wanted,
            present = plan.present,
            skipped = plan.skipped.len(),
            disk_bytes = plan.disk_bytes,
            frames = plan.frames.len(),
            "received the plan"
        );
        progress.detail(|| {
            let wanted = report::plural(plan.wanted, "item");
            let size = report::bytes(plan.disk_bytes);
            let frames = report::plural(plan.frames.len() as u64, "frame");
            format!("{wanted} ({size}) to restore from {frames}, {} there already", plan.present)
        });
        if plan.wanted == 0 || self.options.dry_run {
            return Ok(());
        }
        self.found.run.enter(Phase::Unpack);
        progress.fold("restore: fetch, unpack and commit");
        let unpacking = Instant::now();
        progress.phase("restore", plan.disk_bytes, Some(plan.wanted));
        let restored = stage_and_commit(root, &plan, fetch, progress)?;
        self.found.entry.unpack_commit_seconds = unpacking.elapsed().as_secs_f64();
        debug!(
            frames = plan.frames.len(),
            bytes = fetch.downloaded,
            items = restored.items,
            daemon = restored.daemon,
            downtime_seconds = restored.downtime_seconds,
            "restored the entry"
        );
        self.found.start.restored = last_uses(&fetch.entry.opened.index, &restored.names);
        self.found.entry.restored = Some(restored);
        Ok(())
    }
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

/// The `names` of restored items, with their last use in seconds since 1970 if the snapshot records it.
fn last_uses(index: &Index, names: &[String]) -> BTreeMap<String, Option<u64>> {
    let names: HashSet<&String> = names.iter().collect();
    let inherited = index.base.iter().flat_map(|base| &base.items);
    let own = index.items.iter().map(|item| (&item.name, item.used));
    let items = own.chain(inherited.map(|item| (&item.name, item.used)));
    let items = items.filter(|(name, _)| names.contains(name));
    items.map(|(name, used)| (name.clone(), used)).collect()
}

/// Sends index and database to the root helper, which returns the frames that it needs.
fn plan(
    root: &mut RootHelperProcess,
    options: &Restore,
    fetch: &mut Fetch<'_>,
) -> Result<Plan, RunError> {
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
                let frames = database.ok_or_else(|| {
                    let missing = "the snapshot has no database".into();
                    OpenError::from(fetch.entry.unusable(SnapshotError::Damaged(missing)))
                })?;
                for number in frames.0..=frames.1 {
                    let frame = FrameId { which: SnapshotRole::Entry, number };
                    let bytes = fetch.frame(frame)?;
                    root.send(&Request::Frame(frame), &bytes)?;
                }
            }
            Reply::Plan(plan) => return Ok(plan),
            _ => return Err(HelperError::unexpected_reply("Plan").into()),
        }
    }
}

/// Sends the frames of the plan, then requests the commit.
fn stage_and_commit(
    root: &mut RootHelperProcess,
    plan: &Plan,
    fetch: &mut Fetch<'_>,
    progress: &mut Progress,
) -> Result<Restored, RunError> {
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
            Err(e @ (HelperError::Cancelled(_) | HelperError::TimedOut(_))) => {
                return Ok(root.settle().unwrap_or(Err(e))?);
            }
            reply => reply?.0,
        };
        match reply {
            Reply::Progress { items, bytes } => progress.at(bytes, Some(items)),
            Reply::Restored(restored) => return Ok(restored),
            _ => return Err(HelperError::unexpected_reply("Restored").into()),
        }
    }
}

/// Reads frames of an entry, with counts of bytes and time.
struct Fetch<'a> {
    entry: &'a mut OpenEntry,
    downloaded: u64,
    seconds: f64,
}

impl Fetch<'_> {
    fn frame(&mut self, frame: FrameId) -> Result<Vec<u8>> {
        let started = Instant::now();
        let bytes = self.entry.frame(frame)?;
        let FrameId { which, number } = frame;
        trace!(?which, number, bytes = bytes.len(), "fetched a frame");
        self.downloaded += bytes.len() as u64;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(bytes)
    }
}
