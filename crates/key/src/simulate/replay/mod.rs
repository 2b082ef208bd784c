//! Simulates a job: look up the key, restore, build missing items, and save.

use super::github_cache_model::{Cache, EntryId, Limits, New};
use super::metrics::{Outcome, Point, Rates};
use crate::history::Run;

/// The costs of a run.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Size of an entry with the whole store, in bytes.
    pub entry: u64,
    /// The fraction of that size that a job uploads after it restored an entry; 1 without deltas.
    pub delta_share: f64,
    /// Minutes of a job after a miss.
    pub cold_minutes: f64,
    /// Minutes of a job that found everything it needs.
    pub hit_minutes: f64,
    /// The fraction of the difference that a prefix match or a stale entry saves.
    pub prefix_share: f64,
}

/// A run, with its key and its requirements under one policy.
#[derive(Debug, Clone)]
pub struct Happening<'r> {
    pub run: &'r Run,
    /// The hash in its key.
    pub key: u128,
    /// The required content of its store.
    pub needs: usize,
}

/// Replays the runs in order, beginning with an empty cache. A saved entry is visible to the next run.
/// `width` is the length of an interval of the series, in seconds.
pub fn replay(happenings: &[Happening], limits: Limits, costs: &Costs, width: i64) -> Outcome {
    let Some(first) = happenings.first() else { return Outcome::default() };
    let begin = first.run.time;
    let mut replay = Replay {
        cache: Cache::new(limits, begin),
        costs,
        outcome: Outcome::default(),
        point: Point { time: begin, ..Point::default() },
    };
    for happening in happenings {
        replay.until(happening.run.time, width);
        replay.run(happening);
    }
    replay.close_point(0);
    replay.end()
}

struct Replay<'c> {
    cache: Cache,
    costs: &'c Costs,
    outcome: Outcome,
    /// The current interval.
    point: Point,
}

