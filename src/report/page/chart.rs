//! Series over time: lines, areas and steps, events at the foot, a legend with the newest numbers.
//!
//! It is drawn twice, for wide and for narrow screens; the style shows one of the two. There is no script
//! that could show numbers, so each part of the plot has them in its tooltip, and a table below has them for
//! those who cannot point.

use super::escape::{escape, escape_name, width};
use super::sampling::{Part, part_of, parts, thinned};
use super::scale::{Scale, Tick, is_sane};
use super::table::Table;
use std::fmt::Write;

/// Numbers of one kind, over time.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    pub title: String,
    /// What the plot shows, for those who cannot see it; and anything to be said below the title.
    pub text: String,
    /// What the values of all series are.
    pub y: Scale,
    /// At most [`Chart::SERIES`] are shown.
    pub series: Vec<Series>,
    /// A height that means something, and its name.
    pub limit: Option<(String, f64)>,
    /// Things that happened: when, in seconds since 1970, and what.
    pub events: Option<Events>,
}

#[derive(Debug, Clone, Default)]
pub struct Series {
    pub name: String,
    /// Seconds since 1970 and a value, in any order. What is no number is left out.
    pub points: Vec<(f64, f64)>,
    pub shape: Shape,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Line,
    /// A line, and filled below it.
    Area,
    /// A value that stays until the next one.
    Steps,
}

#[derive(Debug, Clone, Default)]
pub struct Events {
    pub name: String,
    pub at: Vec<(f64, String)>,
}

/// Where the plot is on what it is drawn on, in its own units.
struct Form {
    class: &'static str,
    width: f64,
    height: f64,
    letters: f64,
    /// Of parts that lines and tooltips are made of.
    parts: usize,
    most_ticks: usize,
}

const FORMS: [Form; 2] = [
    Form { class: "wide", width: 760.0, height: 280.0, letters: 12.0, parts: 180, most_ticks: 8 },
    Form { class: "narrow", width: 340.0, height: 240.0, letters: 12.0, parts: 60, most_ticks: 4 },
];
const Y_TICKS: usize = 5;
/// Rows of the table.
const ROWS: usize = 24;
/// Events that a tooltip names.
const NAMED: usize = 5;

impl Chart {
    /// More are not told apart, and are left out with a word.
    pub const SERIES: usize = 6;

    pub(super) fn html(&self) -> String {
        let drawn = Drawn::of(self);
        let mut out = format!("<figure>\n<figcaption>{}", escape_name(&self.title));
        if !self.text.is_empty() {
            let _ = write!(out, "<span>{}</span>", escape(&self.text));
        }
        out.push_str("</figcaption>\n");
        let Some(drawn) = drawn else {
            out.push_str("<p class=\"none\">There is nothing to show yet.</p>\n</figure>\n");
            return out;
        };
        out += &drawn.legend();
        for form in &FORMS {
            drawn.draw(form, &mut out);
        }
        let left_out = self.series.len().saturating_sub(Self::SERIES);
        if left_out > 0 {
            let _ = writeln!(out, "<p class=\"none\">and {left_out} more that are not shown</p>");
        }
        let _ = write!(
            out,
            "<details><summary>The numbers</summary>\n{}</details>\n",
            drawn.table().html()
        );
        out.push_str("</figure>\n");
        out
    }
}

