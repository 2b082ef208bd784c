//! How long entries stay in quarantine: the rules that all backends share.

use super::EntryName;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Minimum time between two sweeps.
const BETWEEN_SWEEPS: SignedDuration = SignedDuration::from_hours(1);

/// Tolerated difference between the clocks of machines that share a directory. A time that is further ahead comes
/// from a machine whose clock was wrong.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// Returns whether a sweep is due if the last one was at `last`. A time that [is ahead](is_ahead) does not count.
pub fn is_due(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| is_ahead(last, now) || now.duration_since(last) >= BETWEEN_SWEEPS)
}

/// Returns whether a time was written by a clock that was wrong.
pub fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > AHEAD
}

/// Returns whether an entry that was put into quarantine at `noted` has been kept for `keep`. If the clock of that
/// machine was behind, `noted` may be before the generation of the entry; then the time is counted from the
/// generation.
pub fn is_over(name: &EntryName, noted: Timestamp, keep: Duration, now: Timestamp) -> bool {
    let made = name.generation.time().filter(|made| *made <= now);
    let since = made.map_or(noted, |made| made.max(noted));
    let age = Duration::try_from(now.duration_since(since));
    age.is_ok_and(|age| age >= keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn sweep_is_due_once_an_hour_even_if_the_clock_jumps() {
        let now = at("2026-11-22T12:00:00Z");
        assert!(is_due(None, now));
        assert!(!is_due(Some(at("2026-11-22T11:00:01Z")), now));
        assert!(is_due(Some(at("2026-11-22T11:00:00Z")), now));
        // One machine is a little ahead, and another one by years.
        assert!(!is_due(Some(at("2026-11-22T12:30:00Z")), now));
        assert!(is_due(Some(at("2031-01-01T00:00:00Z")), now));
    }

    #[test]
    fn retention_counts_from_quarantine_but_not_before_creation() {
        let now = at("2026-11-22T12:00:00Z");
        let keep = Duration::from_secs(10 * 24 * 3600);
        let old = EntryName::parse("k.20200101T000000.000000Z").unwrap();
        assert!(is_over(&old, at("2026-11-12T12:00:00Z"), keep, now));
        assert!(!is_over(&old, at("2026-11-12T12:00:01Z"), keep, now));
        // A machine without a battery noted the year 1970.
        let new = EntryName::parse("k.20261120T000000.000000Z").unwrap();
        assert!(!is_over(&new, at("1970-01-01T00:00:05Z"), keep, now));
        // The clock of the machine that saved the entry was ahead.
        let ahead = EntryName::parse("k.20991120T000000.000000Z").unwrap();
        assert!(is_over(&ahead, at("2026-11-01T00:00:00Z"), keep, now));
        assert!(!is_over(&old, at("2031-01-01T00:00:00Z"), keep, now));
    }
}
