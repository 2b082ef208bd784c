//! Charts of series over time: lines, areas and steps, events at the bottom, and a legend with the newest
//! values.
//!
//! Pages have no scripts, so each part of the plot shows its values in a tooltip, and a table below the chart
//! shows them to users who cannot point. `plot.rs` draws.

use super::axis::{Scale, is_sane};
use super::downsample::{Part, part_of, parts};
use super::escape::escape_name;
use super::figure::figure;
use super::plot::FORMS;
use super::table::Table;
use std::fmt::Write;

/// A chart of series with values of one kind.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    pub title: String,
    /// Description of the plot for screen readers, also shown below the title.
    pub text: String,
    /// The kind of the values of all series.
    pub y: Scale,
    /// At most [`Chart::SERIES`] are shown.
    pub series: Vec<Series>,
    /// A horizontal line with its name.
    pub limit: Option<(String, f64)>,
    /// Events, each with its time in seconds since 1970 and its description.
    pub events: Option<Events>,
}

#[derive(Debug, Clone, Default)]
pub struct Series {
    pub name: String,
    /// Pairs of seconds since 1970 and a value, in any order. Values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    pub shape: Shape,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Line,
    /// A line with the area below it filled.
    Area,
    /// Each value is constant until the next one.
    Steps,
}

#[derive(Debug, Clone, Default)]
pub struct Events {
    pub name: String,
    pub at: Vec<(f64, String)>,
}

/// Approximate number of ticks of the value axis.
pub const Y_TICKS: usize = 5;
/// Number of rows of the table.
const ROWS: usize = 24;

impl Chart {
    /// Maximum number of series: more would not be distinguishable. A note states how many were left out.
    pub const SERIES: usize = 6;

    pub(super) fn html(&self) -> String {
        figure(&self.title, &self.text, Drawn::of(self).map(|drawn| drawn.html()))
    }
}

/// A chart with sorted points and computed axes.
pub struct Drawn<'a> {
    pub chart: &'a Chart,
    pub y: Scale,
    pub series: Vec<(&'a Series, Vec<(f64, f64)>)>,
    pub events: Vec<(f64, &'a str)>,
    pub limit: Option<(&'a str, f64)>,
    pub x_range: (f64, f64),
    pub y_range: (f64, f64),
}

impl<'a> Drawn<'a> {
    /// Returns `None` if no series has a point and the chart has no events.
    fn of(chart: &'a Chart) -> Option<Self> {
        let y = chart.y;
        let sorted = |series: &'a Series| {
            let sane = |point: &&(f64, f64)| is_sane(point.0) && is_sane(point.1);
            let mut points: Vec<_> = series.points.iter().filter(sane).copied().collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            (series, points)
        };
        let series: Vec<_> = chart.series.iter().take(Chart::SERIES).map(sorted).collect();
        let listed = chart.events.iter().flat_map(|events| &events.at);
        let events: Vec<(f64, &str)> =
            listed.filter(|(at, _)| is_sane(*at)).map(|(at, what)| (*at, what.as_str())).collect();

        let points = || series.iter().flat_map(|(_, points)| points);
        let places = points().map(|point| point.0).chain(events.iter().map(|event| event.0));
        let x_range = ends(places)?;
        // A single point in time is shown in the middle of two hours.
        let x_range = match x_range.1 - x_range.0 {
            span if span < 1.0 => (x_range.0 - 3600.0, x_range.1 + 3600.0),
            _ => x_range,
        };
        let limit = chart.limit.as_ref().filter(|(_, height)| is_sane(*height));
        let limit = limit.map(|(name, height)| (name.as_str(), *height));
        let values = points().map(|point| point.1).chain(limit.map(|(_, height)| height));
        let (least, most) = ends(values).unwrap_or((0.0, 1.0));
        let y_range = (least.min(0.0), y.top(most, Y_TICKS));
        Some(Drawn { chart, y, series, events, limit, x_range, y_range })
    }

    fn html(&self) -> String {
        let mut out = self.legend();
        for form in &FORMS {
            self.draw(form, &mut out);
        }
        let left_out = self.chart.series.len() - self.series.len();
        if left_out > 0 {
            let _ = writeln!(out, "<p class=\"none\">and {left_out} more that are not shown</p>");
        }
        let numbers = self.table().html();
        let _ = writeln!(out, "<details><summary>The numbers</summary>\n{numbers}</details>");
        out
    }

    /// The legend, with the newest value of each series.
    fn legend(&self) -> String {
        let entry = |class: &str, path: &str, name: &str, number: &str| {
            format!(
                "<li><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"{class}\" \
                 d=\"{path}\"/></svg><bdi>{}</bdi> <b>{number}</b></li>\n",
                escape_name(name),
            )
        };
        let (line, mark) = ("M1 4H25", "M13 0l4 8h-8z");
        let mut out = String::from("<ul class=\"legend\">\n");
        for (number, (series, points)) in self.series.iter().enumerate() {
            let last = points.last().map_or("no value".into(), |point| self.y.show(point.1));
            out += &entry(&format!("s{number}"), line, &series.name, &last);
        }
        if let Some(events) = &self.chart.events {
            let count = Scale::Count.show(self.events.len() as f64);
            out += &entry("event", mark, &events.name, &count);
        }
        if let Some((name, height)) = self.limit {
            out += &entry("limit", line, name, &self.y.show(height));
        }
        out + "</ul>\n"
    }

    /// Start time of a part.
    pub(super) fn start(&self, number: usize, of: usize) -> f64 {
        self.x_range.0 + (self.x_range.1 - self.x_range.0) * number as f64 / of as f64
    }

    /// The values of a part, as text.
    pub(super) fn told(&self, part: Part) -> String {
        let last = self.y.show(part.last);
        if part.least == part.most {
            return last;
        }
        format!("{last} ({} to {})", self.y.show(part.least), self.y.show(part.most))
    }

    fn table(&self) -> Table {
        let told: Vec<_> =
            self.series.iter().map(|(_, points)| parts(points, self.x_range, ROWS)).collect();
        let mut table = Table::new(format!("{}, times in UTC", self.chart.title)).text("From");
        for (series, _) in &self.series {
            table = table.number(&series.name);
        }
        let mut counts = [0u64; ROWS];
        for (at, _) in &self.events {
            if let Some(count) = counts.get_mut(part_of(*at, self.x_range, ROWS)) {
                *count += 1;
            }
        }
        if let Some(events) = &self.chart.events {
            table = table.number(&events.name);
        }
        for (number, count) in counts.iter().enumerate() {
            let of = |told: &Vec<Option<Part>>| told.get(number).copied().flatten();
            if told.iter().all(|told| of(told).is_none()) && *count == 0 {
                continue;
            }
            let mut row = vec![Scale::Time.show(self.start(number, ROWS))];
            row.extend(
                told.iter().map(|told| of(told).map(|part| self.told(part)).unwrap_or_default()),
            );
            row.extend(self.chart.events.iter().map(|_| count.to_string()));
            table.rows.push(row);
        }
        table
    }
}

/// Least and largest value; `None` if `values` is empty.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((least, most)) => Some((f64::min(least, value), f64::max(most, value))),
    })
}
