//! Renders a page in Chromium without scripts and without a network, in light and dark colors, at the widths
//! of a screen and a phone, and checks the result.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::azurite::script;
use super::plain_env::output;

/// The result of rendering a page.
#[derive(Deserialize)]
pub struct RenderedPage {
    /// The problems that `browser.mjs` found.
    pub problems: Vec<String>,
    /// All visible text.
    pub text: String,
    /// Screenshots: light and dark, 1200 and 390 pixels wide; and one of 700 pixels.
    pub shots: Vec<PathBuf>,
    /// The lowest contrast of a text with its background; `None` if the page has no text.
    pub least: Option<f64>,
    #[serde(skip)]
    directory: Option<TempDir>,
}

/// Renders a page. The screenshots are deleted with the returned value, unless STORECACHE_TEST_SHOTS names a
/// directory for them.
#[track_caller]
pub fn render_html(name: &str, html: &str) -> RenderedPage {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join(format!("{name}.html"));
    fs::write(&page, html).unwrap();
    render_page(&page, directory)
}

/// Renders a page that is already in a file.
#[track_caller]
pub fn render_file(page: &Path) -> RenderedPage {
    render_page(page, tempfile::tempdir().unwrap())
}

#[track_caller]
fn render_page(page: &Path, directory: TempDir) -> RenderedPage {
    let shots = std::env::var_os("STORECACHE_TEST_SHOTS");
    let shots = shots.map_or(directory.path().to_owned(), PathBuf::from);
    let mut command = script("browser.mjs");
    let said = output(command.arg(shots).arg(page)).ok().stdout;
    let seen: RenderedPage = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    RenderedPage { directory: Some(directory), ..seen }
}

impl RenderedPage {
    /// Panics if the page has a problem or a contrast below 4.5.
    #[track_caller]
    pub fn fine(self) -> RenderedPage {
        assert!(self.problems.is_empty(), "{:#?}", self.problems);
        assert!(self.least.is_some_and(|least| least >= 4.5));
        self
    }
}
