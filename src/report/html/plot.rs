//! Drawing of charts: axes, lines, events, and tooltips.

use super::axis::{Scale, Tick};
use super::chart::{Chart, Drawn, Shape, Y_TICKS};
use super::downsample::{part_of, parts, thinned};
use super::escape::{escape_name, width};
use super::figure::{open_svg, short};
use std::fmt::Write;

/// Size and layout of a drawing, in its own units.
pub struct Form {
    class: &'static str,
    width: f64,
    height: f64,
    letters: f64,
    /// Number of parts that lines and tooltips consist of.
    parts: usize,
    most_ticks: usize,
}

pub const FORMS: [Form; 2] = [
    Form { class: "wide", width: 760.0, height: 280.0, letters: 12.0, parts: 180, most_ticks: 8 },
    Form { class: "narrow", width: 340.0, height: 240.0, letters: 12.0, parts: 60, most_ticks: 4 },
];
/// Number of events that a tooltip names.
const NAMED: usize = 5;

impl Drawn<'_> {
    /// Draws the chart in one form.
    pub(super) fn draw(&self, form: &Form, out: &mut String) {
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
        let size = (form.width, form.height);
        let Chart { title, text, .. } = self.chart;
        *out += &open_svg("plot", form.class, size, form.letters, title, text);
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
        if let Some((_, height)) = self.limit {
            let y = plot.down(height);
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

    /// Draws an invisible strip with a tooltip over each part of the plot that has values or events.
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
}

/// Returns ticks of time, as many as fit side by side.
fn fitting(range: (f64, f64), form: &Form, plot: &Plot) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for most in (1..=form.most_ticks).rev() {
        ticks = Scale::Time.ticks(range.0, range.1, most);
        // Labels at the ends would extend beyond the drawing.
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
        // The range is too short to contain a round time, so the label is at its middle.
        let middle = (range.0 + range.1) / 2.0;
        ticks.push(Tick { at: middle, label: Scale::Time.show(middle) });
    }
    ticks
}

/// The rectangle that the series are drawn in, and the ranges of values on its sides.
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
        // A line of length zero with round ends makes a single point visible.
        let _ = writeln!(out, "<path class=\"s{number}\" d=\"{path}h0\"/>");
    }
}
