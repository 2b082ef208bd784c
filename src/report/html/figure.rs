//! Common parts of charts and treemaps: a title with a text below it, and one drawing each for wide and for
//! narrow screens. The style shows one of the two.

use super::escape::{escape, escape_name};
use std::fmt::Write;

/// A figure with this content, or with a note if there is nothing to show.
pub fn figure(title: &str, text: &str, inside: Option<String>) -> String {
    let mut out = format!("<figure>\n<figcaption>{}", escape_name(title));
    if !text.is_empty() {
        let _ = write!(out, "<span>{}</span>", escape(text));
    }
    let nothing = || "<p class=\"none\">There is nothing to show yet.</p>\n".to_owned();
    let _ = write!(out, "</figcaption>\n{}</figure>\n", inside.unwrap_or_else(nothing));
    out
}

/// Start of a drawing of this size; `class` is `wide` or `narrow`.
pub fn open_svg(
    kind: &str,
    class: &str,
    size: (f64, f64),
    letters: f64,
    title: &str,
    text: &str,
) -> String {
    let words: Vec<_> = [title, text].into_iter().filter(|words| !words.is_empty()).collect();
    format!(
        "<svg class=\"{kind} {class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" \
         font-size=\"{letters}\">\n",
        size.0,
        size.1,
        escape(&words.join(". ")),
    )
}

/// A coordinate with at most one decimal digit.
pub fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
