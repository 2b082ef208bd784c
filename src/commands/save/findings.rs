//! The findings of the steps of a save, and the report that is made of them.

use crate::commands::guix_profiles;
use crate::commands::session::{Failure, RunFacts, print_skipped};
use crate::report::{self, BaseUse, Bytes, Growth, Hit, Items, Outcome, Profile, Seconds, Words};
use std::time::Duration;
use storecache_backend::Written;
use storecache_root_helper::protocol::FreezeReport;
use storecache_runtime::advice::Advice;

/// Why an item is left out with `--max-size`.
const BEHIND: &str = "used least recently, and the maximum size has no room for all";
/// Why a valid item is not in the snapshot.
const MISSING: &str = "valid in the database, but not on the disk: see `nix-store --verify`";
const NOT_AN_ITEM: &str = "not a file, directory or link";

/// The findings of the steps of a save so far.
#[derive(Default)]
pub struct Findings {
    pub run: RunFacts,
    /// Status of the job, as given in the options.
    pub job_status: Option<String>,
    /// Time since the end of the job's restore.
    pub job_seconds: Option<f64>,
    /// Duration of the job when it begins with a miss.
    pub cold_seconds: Option<f64>,
    pub hit: Hit,
    pub matched_key: Option<String>,
    /// Entries of the key that count as absent, each with the reason.
    pub passed_over: Vec<(String, String)>,
    pub lookup_seconds: f64,
    pub base: Option<BaseUse>,
    pub frozen: Option<FreezeReport>,
    /// The growth since the newest entry, if the save is compared with one.
    pub growth: Option<Growth>,
    /// Tar bytes of the frames that have been received.
    pub packed_bytes: u64,
    /// Items in the snapshot and in its base.
    pub saved_items: u64,
    pub inherited_items: u64,
    /// Valid items that are not on the disk.
    pub missing: Vec<String>,
    /// Items that cannot be packed.
    pub left_out: Vec<String>,
    pub profiles: Vec<Profile>,
    pub snapshot_bytes: u64,
    pub pack_seconds: f64,
    /// Time spent writing frames to the backend.
    pub write_seconds: f64,
    /// The entry that was written, and how long it took until it appeared.
    pub written: Option<(Written, Duration)>,
    /// Names of the keys that signed it.
    pub signed_by: Vec<String>,
    /// Superseded entries that were deleted.
    pub deleted: Vec<String>,
}

impl Findings {
    /// Assembles the report. `reason` says why nothing was saved if the save did not fail.
    pub fn report(self, reason: Option<(String, Advice)>, failure: Option<&Failure>) -> Outcome {
        let mut skipped = Vec::new();
        let mut items = Items {
            saved: self.saved_items,
            inherited: self.inherited_items,
            skipped: self.missing.len() as u64,
            ..Items::default()
        };
        let mut bytes =
            Bytes { packed: self.packed_bytes, snapshot: self.snapshot_bytes, ..Bytes::default() };
        let mut seconds = Seconds {
            lookup: self.lookup_seconds,
            pack: self.pack_seconds,
            upload: self.write_seconds,
            job: self.job_seconds,
            cold: self.cold_seconds,
            ..Seconds::default()
        };
        if let Some(frozen) = self.frozen {
            items.outside = frozen.outside;
            items.baseline = frozen.left_out;
            items.used = frozen.used.map(|used| used.used);
            items.unused = frozen.used.map(|used| used.unused);
            items.skipped += frozen.behind.len() as u64;
            bytes.unused = frozen.used.map(|used| used.unused_bytes);
            skipped.extend(frozen.behind.into_iter().map(|name| (name, BEHIND.to_owned())));
        }
        skipped.extend(self.missing.into_iter().map(|name| (name, MISSING.to_owned())));
        skipped.extend(self.left_out.into_iter().map(|name| (name, NOT_AN_ITEM.to_owned())));
        let (reason, Advice { notes, hint }) = match reason {
            None => (None, Advice::default()),
            Some((reason, advice)) => (Some(reason), advice),
        };
        let mut entry = None;
        if let Some((written, took)) = &self.written {
            seconds.sync = written.sync.as_secs_f64();
            seconds.upload += took.as_secs_f64() - seconds.sync;
            bytes.uploaded = written.entry.size;
            entry = Some(written.entry.name.to_string());
        }
        let report = Outcome {
            hit: self.hit,
            matched_key: self.matched_key,
            saved: Some(entry.is_some()),
            entry,
            base: self.base,
            passed_over: self.passed_over,
            signed_by: self.signed_by,
            growth: self.growth,
            deleted: self.deleted,
            job_status: self.job_status,
            items,
            bytes,
            seconds,
            reason,
            notes,
            hint,
            skipped,
            profiles: self.profiles,
            ..Outcome::default()
        };
        self.run.complete(report, failure)
    }
}

/// Prints the result for people.
pub fn print(outcome: &Outcome, words: Words) {
    let Outcome { items, bytes, seconds, .. } = outcome;
    if let Some(reason) = &outcome.reason {
        report::print_note(words.apply(&format!("nothing was saved: {reason}")));
        outcome.hint.iter().for_each(|hint| report::print_hint(words.apply(hint)));
        return;
    }
    let verb = if outcome.dry_run { "would save" } else { "saved" };
    report::status(format!(
        "{verb} {} as {} ({} packed into {}) in {}",
        report::plural(items.saved - items.inherited, "item"),
        outcome.entry.as_deref().unwrap_or(&outcome.key),
        report::bytes(bytes.packed),
        report::bytes(bytes.snapshot),
        report::seconds(seconds.total),
    ));
    if let Some(base) = outcome.base.as_ref().and_then(BaseUse::used) {
        let inherited = report::plural(items.inherited, "item");
        report::status(format!("{inherited} more are in its base {base}"));
    }
    if !outcome.signed_by.is_empty() {
        report::status(format!("signed by {}", outcome.signed_by.join(", ")));
    }
    if items.baseline > 0 {
        report::status(format!(
            "left out {} from before the restore",
            report::plural(items.baseline, "item")
        ));
    }
    if items.outside > 0 {
        let left_out = report::plural(items.outside, "item");
        let line = format!("left out {left_out} outside the closures of --roots");
        report::status(words.apply(&line));
    }
    if !outcome.dry_run {
        report::status(format!("stored in {}", outcome.backend));
    }
    for entry in &outcome.deleted {
        report::status(format!("deleted {entry}, which is superseded"));
    }
    guix_profiles::print(outcome);
    print_skipped(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_root_helper::protocol::Phase;

    #[test]
    fn failed_save_reports_what_was_packed() {
        let mut run = RunFacts::new(&Default::default(), "save", false);
        run.phase = Phase::Pack;
        let passed_over = vec![("newest".to_owned(), "its base is gone".to_owned())];
        let found = Findings {
            run,
            passed_over,
            packed_bytes: 5000,
            lookup_seconds: 0.5,
            hit: Hit::Exact,
            ..Findings::default()
        };
        let failure = Failure {
            reason: "save: pack: no".into(),
            cause: "no".into(),
            advice: Advice::hint("see --level"),
            cut: None,
            cancelled: true,
        };
        let report = found.report(None, Some(&failure));
        assert!(report.failed && report.cancelled && report.saved == Some(false));
        assert_eq!((report.phase, report.reason.as_deref()), ("pack", Some("save: pack: no")));
        assert_eq!((report.bytes.packed, report.seconds.lookup), (5000, 0.5));
        assert_eq!(report.hint.as_deref(), Some("see --level"));
        assert_eq!((report.hit, report.passed_over.len()), (Hit::Exact, 1));
    }
}
