//! Finds which pull requests are closed: their entries are not read any more.

use super::annotated_entries::ListedEntry;
use crate::report;
use anyhow::Result;
use std::collections::{BTreeMap, HashSet};
use storecache_backend::Inventory;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;

/// Maximum number of pull requests that are queried. A job's token has 1,000 requests an hour. Source:
/// github/docs `content/rest/using-the-rest-api/rate-limits-for-the-rest-api.md`.
const MOST: usize = 300;

/// Queries each pull request with entries once, those with the largest total size first. If the state is not
/// known, adds a warning and treats the pull request as open.
pub fn closed(
    context: &RunContext,
    inventory: &dyn Inventory,
    all: &[ListedEntry],
    warnings: &mut Vec<String>,
) -> Result<HashSet<u64>> {
    let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, held) in all.iter().filter_map(|held| Some((held.pull()?, held))) {
        let size = sizes.entry(number).or_default();
        *size = size.saturating_add(held.record.size);
    }
    let mut closed = HashSet::new();
    if !inventory.evicts() {
        // A directory does not know pull requests.
        return Ok(closed);
    }
    let mut numbers: Vec<_> = sizes.into_iter().collect();
    numbers.sort_by_key(|&(number, size)| std::cmp::Reverse((size, number)));
    let left = numbers.len().saturating_sub(MOST);
    if left > 0 {
        let left = report::plural(left as u64, "pull request");
        warnings.push(format!("did not query {left} with the smallest entries"));
    }
    for (number, _) in numbers.into_iter().take(MOST) {
        context.check_canceled()?;
        match inventory.is_open(number) {
            Ok(Some(false)) => drop(closed.insert(number)),
            Ok(_) => {}
            Err(e) => {
                context.check_canceled()?;
                warnings.push(format!(
                    "cannot determine which pull requests are closed: {}",
                    in_one_line(e.as_ref())
                ));
                // The next query would most likely fail too.
                break;
            }
        }
    }
    Ok(closed)
}
