//! What a job does: look its key up, restore, build what is missing, and save that.

use super::cache::{Cache, EntryId, Limits, New};
use super::outcome::{Outcome, Point, Rates};
use crate::key::history::Run;

/// What a run takes and brings.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Bytes of an entry that holds all of a store.
    pub entry: u64,
    /// How much of that is saved by a job that restored another entry; 1 where all of it is.
    pub delta_share: f64,
    /// Minutes of a job that begins with a miss, and of one that found all that it needs.
    pub cold_minutes: f64,
    pub hit_minutes: f64,
    /// The part of their difference that something near saves.
    pub prefix_share: f64,
}

/// A run and what it is about for one policy.
#[derive(Debug, Clone)]
pub struct Happening<'r> {
    pub run: &'r Run,
    /// The hash in its key.
    pub key: u128,
    /// What its store has to hold.
    pub needs: usize,
}

/// Runs one after the other, in an empty cache at first. A save is there for the next run. `width` is the
/// length of a stretch of the series, in seconds.
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
    /// The stretch of time that is not over yet.
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
        // What the newest entry of a key holds already is not saved again; what grew is, as its next
        // generation (`command/policy.rs`).
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

    /// Deltas are on a full entry, so chains are one deep.
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
