//! A slow and simple reference implementation of the replay: one list of entries, scanned in full, and one
//! step for each second.

use super::super::github_cache_model::{Limits, SWEEP};
use super::super::metrics::Outcome;
use super::{Costs, Happening, replay};
use crate::history::{Run, RunKind, Scope};
use proptest::prelude::*;

struct Entry {
    number: usize,
    scope: Scope,
    key: u128,
    content: usize,
    bytes: u64,
    base: Option<usize>,
    used: i64,
}

/// Returns exact, stale, prefix, complete prefix, miss, written, uploaded, evicted, expired, byte-seconds.
fn naive(happenings: &[Happening], limits: Limits, costs: &Costs) -> [u128; 10] {
    let mut told = [0u128; 10];
    let mut entries: Vec<Entry> = Vec::new();
    let mut saved = 0;
    let mut now = happenings.first().map_or(0, |it| it.run.time);
    for Happening { run, key, needs } in happenings {
        while now < run.time {
            now += 1;
            told[9] += entries.iter().map(|it| u128::from(it.bytes)).sum::<u128>();
            if now % SWEEP != 0 {
                continue;
            }
            let before = entries.len();
            entries.retain(|it| now - it.used <= limits.idle);
            told[8] += (before - entries.len()) as u128;
            while entries.iter().map(|it| it.bytes).sum::<u64>() > limits.bytes {
                let oldest =
                    (0..entries.len()).min_by_key(|at| (entries[*at].used, entries[*at].number));
                entries.remove(oldest.unwrap());
                told[7] += 1;
            }
        }
        let mut refs = vec![run.scope];
        refs.extend(run.base);
        refs.push(Scope::DEFAULT);
        let mut found = None;
        for scope in refs {
            let there: Vec<usize> = entries.iter().map(|it| it.number).collect();
            let usable =
                |it: &&Entry| it.scope == scope && it.base.is_none_or(|it| there.contains(&it));
            let newest = |exact: bool| {
                let fits = entries.iter().filter(usable).filter(|it| !exact || it.key == *key);
                fits.max_by_key(|it| it.number)
            };
            found = found.or_else(|| newest(true)).or_else(|| newest(false));
        }
        let found = found.map(|it| (it.number, it.key == *key, it.content == *needs, it.base));
        if let Some((number, .., base)) = found {
            let read = |it: &&mut Entry| it.number == number || Some(it.number) == base;
            entries.iter_mut().filter(read).for_each(|it| it.used = now);
        }
        match found {
            Some((_, true, true, _)) => told[0] += 1,
            Some((_, true, false, _)) => told[1] += 1,
            Some((_, false, complete, _)) => {
                told[2] += 1;
                told[3] += u128::from(complete);
            }
            None => told[4] += 1,
        }
        if matches!(found, Some((_, true, true, _))) {
            continue;
        }
        let base = found.filter(|_| costs.delta_share < 1.0);
        let base = base.map(|(number, .., base)| base.unwrap_or(number));
        let bytes = match base {
            Some(_) => (costs.entry as f64 * costs.delta_share) as u64,
            None => costs.entry,
        };
        let (number, scope, key, content) = (saved, run.scope, *key, *needs);
        entries.push(Entry { number, scope, key, content, bytes, base, used: now });
        saved += 1;
        told[5] += 1;
        told[6] += u128::from(bytes);
    }
    told
}

fn numbers(it: &Outcome) -> [u128; 9] {
    [
        it.exact,
        it.stale,
        it.prefix,
        it.prefix_complete,
        it.miss,
        it.entries_written,
        it.bytes_uploaded,
        it.evictions,
        it.expiries,
    ]
    .map(u128::from)
}

fn run(scope: u32, base: u32, time: i64) -> Run {
    let base = (scope > 2).then_some(Scope(base));
    Run { commit: 0, time, kind: RunKind::PullRequest, scope: Scope(scope), base }
}

/// Seconds between two runs, often whole hours.
fn pause() -> impl Strategy<Value = i64> {
    prop_oneof![(0..5i64).prop_map(|hours| hours * SWEEP), 0..4 * SWEEP]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replay_matches_the_reference_implementation(
        history in prop::collection::vec((pause(), 0..5u32, 0..3u32, 0..4u128, 0..3usize), 0..60),
        limit in 1..30u64,
        idle in 0..12i64,
        delta_share in prop::sample::select(vec![1.0, 0.3, 0.0]),
        width in 1..50_000i64,
    ) {
        let mut time = 0;
        let mut runs = Vec::new();
        for (pause, scope, base, ..) in &history {
            time += pause;
            runs.push(run(*scope, *base, time));
        }
        let happenings = runs.iter().zip(&history);
        let happenings: Vec<_> = happenings
            .map(|(run, &(.., key, needs))| Happening { run, key, needs })
            .collect();
        let limits = Limits { bytes: limit * 500, idle: idle / 2 * SWEEP + idle % 2 };
        let costs = Costs {
            entry: 1000, delta_share, cold_minutes: 10.0, hit_minutes: 1.0, prefix_share: 0.5,
        };
        let fast = replay(&happenings, limits, &costs, width);
        let slow = naive(&happenings, limits, &costs);
        prop_assert_eq!(&numbers(&fast)[..], &slow[..9]);
        prop_assert!((fast.gigabyte_hours * 3600.0 * 1e9 - slow[9] as f64).abs() < 1.0);
        // The points of a series add up to the totals.
        let sum = |field: fn(&super::Point) -> u64| fast.series.iter().map(field).sum::<u64>();
        prop_assert_eq!(sum(|it| it.runs), fast.runs);
        prop_assert_eq!(sum(|it| it.bytes_uploaded), fast.bytes_uploaded);
        prop_assert_eq!((sum(|it| it.evictions), sum(|it| it.expiries)), (fast.evictions, fast.expiries));
    }
}
