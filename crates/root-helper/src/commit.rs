//! The commit: the short time in which staged items become valid.
//!
//! Until the transaction commits, no additional item is valid. If a step before that fails, the drop of its guard
//! undoes it.

use super::connection::Conversation;
use super::guardian::{ArmRequest, Guardian};
use super::protocol::{Phase, Restored};
use super::store_context::{StoreTarget, directory};
use super::write_access::Access;
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, fsync, statat};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storecache_daemon::await_ready;
use storecache_runtime::threads;
use storecache_runtime::writeback::FinalFlush;
use storecache_store::{
    ItemName, LiveDatabase, Lock, LockMode, LockTimeout, Merge, Owner, Placement, Roots, Rows,
    Skipped, Staging, lock,
};
use tracing::{debug, info};

/// How long to wait for the database before assuming that a process that has it open waits for a lock of ours.
const STEP_ASIDE_AFTER: Duration = Duration::from_millis(100);

/// A restore that is completely staged.
pub struct Commit<'a> {
    pub talk: &'a Conversation,
    pub target: &'a StoreTarget,
    pub owner: Owner,
    pub staging: Staging,
    /// Keeps collectors from deleting staging and the items that staged items refer to.
    pub gc_lock: Lock,
    pub rows: Rows,
    pub access: Access,
    /// The final flush of the staged files to the disk.
    pub sync: FinalFlush,
}

