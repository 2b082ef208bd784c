//! A self-contained HTML page: it needs no network, script or font.
//!
//! A page is made from numbers and texts. Names, keys and reasons come from stores, entries and workflows, so
//! every text is escaped (`escape.rs`), and a policy in the page forbids the browser to load or run anything.
//! The size of a page is bounded: a table has a maximum number of rows, and texts are truncated.

mod escape;
mod table;

pub use table::Table;

use escape::{escape, escape_name};
use std::fmt::Write;

/// Colors and sizes for light and dark, wide and narrow, screen and paper.
const STYLE: &str = include_str!("style.css");

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub title: String,
    pub subtitle: String,
    pub sections: Vec<Section>,
}

#[derive(Debug, Clone, Default)]
pub struct Section {
    pub heading: String,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
pub enum Block {
    Paragraph(String),
    /// A few large numbers, each with its label.
    Figures(Vec<(String, String)>),
    Table(Table),
}

impl Section {
    pub fn new(heading: impl Into<String>) -> Self {
        Section { heading: heading.into(), blocks: Vec::new() }
    }

    pub fn paragraph(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Paragraph(text.into()));
        self
    }

    /// Adds numbers that stand out, each with its label.
    pub fn figures<N: Into<String>, V: Into<String>>(
        mut self,
        figures: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let texts = figures.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.blocks.push(Block::Figures(texts.collect()));
        self
    }

    pub fn table(mut self, table: Table) -> Self {
        self.blocks.push(Block::Table(table));
        self
    }
}

impl Page {
    /// Renders the whole page, to be written to a file unchanged.
    pub fn render(&self) -> String {
        let title = escape_name(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n"
        );
        if !self.subtitle.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", escape(&self.subtitle));
        }
        out.push_str("</header>\n");
        for section in &self.sections {
            let _ = writeln!(out, "<section>\n<h2>{}</h2>", escape_name(&section.heading));
            section.blocks.iter().for_each(|block| out.push_str(&block.html()));
            out.push_str("</section>\n");
        }
        out.push_str("</main>\n</body>\n</html>\n");
        out
    }
}

impl Block {
    fn html(&self) -> String {
        match self {
            Block::Paragraph(text) => format!("<p>{}</p>\n", escape(text)),
            Block::Figures(figures) => {
                let figure = |(name, value): &(String, String)| {
                    format!(
                        "<div><dt>{}</dt><dd>{}</dd></div>\n",
                        escape_name(name),
                        escape_name(value)
                    )
                };
                let figures: String = figures.iter().map(figure).collect();
                format!("<dl class=\"figures\">\n{figures}</dl>\n")
            }
            Block::Table(table) => table.html(),
        }
    }
}
