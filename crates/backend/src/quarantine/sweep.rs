//! Decides when a sweep is due, and which entries in quarantine it deletes. The caller names the retention period.

use crate::EntryName;
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

/// The result of a sweep for an entry in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// Its time is not known or was written by a clock that was wrong: count from now.
    CountFromNow,
    Delete,
}

/// Decides about an entry that was put into quarantine at `noted` and is to be kept for `keep`, or for ever. If the
/// clock of that machine was behind, `noted` may be before the generation of the entry; then the time is counted from
/// the generation.
pub fn fate(
    name: &EntryName,
    noted: Option<Timestamp>,
    keep: Option<Duration>,
    now: Timestamp,
) -> Fate {
    let Some(noted) = noted.filter(|noted| !is_ahead(*noted, now)) else {
        return Fate::CountFromNow;
    };
    let made = name.generation.time().filter(|made| *made <= now);
    let since = made.map_or(noted, |made| made.max(noted));
    match (Duration::try_from(now.duration_since(since)), keep) {
        (Ok(age), Some(keep)) if age >= keep => Fate::Delete,
        _ => Fate::Keep,
    }
}

/// Returns whether a time was written by a clock that was wrong.
fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > AHEAD
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
        let keep = Some(Duration::from_secs(10 * 24 * 3600));
        let fate = |name: &EntryName, noted: &str| super::fate(name, Some(at(noted)), keep, now);
        let old = EntryName::parse("k.20200101T000000.000000Z").unwrap();
        assert_eq!(fate(&old, "2026-11-12T12:00:00Z"), Fate::Delete);
        assert_eq!(fate(&old, "2026-11-12T12:00:01Z"), Fate::Keep);
        assert_eq!(super::fate(&old, Some(at("2020-01-02T00:00:00Z")), None, now), Fate::Keep);
        // A machine without a battery noted the year 1970.
        let new = EntryName::parse("k.20261120T000000.000000Z").unwrap();
        assert_eq!(fate(&new, "1970-01-01T00:00:05Z"), Fate::Keep);
        // The clock of the machine that saved the entry was ahead.
        let ahead = EntryName::parse("k.20991120T000000.000000Z").unwrap();
        assert_eq!(fate(&ahead, "2026-11-01T00:00:00Z"), Fate::Delete);
        assert_eq!(fate(&old, "2031-01-01T00:00:00Z"), Fate::CountFromNow);
        assert_eq!(super::fate(&old, None, keep, now), Fate::CountFromNow);
    }
}