impl Commit<'_> {
    /// Makes the staged items valid. The daemon is stopped meanwhile.
    pub fn run(mut self, guardian: &mut Guardian) -> Result<Restored> {
        self.talk.enter(Phase::Commit);
        let layout = &self.target.layout;
        // Collectors skip these roots until the items are valid.
        let mut roots = Roots::default();
        let (mut heads, rooted_for) = (self.rows.heads(None), self.rows.len());
        roots.add(layout, &heads, self.owner)?;
        self.talk.cancel.check()?;

        // Guards are dropped in reverse order: on a failure the rows are rolled back, the items return to staging,
        // the lock is released, the guardian starts the daemon, and finally the roots are removed.
        let mut armed =
            guardian.arm(&ArmRequest { takes_mount: self.access.mount_unit().is_some() })?;
        let durable = self.sync.is_wanted();
        let sync_seconds = std::mem::take(&mut self.sync).wait()?.as_secs_f64();

        // Wait for the lock while the daemon still runs, so that the daemon is stopped only when no other process
        // delays the commit.
        let (big_lock, skipped) = self.have_it_alone()?;
        info!(items = self.rows.len(), skipped = skipped.len(), sync_seconds, "stop the daemon");
        let stopped = Instant::now();
        let cancelled = || self.talk.cancel.check();
        armed.stop(&cancelled).context("stop the daemon")?;
        let mount = self.access.mount_unit();
        mount
            .map_or(Ok(()), |mount| mount.stop(&self.talk.run))
            .context("make the store writable")?;

        let committing = Instant::now();
        let place = Arc::new(directory(&layout.store())?);
        let mut placement = Placement::default();
        let merge = Merge::begin(layout, &self.rows, durable, &|| self.talk.cancel.check())?;
        let (cancel, staging) = (&self.talk.cancel, &self.staging.directory);
        std::thread::scope(|scope| {
            let placing = threads::start_in(scope, "to place the items", || {
                for name in &merge.added {
                    cancel.check()?;
                    placement.place(staging, &place, name.as_str())?;
                }
                verify_on_disk(&merge.added, &place)?;
                // The contents of the items were on the disk before the daemon stopped. Now their names are written,
                // and the rows after them, so that after a power failure no item is valid that is not on the disk.
                // Only the store directory is synchronized, not the whole file system, because other processes write
                // to it.
                let names = if durable { fsync(&place) } else { Ok(()) };
                names.context("write the names of the placed items to the disk")
            })?;
            let inserted = merge.insert(layout, &self.rows);
            placing
                .join()
                .unwrap_or_else(|_| bail!("the thread that places the items panicked"))
                .and(inserted)
        })?;
        if merge.added.len() < rooted_for {
            heads = self.rows.heads(Some(&merge.added));
            roots.change(layout, &heads, self.owner)?;
        }
        let added = merge.added.clone();
        // The last check: an earlier cancellation undoes the commit, a later one does not.
        self.talk.cancel.check()?;
        merge.commit(layout)?;
        placement.keep();
        roots.keep();
        drop(big_lock);
        let commit_seconds = committing.elapsed().as_secs_f64();

        self.talk.enter(Phase::Daemon);
        let charge = armed.charge.clone();
        armed.start().context("the items are valid, but the daemon did not start again")?;
        let downtime_seconds = if charge.runs { stopped.elapsed().as_secs_f64() } else { 0.0 };
        info!(items = added.len(), commit_seconds, downtime_seconds, "the items are valid");
        self.talk.enter(Phase::Verify);
        let verifying = Instant::now();
        if charge.runs {
            self.verify_through_daemon(&added)?;
        }
        Ok(Restored {
            items: added.len() as u64,
            names: added.iter().map(ToString::to_string).collect(),
            overtaken: (self.rows.len() - added.len()) as u64,
            skipped: skipped.into_iter().map(|s| (s.name.to_string(), s.reason)).collect(),
            bytes: 0,
            roots: heads.len() as u64,
            daemon: self.why(&charge.why),
            warnings: charge.warnings,
            sync_seconds,
            commit_seconds,
            downtime_seconds,
            verify_seconds: verifying.elapsed().as_secs_f64(),
            content_seconds: None,
        })
    }

    /// Returns which daemon was stopped, and why.
    fn why(&self, daemon: &str) -> String {
        match self.access.mount_unit() {
            None => daemon.to_owned(),
            Some(unit) => {
                format!(
                    "{daemon}; {} was also stopped, because mounting is not permitted",
                    unit.name
                )
            }
        }
    }

    /// Waits until no other process has the database open.
    ///
    /// A collector has it open and waits for the lock that this process holds, while this process waits for the
    /// collector. In that case staging is moved out of the store, the collector is allowed to run, and the choice of
    /// items is made again. Returns the lock, and the items that can no longer become valid.
    fn have_it_alone(&mut self) -> Result<(Lock, Vec<Skipped>)> {
        let layout = &self.target.layout;
        let cancelled = || self.talk.cancel.check();
        let timeout = self.target.lock_timeout;
        let exclusive = |timeout| {
            let (path, kind) = (layout.big_lock(), layout.lock_kind);
            lock(&self.talk.run, &path, kind, LockMode::Exclusive, timeout, &cancelled)
                .context("wait for exclusive access to the database")
        };
        match exclusive(STEP_ASIDE_AFTER.min(timeout)) {
            Err(e) if e.downcast_ref::<LockTimeout>().is_some() => {}
            other => return Ok((other?, Vec::new())),
        }
        debug!("another process uses the database");
        if self.staging.step_aside(layout).is_err() {
            debug!("staging cannot leave the store, so a collector cannot run");
            // The store is on a mount of its own, so the only choice is to wait.
            return Ok((exclusive(timeout)?, Vec::new()));
        }
        debug!(staging = %self.staging.path().display(), "let a collector run");
        self.gc_lock.release()?;
        let big_lock = exclusive(timeout)?;
        // A collector keeps the database open, so no collector runs while this process holds the lock on the
        // database.
        self.gc_lock = self.target.gc_lock(&cancelled)?;
        let live = LiveDatabase::open(layout)?.valid(layout)?;
        Ok((big_lock, self.rows.drop_unrestorable(&live)))
    }

    /// Checks that the daemon itself considers every restored item valid.
    fn verify_through_daemon(&self, added: &HashSet<ItemName>) -> Result<()> {
        let StoreTarget { layout, daemon_timeout, .. } = self.target;
        let paths: Vec<String> = added.iter().map(|name| layout.path_of(name)).collect();
        let mut client = await_ready(
            &self.talk.run,
            &layout.socket(),
            &self.target.layout.probe(),
            *daemon_timeout,
        )?;
        let valid = client.valid(&paths)?;
        if valid.len() != paths.len() {
            bail!("the daemon reports {} of {} restored items as valid", valid.len(), paths.len());
        }
        Ok(())
    }
}

/// Checks that the item of every row that is about to be committed is in place.
fn verify_on_disk(added: &HashSet<ItemName>, place: &OwnedFd) -> Result<()> {
    for name in added {
        statat(place, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("check that {name} is in the store"))?;
    }
    Ok(())
}
