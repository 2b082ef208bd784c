//! Tables: texts are left-aligned, numbers right-aligned; a wide table scrolls in its own box.

use super::escape::escape_name;
use std::fmt::Write;

#[derive(Debug, Clone, Default)]
pub struct Table {
    pub caption: String,
    columns: Vec<(String, Kind)>,
    /// The rows; a row may have fewer cells than there are columns. At most [`Table::ROWS`] are shown.
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

impl Table {
    /// Maximum number of rows; a note states how many more there are.
    pub const ROWS: usize = 200;

    pub fn new(caption: impl Into<String>) -> Self {
        Table { caption: caption.into(), ..Table::default() }
    }

    /// Adds a column of texts.
    pub fn text(mut self, heading: &str) -> Self {
        self.columns.push((heading.to_owned(), Kind::Text));
        self
    }

    /// Adds a column of numbers.
    pub fn number(mut self, heading: &str) -> Self {
        self.columns.push((heading.to_owned(), Kind::Number));
        self
    }

    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(super) fn html(&self) -> String {
        let caption = escape_name(&self.caption);
        // Keyboard users can scroll only an element that can have the focus.
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n\
             <table>\n<caption>{caption}</caption>\n<thead><tr>"
        );
        for (heading, kind) in &self.columns {
            let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(*kind), escape_name(heading));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in self.rows.iter().take(Self::ROWS) {
            out.push_str("<tr>");
            for ((_, kind), cell) in self.columns.iter().zip(row) {
                let _ = write!(out, "<td{}>{}</td>", class(*kind), escape_name(cell));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
        if let Some(more @ 1..) = self.rows.len().checked_sub(Self::ROWS) {
            let _ = writeln!(out, "<p class=\"none\">and {more} more rows</p>");
        }
        out
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "",
        Kind::Number => " class=\"number\"",
    }
}
