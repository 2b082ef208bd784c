//! The use of space in a backend as text for people.

use super::entry_rows::{Amount, Cost, Eviction, Part, Usage};
use super::format::{age, binary, columns, plural};

/// Maximum number of rows of a table.
const ROWS: usize = 20;

impl Usage {
    /// The report as lines. With `forecasts`, the next eviction is included even if nothing would be evicted.
    pub fn lines(&self, forecasts: bool) -> Vec<String> {
        if self.entries.is_empty() {
            let mut lines = vec![format!("{}: no entries", self.backend)];
            if forecasts {
                lines.extend(self.eviction_lines());
            }
            return lines;
        }
        let mut lines = vec![
            format!("{}: {} of {}", self.backend, told(&self.total), binary(self.limit)),
            format!("by storecache: {}", told(&self.ours)),
        ];
        for (title, parts) in [
            ("by prefix", &self.by_prefix),
            ("by ref", &self.by_ref),
            ("by age", &self.by_age),
            ("by last use", &self.by_last_use),
        ] {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(table(parts));
        }
        lines.extend([String::new(), "can be deleted".to_owned()]);
        let rows = [
            ("superseded generations", &self.superseded),
            ("of closed pull requests", &self.closed),
            ("unreadable", &self.unreadable),
            ("would be deleted by `storecache prune`", &self.prunable),
        ];
        lines.extend(rows.iter().map(|(name, amount)| format!("  {name}: {}", told(amount))));
        lines.extend(self.duplicate_lines());
        let Eviction { idle, pushed_out, above, .. } = &self.eviction;
        if forecasts || !idle.is_empty() || !pushed_out.is_empty() || *above > 0 {
            lines.extend(self.eviction_lines());
        }
        lines
    }

    fn duplicate_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.duplicates.is_empty() {
            return lines;
        }
        lines.extend([String::new(), "duplicates".to_owned()]);
        for copies in self.duplicates.iter().take(ROWS) {
            let (count, size) = (copies.keys.len(), binary(copies.bytes));
            let guess = if copies.guess { ", judging by their size" } else { "" };
            lines.push(format!("  {count} have the same content, {size} redundant{guess}:"));
            lines.extend(copies.keys.iter().map(|key| format!("    {key}")));
        }
        lines.extend(and_more(self.duplicates.len()));
        lines
    }

    fn eviction_lines(&self) -> Vec<String> {
        let Eviction { more, happens, idle_days, above, .. } = &self.eviction;
        let when = match more {
            0 => String::new(),
            more => format!(" when {} more are saved", binary(*more)),
        };
        let mut lines = vec![String::new(), format!("next eviction{when}")];
        if !happens {
            lines.push("  a directory evicts nothing; GitHub would do this:".into());
        }
        let goes = [
            (
                format!("unused for more than {idle_days} days"),
                &self.eviction.idle,
                self.eviction.idle_bytes,
            ),
            (
                "used least recently".to_owned(),
                &self.eviction.pushed_out,
                self.eviction.pushed_out_bytes,
            ),
        ];
        if goes.iter().all(|(_, keys, _)| keys.is_empty()) {
            lines.push("  nothing is evicted".into());
        }
        for (why, keys, bytes) in goes.iter().filter(|(_, keys, _)| !keys.is_empty()) {
            let count = plural(keys.len() as u64, "entry");
            lines.push(format!("  {count} with {}, {why}:", binary(*bytes)));
            lines.extend(keys.iter().take(ROWS).map(|key| format!("    {key}")));
            lines.extend(and_more(keys.len()));
        }
        if *above > 0 {
            let above = binary(*above);
            lines.push(format!("  {above} are still above the limit: new entries are evicted too"));
        }
        let Cost { included, above, usd_per_gib_month, usd_per_month } = &self.cost;
        let (included, price) = (binary(*included), format!("{usd_per_gib_month} USD"));
        lines.push(match above {
            0 => format!("  to keep everything costs nothing: {included} are free"),
            above => format!(
                "  to keep everything, with a higher limit, costs {usd_per_month:.2} USD a month: \
                 {} above {included}, at {price} per GiB and month, by the hourly peak",
                binary(*above)
            ),
        });
        lines
    }
}

fn told(Amount { entries, bytes, share }: &Amount) -> String {
    let share = share * 100.0;
    format!("{} with {} ({share:.1} %)", plural(*entries, "entry"), binary(*bytes))
}

fn table(parts: &[Part]) -> Vec<String> {
    let rows: Vec<_> = parts.iter().take(ROWS).map(row).collect();
    let lines = columns(&rows, 4).into_iter().map(|line| format!("  {line}"));
    lines.chain(and_more(parts.len())).collect()
}

fn row(Part { name, amount, unused_for }: &Part) -> [String; 5] {
    let used = unused_for.map_or_else(|| "-".into(), |ago| format!("used {} ago", age(ago)));
    [
        binary(amount.bytes),
        format!("{:.1} %", amount.share * 100.0),
        plural(amount.entries, "entry"),
        used,
        name.clone(),
    ]
}

fn and_more(count: usize) -> Option<String> {
    let left = count.checked_sub(ROWS).filter(|left| *left > 0)?;
    Some(format!("    and {left} more, see --json"))
}