/// A chart with its points in order and its axes found.
struct Drawn<'a> {
    chart: &'a Chart,
    y: Scale,
    series: Vec<(&'a Series, Vec<(f64, f64)>)>,
    events: Vec<(f64, &'a str)>,
    x_range: (f64, f64),
    y_range: (f64, f64),
}

impl<'a> Drawn<'a> {
    /// Nothing where no series has a point and nothing happened.
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
        // A moment alone stands in the middle of two hours.
        let x_range = match x_range.1 - x_range.0 {
            span if span < 1.0 => (x_range.0 - 3600.0, x_range.1 + 3600.0),
            _ => x_range,
        };
        let limit = chart.limit.iter().map(|(_, height)| *height).filter(|height| is_sane(*height));
        let (least, most) = ends(points().map(|point| point.1).chain(limit)).unwrap_or((0.0, 1.0));
        let y_range = (least.min(0.0), y.top(most, Y_TICKS));
        Some(Drawn { chart, y, series, events, x_range, y_range })
    }

    fn legend(&self) -> String {
        let mut out = String::from("<ul class=\"legend\">\n");
        for (number, (series, points)) in self.series.iter().enumerate() {
            let last = points.last().map(|point| self.y.show(point.1)).unwrap_or("nothing".into());
            let _ = writeln!(
                out,
                "<li><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"s{number}\" \
                 d=\"M1 4H25\"/></svg><bdi>{}</bdi> <b>{last}</b></li>",
                escape_name(&series.name),
            );
        }
        if let Some(events) = &self.chart.events {
            let _ = writeln!(
                out,
                "<li><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"event\" \
                 d=\"M13 0l4 8h-8z\"/></svg><bdi>{}</bdi> <b>{}</b></li>",
                escape_name(&events.name),
                Scale::Count.show(self.events.len() as f64),
            );
        }
        if let Some((name, height)) = &self.chart.limit {
            let _ = writeln!(
                out,
                "<li><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"limit\" \
                 d=\"M1 4H25\"/></svg><bdi>{}</bdi> <b>{}</b></li>",
                escape_name(name),
                self.y.show(*height),
            );
        }
        out.push_str("</ul>\n");
        out
    }

    fn draw(&self, form: &Form, out: &mut String) {
        let y_ticks = self.y.ticks(self.y_range.0, self.y_range.1, Y_TICKS);
        let widest =
            y_ticks.iter().map(|tick| width(&tick.label, form.letters)).fold(0.0, f64::max);
        let plot = Plot {
            left: widest + 10.0,
            right: form.width - 12.0,
            top: 10.0,
            bottom: form.height
                - 2.0 * form.letters
                - if self.events.is_empty() { 0.0 } else { 12.0 },
            x: self.x_range,
            y: self.y_range,
        };
        let words = [self.chart.title.as_str(), self.chart.text.as_str()];
        let words: Vec<_> = words.into_iter().filter(|text| !text.is_empty()).collect();
        let _ = writeln!(
            out,
            "<svg class=\"plot {}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" font-size=\"{}\">",
            form.class,
            form.width,
            form.height,
            escape(&words.join(". ")),
            form.letters,
        );
        for tick in &y_ticks {
            let y = plot.down(tick.at);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{} {y}H{}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                short(plot.left),
                short(plot.right),
                short(plot.left - 6.0),
                short(plot.down_number(tick.at) + form.letters * 0.35),
                escape_name(&tick.label),
            );
        }
        self.draw_times(form, &plot, out);
        for (number, (series, points)) in self.series.iter().enumerate() {
            let thin = thinned(points, self.x_range, form.parts);
            plot.line(number, series.shape, &thin, out);
        }
        if let Some((_, height)) = self.chart.limit.iter().find(|(_, height)| is_sane(*height)) {
            let y = plot.down(*height);
            let _ = writeln!(
                out,
                "<path class=\"limit\" d=\"M{} {y}H{}\"/>",
                short(plot.left),
                short(plot.right)
            );
        }
        self.draw_events(form, &plot, out);
        self.draw_tooltips(form, &plot, out);
        out.push_str("</svg>\n");
    }

    fn draw_times(&self, form: &Form, plot: &Plot, out: &mut String) {
        let baseline = form.height - form.letters * 0.5;
        for tick in fitting(self.x_range, form, plot) {
            let x = short(plot.across(tick.at));
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x} {}v4\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                short(plot.bottom),
                short(baseline),
                escape_name(&tick.label),
            );
        }
    }

    fn draw_events(&self, form: &Form, plot: &Plot, out: &mut String) {
        let mut parts: Vec<bool> = vec![false; form.parts];
        for (at, _) in &self.events {
            if let Some(part) = parts.get_mut(part_of(*at, self.x_range, form.parts)) {
                *part = true;
            }
        }
        let step = (plot.right - plot.left) / form.parts as f64;
        let mut path = String::new();
        for (number, _) in parts.iter().enumerate().filter(|(_, happened)| **happened) {
            let x = plot.left + (number as f64 + 0.5) * step;
            let _ = write!(path, "M{} {}l3.5 8h-7z", short(x), short(plot.bottom + 2.0));
        }
        if !path.is_empty() {
            let _ = writeln!(out, "<path class=\"event\" d=\"{path}\"/>");
        }
    }

    /// A strip over each part of the plot that has something to tell.
    fn draw_tooltips(&self, form: &Form, plot: &Plot, out: &mut String) {
        let step = (plot.right - plot.left) / form.parts as f64;
        let told: Vec<_> =
            self.series.iter().map(|(_, points)| parts(points, self.x_range, form.parts)).collect();
        let mut happened: Vec<Vec<&str>> = vec![Vec::new(); form.parts];
        for (at, what) in &self.events {
            if let Some(part) = happened.get_mut(part_of(*at, self.x_range, form.parts)) {
                part.push(what);
            }
        }
        for (number, happened) in happened.iter().enumerate() {
            let mut lines = Vec::new();
            for ((series, _), told) in self.series.iter().zip(&told) {
                if let Some(part) = told.get(number).copied().flatten() {
                    lines.push(format!("{}: {}", escape_name(&series.name), self.told(part)));
                }
            }
            if let (false, Some(events)) = (happened.is_empty(), &self.chart.events) {
                let named: Vec<_> =
                    happened.iter().take(NAMED).map(|what| escape_name(what)).collect();
                let more = happened.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                lines.push(format!("{}: {}{more}", escape_name(&events.name), named.join(", ")));
            }
            if lines.is_empty() {
                continue;
            }
            let from = self.start(number, form.parts);
            let _ = writeln!(
                out,
                "<rect class=\"strip\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}\n{}</title></rect>",
                short(plot.left + number as f64 * step),
                short(plot.top),
                short(step),
                short(form.height - plot.top - 2.0 * form.letters),
                Scale::Time.show(from),
                lines.join("\n"),
            );
        }
    }

    /// When a part begins.
    fn start(&self, number: usize, of: usize) -> f64 {
        self.x_range.0 + (self.x_range.1 - self.x_range.0) * number as f64 / of as f64
    }

    fn told(&self, part: Part) -> String {
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

/// Ticks of time, as many as have room beside each other.
fn fitting(range: (f64, f64), form: &Form, plot: &Plot) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for most in (1..=form.most_ticks).rev() {
        ticks = Scale::Time.ticks(range.0, range.1, most);
        // Those at the ends would hang out.
        ticks.retain(|tick| {
            let half = width(&tick.label, form.letters) / 2.0;
            let x = plot.across(tick.at);
            x - half >= 0.0 && x + half <= form.width
        });
        let apart = ticks.windows(2).all(|pair| {
            let halves =
                (width(&pair[0].label, form.letters) + width(&pair[1].label, form.letters)) / 2.0;
            plot.across(pair[1].at) - plot.across(pair[0].at) >= halves + 8.0
        });
        if apart && !ticks.is_empty() {
            return ticks;
        }
    }
    ticks.truncate(1);
    if ticks.is_empty() {
        // Too short a time for any round moment: say where it is.
        let middle = (range.0 + range.1) / 2.0;
        ticks.push(Tick { at: middle, label: Scale::Time.show(middle) });
    }
    ticks
}

