//! Which item of a snapshot brings which megabytes, and what was restored and never read.
//!
//! References come from the frozen database, sizes and last use from the index, the moment from which a use
//! shows from the head. The result is for `--json` as it is, and for a page of people.

use super::entry::OpenEntry;
use crate::report::page::{Group, Section, Table, Tile, Treemap};
use crate::report::{bytes, plural};
use crate::store::{self, ItemName};
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Items that are listed.
const LISTED: usize = 30;
/// Groups of the map, before small ones become one.
const GROUPS: usize = 12;

/// Sizes are those of NARs, and in a plain store those on the disk, in bytes.
#[derive(Debug, Serialize)]
pub struct Blame {
    pub items: usize,
    pub bytes: u64,
    /// Items that the snapshot refers to and does not hold: they were there before the restore.
    pub outside: usize,
    /// Those that bring most, most first.
    pub largest: Vec<Brings>,
    /// What was restored and not read; nothing where the snapshot does not tell.
    pub unread: Option<Unread>,
    #[serde(skip)]
    map: Vec<Group>,
    /// Size of the file, and of its base.
    #[serde(skip)]
    packed: u64,
}

/// What one item brings.
#[derive(Debug, Serialize)]
pub struct Brings {
    pub name: String,
    pub own: u64,
    /// Itself and all that it refers to, however indirectly.
    pub closure: u64,
    /// Itself and all that would go with it, since nothing else refers to that.
    pub retained: u64,
    /// Whose `retained` it is a part of, and of no smaller one.
    pub dominator: Option<String>,
    /// When it was used last as far as the save knew, RFC 3339 in UTC.
    pub used: Option<String>,
}

/// What the job that saved the snapshot had restored and did not read.
///
/// Its save looked at the times of access of all that had been restored. So what was used last before the
/// restore ended is that, and all else was read or made by the job. It says nothing of other jobs.
#[derive(Debug, Serialize)]
pub struct Unread {
    /// When the restore had ended, RFC 3339 in UTC, and when it was saved.
    pub since: String,
    pub until: String,
    pub items: usize,
    pub bytes: u64,
    /// The largest, largest first.
    pub largest: Vec<UnreadItem>,
}

#[derive(Debug, Serialize)]
pub struct UnreadItem {
    pub name: String,
    pub bytes: u64,
    /// When it was used last before that, RFC 3339 in UTC: read, as far as a save saw it, or else made.
    pub used: Option<String>,
}

/// An item as the index and the database have it.
struct Item {
    name: String,
    size: u64,
    /// In seconds since 1970.
    used: Option<u64>,
}

/// Reads the database of an entry and says who brings what. Downloads no more than that.
///
/// # Errors
/// When the database is damaged, or cannot be read.
pub fn of(entry: &mut OpenEntry) -> Result<Blame> {
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
    let mut outside = std::collections::HashSet::<&ItemName>::new();
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
    let graph = store::Blame::new(items.iter().map(|item| item.size).collect(), &below);
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
            Unread::of(unread, since, head.created.raw())
        }),
        map: map(&items, &graph, &is_unread),
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

/// The date of a moment alone.
fn day(moment: Option<&str>) -> String {
    moment.and_then(|text| text.get(..10)).unwrap_or("unknown").to_owned()
}

