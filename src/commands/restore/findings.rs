//! The findings of the steps of a restore, and the report that is made of them.

use crate::commands::entry_fallback::RejectedEntries;
use crate::commands::guix_profiles::{self, ProfileReport};
use crate::commands::job_state::RestoreStart;
use crate::commands::require::{self, RequireCheck};
use crate::commands::session::{Failure, RunFacts, print_skipped};
use crate::report::{
    self, BaseUse, Bytes, Diagnostic, Hit, Items, Outcome, Seconds, Words, misses,
};
use storecache_backend::EntryName;
use storecache_root_helper::protocol::{Plan, Restored};

/// The findings of the steps of a restore so far.
#[derive(Default)]
pub struct Findings {
    pub run: RunFacts,
    /// For the state file.
    pub start: RestoreStart,
    /// The entry that the last lookup found.
    pub name: Option<EntryName>,
    pub entry: EntryFindings,
    /// Entries that were not used.
    pub rejected: RejectedEntries,
    /// Why nothing was restored, unless the plan shows it.
    pub reason: Option<String>,
    pub lookup_seconds: f64,
    /// Bytes that were read from all entries, and the time to read frames.
    pub downloaded: u64,
    pub download_seconds: f64,
    pub required: RequireCheck,
}

/// The findings of a restore that concern one entry.
#[derive(Default)]
pub struct EntryFindings {
    /// A miss until it is known that items can be restored.
    pub hit: Hit,
    pub signed_by: Vec<String>,
    pub snapshot_bytes: u64,
    pub base: Option<BaseUse>,
    pub created: Option<String>,
    /// Ingredients of the key that differ from those of the snapshot.
    pub moved: Vec<String>,
    pub cold_seconds: Option<f64>,
    pub plan: Option<Plan>,
    pub restored: Option<Restored>,
    /// From the first frame to the end of the commit.
    pub unpack_commit_seconds: f64,
    pub profiles: ProfileReport,
}

impl EntryFindings {
    /// Items that were not restored, each with the reason.
    pub fn skipped(&self) -> Vec<(String, String)> {
        let planned = self.plan.iter().flat_map(|plan| &plan.skipped);
        let later = self.restored.iter().flat_map(|restored| &restored.skipped);
        planned.chain(later).cloned().collect()
    }

    /// Why nothing is restored according to the plan.
    fn nothing_to_do(&self) -> Option<String> {
        let plan = self.plan.as_ref().filter(|plan| plan.wanted == 0)?;
        Some(match plan.skipped.first() {
            None => "nothing to do: every item is there already".into(),
            Some((_, reason)) => {
                let left_out = report::plural(plan.skipped.len() as u64, "item");
                format!("nothing to do: {left_out} left out: {reason}")
            }
        })
    }
}

impl Findings {
    /// Whether the run has not restored anything, as far as is known after a failure.
    pub fn is_store_unchanged(&self) -> bool {
        let restored = self.entry.restored.as_ref().is_some_and(|restored| restored.items > 0);
        !(self.run.phase.is_after_commit() || restored)
    }

    /// Assembles the report.
    pub fn report(mut self, failure: Option<&Failure>) -> Outcome {
        let has_undone = failure.is_some() && self.is_store_unchanged();
        let reason = self.entry.nothing_to_do().or(self.reason);
        let skipped = self.entry.skipped();
        let EntryFindings { hit, plan, restored, profiles, .. } = self.entry;
        let mut items = Items { skipped: skipped.len() as u64, ..Items::default() };
        let mut bytes = Bytes {
            downloaded: self.downloaded,
            snapshot: self.entry.snapshot_bytes,
            ..Bytes::default()
        };
        let mut seconds = Seconds {
            lookup: self.lookup_seconds,
            download: self.download_seconds,
            check: self.required.seconds,
            cold: self.entry.cold_seconds,
            ..Seconds::default()
        };
        let (mut daemon, warnings) = (String::new(), &mut self.run.warnings);
        if let Some(plan) = plan {
            items.present = plan.present;
            if self.run.dry_run {
                items.restored = plan.wanted;
                bytes.unpacked = if plan.wanted == 0 { 0 } else { plan.disk_bytes };
            }
            warnings.extend(plan.warnings);
        }
        if let Some(restored) = restored {
            items.restored = restored.items;
            items.present += restored.overtaken;
            items.rooted = restored.roots;
            bytes.unpacked = restored.bytes;
            seconds.sync = restored.sync_seconds;
            seconds.commit = restored.commit_seconds;
            seconds.downtime = restored.downtime_seconds;
            seconds.verify = restored.verify_seconds;
            seconds.content = restored.content_seconds;
            let other = self.download_seconds
                + restored.content_seconds.unwrap_or_default()
                + restored.sync_seconds
                + restored.commit_seconds.max(restored.downtime_seconds);
            seconds.unpack = (self.entry.unpack_commit_seconds - other).max(0.0);
            daemon = restored.daemon;
            warnings.extend(restored.warnings);
        }
        warnings.extend(profiles.warnings);
        warnings.extend(self.rejected.warning);
        let report = Outcome {
            hit: if has_undone { Hit::Miss } else { hit },
            matched_key: self.name.as_ref().map(|name| name.key.clone()),
            entry: self.name.map(|name| name.to_string()),
            base: self.entry.base,
            passed_over: self.rejected.passed_over,
            quarantined: self.rejected.quarantined,
            signed_by: self.entry.signed_by,
            moved: self.entry.moved,
            created: self.entry.created,
            items,
            bytes,
            seconds,
            reason,
            skipped,
            required: self.required.required,
            profiles: profiles.profiles,
            daemon,
            undoing: has_undone && self.run.context.is_undoing(),
            ..Outcome::default()
        };
        self.run.complete(report, failure)
    }
}