impl Replay<'_> {
    fn until(&mut self, now: i64, width: i64) {
        while let Some(end) = self.point.time.checked_add(width).filter(|end| *end <= now) {
            self.cache.advance(end);
            self.close_point(end);
        }
        self.cache.advance(now);
    }

    fn close_point(&mut self, next: i64) {
        let (cache, outcome) = (&self.cache, &mut self.outcome);
        let evictions = cache.evicted - outcome.evictions;
        let expiries = cache.expired - outcome.expiries;
        (outcome.evictions, outcome.expiries) = (cache.evicted, cache.expired);
        let begun = std::mem::replace(&mut self.point, Point { time: next, ..Point::default() });
        outcome.series.push(Point { bytes_kept: cache.bytes, evictions, expiries, ..begun });
    }

    fn run(&mut self, Happening { run, key, needs }: &Happening) {
        let found = self.cache.find(run.readable(), *key);
        if let Some(found) = found {
            self.cache.touch(found.entry);
        }
        let complete = found.is_some_and(|it| self.cache.entry(it.entry).content == *needs);
        let exact = found.map(|it| it.exact);
        let count = match exact {
            Some(true) if complete => (&mut self.outcome.exact, &mut self.point.exact),
            Some(true) => (&mut self.outcome.stale, &mut self.point.stale),
            Some(false) => (&mut self.outcome.prefix, &mut self.point.prefix),
            None => (&mut self.outcome.miss, &mut self.point.miss),
        };
        *count.0 += 1;
        *count.1 += 1;
        self.outcome.runs += 1;
        self.point.runs += 1;
        if exact == Some(false) && complete {
            self.outcome.prefix_complete += 1;
        }
        // A complete exact hit is not saved again; new items are, as the next generation of the key
        // (`commands/save_policy.rs`).
        if !(exact == Some(true) && complete) {
            let base = found.map(|it| it.entry).filter(|_| self.costs.delta_share < 1.0);
            self.save(New {
                scope: run.scope,
                key: *key,
                content: *needs,
                bytes: self.costs.entry,
                base,
            });
        }
    }

    fn save(&mut self, new: New) {
        let base = new.base.map(|entry| self.full(entry));
        let bytes = match base {
            Some(_) => (new.bytes as f64 * self.costs.delta_share) as u64,
            None => new.bytes,
        };
        self.cache.save(New { bytes, base, ..new });
        self.outcome.entries_written += 1;
        self.outcome.bytes_uploaded += bytes;
        self.outcome.peak_bytes = self.outcome.peak_bytes.max(self.cache.bytes);
        self.point.bytes_uploaded += bytes;
    }

    /// Returns the full entry that a delta is based on: a base is always full, so chains are one deep.
    fn full(&self, entry: EntryId) -> EntryId {
        self.cache.entry(entry).base.unwrap_or(entry)
    }

    fn end(self) -> Outcome {
        let Replay { cache, costs, outcome, .. } = self;
        let gain = costs.cold_minutes - costs.hit_minutes;
        let partly = outcome.stale + outcome.prefix - outcome.prefix_complete;
        let complete = outcome.complete() as f64;
        let rate = |count: u64| count as f64 / outcome.runs.max(1) as f64;
        Outcome {
            minutes_saved: gain * (complete + costs.prefix_share * partly as f64),
            rates: Rates {
                exact: rate(outcome.exact),
                stale: rate(outcome.stale),
                prefix: rate(outcome.prefix),
                miss: rate(outcome.miss),
            },
            gigabyte_hours: cache.byte_seconds as f64 / 3600.0 / 1e9,
            ..outcome
        }
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use super::super::github_cache_model::SWEEP;
    use super::*;
    use crate::history::{RunKind, Scope};

    const HOUR: i64 = SWEEP;
    const DAY: i64 = 24 * HOUR;
    const LIMITS: Limits = Limits { bytes: 10_000, idle: 7 * DAY };
    const COSTS: Costs = Costs {
        entry: 1000,
        delta_share: 1.0,
        cold_minutes: 11.0,
        hit_minutes: 1.0,
        prefix_share: 0.5,
    };

    /// Makes a run at `hour`, on `main`, on a pull request (`pr1`, `pr2`, ...), or on a branch.
    fn run(reference: &str, hour: i64) -> Run {
        let (kind, scope, base) = match reference {
            "main" => (RunKind::DefaultBranch, Scope::DEFAULT, None),
            other => match other.strip_prefix("pr") {
                Some(number) => {
                    (RunKind::PullRequest, Scope(number.parse().unwrap()), Some(Scope::DEFAULT))
                }
                None => (RunKind::OtherBranch, Scope(100), None),
            },
        };
        Run { commit: 0, time: hour * HOUR, kind, scope, base }
    }

    /// Replays a history of runs, each given as ref, hour, key and required content. Returns exact, stale,
    /// prefix and miss; entries, expiries and evictions; minutes.
    fn told(history: &[(&str, i64, u128, usize)], limits: Limits) -> ([u64; 4], [u64; 3], f64) {
        let runs: Vec<Run> = history.iter().map(|(name, hour, ..)| run(name, *hour)).collect();
        let happenings = runs.iter().zip(history);
        let happenings: Vec<_> =
            happenings.map(|(run, &(.., key, needs))| Happening { run, key, needs }).collect();
        let it = replay(&happenings, limits, &COSTS, DAY);
        (
            [it.exact, it.stale, it.prefix, it.miss],
            [it.entries_written, it.expiries, it.evictions],
            it.minutes_saved,
        )
    }

    #[test]
    fn replay_of_small_histories_matches_manual_results() {
        for (case, history, expected) in [
            ("nothing", &[][..], ([0; 4], [0; 3], 0.0)),
            (
                "the same twice",
                &[("main", 0, 1, 1), ("main", 1, 1, 1)],
                ([1, 0, 0, 1], [1, 0, 0], 10.0),
            ),
            (
                "a new key finds the one before it, and then itself",
                &[("main", 0, 1, 1), ("main", 1, 2, 2), ("main", 2, 2, 2)],
                ([1, 0, 1, 1], [2, 0, 0], 15.0),
            ),
            (
                "a cosmetic edit under a key of bytes finds all that it needs by prefix, and saves it again",
                &[("main", 0, 1, 1), ("main", 1, 2, 1)],
                ([0, 0, 1, 1], [2, 0, 0], 10.0),
            ),
            (
                "a key that does not change goes stale once, and its next generation is whole",
                &[("main", 0, 1, 1), ("main", 1, 1, 2), ("main", 2, 1, 2)],
                ([1, 1, 0, 1], [2, 0, 0], 15.0),
            ),
            (
                "of two generations the newest is found, also by who needs the older one",
                &[("main", 0, 1, 1), ("main", 1, 1, 2), ("main", 2, 1, 1)],
                ([0, 2, 0, 1], [3, 0, 0], 10.0),
            ),
            (
                "a revert finds its old key",
                &[("main", 0, 1, 1), ("main", 1, 2, 2), ("main", 2, 1, 1)],
                ([1, 0, 1, 1], [2, 0, 0], 15.0),
            ),
            (
                "a pull request reads the default branch, saves for itself, and main sees none of it",
                &[("main", 0, 1, 1), ("pr1", 1, 2, 2), ("pr1", 2, 2, 2), ("main", 3, 2, 2)],
                ([1, 0, 2, 1], [3, 0, 0], 20.0),
            ),
            (
                "siblings see nothing of each other",
                &[("pr1", 0, 1, 1), ("pr2", 1, 1, 1), ("topic", 2, 1, 1)],
                ([0, 0, 0, 3], [3, 0, 0], 0.0),
            ),
            (
                "the own prefix hides the exact key of the default branch",
                &[("main", 0, 1, 1), ("pr1", 1, 2, 2), ("pr1", 2, 1, 1)],
                ([0, 0, 2, 1], [3, 0, 0], 10.0),
            ),
            (
                "a week and an hour later nothing is left",
                &[("main", 0, 1, 1), ("main", 7 * 24 + 1, 1, 1)],
                ([0, 0, 0, 2], [2, 1, 0], 0.0),
            ),
            (
                "a hit in between keeps it",
                &[("main", 0, 1, 1), ("main", 100, 1, 1), ("main", 200, 1, 1)],
                ([2, 0, 0, 1], [1, 0, 0], 20.0),
            ),
        ] {
            assert_eq!(told(history, LIMITS), expected, "{case}");
        }
        // The limit is one and a half entries: at the full hour the older of two entries is evicted.
        let narrow = Limits { bytes: 1500, ..LIMITS };
        let history = [
            ("pr1", 0, 1, 1),
            ("pr2", 0, 1, 1),
            ("pr1", 0, 1, 1),
            ("pr2", 1, 1, 1),
            ("pr1", 1, 1, 1),
        ];
        assert_eq!(told(&history, narrow), ([2, 0, 0, 3], [3, 0, 1], 20.0));
    }

    #[test]
    fn series_has_a_point_per_day_and_matches_the_totals() {
        let runs = [run("main", 0), run("main", 1), run("main", 49), run("main", 24 * 12)];
        let keys = [1, 1, 2, 3];
        let happenings = runs.iter().zip(keys).map(|(run, key)| Happening { run, key, needs: 0 });
        let it = replay(&happenings.collect::<Vec<_>>(), LIMITS, &COSTS, DAY);
        let column = |field: fn(&Point) -> u64| it.series.iter().map(field).collect::<Vec<_>>();
        assert_eq!(column(|point| point.runs), [2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            column(|point| point.bytes_kept),
            // Both were read on the third day, the older one by a prefix match.
            [1000, 1000, 2000, 2000, 2000, 2000, 2000, 2000, 2000, 0, 0, 0, 1000]
        );
        assert_eq!(column(|point| point.expiries).iter().sum::<u64>(), it.expiries);
        assert_eq!(it.series[1].time, DAY);
    }
}