fn largest(items: &[Item], graph: &store::Blame) -> Vec<Brings> {
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
    fn of(mut items: Vec<&Item>, since: Timestamp, created: &str) -> Self {
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

/// The items in groups, each that of one which brings all others in it. One that brings most of everything
/// is no group that tells anything: what is right below it are groups then.
fn map(items: &[Item], graph: &store::Blame, is_unread: &dyn Fn(&Item) -> bool) -> Vec<Group> {
    let mut below = vec![Vec::new(); items.len()];
    let mut tops = BinaryHeap::new();
    for at in 0..items.len() {
        match graph.dominator(at) {
            Some(above) => below[above].push(at),
            None => tops.push((graph.retained(at), Reverse(at))),
        }
    }
    let total = sum(items.iter());
    let tile = |at: usize| Tile {
        label: without_hash(&items[at].name).to_owned(),
        name: items[at].name.clone(),
        size: items[at].size,
        dashed: is_unread(&items[at]),
    };
    let name = |at: usize| without_hash(&items[at].name).to_owned();
    let mut groups = Vec::new();
    while let Some(&(retained, Reverse(at))) = tops.peek() {
        let large = retained > total / 4 && !below[at].is_empty();
        if !large || groups.len() >= GROUPS {
            break;
        }
        tops.pop();
        groups.push(Group { name: name(at), tiles: vec![tile(at)] });
        tops.extend(below[at].iter().map(|&at| (graph.retained(at), Reverse(at))));
    }
    for (_, Reverse(top)) in tops {
        let mut tiles = Vec::new();
        let mut pending = vec![top];
        while let Some(at) = pending.pop() {
            tiles.push(tile(at));
            pending.extend(&below[at]);
        }
        groups.push(Group { name: name(top), tiles });
    }
    groups
}

/// What to call items in a list: the part of a name that people know, with the hash where two share it.
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

/// The part of a name that people know; the whole of what is no name of an item.
fn without_hash(name: &str) -> &str {
    match ItemName::parse(name) {
        Some(_) => name.get(33..).unwrap_or(name),
        None => name,
    }
}

impl Blame {
    /// What the map and the lists say, for a page.
    pub fn sections(&self) -> Vec<Section> {
        let mut figures = vec![
            ("Items", self.items.to_string()),
            ("Unpacked", bytes(self.bytes)),
            ("Packed", bytes(self.packed)),
        ];
        if let Some(unread) = &self.unread {
            figures.push(("Restored, not read", bytes(unread.bytes)));
        }
        let mut table = Table::new(format!("The {} items that bring most", self.largest.len()))
            .text("Item")
            .number("Retained")
            .number("Closure")
            .number("Own")
            .text("Below");
        let names = called(self.largest.iter().map(|item| item.name.as_str()));
        for (item, name) in self.largest.iter().zip(names) {
            let above = item.dominator.as_deref().map(without_hash).unwrap_or_default();
            let sizes = [item.retained, item.closure, item.own].map(bytes);
            let cells = [name].into_iter().chain(sizes);
            table.row(cells.chain([above.to_owned()]));
        }
        let brings = Section::new("Which item brings which megabytes")
            .figures(figures)
            .paragraph(format!("{SIZES}{}", self.outside_text()))
            .treemap(Treemap {
                title: "What fills the snapshot".into(),
                text: "Tiles are items, as large as they are unpacked. A group is an item with all that only \
                       it brings."
                    .into(),
                groups: self.map.clone(),
                dashed: Some("restored by the job that saved this, and not read by it".into()),
                ..Treemap::default()
            })
            .table(table);
        vec![brings, self.unread_section()]
    }

    fn outside_text(&self) -> String {
        match self.outside {
            0 => String::new(),
            count => format!(
                " {} that it refers to are not in it: they were there before the restore.",
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
        let mut table = Table::new(caption).text("Item").number("Size").number("Known use before");
        let names = called(unread.largest.iter().map(|item| item.name.as_str()));
        for (item, name) in unread.largest.iter().zip(names) {
            table.row([name, bytes(item.bytes), day(item.used.as_deref())]);
        }
        section.paragraph(USE).table(table)
    }

    /// The same in lines, for a terminal.
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
                "The job that saved this snapshot read some of every item that it had restored, {from_to}."
            ),
            count => format!(
                "The job that saved this snapshot restored {} of {} and read no file of them, {from_to}.",
                plural(count as u64, "item"),
                bytes(self.bytes),
            ),
        }
    }
}

/// A moment for people.
fn short(moment: &str) -> String {
    match moment.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => moment.to_owned(),
    }
}

const SIZES: &str = "Own is the size of an item itself, closure that of all it needs. Retained is what would go \
                     with it: itself and what nothing else needs.";
const USE: &str = "This tells of that one job alone: another may need them. What only links to them counts as \
                   no use. The last column says when they were used before, as far as a save saw it: read, or \
                   else made.";
const UNTOLD: &str = "This snapshot does not tell what was restored and not read: the job that saved it had \
                      restored nothing, or reads do not show in its store, or it saved what had been there \
                      before too.";
