//! The plot: bars of median seconds, with a pale extension until everything is on the disk, and a line from the
//! fastest to the slowest round. Each piece of work has a scale of its own.

use std::fmt::Write;

use super::US;
use super::record::{Quantity, Record, Series, Work};

const WIDTH: f64 = 760.0;
/// Where bars begin, and the length of the longest bar.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 440.0;
const BAR: f64 = 16.0;
const STEP: f64 = 21.0;
const TITLE: f64 = 26.0;
const GAP: f64 = 14.0;

/// Returns an SVG that needs no external font or style, and is readable on light and on dark pages.
pub fn svg(record: &Record) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    for work in &record.works {
        y = group(&mut body, work, y) + GAP;
    }
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{:.1}\" fill=\"#57606a\">Bars: medians; pale: until all is on the disk; lines: \
         fastest to slowest round.</text>",
        y + 8.0
    );
    y += 2.0 * GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" \
         height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\" \
         aria-label=\"Seconds of storecache and its peers\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Draws one piece of work from `y` on, and returns where it ends.
fn group(body: &mut String, work: &Work, mut y: f64) -> f64 {
    y += TITLE;
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{:.1}\" font-weight=\"bold\" fill=\"#1b1f24\">{}</text>",
        y - 8.0,
        escaped(&work.title)
    );
    let ends = work.series.iter().flat_map(|series| {
        let until = |quantity| series.spread(quantity);
        let disk = until(Quantity::OnDisk).map(|spread| spread.median);
        [until(Quantity::Seconds).map(|spread| spread.most), disk]
    });
    let most = ends.flatten().fold(f64::MIN_POSITIVE, f64::max);
    for series in &work.series {
        bar(body, series, y, LONGEST / most);
        y += STEP;
    }
    y
}

fn bar(body: &mut String, series: &Series, y: f64, scale: f64) {
    let Some(spread) = series.spread(Quantity::Seconds) else { return };
    let colour = if series.name.starts_with(US) { "#0b6e99" } else { "#b8c0c8" };
    let pale = series.spread(Quantity::OnDisk).map_or(0.0, |disk| disk.median * scale);
    let (end, middle) = (LEFT + spread.median * scale, y + BAR / 2.0);
    let (least, most) = (LEFT + spread.least * scale, LEFT + spread.most * scale);
    let text = middle + 4.0;
    let _ = writeln!(
        body,
        "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\" fill=\"#1b1f24\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{pale:.1}\" height=\"{BAR}\" fill=\"{colour}\" \
         fill-opacity=\"0.4\"/>\n\
         <path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"#1b1f24\"/>\n\
         <text x=\"{:.1}\" y=\"{text:.1}\" fill=\"#1b1f24\">{:.2} s</text>",
        LEFT - 8.0,
        escaped(&series.name),
        end - LEFT,
        end.max(most).max(LEFT + pale) + 6.0,
        spread.median,
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
