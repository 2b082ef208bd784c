//! The results of a simulated policy, and the choice of the best policy.

use crate::history::{Graph, Run, RunKind};
use serde::Serialize;
use std::collections::HashSet;

/// The parameters and the results of a simulation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Simulation {
    /// Path below the top of the work tree.
    pub workflow: Option<String>,
    pub default_branch: String,
    /// Time of the first run, in seconds since 1970.
    pub from: i64,
    /// Time of the last run.
    pub to: i64,
    pub runs: Counts,
    /// Number of distinct states of the relevant files.
    pub states: usize,
    pub policies: Vec<Outcome>,
    pub best: Option<Best>,
    /// The length of the interval of each point of a series.
    pub series_seconds: i64,
    pub assumptions: Vec<String>,
    pub warnings: Vec<String>,
}

/// Numbers of runs by kind of ref.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub total: u64,
    pub default_branch: u64,
    pub of_pull_requests: u64,
    pub on_other_branches: u64,
    pub pull_requests: u64,
    pub other_branches: u64,
    /// Commits whose time was adjusted.
    pub moved: u64,
}

impl Simulation {
    /// Returns a simulation of these runs without results.
    pub fn new(graph: &Graph, window: &[Run]) -> Self {
        let count = |kind| window.iter().filter(|run| run.kind == kind).count() as u64;
        let scopes = |kind| {
            let runs = window.iter().filter(|run| run.kind == kind);
            runs.map(|run| run.scope).collect::<HashSet<_>>().len() as u64
        };
        let moved = window.iter().filter(|run| graph.commits[run.commit].time != run.time);
        let time = |run: Option<&Run>| run.map(|run| run.time).unwrap_or_default();
        Simulation {
            default_branch: graph.default_branch.clone(),
            from: time(window.first()),
            to: time(window.last()),
            runs: Counts {
                total: window.len() as u64,
                default_branch: count(RunKind::DefaultBranch),
                of_pull_requests: count(RunKind::PullRequest),
                on_other_branches: count(RunKind::OtherBranch),
                pull_requests: scopes(RunKind::PullRequest),
                other_branches: scopes(RunKind::OtherBranch),
                moved: moved.count() as u64,
            },
            ..Simulation::default()
        }
    }
}

/// The results of one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    pub policy: String,
    /// Number of ingredients of the hash.
    pub parts: usize,
    pub runs: u64,
    /// The key existed, and its store had everything that the job needs.
    pub exact: u64,
    /// The key existed, but its store did not have everything that the job needs.
    pub stale: u64,
    /// Another key with the same prefix existed.
    pub prefix: u64,
    /// How many of the prefix matches had a store with everything that the job needs.
    pub prefix_complete: u64,
    pub miss: u64,
    pub rates: Rates,
    pub entries_written: u64,
    pub bytes_uploaded: u64,
    /// In units of 10^9 bytes.
    pub gigabyte_hours: f64,
    /// Maximum size of the cache.
    pub peak_bytes: u64,
    /// Number of entries that were deleted because of the size limit.
    pub evictions: u64,
    /// Number of entries that were deleted because they were unused.
    pub expiries: u64,
    pub minutes_saved: f64,
    pub series: Vec<Point>,
}

/// Fractions of all runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub exact: f64,
    pub stale: f64,
    pub prefix: f64,
    pub miss: f64,
}

/// The counts of one interval of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Start of the interval, in seconds since 1970.
    pub time: i64,
    pub runs: u64,
    pub exact: u64,
    pub stale: u64,
    pub prefix: u64,
    pub miss: u64,
    pub bytes_uploaded: u64,
    /// At the end of the interval.
    pub bytes_kept: u64,
    pub evictions: u64,
    pub expiries: u64,
}

/// The recommended policy, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Best {
    pub policy: String,
    pub reason: String,
}

impl Outcome {
    /// Returns the number of runs that found everything they need.
    pub fn complete(&self) -> u64 {
        self.exact + self.prefix_complete
    }
}

/// Returns the policy that saves the most minutes; among equals, the one that stores the least, and then the
/// simplest. Returns `None` if there were no runs.
pub fn best(outcomes: &[Outcome]) -> Option<Best> {
    // Differences below a minute, or below a hundredth of a gigabyte-hour, do not count.
    let minutes = |it: &Outcome| it.minutes_saved.round() as i64;
    let kept = |it: &Outcome| (it.gigabyte_hours * 100.0).round() as i64;
    let rank = |it: &Outcome| (-minutes(it), kept(it), it.parts);
    let first = outcomes.iter().filter(|it| it.runs > 0).min_by_key(|it| rank(it))?;
    let others = || outcomes.iter().filter(|it| it.policy != first.policy);
    let names = |same: Vec<&Outcome>| {
        same.iter().map(|it| it.policy.as_str()).collect::<Vec<_>>().join(" and ")
    };
    let as_many: Vec<_> = others().filter(|it| minutes(it) == minutes(first)).collect();
    let as_much: Vec<_> = as_many.iter().copied().filter(|it| kept(it) == kept(first)).collect();
    let reason = if as_many.is_empty() {
        let next = others().max_by_key(|it| minutes(it));
        let next =
            next.map(|it| format!(", {} more than {}", minutes(first) - minutes(it), it.policy));
        format!("it saves the most minutes, {}{}", minutes(first), next.unwrap_or_default())
    } else if as_much.is_empty() {
        let most = as_many.iter().map(|it| it.gigabyte_hours).fold(0.0, f64::max);
        format!(
            "it saves {} minutes, as many as {}, and stores less: {:.0} gigabyte-hours instead of \
             up to {:.0}",
            minutes(first),
            names(as_many),
            first.gigabyte_hours,
            most
        )
    } else {
        let same = names(as_much);
        format!("it does as well as {same}, and none of them is simpler")
    };
    Some(Best { policy: first.policy.clone(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(policy: &str, minutes_saved: f64, gigabyte_hours: f64, parts: usize) -> Outcome {
        let policy = policy.to_owned();
        Outcome { policy, minutes_saved, gigabyte_hours, parts, runs: 1, ..Outcome::default() }
    }

    #[test]
    fn best_policy_saves_most_then_stores_least_then_is_simplest() {
        let chosen = |outcomes: &[Outcome]| {
            let best = best(outcomes).unwrap();
            format!("{}: {}", best.policy, best.reason)
        };
        let [a, b] = [outcome("a", 30.0, 9.0, 1), outcome("b", 50.0, 9.0, 2)];
        assert_eq!(chosen(&[a, b]), "b: it saves the most minutes, 50, 20 more than a");
        let [a, b] = [outcome("a", 50.2, 9.0, 2), outcome("b", 50.0, 12.0, 1)];
        assert!(
            chosen(&[a, b]).starts_with("a: it saves 50 minutes, as many as b, and stores less")
        );
        let [a, b] = [outcome("a", 50.0, 9.0, 2), outcome("b", 50.0, 9.0, 1)];
        assert_eq!(chosen(&[a, b]), "b: it does as well as a, and none of them is simpler");
        assert_eq!(best(&[Outcome::default()]), None);
    }
}
