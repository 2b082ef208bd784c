//! Which item of a snapshot brings how many megabytes, and which items were restored and never read.
//!
//! References come from the frozen database, sizes and the time of last use from the index, and the time from
//! which reads were observed from the head. The result is printed with `--json`, or shown on a page.

use super::dominators::ItemGraph;
use super::open_entry::OpenEntry;
use crate::report::html::{Section, Table};
use crate::report::{bytes, plural};
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use storecache_store::ItemName;

/// Number of items that are listed.
const LISTED: usize = 30;

/// Sizes are NAR sizes, and in a plain store sizes on disk, in bytes.
#[derive(Debug, Serialize)]
pub struct Blame {
    pub items: usize,
    pub bytes: u64,
    /// Items that the snapshot refers to and does not contain: they were valid before the restore.
    pub outside: usize,
    /// The items that bring the most, largest first.
    pub largest: Vec<Brings>,
    /// Items that were restored and not read; `None` if the snapshot does not record that.
    pub unread: Option<Unread>,
    /// Size of the file and of its base.
    #[serde(skip)]
    packed: u64,
}

/// The sizes that one item accounts for.
#[derive(Debug, Serialize)]
pub struct Brings {
    pub name: String,
    pub own: u64,
    /// Size of the item and of everything that it refers to, directly or indirectly.
    pub closure: u64,
    /// Size of the item and of everything that would be removed with it, because nothing else refers to it.
    pub retained: u64,
    /// The closest item whose `retained` includes this one.
    pub dominator: Option<String>,
    /// Last known use when the snapshot was saved, RFC 3339 in UTC.
    pub used: Option<String>,
}

/// Items that the job which saved the snapshot had restored and did not read.
///
/// The save checked the access times of all restored items. So an item whose last use is before the end of
/// the restore was restored and not read; the job read or made all other items. This says nothing about other
/// jobs.
#[derive(Debug, Serialize)]
pub struct Unread {
    /// End of the restore, RFC 3339 in UTC; `until` is the time of the save.
    pub since: String,
    pub until: String,
    pub items: usize,
    pub bytes: u64,
    /// The largest items, largest first.
    pub largest: Vec<UnreadItem>,
}

#[derive(Debug, Serialize)]
pub struct UnreadItem {
    pub name: String,
    pub bytes: u64,
    /// Last use before that, RFC 3339 in UTC: a read that a save observed, or else the creation of the item.
    pub used: Option<String>,
}

/// An item, with data from the index and the database.
struct Item {
    name: String,
    size: u64,
    /// In seconds since 1970.
    used: Option<u64>,
}

/// Reads the database of an entry and computes which item brings how much. Downloads nothing besides the
/// database.
///
/// # Errors
/// If the database is damaged or cannot be read.
pub fn measure(entry: &mut OpenEntry) -> Result<Blame> {
    let database = entry.database()?;
    let (rows, references) = match &database {
        Some((_, database)) => (database.items()?, database.references()?),
        None => Default::default(),
    };
    let in_rows: HashMap<&str, u64> =
        rows.iter().filter_map(|row| Some((row.name.as_str(), row.nar_size?))).collect();
    let index = &entry.opened.index;
    let own = index.items.iter().map(|item| Item {
        name: item.name.clone(),
        size: item.nar_size.unwrap_or(item.disk),
        used: item.used,
    });
    let inherited = index.base.iter().flat_map(|base| &base.items).map(|item| Item {
        name: item.name.clone(),
        size: in_rows.get(item.name.as_str()).copied().unwrap_or(0),
        used: item.used,
    });
    let items: Vec<Item> = own.chain(inherited).collect();
    let numbers: HashMap<&str, usize> =
        items.iter().enumerate().map(|(number, item)| (item.name.as_str(), number)).collect();

    let mut below = vec![Vec::new(); items.len()];
    let mut outside = HashSet::<&ItemName>::new();
    for (referrer, referred) in &references {
        let Some(&referrer) = numbers.get(referrer.as_str()) else { continue };
        for name in referred {
            match numbers.get(name.as_str()) {
                Some(&number) => below[referrer].push(number),
                None => drop(outside.insert(name)),
            }
        }
    }
    let outside = outside.len();
    let graph = ItemGraph::new(items.iter().map(|item| item.size).collect(), &below);
    let head = &entry.opened.head;
    let since = head.watched_since.as_ref().and_then(|text| text.raw().parse::<Timestamp>().ok());
    let is_unread = |item: &Item| {
        since.is_some_and(|since| item.used.is_none_or(|used| (used as i64) < since.as_second()))
    };
    Ok(Blame {
        items: items.len(),
        bytes: sum(items.iter()),
        outside,
        largest: largest(&items, &graph),
        unread: since.map(|since| {
            let unread: Vec<&Item> = items.iter().filter(|item| is_unread(item)).collect();
            Unread::new(unread, since, head.created.raw())
        }),
        packed: entry.size(),
    })
}

fn sum<'a>(items: impl Iterator<Item = &'a Item>) -> u64 {
    items.fold(0, |sum: u64, item| sum.saturating_add(item.size))
}

fn moment(seconds: u64) -> Option<String> {
    let time = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The date part of a time.
fn day(moment: Option<&str>) -> String {
    moment.and_then(|text| text.get(..10)).unwrap_or("unknown").to_owned()
}

fn largest(items: &[Item], graph: &ItemGraph) -> Vec<Brings> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order
        .sort_by_key(|&at| (Reverse(graph.retained(at)), Reverse(items[at].size), &items[at].name));
    order.truncate(LISTED);
    let closures = graph.closures(&order);
    let brings = |(at, closure): (usize, u64)| Brings {
        name: items[at].name.clone(),
        own: items[at].size,
        closure,
        retained: graph.retained(at),
        dominator: graph.dominator(at).map(|above| items[above].name.clone()),
        used: items[at].used.and_then(moment),
    };
    order.into_iter().zip(closures).map(brings).collect()
}

