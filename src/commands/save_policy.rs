//! Decides whether a save is worthwhile. Always reports the reason.

use super::job_state::State;
use super::open_entry::OpenEntry;
use super::open_error::OpenError;
use super::{resolve, trust};
use crate::config::{JobStatus, Policy, SavePolicy, Trust};
use crate::report;
use anyhow::{Result, anyhow};
use storecache_backend::{Backend, EntryName};
use storecache_entry::Ladder;
use storecache_root_helper::protocol::{Growth, KnownItem};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, in_one_line};

/// Returns why nothing is to be saved, and what to do about it, as far as that is known before anything is read.
pub fn before_all(policy: &SavePolicy) -> Option<(String, Advice)> {
    let none = Advice::default();
    let (reason, advice) = match (policy.policy, policy.job_status) {
        (Policy::Never, _) => ("the policy is never to save", none),
        (Policy::Always, _) => return None,
        (Policy::Auto, Some(JobStatus::Failure)) if !policy.save_on_failure => {
            ("the job failed", Advice::hint("use --save-on-failure to save anyway"))
        }
        (Policy::Auto, Some(JobStatus::Cancelled)) => ("the job was canceled", none),
        (Policy::Auto, _) => return None,
    };
    Some((reason.into(), advice))
}

/// Contents of the newest entry of the key, if the save is to be compared with it.
pub struct Newest {
    name: String,
    pub holds: Vec<KnownItem>,
    /// The restore of this job could not use all of it.
    fell_short: bool,
}

impl Newest {
    /// Returns `None` if the entry is to be superseded: if this job could not restore it, or if one of the `bad` entries is newer, because a run that does not know the bad entry would
    /// try that one first.
    ///
    /// # Errors
    /// If the entry cannot be read, so that it is to be superseded too.
    pub fn read(
        context: &RunContext,
        policy: &SavePolicy,
        entry: Option<(&EntryName, &Result<OpenEntry, OpenError>)>,
        bad: &[EntryName],
        state: Option<&State>,
    ) -> Result<Option<Self>> {
        let Some((entry, opened)) = entry.filter(|_| policy.policy == Policy::Auto) else {
            return Ok(None);
        };
        let hides = |bad: &EntryName| bad.key == entry.key && bad.generation > entry.generation;
        if bad.iter().any(hides) {
            return Ok(None);
        }
        let name = entry.to_string();
        let tried = state.filter(|state| state.restore.entry.as_ref() == Some(&name));
        if tried.is_some_and(|state| state.restore.failed) {
            return Ok(None);
        }
        let fell_short = tried.is_some_and(|state| state.restore.items.skipped > 0);
        match opened {
            Ok(opened) => Ok(Some(Newest { name, holds: held(opened), fell_short })),
            // The save ends at once because of the cancellation.
            Err(_) if context.is_canceled() => Ok(None),
            Err(e) => {
                let reason = in_one_line(e);
                Err(anyhow!("{name} cannot be read and will be superseded: {reason}"))
            }
        }
    }
}

/// The items in an entry and in its base.
fn held(entry: &OpenEntry) -> Vec<KnownItem> {
    let index = &entry.opened.index;
    let own = index.items.iter();
    let own = own.map(|i| KnownItem { name: i.name.clone(), fingerprint: i.fingerprint });
    let inherited = index.inherited();
    own.chain(inherited.map(|name| KnownItem { name: name.to_owned(), fingerprint: None }))
        .collect()
}

/// Returns the entry that another job with the same key has saved since only the entries `before` existed, if
/// it is trusted and has at least as many items as this save: then a second entry would only take up space.
/// Errors are not a reason to discard a finished snapshot.
pub fn overtaken(
    policy: &SavePolicy,
    backend: &dyn Backend,
    exact: &Ladder,
    before: &[EntryName],
    trust: &Trust,
    items: u64,
) -> Option<EntryName> {
    if policy.policy != Policy::Auto {
        return None;
    }
    let (name, _) = resolve::find(backend, exact, &[]).ok()?.0?;
    if before.contains(&name) {
        return None;
    }
    let mut reader = backend.open(&name).ok()?;
    let opened = resolve::open(reader.as_mut(), &mut 0).ok()?;
    trust::check(trust, Some((backend, &name)), &opened).ok()?;
    (opened.head.items >= items).then_some(name)
}

/// Returns why the frozen store is not worth saving; `items` of it would be packed.
pub fn after_freeze(
    policy: &SavePolicy,
    newest: Option<&Newest>,
    items: u64,
    growth: Growth,
) -> Option<String> {
    if policy.policy != Policy::Auto {
        return None;
    }
    if items == 0 {
        return Some(
            "nothing to save: there are no items except those from before the restore".into(),
        );
    }
    let Newest { name, fell_short, .. } = newest?;
    if growth.items == 0 {
        return Some(format!("unchanged: {name} holds all of it"));
    }
    match growth.nar_bytes {
        Some(bytes) if bytes < policy.min_growth && !fell_short => Some(format!(
            "grown by {} ({}) since {name}, which is less than {}",
            report::plural(growth.items, "item"),
            report::bytes(bytes),
            report::bytes(policy.min_growth),
        )),
        _ => None,
    }
}
