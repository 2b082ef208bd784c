//! `usage`: reports how much space entries take, what could be deleted, and what will be evicted.

use super::annotated_entries::{ListedEntry, Use, open_inventory, read, share};
use super::open_entry::OpenEntry;
use super::prune_plan::{Alike, RepositoryFacts, alike, causes, choose};
use super::size_report::{self, Blame};
use super::{Conclusion, cancel, closed_pull_requests, eviction_forecast, html_file, or_json};
use crate::config::{InventoryOptions, PruneReason, Pruning, Trust, Usage as Asked};
use crate::report::html::{Page, Section};
use crate::report::{self, Amount, Copies, Part, Usage};
use anyhow::Result;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use storecache_backend::{Directory, EntryName, Inventory};
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;

const DAY: i64 = 24 * 60 * 60;

/// Prints the tables.
pub fn usage(context: &RunContext, options: &Asked) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Asked) -> Result<Conclusion> {
    cancel::on_signals(context)?;
    let inventory = open_inventory(context, &options.inventory)?;
    let (usage, newest) = count(context, inventory.as_ref(), options)?;
    if let Some(path) = &options.html {
        html_file::write(&page_of(&usage, options, newest), path)?;
        report::status(format!("the page is in {}", path.display()));
    }
    if options.output.json {
        report::answer_json(&usage)?;
    } else {
        usage.lines(options.more.is_some()).iter().try_for_each(report::answer)?;
        let warn = |warning| report::print_warning(warning);
        usage.warnings.iter().for_each(warn);
    }
    Ok(Conclusion::Done)
}

/// The page: the usage, and below it the contents of the newest snapshot if it can be read.
fn page_of(usage: &Usage, options: &Asked, newest: Option<EntryName>) -> Page {
    let mut sections = usage.sections();
    let blamed = newest.map(|name| (blame_of(&options.inventory, &name), name));
    match blamed {
        Some((Ok(Some(blame)), name)) => {
            let about = format!("The newest snapshot that can be restored is {name}.");
            sections.push(Section::new("Size of a snapshot").paragraph(about));
            sections.extend(blame.sections());
        }
        Some((Err(e), name)) => {
            let about =
                format!("The content of {name} cannot be read: {}.", in_one_line(e.as_ref()));
            sections.push(Section::new("Size of a snapshot").paragraph(about));
        }
        // GitHub's API does not provide the contents of entries; a user with the file can inspect it.
        _ if !usage.entries.is_empty() => {
            sections.push(Section::new("Size of a snapshot").paragraph(
                "No snapshot can be read from here. For the file of a snapshot, use `storecache \
                 inspect --html`.",
            ));
        }
        _ => {}
    }
    Page {
        title: "Contents of the cache".into(),
        subtitle: format!("{} · {}", usage.backend, usage.at),
        sections,
    }
}

/// Returns `None` if the backend can only list entries.
fn blame_of(options: &InventoryOptions, name: &EntryName) -> Result<Option<Blame>> {
    let Some(path) = options.directory() else { return Ok(None) };
    let backend = Directory::new(path.clone(), false);
    let mut entry = OpenEntry::open(&backend, name, (&[], &Trust::default()), &mut 0)?;
    size_report::measure(&mut entry).map(Some)
}

/// Counts everything that is printed or drawn. Also returns the newest entry that can be restored.
fn count(
    context: &RunContext,
    inventory: &dyn Inventory,
    options: &Asked,
) -> Result<(Usage, Option<EntryName>)> {
    let mut warnings = Vec::new();
    let mut all = read(context, inventory, &mut warnings)?;
    all.sort_by(|a, b| b.record.created.cmp(&a.record.created).then(a.record.id.cmp(&b.record.id)));
    let asked = if all.is_empty() { Ok(None) } else { inventory.default_branch() };
    let default_branch = match asked {
        Ok(branch) => branch,
        Err(e) => {
            context.check_canceled()?;
            warnings.push(format!(
                "more entries than listed may be deleted: {}",
                in_one_line(e.as_ref())
            ));
            None
        }
    };
    let closed = closed_pull_requests::closed(context, inventory, &all, &mut warnings)?;
    let scene = RepositoryFacts { default_branch, closed };
    let (limit, now) = (options.limit, Timestamp::now());
    // Entries of all tools, whether they may be deleted or not.
    let any_tool = Pruning { prefix: Some(String::new()), ..Pruning::default() };
    let amount = |held: Vec<&ListedEntry>| amount(&held, limit);
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
    let usable = all.iter().find(|held| held.use_of_it == Use::Some);
    let newest = usable.and_then(|held| held.record.name.clone());
    let usage = Usage {
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
        by_last_use: by_time(&all, limit, now, ListedEntry::used),
        duplicates: duplicates(&all),
        superseded: because(PruneReason::Superseded),
        closed: because(PruneReason::Closed),
        unreadable: amount(all.iter().filter(|held| held.unreadable().is_some()).collect()),
        prunable: amount(going.iter().map(|(at, _)| &all[*at]).collect()),
        eviction: eviction_forecast::forecast(&all, more, limit, inventory.evicts(), now),
        cost: eviction_forecast::cost(&all, more),
        entries: all.iter().map(|held| held.row(limit, now)).collect(),
        warnings,
    };
    Ok((usage, newest))
}

fn amount(held: &[&ListedEntry], limit: u64) -> Amount {
    let bytes = eviction_forecast::sum(held.iter().copied());
    Amount { entries: held.len() as u64, bytes, share: share(bytes, limit) }
}

fn part(name: String, held: &[&ListedEntry], limit: u64, now: Timestamp) -> Part {
    let used = held.iter().filter_map(|held| held.used()).max();
    let unused_for = used.map(|used| now.as_second().saturating_sub(used.as_second()));
    Part { name, amount: amount(held, limit), unused_for }
}

/// The largest part first.
fn parts(
    all: &[ListedEntry],
    limit: u64,
    now: Timestamp,
    name: impl Fn(&ListedEntry) -> String,
) -> Vec<Part> {
    let mut groups: BTreeMap<String, Vec<&ListedEntry>> = BTreeMap::new();
    for held in all {
        groups.entry(name(held)).or_default().push(held);
    }
    let parts = groups.into_iter().map(|(name, held)| part(name, &held, limit, now));
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|part| Reverse(part.amount.bytes));
    parts
}

/// Parts by age, the most recent first.
fn by_time(
    all: &[ListedEntry],
    limit: u64,
    now: Timestamp,
    time: impl Fn(&ListedEntry) -> Option<Timestamp>,
) -> Vec<Part> {
    const STEPS: [(i64, &str); 5] = [
        (DAY, "up to a day"),
        (3 * DAY, "up to 3 days"),
        (7 * DAY, "up to 7 days"),
        (30 * DAY, "up to 30 days"),
        (i64::MAX, "longer"),
    ];
    let step = |held: &ListedEntry| {
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

/// Entries with the same content, the set that takes the most space first.
fn duplicates(all: &[ListedEntry]) -> Vec<Copies> {
    let told = |Alike { mut entries, guess }| {
        entries.sort();
        let first = entries.first().copied();
        let others = entries.iter().filter(|at| Some(**at) != first);
        Copies {
            keys: entries.iter().map(|at| all[*at].record.key.clone()).collect(),
            ids: entries.iter().map(|at| all[*at].record.id.clone()).collect(),
            bytes: eviction_forecast::sum(others.map(|at| &all[*at])),
            guess,
        }
    };
    let mut told: Vec<_> = alike(all, ListedEntry::stem).into_iter().map(told).collect();
    told.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.keys.cmp(&b.keys)));
    told
}
