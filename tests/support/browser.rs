//! What people see of a page: Chromium opens it, without scripts and without a network, in light and dark,
//! on a screen and on a phone, and measures what shows.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::azurite::script;
use super::place::output;

/// A page that was looked at.
#[derive(Deserialize)]
pub struct Seen {
    /// What a reader would complain about.
    pub problems: Vec<String>,
    /// All text that shows.
    pub text: String,
    /// Screenshots: light and dark, 1200 and 390 wide; and 700 wide.
    pub shots: Vec<PathBuf>,
    /// Least contrast of a text with what is behind it; none without texts.
    pub least: Option<f64>,
    #[serde(skip)]
    directory: Option<TempDir>,
}

/// Opens a page. The screenshots go with the value, unless STORECACHE_TEST_SHOTS names a directory for them.
#[track_caller]
pub fn look(name: &str, html: &str) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join(format!("{name}.html"));
    fs::write(&page, html).unwrap();
    look_at(&page, directory)
}

/// Opens a page that is there already.
#[track_caller]
pub fn look_at_file(page: &Path) -> Seen {
    look_at(page, tempfile::tempdir().unwrap())
}

#[track_caller]
fn look_at(page: &Path, directory: TempDir) -> Seen {
    let shots = std::env::var_os("STORECACHE_TEST_SHOTS");
    let shots = shots.map_or(directory.path().to_owned(), PathBuf::from);
    let mut command = script("browser.mjs");
    let said = output(command.arg(shots).arg(page)).ok().stdout;
    let seen: Seen = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    Seen { directory: Some(directory), ..seen }
}

impl Seen {
    /// Nobody has anything to complain about.
    #[track_caller]
    pub fn fine(self) -> Seen {
        assert!(self.problems.is_empty(), "{:#?}", self.problems);
        assert!(self.least.is_some_and(|least| least >= 4.5));
        self
    }
}
