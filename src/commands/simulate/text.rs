//! The result of a simulation as text and columns.

use super::{Past, date};
use crate::config::Simulate;
use crate::report::{binary, bytes, plural};
use storecache_key::WorkflowMode;
use storecache_key::simulate::{Costs, LOCKS, MANIFESTS, Outcome, Simulation};
use storecache_runtime::untrusted_text::escape;

/// The summary, one line for each policy, and the best policy.
pub fn results(simulation: &Simulation) -> Vec<String> {
    let Simulation { runs, .. } = simulation;
    let headline = format!(
        "{} of {} from {} to {}: {} on {}, {} of {}, {} on {}",
        plural(runs.total, "run"),
        simulation.workflow.as_deref().unwrap_or("no workflow"),
        date(simulation.from),
        date(simulation.to),
        runs.default_branch,
        simulation.default_branch,
        runs.of_pull_requests,
        plural(runs.pull_requests, "pull request"),
        runs.on_other_branches,
        match runs.other_branches {
            1 => "1 other branch".to_owned(),
            count => format!("{count} other branches"),
        },
    );
    let mut lines = vec![headline, String::new()];
    lines.extend(columns(&simulation.policies));
    if let Some(best) = &simulation.best {
        lines.extend([String::new(), format!("best: {}: {}", best.policy, best.reason)]);
    }
    lines
}

/// Warnings and assumptions that qualify the result.
pub fn notes(simulation: &Simulation) -> Vec<String> {
    let warnings = simulation.warnings.iter().map(|it| format!("warning: {it}"));
    let mut notes: Vec<String> = warnings.collect();
    notes.extend([String::new(), "assumed:".into()]);
    notes.extend(simulation.assumptions.iter().map(|it| format!("- {it}")));
    notes
}

/// Column names of the table of policies.
pub const NAMES: [&str; 11] = [
    "policy",
    "exact",
    "stale",
    "prefix",
    "miss",
    "entries",
    "uploaded",
    "GB-hours",
    "evicted",
    "expired",
    "min saved",
];

/// The cells below [`NAMES`].
pub fn cells(it: &Outcome) -> [String; NAMES.len()] {
    let rate = |count: f64| format!("{:.1}%", count * 100.0);
    [
        // The name may come from the command line, so `columns` escapes it.
        it.policy.clone(),
        rate(it.rates.exact),
        rate(it.rates.stale),
        rate(it.rates.prefix),
        rate(it.rates.miss),
        it.entries_written.to_string(),
        bytes(it.bytes_uploaded),
        format!("{:.0}", it.gigabyte_hours),
        it.evictions.to_string(),
        it.expiries.to_string(),
        format!("{:.0}", it.minutes_saved),
    ]
}

fn columns(outcomes: &[Outcome]) -> Vec<String> {
    let mut rows = vec![NAMES.map(str::to_owned)];
    rows.extend(outcomes.iter().map(cells));
    for row in &mut rows {
        row[0] = escape(&row[0]).into_owned();
    }
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; NAMES.len()] = std::array::from_fn(width);
    let line = |row: &[String; NAMES.len()]| {
        let cells =
            row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
        cells.collect()
    };
    rows.iter().map(line).collect()
}

/// All assumptions of the simulation.
pub fn assumptions(options: &Simulate, costs: &Costs, past: &Past) -> Vec<String> {
    let of_past =
        format!("the mean of {} in {}", plural(past.snapshots as u64, "snapshot"), past.place);
    let entry = match (options.entry_size, past.entry) {
        (Some(_), _) => "as given".to_owned(),
        (None, Some(_)) => of_past.clone(),
        (None, None) => "a default, because no past snapshot shows it: see --entry-size".to_owned(),
    };
    let cold = match (options.cold_minutes, past.cold_minutes) {
        (Some(_), _) => "as given".to_owned(),
        (None, Some(_)) => of_past,
        (None, None) => {
            "a default, because no past snapshot shows it: see --cold-minutes".to_owned()
        }
    };
    let truth = match options.truth.as_slice() {
        [] if options.key.workflow_mode == WorkflowMode::None => format!("{LOCKS} and {MANIFESTS}"),
        [] => format!("the relevant part of the workflow, {LOCKS} and {MANIFESTS}"),
        globs => globs.join(" and "),
    };
    let delta = match costs.delta_share {
        share if share < 1.0 => format!(
            "a job that restored another entry saves {:.0}% of a full one, as a delta on it",
            share * 100.0
        ),
        _ => "every save is full".to_owned(),
    };
    vec![
        format!(
            "every commit is a run{}, at the time of its commit: git does not record pushes, \
             schedules, manual runs, and pull requests that were squashed or rebased",
            match options.as_triggered {
                true => ", if the current workflow has a trigger for it (path filters are ignored)",
                false => "",
            }
        ),
        "the commits of the second parent of a merge are a pull request with a scope of its own; \
         every run may write to its own scope"
            .into(),
        "where the commit times of a branch decrease, most of them are kept, and the others are \
         adjusted"
            .into(),
        "the cache is empty at first, the next run finds each save, and entries are deleted only \
         by the rules"
            .into(),
        format!(
            "the cache keeps {}, deletes entries unused for {}, and checks every hour",
            binary(options.limit),
            plural(options.idle_days.into(), "day")
        ),
        format!("an entry has {}: {entry}; {delta}", bytes(costs.entry)),
        format!(
            "a job takes {:.1} minutes for its store after a miss: {cold}; {:.1} after a full hit; \
             another hit saves {:.0}% of the difference",
            costs.cold_minutes,
            costs.hit_minutes,
            costs.prefix_share * 100.0
        ),
        format!("the required content of the store depends on {truth}"),
        "the version in the key never changes".into(),
    ]
}
