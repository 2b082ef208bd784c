//! Forecast of GitHub's evictions, and the cost of avoiding them.
//!
//! Once an hour, GitHub deletes entries that were not used for a week, and then, while the total is above the
//! limit, the least recently used ones. Source: github/docs
//! `content/actions/reference/workflows-and-actions/dependency-caching.md`, and GitHub's changelog of
//! 2025-09-29 and 2025-11-20.

use super::annotated_entries::ListedEntry;
use crate::report::{Cost, Eviction};
use jiff::Timestamp;

/// Days without a use, unless the repository has another setting.
const IDLE_DAYS: u32 = 7;

/// Size in bytes that is free of charge for a repository.
pub const INCLUDED: u64 = 10 << 30;

/// Price of storage above that, by the hourly peak.
const USD_PER_GIB_MONTH: f64 = 0.07;

/// Predicts the next eviction after `more` bytes have been saved.
pub fn forecast(
    all: &[ListedEntry],
    more: u64,
    limit: u64,
    happens: bool,
    now: Timestamp,
) -> Eviction {
    let mut eviction = Eviction { more, happens, idle_days: IDLE_DAYS, ..Eviction::default() };
    let limit_of_age = i64::from(IDLE_DAYS) * 24 * 60 * 60;
    let is_idle = |held: &&ListedEntry| {
        held.used().is_some_and(|used| now.as_second() - used.as_second() > limit_of_age)
    };
    let (mut idle, mut used): (Vec<&ListedEntry>, Vec<&ListedEntry>) =
        all.iter().partition(is_idle);
    let order = |held: &&ListedEntry| (held.used(), held.record.created, held.record.id.clone());
    idle.sort_by_key(order);
    used.sort_by_key(order);
    for held in idle {
        eviction.idle.push(held.record.key.clone());
        eviction.idle_bytes += held.record.size;
    }
    let mut total = sum(used.iter().copied()).saturating_add(more);
    for held in used {
        if total <= limit {
            break;
        }
        total = total.saturating_sub(held.record.size);
        eviction.pushed_out.push(held.record.key.clone());
        eviction.pushed_out_bytes += held.record.size;
    }
    eviction.above = total.saturating_sub(limit);
    eviction
}

/// Cost of keeping everything and `more` bytes.
pub fn cost(all: &[ListedEntry], more: u64) -> Cost {
    let above = sum(all.iter()).saturating_add(more).saturating_sub(INCLUDED);
    let usd_per_month = above as f64 / (1u64 << 30) as f64 * USD_PER_GIB_MONTH;
    Cost { included: INCLUDED, above, usd_per_gib_month: USD_PER_GIB_MONTH, usd_per_month }
}

/// Total size in bytes.
pub fn sum<'a>(held: impl Iterator<Item = &'a ListedEntry>) -> u64 {
    held.fold(0, |sum, held| sum.saturating_add(held.record.size))
}
