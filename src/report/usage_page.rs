//! The use of space in a backend as sections of a page.

use super::entry_rows::{Amount, Part, Usage};
use super::format::{age, binary, plural};
use super::html::{Section, Table};

/// Maximum number of keys in a list.
const LISTED: usize = 40;

/// Maximum length of a key in a table.
const KEY: usize = 40;

impl Usage {
    /// The sections, most important first.
    pub fn sections(&self) -> Vec<Section> {
        if self.entries.is_empty() {
            let section = Section::new("Size of the cache");
            return vec![section.paragraph(format!("{} has no entries.", self.backend))];
        }
        vec![self.size(), self.groups(), self.could_go(), self.goes_next()]
    }

    fn size(&self) -> Section {
        Section::new("Size of the cache").figures([
            ("Entries", self.total.entries.to_string()),
            ("Size", binary(self.total.bytes)),
            ("Of the budget", percent(self.total.share)),
            ("By storecache", binary(self.ours.bytes)),
        ])
    }

    fn groups(&self) -> Section {
        let mut section = Section::new("Size by group");
        for (caption, parts) in [
            ("By key prefix", &self.by_prefix),
            ("By ref", &self.by_ref),
            ("By age", &self.by_age),
            ("By last use", &self.by_last_use),
        ] {
            let mut table = Table::new(caption).text("Name").number("Size").number("Budget");
            table = table.number("Entries").number("Last use");
            for Part { name, amount, unused_for } in parts {
                let used = unused_for.map_or_else(String::new, |ago| format!("{} ago", age(ago)));
                table.row([
                    name.clone(),
                    binary(amount.bytes),
                    percent(amount.share),
                    amount.entries.to_string(),
                    used,
                ]);
            }
            section = section.table(table);
        }
        section
    }

    fn could_go(&self) -> Section {
        let mut table = Table::new("Why").text("Reason").number("Size").number("Entries");
        let mut row = |why: &str, Amount { entries, bytes, .. }: &Amount| {
            table.row([why.to_owned(), binary(*bytes), entries.to_string()]);
        };
        row("Superseded generations", &self.superseded);
        row("Of closed pull requests", &self.closed);
        row("Unreadable", &self.unreadable);
        row("Would be deleted by `storecache prune`", &self.prunable);
        let mut section = Section::new("Entries that can be deleted").table(table);
        if !self.duplicates.is_empty() {
            let mut table = Table::new("Duplicates").text("Newest entry with the same content");
            table = table.number("Entries").number("Redundant").text("Compared by");
            for copies in &self.duplicates {
                let by = if copies.guess { "size" } else { "content" };
                let newest = copies.keys.first().map(|key| middle_cut(key)).unwrap_or_default();
                let count = copies.keys.len().to_string();
                table.row([newest, count, binary(copies.bytes), by.to_owned()]);
            }
            section = section.table(table);
        }
        section
    }

    fn goes_next(&self) -> Section {
        let eviction = &self.eviction;
        let mut text = match eviction.more {
            0 => "At the next eviction".to_owned(),
            more => format!("When {} more are saved", binary(more)),
        };
        text += &match eviction.idle.len() + eviction.pushed_out.len() {
            0 => " nothing would be evicted.".to_owned(),
            count => format!(" {} would be evicted.", plural(count as u64, "entry")),
        };
        if !eviction.happens {
            text += " A directory evicts nothing; this is what GitHub would do.";
        }
        let mut section = Section::new("Next eviction").paragraph(text);
        if !eviction.idle.is_empty() || !eviction.pushed_out.is_empty() {
            let mut table = Table::new("Next entries to be evicted").text("Entry").text("Why");
            let idle = format!("unused for more than {} days", eviction.idle_days);
            for (keys, why) in
                [(&eviction.idle, idle.as_str()), (&eviction.pushed_out, "used least recently")]
            {
                keys.iter()
                    .take(LISTED)
                    .for_each(|key| table.row([middle_cut(key), why.to_owned()]));
            }
            section = section.table(table);
        }
        let cost = &self.cost;
        section.paragraph(match cost.above {
            0 => format!("To keep everything costs nothing: {} are free.", binary(cost.included)),
            above => format!(
                "To keep everything, with a higher limit, costs {:.2} USD a month: {} above {}, at \
                 {} USD per GiB and month, by the hourly peak.",
                cost.usd_per_month,
                binary(above),
                binary(cost.included),
                cost.usd_per_gib_month
            ),
        })
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A long key without its middle: both ends distinguish it from other keys.
fn middle_cut(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    if letters.len() <= KEY {
        return key.to_owned();
    }
    let (begin, end) = (&letters[..KEY * 2 / 3], &letters[letters.len() - KEY / 3..]);
    begin.iter().chain(['…'].iter()).chain(end).collect()
}
