//! `list`: prints every entry that a backend holds.

use super::annotated_entries::{ListedEntry, open_inventory, read, share};
use super::{Conclusion, cancel, eviction_forecast, or_json, quarantine};
use crate::config::{List, Order};
use crate::report::{self, EntryRow};
use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;
use std::cmp::Reverse;
use storecache_backend::{Inventory, Quarantined};
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;

/// Number of bad entries that are printed one by one.
const SHOWN: usize = 10;

/// Prints one line for each entry.
pub fn list(context: &RunContext, options: &List) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &List) -> Result<Conclusion> {
    cancel::on_signals(context)?;
    let inventory = open_inventory(context, &options.inventory)?;
    let mut warnings = Vec::new();
    let mut all = read(context, inventory.as_ref(), &mut warnings)?;
    let bytes = eviction_forecast::sum(all.iter());
    let everything = json!({
        "entries": all.len(), "bytes": bytes, "share": share(bytes, options.limit),
    });
    all.retain(|held| is_wanted(held, options));
    sort(&mut all, options.order);
    let now = Timestamp::now();
    let rows: Vec<EntryRow> = all.iter().map(|held| held.row(options.limit, now)).collect();
    let quarantined = quarantined(inventory.as_ref(), options, &mut warnings);
    if options.output.json {
        report::answer_json(&json!({
            "ok": true,
            "backend": inventory.describe(),
            "at": now.to_string(),
            "limit": options.limit,
            "total": everything,
            "entries": rows,
            "quarantined": quarantined,
            "warnings": warnings,
        }))?;
        return Ok(Conclusion::Done);
    }
    print_entries(&rows, options.output.quiet)?;
    warnings.iter().for_each(report::print_warning);
    if !options.output.quiet {
        let shown = report::plural(rows.len() as u64, "entry");
        let size = report::binary(eviction_forecast::sum(all.iter()));
        let limit = report::binary(options.limit);
        let place = inventory.describe();
        report::status(format!("{shown} with {size} of {limit} in {place}"));
        for bad in quarantined.iter().take(SHOWN) {
            let (entry, reason) = (&bad.entry, &bad.reason);
            let kept = if bad.file.is_some() { "quarantined" } else { "remembered as bad" };
            report::status(format!("{kept}: {entry}: {reason}"));
        }
        if let Some(more @ 1..) = quarantined.len().checked_sub(SHOWN) {
            report::status(format!("{more} more are bad; --json lists them"));
        }
    }
    Ok(Conclusion::Done)
}

/// Entries that failed their checks: quarantined in the backend, or remembered.
fn quarantined(
    inventory: &dyn Inventory,
    options: &List,
    warnings: &mut Vec<String>,
) -> Vec<Quarantined> {
    quarantine::list(inventory, options.denylist.as_ref()).unwrap_or_else(|e| {
        warnings.push(format!("cannot list the quarantined entries: {}", in_one_line(e.as_ref())));
        Vec::new()
    })
}

fn is_wanted(held: &ListedEntry, options: &List) -> bool {
    let begins = |prefix: &String| held.record.key.starts_with(prefix.as_str());
    options.prefix.as_ref().is_none_or(begins)
        && (options.reference.is_none() || options.reference == held.record.reference)
        && (held.is_ours() || !options.ours)
}

fn sort(all: &mut [ListedEntry], order: Order) {
    // Entries that compare as equal are always in the same order.
    all.sort_by(|a, b| (&a.record.key, &a.record.id).cmp(&(&b.record.key, &b.record.id)));
    match order {
        Order::Age => all.sort_by_key(|held| Reverse(held.record.created)),
        Order::Used => all.sort_by_key(|held| Reverse(held.used())),
        Order::Size => all.sort_by_key(|held| Reverse(held.record.size)),
        Order::Key => {}
    }
}

/// Prints the rows on standard output, and the column names on standard error.
fn print_entries(rows: &[EntryRow], quiet: bool) -> Result<()> {
    let names = ["AGE", "USED", "SIZE", "SHARE", "REF", "KEY"].map(str::to_owned);
    let lines = std::iter::once(names).chain(rows.iter().map(cells)).collect::<Vec<_>>();
    for (number, line) in report::columns(&lines, 4).into_iter().enumerate() {
        match number {
            0 if quiet || rows.is_empty() => {}
            0 => report::note(line),
            _ => report::answer(line)?,
        }
    }
    Ok(())
}

fn cells(row: &EntryRow) -> [String; 6] {
    let ago = |seconds: Option<i64>| seconds.map_or_else(|| "-".into(), report::age);
    let why = row.unreadable.as_ref().map(|why| format!("  (unreadable: {why})"));
    [
        ago(row.age),
        ago(row.unused_for),
        report::binary(row.size),
        format!("{:.1} %", row.share * 100.0),
        row.reference.clone().unwrap_or_else(|| "-".into()),
        format!("{}{}", row.key, why.unwrap_or_default()),
    ]
}
