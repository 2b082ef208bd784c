//! Results for people: on a terminal, and between two marks in `docs/benchmarks.md` and the README.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::record::{Figure, Quantity, Record, Spread, Wanted, Work};
use super::{PARTS, US};

const BEGIN: &str = "<!-- scripts/bench --write: begin -->\n";
const END: &str = "<!-- scripts/bench --write: end -->";

/// The comparisons that the README shows: name of the work, name of the other program, and quantity.
const IN_README: [(&str, &str, Quantity); 5] = [
    ("unpack-small", "zstd -dc | tar -x", Quantity::OnDisk),
    ("unpack-big", "zstd -dc | tar -x", Quantity::OnDisk),
    ("service-1000", "official client, tar -x", Quantity::Seconds),
    ("delta", "storecache, all of it", Quantity::Seconds),
    ("nix", "nix copy --from file://", Quantity::OnDisk),
];

/// Prints one piece of work into a text: every program with medians and spreads, then the ratios.
pub fn text(work: &Work) -> String {
    let mut text = format!("{} ({})\n  {}\n", work.title, work.name, work.about);
    let width = work.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0);
    for series in &work.series {
        let cell = |quantity| series.spread(quantity).map_or("-".into(), |it| spread(it, quantity));
        let _ = writeln!(
            text,
            "  {:width$}  {:>22}  on disk {:>22}  processors {:>6.2} s  {:>10}",
            series.name,
            cell(Quantity::Seconds),
            cell(Quantity::OnDisk),
            series.spread(Quantity::Processor).map_or(0.0, |it| it.median),
            series.spread(Quantity::Bytes).map_or("-".into(), |it| amount(it.median)),
        );
        let phases = series.phases();
        if !phases.is_empty() {
            let phases: Vec<_> =
                phases.iter().map(|(name, seconds)| format!("{name} {seconds:.3}")).collect();
            let _ = writeln!(text, "  {:width$}    {}", "", phases.join(", "));
        }
    }
    for figure in &work.figures {
        let Some(ratio) = work.ratio(figure) else { continue };
        let verdict = match figure.wanted.reached(ratio.median) {
            Some(true) => ", reached",
            Some(false) => ", NOT REACHED",
            None => "",
        };
        let _ = writeln!(
            text,
            "  {} / {}, {}: {:.2} ({:.2}-{:.2}){}{verdict}",
            figure.of,
            figure.over,
            what(figure.quantity),
            ratio.median,
            ratio.least,
            ratio.most,
            wanted(figure.wanted),
        );
    }
    text
}

fn spread(spread: Spread, quantity: Quantity) -> String {
    match quantity {
        Quantity::Bytes => amount(spread.median),
        _ => format!("{:.2} s ({:.2}-{:.2})", spread.median, spread.least, spread.most),
    }
}

fn amount(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

fn what(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Seconds => "seconds",
        Quantity::OnDisk => "seconds until on the disk",
        Quantity::Processor => "seconds of processors",
        Quantity::Bytes => "bytes",
    }
}

fn wanted(wanted: Wanted) -> String {
    match wanted {
        Wanted::AtLeast(limit) => format!(", at least {limit}"),
        Wanted::AtMost(limit) => format!(", at most {limit}"),
        Wanted::Within(part) => format!(", within {} %", part * 100.0),
        Wanted::Nothing => String::new(),
    }
}

/// Returns the pages that have a table, each with its path in the work tree and its table.
pub fn pages(record: &Record) -> [(&'static str, String); 2] {
    let in_readme = |work: &Work, figure: &Figure| {
        IN_README.contains(&(work.name.as_str(), figure.sides().1, figure.quantity))
    };
    [
        ("docs/benchmarks.md", markdown(record, |_, _| true)),
        ("README.md", markdown(record, in_readme)),
    ]
}

/// Returns a table with one line for each selected comparison.
fn markdown(record: &Record, is_selected: impl Fn(&Work, &Figure) -> bool) -> String {
    let mut rows =
        String::from("| work | storecache | beside | | ratio |\n|---|---|---|---|---|\n");
    for work in &record.works {
        for figure in work.figures.iter().filter(|figure| is_selected(work, figure)) {
            let _ = row(&mut rows, work, figure);
        }
    }
    // Several runs may have measured the parts.
    let series = record.works.iter().flat_map(|work| &work.series);
    let rounds = series.map(|series| series.samples.len()).min().unwrap_or(0);
    let said = |name: &str| record.machine.get(name).map_or("?", String::as_str);
    let _ = write!(
        rows,
        "\nMedians of {rounds} or more interleaved rounds on {} processors ({}), Linux {}, {}.\n",
        said("processors"),
        said("processor"),
        said("kernel"),
        said("date"),
    );
    rows
}

fn row(rows: &mut String, work: &Work, figure: &Figure) -> Option<()> {
    let ratio = work.ratio(figure)?;
    let (us, peer) = figure.sides();
    let cell = |name: &str| {
        let median = work.series(name)?.spread(figure.quantity)?.median;
        Some(match figure.quantity {
            Quantity::Bytes => amount(median),
            _ => format!("{median:.2} s"),
        })
    };
    let (ours, theirs) = (cell(us)?, cell(peer)?);
    let how = us.strip_prefix(US).filter(|flags| !flags.is_empty());
    let how = how.map_or(String::new(), |flags| format!(" (`{}`)", flags.trim()));
    let mark = if figure.quantity == Quantity::OnDisk { ", then `sync`" } else { "" };
    let peer = peer.replace('|', "\\|");
    let (median, least, most) = (ratio.median, ratio.least, ratio.most);
    let title = &work.title;
    writeln!(
        rows,
        "| {title} | {ours}{how} | {peer}{mark} | {theirs} | {median:.2} ({least:.2} to {most:.2}) |"
    )
    .ok()
}

/// Returns a page with a new table.
///
/// # Errors
/// If the page does not contain the marks.
pub fn in_page(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("no mark before the table")?;
    let (_, after) = rest.split_once(END).context("no mark after the table")?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

/// Returns the names and descriptions of all parts.
pub fn parts() -> String {
    PARTS.iter().map(|part| format!("{:18}{}\n", part.name, part.about)).collect()
}
