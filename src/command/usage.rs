//! `usage`: what takes how much room, what of it could go, and what goes by itself.

use super::choice::{Alike, Scene, alike, causes, choose};
use super::inventory::{Held, open_inventory, read, share};
use super::{Ending, cancel, eviction, or_json, pulls};
use crate::backend::Inventory;
use crate::options::{PruneReason, Pruning, Usage as Asked};
use crate::report::{self, Amount, Copies, Part, Usage};
use anyhow::Result;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;

const DAY: i64 = 24 * 60 * 60;

/// Prints tables.
pub fn usage(options: &Asked) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Asked) -> Result<Ending> {
    cancel::on_signals()?;
    let inventory = open_inventory(&options.inventory)?;
    let usage = count(inventory.as_ref(), options)?;
    if options.output.json {
        report::answer(serde_json::to_string(&usage)?)?;
    } else {
        usage.lines(options.more.is_some()).iter().try_for_each(report::answer)?;
        let warn = |warning| report::note(format!("storecache: warning: {warning}"));
        usage.warnings.iter().for_each(warn);
    }
    Ok(Ending::Done)
}

/// Counts everything; what is printed, and what a page is drawn from.
fn count(inventory: &dyn Inventory, options: &Asked) -> Result<Usage> {
    let mut warnings = Vec::new();
    let mut all = read(inventory, &mut warnings)?;
    all.sort_by(|a, b| b.record.created.cmp(&a.record.created).then(a.record.id.cmp(&b.record.id)));
    let asked = if all.is_empty() { Ok(None) } else { inventory.default_branch() };
    let default_branch = match asked {
        Ok(branch) => branch,
        Err(e) => {
            cancel::check()?;
            warnings.push(format!("more may go than is said here: {e:#}"));
            None
        }
    };
    let closed = pulls::closed(inventory, &all, &mut warnings)?;
    let scene = Scene { default_branch, closed };
    let (limit, now) = (options.limit, Timestamp::now());
    // Of all tools, whether they may go or not.
    let any_tool = Pruning { prefix: Some(String::new()), ..Pruning::default() };
    let amount = |held: Vec<&Held>| amount(&held, limit);
    let because = |reason| {
        let only = Pruning { only: vec![reason], ..any_tool.clone() };
        let causes = causes(&all, &scene, &only, now);
        amount(
            all.iter()
                .zip(&causes)
                .filter(|(_, cause)| cause.is_some())
                .map(|(held, _)| held)
                .collect(),
        )
    };
    let going = choose(&all, &scene, &Pruning::default(), now).going;
    let more = options.more.unwrap_or(0);
    Ok(Usage {
        backend: inventory.describe(),
        at: now.to_string(),
        limit,
        total: amount(all.iter().collect()),
        ours: amount(all.iter().filter(|held| held.is_ours()).collect()),
        by_prefix: parts(&all, limit, now, |held| held.stem().to_owned()),
        by_ref: parts(&all, limit, now, |held| {
            held.record.reference.clone().unwrap_or_else(|| "none".into())
        }),
        by_age: by_time(&all, limit, now, |held| held.record.created),
        by_last_use: by_time(&all, limit, now, Held::used),
        duplicates: duplicates(&all),
        superseded: because(PruneReason::Superseded),
        closed: because(PruneReason::Closed),
        unreadable: amount(all.iter().filter(|held| held.unreadable().is_some()).collect()),
        prunable: amount(going.iter().map(|(at, _)| &all[*at]).collect()),
        eviction: eviction::forecast(&all, more, limit, inventory.evicts(), now),
        cost: eviction::cost(&all, more),
        entries: all.iter().map(|held| held.row(limit, now)).collect(),
        warnings,
    })
}

fn amount(held: &[&Held], limit: u64) -> Amount {
    let bytes = eviction::sum(held.iter().copied());
    Amount { entries: held.len() as u64, bytes, share: share(bytes, limit) }
}

fn part(name: String, held: &[&Held], limit: u64, now: Timestamp) -> Part {
    let used = held.iter().filter_map(|held| held.used()).max();
    let unused_for = used.map(|used| now.as_second().saturating_sub(used.as_second()));
    Part { name, amount: amount(held, limit), unused_for }
}

/// The largest first.
fn parts(all: &[Held], limit: u64, now: Timestamp, name: impl Fn(&Held) -> String) -> Vec<Part> {
    let mut groups: BTreeMap<String, Vec<&Held>> = BTreeMap::new();
    for held in all {
        groups.entry(name(held)).or_default().push(held);
    }
    let parts = groups.into_iter().map(|(name, held)| part(name, &held, limit, now));
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|part| Reverse(part.amount.bytes));
    parts
}

/// By how long ago something was, the latest first.
fn by_time(
    all: &[Held],
    limit: u64,
    now: Timestamp,
    time: impl Fn(&Held) -> Option<Timestamp>,
) -> Vec<Part> {
    const STEPS: [(i64, &str); 5] = [
        (DAY, "up to a day"),
        (3 * DAY, "up to 3 days"),
        (7 * DAY, "up to 7 days"),
        (30 * DAY, "up to 30 days"),
        (i64::MAX, "longer"),
    ];
    let step = |held: &Held| {
        let ago = time(held).map_or(0, |time| now.as_second().saturating_sub(time.as_second()));
        STEPS.iter().position(|(most, _)| ago <= *most)
    };
    let mut parts = Vec::new();
    for (number, (_, name)) in STEPS.iter().enumerate() {
        let held: Vec<_> = all.iter().filter(|held| step(held) == Some(number)).collect();
        if !held.is_empty() {
            parts.push(part((*name).to_owned(), &held, limit, now));
        }
    }
    parts
}

/// Entries that hold the same, what takes most first.
fn duplicates(all: &[Held]) -> Vec<Copies> {
    let told = |Alike { mut entries, guess }| {
        entries.sort();
        let first = entries.first().copied();
        let others = entries.iter().filter(|at| Some(**at) != first);
        Copies {
            keys: entries.iter().map(|at| all[*at].record.key.clone()).collect(),
            ids: entries.iter().map(|at| all[*at].record.id.clone()).collect(),
            bytes: eviction::sum(others.map(|at| &all[*at])),
            guess,
        }
    };
    let mut told: Vec<_> = alike(all, Held::stem).into_iter().map(told).collect();
    told.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.keys.cmp(&b.keys)));
    told
}
