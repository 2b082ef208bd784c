//! The result of a simulation as an HTML page.

use super::date;
use super::text::{NAMES, cells};
use crate::report::html::{Chart, Events, Page, Scale, Section, Series, Shape, Table};
use crate::report::plural;
use storecache_key::simulate::{Outcome, Point, Simulation};

/// The whole page; `limit` is the size limit of the repository's cache in bytes.
pub fn page(simulation: &Simulation, limit: u64) -> Page {
    let workflow = simulation.workflow.as_deref().unwrap_or("no workflow");
    Page {
        title: "Which key would have served best".into(),
        subtitle: format!(
            "{} of {workflow} from {} to {}",
            plural(simulation.runs.total, "run"),
            date(simulation.from),
            date(simulation.to)
        ),
        sections: vec![
            verdict(simulation),
            hits(simulation),
            kept(simulation, limit),
            assumed(simulation),
        ],
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

/// One series for each policy.
fn series(
    simulation: &Simulation,
    shape: Shape,
    value: impl Fn(&Point) -> Option<f64>,
) -> Vec<Series> {
    let of = |outcome: &Outcome| Series {
        name: outcome.policy.clone(),
        points: outcome
            .series
            .iter()
            .filter_map(|point| Some((point.time as f64, value(point)?)))
            .collect(),
        shape,
    };
    simulation.policies.iter().map(of).collect()
}

fn hits(simulation: &Simulation) -> Section {
    let share =
        |part: u64, point: &Point| (point.runs > 0).then(|| part as f64 / point.runs as f64);
    let stretch = match simulation.series_seconds / 86_400 {
        1 => "day".to_owned(),
        7 => "week".into(),
        days => format!("{days} days"),
    };
    Section::new("Hits over time")
        .chart(Chart {
            title: "Exact hits".into(),
            text: format!(
                "The share of the runs of each {stretch} that found their exact key, with all they \
                 need."
            ),
            y: Scale::Share,
            series: series(simulation, Shape::Line, |it| share(it.exact, it)),
            ..Chart::default()
        })
        .chart(Chart {
            title: "Hits of any kind".into(),
            text: format!(
                "The share of the runs of each {stretch} that found an entry: exact, stale or by \
                 prefix."
            ),
            y: Scale::Share,
            series: series(simulation, Shape::Line, |it| {
                share(it.exact + it.stale + it.prefix, it)
            }),
            ..Chart::default()
        })
}

fn kept(simulation: &Simulation, limit: u64) -> Section {
    let mut evicted = Vec::new();
    for outcome in &simulation.policies {
        for point in outcome.series.iter().filter(|point| point.evictions > 0) {
            let what = plural(point.evictions, "entry");
            evicted.push((point.time as f64, format!("{}: {what} evicted", outcome.policy)));
        }
    }
    evicted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let name = match evicted.is_empty() {
        true => "nothing was evicted",
        false => "entries were evicted",
    };
    Section::new("Size and evictions")
        .chart(Chart {
            title: "Bytes kept".into(),
            text: "At the end of each interval, for all branches together.".into(),
            y: Scale::Bytes,
            series: series(simulation, Shape::Steps, |it| Some(it.bytes_kept as f64)),
            limit: Some(("limit".into(), limit as f64)),
            events: Some(Events { name: name.into(), at: evicted }),
        })
        .chart(Chart {
            title: "Deleted entries".into(),
            text: "Evicted because the cache was full, or expired because they were unused.".into(),
            y: Scale::Count,
            series: series(simulation, Shape::Steps, |it| {
                Some((it.evictions + it.expiries) as f64)
            }),
            ..Chart::default()
        })
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
