//! Compares the threat model in SECURITY.md with the tests that it cites.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Actor, what they control, what they can do, what they cannot do, and the tests that show it.
const COLUMNS: usize = 5;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("SECURITY.md")).unwrap()
}

/// Returns the cells of the table of actors, without its header.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let (_, section) = page.split_once("\n## Threat model\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.skip(2).map(|line| line.split('|').map(str::trim).collect()).collect()
}

/// Returns the tests that a text cites, as `FILE: NAME, NAME` between backticks.
fn citations(text: &str) -> Vec<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    let cited = code.filter_map(|code| code.split_once(".rs: "));
    cited.flat_map(|(file, names)| names.split(", ").map(move |name| (file, name))).collect()
}

/// Returns the names of the tests in a source file.
fn tests_in(file: &Path) -> BTreeSet<String> {
    let source = fs::read_to_string(file).unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split('(').next().unwrap_or_default();
            if std::mem::take(&mut is_test) {
                names.insert(name.to_owned());
            }
        } else if !line.starts_with("#[") {
            is_test = false;
        }
    }
    names
}

#[test]
fn cited_tests_exist() {
    let page = page();
    let cited = citations(&page);
    assert!(cited.len() > 50, "{}", cited.len());
    let missing: Vec<String> = cited
        .iter()
        .map(|(file, name)| (format!("{file}.rs"), *name))
        .filter(|(file, name)| !tests_in(&root().join(file)).contains(*name))
        .map(|(file, name)| format!("{file}: {name}"))
        .collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md cites tests that do not exist:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_limit_of_an_actor_cites_a_test() {
    let page = page();
    let rows = rows(&page);
    assert!(rows.len() > 20, "{}", rows.len());
    for row in &rows {
        assert_eq!(row.len(), COLUMNS, "{row:?}");
        assert!(!row[3].is_empty() && !citations(row[4]).is_empty(), "{row:?}");
        // An actor has one row with what they control and can do, and further rows without these cells.
        assert_eq!(row[0].is_empty(), row[1].is_empty() && row[2].is_empty(), "{row:?}");
    }
    let actors = rows.iter().filter(|row| !row[0].is_empty()).count();
    assert!(actors >= 8, "{actors}");
    assert!(!rows[0][0].is_empty());
}

#[test]
fn no_input_of_the_helper_is_called_harmful() {
    assert!(!page().to_lowercase().contains("not harmless"));
}
