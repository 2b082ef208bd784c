//! The result of a simulation as an HTML page.

use super::date;
use super::text::{NAMES, cells};
use crate::report::html::{Page, Section, Table};
use crate::report::{bytes, plural};
use std::collections::BTreeMap;
use storecache_key::simulate::{Point, Simulation};

/// The whole page.
pub fn page(simulation: &Simulation) -> Page {
    let workflow = simulation.workflow.as_deref().unwrap_or("no workflow");
    Page {
        title: "Which key would have served best".into(),
        subtitle: format!(
            "{} of {workflow} from {} to {}",
            plural(simulation.runs.total, "run"),
            date(simulation.from),
            date(simulation.to)
        ),
        sections: vec![verdict(simulation), over_time(simulation), assumed(simulation)],
    }
}

fn verdict(simulation: &Simulation) -> Section {
    let runs = &simulation.runs;
    let mut figures = vec![
        (format!("Runs on {}", simulation.default_branch), runs.default_branch.to_string()),
        ("Runs of pull requests".into(), runs.of_pull_requests.to_string()),
        ("Runs on other branches".into(), runs.on_other_branches.to_string()),
    ];
    let mut section = Section::new("Best policy");
    if let Some(best) = &simulation.best {
        figures.insert(0, ("Best key".into(), best.policy.clone()));
        section = section.figures(figures).paragraph(format!("{}: {}.", best.policy, best.reason));
    } else {
        section = section.figures(figures);
    }
    let [policy, numbers @ ..] = NAMES;
    let table = Table::new("Result of each policy").text(policy);
    let mut table = numbers.into_iter().fold(table, Table::number);
    simulation.policies.iter().for_each(|outcome| table.row(cells(outcome)));
    section.table(table).paragraph(
        "Exact: an entry with the key existed, with everything that the job needs. Stale: it \
         existed, but with an older store, and the job fetched the rest. Prefix: an entry with \
         another key with the same prefix.",
    )
}

fn over_time(simulation: &Simulation) -> Section {
    let interval = match simulation.series_seconds / 86_400 {
        1 => "day".to_owned(),
        7 => "week".into(),
        days => format!("{days} days"),
    };
    let percent = |part: u64, point: &Point| match point.runs {
        0 => String::new(),
        runs => format!("{:.1}%", part as f64 / runs as f64 * 100.0),
    };
    let table = |caption, cell: &dyn Fn(&Point) -> String| table(simulation, caption, cell);
    Section::new("Hits and size over time")
        .paragraph(format!("Each row is an interval of one {interval}, by its first day."))
        .table(table("Exact hits", &|it| percent(it.exact, it)))
        .table(table("Hits of any kind", &|it| percent(it.exact + it.stale + it.prefix, it)))
        .table(table("Bytes kept at the end", &|it| bytes(it.bytes_kept)))
        .table(table("Evicted or expired entries", &|it| (it.evictions + it.expiries).to_string()))
}

/// A table with a column for each policy and a row for each interval, newest first.
fn table(simulation: &Simulation, caption: &str, cell: &dyn Fn(&Point) -> String) -> Table {
    let policies = &simulation.policies;
    let table = Table::new(caption).text("From");
    let mut table = policies.iter().fold(table, |table, it| table.number(&it.policy));
    let mut rows: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (column, policy) in policies.iter().enumerate() {
        for point in &policy.series {
            let row = rows.entry(point.time).or_insert_with(|| vec![String::new(); policies.len()]);
            row[column] = cell(point);
        }
    }
    for (time, cells) in rows.into_iter().rev() {
        table.row([date(time)].into_iter().chain(cells));
    }
    table
}

fn assumed(simulation: &Simulation) -> Section {
    let mut section = Section::new("Assumptions of the simulation");
    for warning in &simulation.warnings {
        section = section.paragraph(format!("Warning: {warning}."));
    }
    let mut table = Table::new("Assumptions").text("Assumption");
    simulation.assumptions.iter().for_each(|it| table.row([it.as_str()]));
    section.table(table)
}