/// Prints the result for people. `is_error`: a miss makes the run fail.
pub fn print(outcome: &Outcome, words: Words, is_error: bool) {
    let Outcome { items, bytes, seconds, .. } = outcome;
    let from = outcome.entry.as_deref().unwrap_or_default();
    if items.restored == 0 {
        let reason = outcome.reason.as_deref().unwrap_or("nothing to do");
        match outcome.hit {
            Hit::Miss if is_error => {}
            Hit::Miss => report::print_note(words.apply(&format!("miss: {reason}"))),
            Hit::Exact | Hit::Prefix => report::status(format!("{}: {reason}", outcome.hit.name())),
        }
        guix_profiles::print(outcome);
        print_skipped(outcome);
        require::print(outcome);
        if is_error {
            misses(outcome).iter().for_each(Diagnostic::print);
        }
        return;
    }
    let verb = if outcome.dry_run { "would restore" } else { "restored" };
    report::status(format!(
        "{} hit: {verb} {} ({}) from {from} in {}; {} there before, {} skipped",
        outcome.hit.name(),
        report::plural(items.restored, "item"),
        report::bytes(bytes.unpacked),
        report::seconds(seconds.total),
        items.present,
        items.skipped,
    ));
    if seconds.downtime > 0.0 {
        let downtime = report::seconds(seconds.downtime);
        report::status(format!("the daemon was down for {downtime}"));
    }
    guix_profiles::print(outcome);
    print_skipped(outcome);
    require::print(outcome);
    if is_error {
        misses(outcome).iter().for_each(Diagnostic::print);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_root_helper::protocol::Phase;
    use storecache_runtime::advice::Advice;

    /// The findings of a restore that tried a damaged entry, and then planned to restore from an older one.
    fn planned(phase: Phase) -> Findings {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let mut found = Findings { lookup_seconds: 1.5, downloaded: 700, ..Findings::default() };
        found.run = RunFacts::new(&Default::default(), "restore", false);
        found.run.phase = phase;
        found.run.warnings = vec!["a backend is skipped".into()];
        found.name = EntryName::parse("key.20261122T095500.000000Z");
        found.rejected.passed_over = vec![pair("newer", "damaged")];
        found.entry.hit = Hit::Exact;
        found.entry.plan = Some(Plan {
            frames: Vec::new(),
            wanted: 9,
            present: 3,
            skipped: vec![pair("item", "no room")],
            disk_bytes: 1000,
            warnings: vec!["the collector runs".into()],
        });
        found
    }

    fn failure() -> Failure {
        Failure {
            reason: "restore: unpack: no".into(),
            cause: "no".into(),
            advice: Advice { notes: vec!["a fact".into()], ..Advice::hint("see --memory") },
            cut: None,
            cancelled: false,
        }
    }

    #[test]
    fn failed_restore_reports_costs_and_is_a_miss() {
        let report = planned(Phase::Unpack).report(Some(&failure()));
        assert!(report.failed && report.hit == Hit::Miss);
        assert_eq!(report.phase, "unpack");
        assert_eq!(report.reason.as_deref(), Some("restore: unpack: no"));
        assert_eq!(report.notes, ["a fact"]);
        assert_eq!(report.hint.as_deref(), Some("see --memory"));
        assert_eq!((report.bytes.downloaded, report.seconds.lookup), (700, 1.5));
        assert_eq!((report.items.restored, report.items.present, report.items.skipped), (0, 3, 1));
        assert_eq!(report.passed_over[0].0, "newer");
        assert_eq!(report.warnings, ["a backend is skipped", "the collector runs"]);
        assert_eq!(report.matched_key.as_deref(), Some("key"));
    }

    #[test]
    fn restore_that_fails_after_the_commit_stays_a_hit() {
        let report = planned(Phase::Daemon).report(Some(&failure()));
        assert!(report.failed && report.hit == Hit::Exact && !report.undoing);
        let mut found = planned(Phase::Daemon);
        found.entry.restored = Some(Restored { items: 9, ..Restored::default() });
        found.run.phase = Phase::Lookup;
        assert!(!found.is_store_unchanged(), "a check after the restore failed");
    }

    #[test]
    fn dry_run_reports_the_plan() {
        let mut found = planned(Phase::Plan);
        found.run.dry_run = true;
        let report = found.report(None);
        assert_eq!((report.items.restored, report.bytes.unpacked), (9, 1000));
        assert!(report.dry_run && report.hit == Hit::Exact && report.reason.is_none());
    }
}
