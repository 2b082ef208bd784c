//! Checks ARCHITECTURE.md and the pages in docs/design/ against the tree.

use std::fs;
use std::path::PathBuf;

/// Endings of files that a page may name.
const ENDINGS: [&str; 9] = [".css", ".js", ".json", ".md", ".rs", ".svg", ".toml", ".yml", "/"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns the names in a directory, sorted: of its directories, or of its files.
fn names(path: &str, directories: bool) -> Vec<String> {
    let entries = fs::read_dir(root().join(path)).unwrap().map(Result::unwrap);
    let wanted = entries.filter(|entry| entry.file_type().unwrap().is_dir() == directories);
    let mut names: Vec<_> = wanted.map(|it| it.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Returns each page with its text.
fn pages() -> Vec<(String, String)> {
    let design = names("docs/design", false).into_iter().map(|name| format!("docs/design/{name}"));
    let pages = design.chain(["ARCHITECTURE.md".to_owned()]);
    pages.map(|page| (page.clone(), read(&page))).collect()
}

/// Whether a text in backticks names a file or a directory of the tree.
fn is_path(span: &str) -> bool {
    let (first, below) = span.split_once('/').unwrap_or((span, ""));
    let in_tree = !below.is_empty() && root().join(first).is_dir();
    !span.starts_with('/')
        && !span.contains([' ', '\n', '*', '<'])
        && (in_tree || ENDINGS.iter().any(|ending| span.ends_with(ending)))
}

fn exists(path: &str) -> bool {
    let found = root().join(path);
    if path.ends_with('/') { found.is_dir() } else { found.exists() }
}

#[test]
fn architecture_is_a_short_map() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 200, "{lines} lines; move reasons to docs/design/");
}

#[test]
fn every_named_path_exists() {
    let mut seen = 0;
    for (page, text) in pages() {
        let parts: Vec<&str> = text.split('`').collect();
        for at in (1..parts.len()).step_by(2).filter(|&at| is_path(parts[at])) {
            let path = parts[at];
            assert!(exists(path), "{page} names {path}, which does not exist");
            seen += 1;
            // Check "`NAME` in `PATH`" too.
            let is_name = |it: &str| it.chars().all(|c| c.is_alphanumeric() || c == '_');
            let named = at > 2 && parts[at - 1].trim() == "in" && is_name(parts[at - 2]);
            if named && !path.ends_with('/') {
                let name = parts[at - 2];
                assert!(read(path).contains(name), "{page}: {path} does not contain {name}");
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn every_design_page_is_linked() {
    let map = read("ARCHITECTURE.md");
    for name in names("docs/design", false) {
        assert!(map.contains(&format!("](docs/design/{name})")), "{name}");
    }
}

#[test]
fn table_of_changes_has_a_path_in_each_row() {
    let map = read("ARCHITECTURE.md");
    let (_, section) = map.split_once("## Where to change what\n").unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 30, "{}", rows.len());
    for row in rows {
        assert!(row.split('`').skip(1).step_by(2).any(is_path), "{row}");
    }
}

/// Returns the crates of the workspace that a crate depends on.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = read(&format!("crates/{name}/Cargo.toml"));
    let (_, section) = manifest.split_once("[dependencies]\n").unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let used = lines.filter_map(|line| line.strip_prefix("storecache-")?.split('.').next());
    used.map(str::to_owned).collect()
}

#[test]
fn every_crate_and_folder_has_a_row() {
    let map = read("ARCHITECTURE.md");
    let row = |folder: String| {
        let start = format!("| `{folder}/` |");
        let found = map.lines().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("{folder} has no row")).to_owned()
    };
    for name in names("crates", true) {
        let row = row(format!("crates/{name}"));
        let column = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let stated: Vec<&str> = column.trim().split(", ").filter(|it| !it.is_empty()).collect();
        assert_eq!(stated, dependencies(&name), "{name}");
    }
    for name in names("src", true) {
        row(format!("src/{name}"));
    }
}