/// Least and largest; nothing of nothing.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |ends, value| match ends {
        None => Some((value, value)),
        Some((least, most)) => Some((f64::min(least, value), f64::max(most, value))),
    })
}

/// The rectangle that the series are drawn in, and what its sides stand for.
struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Plot {
    fn across(&self, at: f64) -> f64 {
        self.left + (at - self.x.0) / (self.x.1 - self.x.0) * (self.right - self.left)
    }

    fn down_number(&self, value: f64) -> f64 {
        self.bottom - (value - self.y.0) / (self.y.1 - self.y.0) * (self.bottom - self.top)
    }

    fn down(&self, value: f64) -> String {
        short(self.down_number(value))
    }

    fn line(&self, number: usize, shape: Shape, points: &[(f64, f64)], out: &mut String) {
        let Some(first) = points.first() else { return };
        let mut path = format!("M{} {}", short(self.across(first.0)), self.down(first.1));
        for point in &points[1..] {
            let (x, y) = (short(self.across(point.0)), self.down(point.1));
            let _ = match shape {
                Shape::Steps => write!(path, "H{x}V{y}"),
                Shape::Line | Shape::Area => write!(path, "L{x} {y}"),
            };
        }
        if let (Shape::Area, Some(last)) = (shape, points.last()) {
            let foot = self.down(0.0);
            let (from, to) = (short(self.across(first.0)), short(self.across(last.0)));
            let _ = writeln!(out, "<path class=\"a{number}\" d=\"{path}L{to} {foot}H{from}Z\"/>");
        }
        // A single point shows by the round ends of a line of no length.
        let _ = writeln!(out, "<path class=\"s{number}\" d=\"{path}h0\"/>");
    }
}

/// A coordinate with one digit behind the point.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
