//! The summary of a job, in Markdown.
//!
//! Names, keys and reasons come from stores, entries and workflows, so all of them are untrusted: each is
//! truncated to a maximum length, and characters that may be Markdown or HTML syntax are written as numeric
//! character references. Lists are truncated too, so that the summary stays far below GitHub's limit of 1 MiB
//! for a step.

use super::{BaseUse, Hit, Outcome, Seconds, format};
use jiff::Timestamp;
use std::fmt::Write;
use storecache_runtime::untrusted_text;

/// Maximum length of a name or key in characters. A store allows names of 243.
const NAME: usize = 250;
/// Maximum length of a reason or warning in characters.
const SENTENCE: usize = 1000;
/// Maximum length of a list.
const LISTED: usize = 40;

/// Reports of the steps of a job that have run by the time of its summary.
pub struct Job<'a> {
    pub restore: Option<&'a Outcome>,
    pub save: Option<&'a Outcome>,
    pub now: Timestamp,
}

/// Renders the summary, which ends with an empty line.
pub fn render(job: &Job) -> String {
    let mut out = format!("### {}\n\n", headline(job));
    let rows = [job.restore.map(|restore| restore_rows(restore, job.now)), job.save.map(save_rows)];
    let rows: Vec<_> = rows.into_iter().flatten().flatten().collect();
    if !rows.is_empty() {
        out.push_str("| | |\n|---|---|\n");
        for (name, value) in rows {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        out.push('\n');
    }
    if let Some(verdict) = verdict(job) {
        let _ = writeln!(out, "**Was it worth it?** {verdict}\n");
    }
    let next = next(job);
    if !next.is_empty() {
        out.push_str("**Next steps**\n\n");
        for line in next {
            let _ = writeln!(out, "- {line}");
        }
        out.push('\n');
    }
    for (outcome, what) in [(job.restore, "not restored"), (job.save, "not saved")] {
        out.push_str(&skipped(outcome.map_or(&[], |outcome| &outcome.skipped), what));
    }
    out
}

fn headline(job: &Job) -> String {
    let restored = job.restore.map(|restore| match restore {
        Outcome { undoing: true, .. } => "the restore failed and is still being undone".to_owned(),
        Outcome { failed: true, items, .. } if items.restored == 0 => {
            "the restore failed, the store is as it was".to_owned()
        }
        Outcome { failed: true, .. } => "the restore failed after its commit".into(),
        Outcome { hit: Hit::Miss, .. } => "nothing to restore".into(),
        Outcome { hit, items, .. } if items.restored == 0 => {
            format!("{} hit, everything was there already", hit.name())
        }
        Outcome { hit, items, seconds, dry_run, .. } => format!(
            "{} hit, {} {} in {}",
            hit.name(),
            format::plural(items.restored, "item"),
            if *dry_run { "to restore" } else { "restored" },
            format::seconds(seconds.total)
        ),
    });
    let saved = job.save.map(|save| match save {
        Outcome { failed: true, .. } => "the save failed".to_owned(),
        Outcome { saved: Some(true), bytes, .. } => {
            format!("{} saved", format::bytes(bytes.snapshot))
        }
        _ => "nothing saved".into(),
    });
    let parts: Vec<String> = restored.into_iter().chain(saved).collect();
    format!("storecache: {}", parts.join("; "))
}

type Row = (&'static str, String);

fn restore_rows(restore: &Outcome, now: Timestamp) -> Vec<Row> {
    let Outcome { items, bytes, seconds, .. } = restore;
    let mut rows = vec![("Key", code(&restore.key))];
    rows.push(("Found", found(restore, now)));
    if restore.hit != Hit::Miss {
        let mut parts = vec![format!("{} restored", format::plural(items.restored, "item"))];
        if bytes.unpacked > 0 {
            parts[0] += &format!(" ({})", format::bytes(bytes.unpacked));
        }
        parts.push(format!("{} there before", items.present));
        if items.skipped > 0 {
            parts.push(format!("{} left out", items.skipped));
        }
        rows.push(("Items", parts.join(", ")));
    }
    if let Some(base) = restore.base.as_ref().and_then(BaseUse::used) {
        rows.push(("Delta on", code(base)));
    }
    if bytes.snapshot > 0 {
        let (read, whole) = (format::bytes(bytes.downloaded), format::bytes(bytes.snapshot));
        rows.push(("Read", format!("{read} of {whole}")));
    }
    for required in &restore.required {
        let state = match (required.complete, required.items) {
            (true, _) => {
                format!("complete, a closure of {}", format::plural(required.closure, "item"))
            }
            (false, 0) => "**missing**".into(),
            (false, _) => format!("**incomplete**, {} not on the disk", required.missing.len()),
        };
        rows.push(("Required", format!("{}: {state}", code(&required.pattern))));
    }
    rows.truncate(LISTED);
    rows.push(("Restore took", phases(seconds)));
    if seconds.downtime > 0.0 {
        rows.push(("Daemon away", format::seconds(seconds.downtime)));
    }
    rows
}

/// Why something was not done, and what to do about it.
fn reason(outcome: &Outcome) -> Option<String> {
    let reason = outcome.reason.as_deref().map(sentence)?;
    let hint = outcome.hint.as_deref().map(sentence);
    Some(hint.map_or(reason.clone(), |hint| format!("{reason}; {hint}")))
}

/// The entry that was found, and why it is not an exact hit.
fn found(restore: &Outcome, now: Timestamp) -> String {
    let entry = restore.entry.as_deref().map(code);
    let reason = || reason(restore).unwrap_or_else(|| "no entry".to_owned());
    let age = restore.created.as_deref().and_then(|created| age(created, now));
    let old = age.map(|age| format!(", {age} old")).unwrap_or_default();
    match (restore.hit, entry) {
        (Hit::Miss, _) => reason(),
        (_, None) => String::new(),
        (Hit::Exact, Some(entry)) => format!("{entry}{old}"),
        (Hit::Prefix, Some(entry)) => {
            let why = match restore.moved.as_slice() {
                [] => String::new(),
                some => {
                    let names: Vec<_> = some.iter().take(LISTED).map(|name| code(name)).collect();
                    format!("; since it was saved, {} changed", names.join(", "))
                }
            };
            format!(
                "{entry}{old}: the newest with a prefix of the key, as the key itself has no \
                 entry{why}"
            )
        }
    }
}

fn save_rows(save: &Outcome) -> Vec<Row> {
    let Outcome { items, bytes, .. } = save;
    let mut rows = Vec::new();
    let growth = save.growth.map(|growth| {
        let size = growth.bytes.filter(|_| growth.items > 0).map(format::bytes);
        let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
        format!(
            "{}{size} since the newest entry of the key",
            format::plural(growth.items, "new item")
        )
    });
    match (reason(save), &save.entry) {
        (Some(reason), _) => rows.push(("Not saved", reason)),
        (None, Some(entry)) => {
            let size = format::bytes(bytes.snapshot);
            let from = format::bytes(bytes.packed);
            let count = format::plural(items.saved.saturating_sub(items.inherited), "item");
            rows.push(("Saved", format!("{}: {count}, {from} packed into {size}", code(entry))));
        }
        (None, None) => rows.push(("Would save", format::plural(items.saved, "item"))),
    }
    if let Some(base) = save.base.as_ref().and_then(BaseUse::used) {
        let there = format::plural(items.inherited, "more item");
        rows.push(("Delta on", format!("{}, which holds {there}", code(base))));
    }
    rows.extend(growth.map(|growth| ("Growth", growth)));
    if let (Some(used), Some(unused)) = (items.used, items.unused) {
        let of = format::plural(used + unused, "restored item");
        let size = bytes.unused.filter(|_| unused > 0).map(format::bytes);
        let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
        rows.push(("Used", format!("{used} of {of}; {unused}{size} never read in this job")));
    }
    if items.baseline > 0 {
        let there = format!("{} from before the restore", format::plural(items.baseline, "item"));
        rows.push(("Left out", there));
    }
    if items.outside > 0 {
        let there = format::plural(items.outside, "item");
        rows.push(("Left out", format!("{there} outside the closures of <code>roots</code>")));
    }
    if !save.deleted.is_empty() {
        let count = save.deleted.len() as u64;
        rows.push(("Deleted", format!("{count} superseded {}", entries(count))));
    }
    rows.push(("Save took", phases(&save.seconds)));
    rows
}

fn entries(count: u64) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}

/// Seconds of each phase that took any time.
fn phases(seconds: &Seconds) -> String {
    let all = [
        ("lookup", seconds.lookup),
        ("download", seconds.download),
        ("unpack", seconds.unpack),
        ("commit", seconds.commit),
        ("verify", seconds.verify),
        ("check", seconds.check),
        ("pack", seconds.pack),
        ("upload", seconds.upload),
    ];
    let parts = all.iter().filter(|(_, value)| *value >= 0.0005);
    let parts: Vec<_> =
        parts.map(|(name, value)| format!("{name} {}", format::seconds(*value))).collect();
    let total = format!("**{}**", format::seconds(seconds.total));
    if parts.is_empty() { total } else { format!("{total}: {}", parts.join(", ")) }
}

/// Compares the duration of this job with that of a job without a snapshot, if both are known.
fn verdict(job: &Job) -> Option<String> {
    let (restore, save) = (job.restore?, job.save?);
    let Seconds { job: rest, cold, .. } = save.seconds;
    if save.job_status.as_deref().is_some_and(|status| status != "success") {
        return None;
    }
    let rest = rest?;
    let spent = restore.seconds.total + save.seconds.total;
    if restore.hit == Hit::Miss {
        let took = format::seconds(rest);
        let remembered = match save.saved {
            Some(true) => ", which the entry records",
            _ => "",
        };
        return Some(format!(
            "The next job will show that. Without the cache this one took {took}{remembered}."
        ));
    }
    let cache = format::seconds(spent);
    let Some(cold) = cold else {
        return Some(format!(
            "Not known: the cache took {cache}, and no job without it has been measured."
        ));
    };
    let with = rest + spent;
    let (took, without) = (format::seconds(with), format::seconds(cold));
    Some(if with <= cold {
        format!(
            "Yes: this job took {took}, {cache} of it for the cache. Without one it took {without}, \
             so {} were saved.",
            format::seconds(cold - with)
        )
    } else {
        format!(
            "Not this time: this job took {took}, {cache} of it for the cache. Without one it took \
             {without}, which is {} less.",
            format::seconds(with - cold)
        )
    })
}

fn next(job: &Job) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(restore) = job.restore {
        let saved = job.save.is_some_and(|save| save.saved == Some(true));
        match restore.hit {
            _ if restore.failed => lines.push(format!(
                "See why the restore failed: {}",
                reason(restore).unwrap_or_else(|| "no reason given".into())
            )),
            Hit::Miss if saved => lines.push(
                "Nothing: the next job with this key finds what was saved. If this was not the first \
                 one, <code>storecache key --explain</code> shows what changed."
                    .into(),
            ),
            Hit::Prefix if saved => {
                lines.push("Nothing: the next job with this key has an exact hit.".into());
            }
            _ => {}
        }
        if restore.items.skipped > 0 && !restore.failed {
            lines.push(
                "Some items could not be restored, mostly because they need items that were \
                 installed where they were saved and are missing here. The next save adds them."
                    .into(),
            );
        }
        if restore.required.iter().any(|required| !required.complete) {
            lines.push("A required item is not complete: the job has to fetch it.".into());
        }
        let slow = |save: &Outcome| {
            let Seconds { job, cold, .. } = save.seconds;
            let spent = restore.seconds.total + save.seconds.total;
            restore.hit == Hit::Exact && job.zip(cold).is_some_and(|(job, cold)| job + spent > cold)
        };
        if job.save.is_some_and(slow) {
            lines.push(
                "If this happens often, the job is faster without the cache, which then only \
                 helps when the substitute servers are down."
                    .into(),
            );
        }
    }
    let all = job.restore.into_iter().chain(job.save);
    let warnings = all.flat_map(|outcome| &outcome.warnings);
    lines.extend(warnings.map(|warning| format!("Warning: {}", sentence(warning))));
    if lines.len() > LISTED {
        let more = lines.len() - LISTED;
        lines.truncate(LISTED);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// A collapsible list; empty if nothing was skipped.
fn skipped(skipped: &[(String, String)], what: &str) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    let count = format::plural(skipped.len() as u64, "item");
    let mut out = format!("<details><summary>{count} {what}</summary>\n\n");
    for (name, reason) in skipped.iter().take(LISTED) {
        let _ = writeln!(out, "- {}: {}", code(name), sentence(reason));
    }
    if let Some(more @ 1..) = skipped.len().checked_sub(LISTED) {
        let _ = writeln!(out, "- and {more} more, listed in the JSON report");
    }
    out.push_str("\n</details>\n\n");
    out
}

/// An age in its largest unit.
fn age(created: &str, now: Timestamp) -> Option<String> {
    let created: Timestamp = created.parse().ok()?;
    let seconds = now.duration_since(created).as_secs();
    let seconds = u64::try_from(seconds).ok()?;
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    Some(format::plural(count, unit))
}

fn code(name: &str) -> String {
    format!("<code>{}</code>", escape(name, NAME))
}

fn sentence(text: &str) -> String {
    escape(text, SENTENCE)
}

/// Escapes untrusted text, so that it is shown literally.
fn escape(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let text = untrusted_text::escape(text);
    let count = text.chars().count();
    for c in text.chars().take(limit) {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | ',') => out.push(c),
            c if c.is_ascii() => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if count > limit {
        out.push('…');
    }
    out
}