impl Unread {
    fn new(mut items: Vec<&Item>, since: Timestamp, created: &str) -> Self {
        items.sort_by_key(|item| (Reverse(item.size), &item.name));
        let listed = items.iter().take(LISTED).map(|item| UnreadItem {
            name: item.name.clone(),
            bytes: item.size,
            used: item.used.and_then(moment),
        });
        Unread {
            since: since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            until: created.to_owned(),
            items: items.len(),
            bytes: sum(items.iter().copied()),
            largest: listed.collect(),
        }
    }
}

/// Display names of items: the name without the hash; the hash is added if two items have the same name.
fn called<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    names.clone().for_each(|name| *count.entry(without_hash(name)).or_default() += 1);
    let call = |name: &str| match count.get(without_hash(name)) {
        Some(1) => without_hash(name).to_owned(),
        _ => match name.get(..8).filter(|_| without_hash(name) != name) {
            Some(hash) => format!("{} ({hash}…)", without_hash(name)),
            None => name.to_owned(),
        },
    };
    names.map(call).collect()
}

/// The name of an item without its hash; any other text is returned unchanged.
fn without_hash(name: &str) -> &str {
    match ItemName::parse(name) {
        Some(_) => name.get(33..).unwrap_or(name),
        None => name,
    }
}

impl Blame {
    /// The sections of a page.
    pub fn sections(&self) -> Vec<Section> {
        let mut figures = vec![
            ("Items", self.items.to_string()),
            ("Unpacked", bytes(self.bytes)),
            ("Packed", bytes(self.packed)),
        ];
        if let Some(unread) = &self.unread {
            figures.push(("Restored, not read", bytes(unread.bytes)));
        }
        let mut table =
            Table::new(format!("The {} items with the largest retained size", self.largest.len()))
                .text("Item")
                .number("Retained")
                .number("Closure")
                .number("Own")
                .text("Retained by");
        let names = called(self.largest.iter().map(|item| item.name.as_str()));
        for (item, name) in self.largest.iter().zip(names) {
            let above = item.dominator.as_deref().map(without_hash).unwrap_or_default();
            let sizes = [item.retained, item.closure, item.own].map(bytes);
            let cells = [name].into_iter().chain(sizes);
            table.row(cells.chain([above.to_owned()]));
        }
        let brings = Section::new("Size by item")
            .figures(figures)
            .paragraph(format!("{SIZES}{}", self.outside_text()))
            .table(table);
        vec![brings, self.unread_section()]
    }

    fn outside_text(&self) -> String {
        match self.outside {
            0 => String::new(),
            count => format!(
                " {} that it refers to are not in it, because they existed before the restore.",
                plural(count as u64, "item")
            ),
        }
    }

    fn unread_section(&self) -> Section {
        let section = Section::new("Restored and never read");
        let Some(unread) = &self.unread else { return section.paragraph(UNTOLD) };
        let section = section.paragraph(unread.sentence());
        if unread.items == 0 {
            return section;
        }
        let caption = match unread.items.checked_sub(unread.largest.len()) {
            None | Some(0) => "All of them".to_owned(),
            Some(_) => format!("The {} largest of them", unread.largest.len()),
        };
        let mut table = Table::new(caption).text("Item").number("Size").number("Previous use");
        let names = called(unread.largest.iter().map(|item| item.name.as_str()));
        for (item, name) in unread.largest.iter().zip(names) {
            table.row([name, bytes(item.bytes), day(item.used.as_deref())]);
        }
        section.paragraph(USE).table(table)
    }

    /// The blame as lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![String::new(), format!("{:>9} {:>9} {:>9}", "retained", "closure", "own")];
        for item in &self.largest {
            let [retained, closure, own] = [item.retained, item.closure, item.own].map(bytes);
            lines.push(format!("{retained:>9} {closure:>9} {own:>9}  {}", item.name));
        }
        lines.push(String::new());
        let Some(unread) = &self.unread else {
            lines.push(UNTOLD.to_owned());
            return lines;
        };
        lines.push(unread.sentence());
        for item in &unread.largest {
            lines.push(format!("{:>9}  {}", bytes(item.bytes), item.name));
        }
        lines
    }
}

impl Unread {
    fn sentence(&self) -> String {
        let from_to = format!("between {} and {}", short(&self.since), short(&self.until));
        match self.items {
            0 => format!(
                "The job that saved this snapshot read files of every item that it had restored, \
                 {from_to}."
            ),
            count => format!(
                "The job that saved this snapshot restored {} of {} and read no file of them, {from_to}.",
                plural(count as u64, "item"),
                bytes(self.bytes),
            ),
        }
    }
}

/// A time for people.
fn short(moment: &str) -> String {
    match moment.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => moment.to_owned(),
    }
}

const SIZES: &str = "Own is the size of an item itself, closure the size of all it needs. Retained \
                     is the size that goes with the item: the item and all that only it needs.";
const USE: &str = "This is about that job only: another job may need these items. Links to an item \
                   do not count as use. The last column is the previous use that a save recorded: \
                   the last read, or else the creation.";
const UNTOLD: &str = "This snapshot does not record which items were restored and not read: the \
                      job that saved it had restored nothing, or its store does not record reads, \
                      or it also saved the items from before the restore.";
