//! Which pull requests are closed: nobody reads their entries any more.

use super::cancel;
use super::inventory::Held;
use crate::backend::Inventory;
use crate::report;
use anyhow::Result;
use std::collections::{BTreeMap, HashSet};

/// Pull requests that are asked for at most. A job's token has 1,000 requests an hour.
/// Source: github/docs `content/rest/using-the-rest-api/rate-limits-for-the-rest-api.md`.
const MOST: usize = 300;

/// Asks for each pull request with entries once, those with the largest first. What cannot be known
/// becomes a warning: its entries count as those of an open one.
pub fn closed(
    inventory: &dyn Inventory,
    all: &[Held],
    warnings: &mut Vec<String>,
) -> Result<HashSet<u64>> {
    let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, held) in all.iter().filter_map(|held| Some((held.pull()?, held))) {
        let size = sizes.entry(number).or_default();
        *size = size.saturating_add(held.record.size);
    }
    let mut closed = HashSet::new();
    if !inventory.evicts() {
        // A directory knows no pull requests.
        return Ok(closed);
    }
    let mut numbers: Vec<_> = sizes.into_iter().collect();
    numbers.sort_by_key(|&(number, size)| std::cmp::Reverse((size, number)));
    let left = numbers.len().saturating_sub(MOST);
    if left > 0 {
        let left = report::plural(left as u64, "pull request");
        warnings.push(format!("{left} with the smallest entries were not asked for"));
    }
    for (number, _) in numbers.into_iter().take(MOST) {
        cancel::check()?;
        match inventory.is_open(number) {
            Ok(Some(false)) => drop(closed.insert(number)),
            Ok(_) => {}
            Err(e) => {
                cancel::check()?;
                warnings.push(format!("which pull requests are closed is not known: {e:#}"));
                // The next one would meet the same, as a rule.
                break;
            }
        }
    }
    Ok(closed)
}
