//! Tests that the examples in the guides work: actionlint and storecache's own lint accept their workflows, and
//! each input of our step that they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::azurite::script;
use crate::support::plain_env::output;
use crate::support::workflows::{json_findings, tree};
use serde_json::Value;

/// A block of YAML, with its page and line.
struct Block {
    place: String,
    text: String,
}

/// Returns the blocks of all pages in `docs/` and of the README.
fn blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut blocks = Vec::new();
    for page in pages.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let mut parts = text.split("```yaml\n");
        let mut number = 1 + parts.next().unwrap().lines().count();
        for part in parts {
            let (block, rest) = part.split_once("\n```").expect("a block ends");
            let place = format!("{}:{number}", page.file_name().unwrap().to_str().unwrap());
            blocks.push(Block { place, text: format!("{block}\n") });
            number += 1 + block.lines().count() + rest.lines().count();
        }
    }
    assert!(blocks.len() >= 8, "{}", blocks.len());
    blocks
}

/// Returns the block as a complete workflow: steps and parts of a job are put into one.
fn workflow(block: &str) -> String {
    let lines = block.lines().filter(|line| !line.starts_with('#'));
    let indented = |depth: usize| {
        let indent = " ".repeat(depth);
        lines.clone().map(|line| format!("{indent}{line}\n")).collect::<String>()
    };
    let top = "on:\n  push:\n    branches: [main]\n  pull_request:\n";
    let job = "jobs:\n  job:\n    runs-on: ubuntu-24.04\n";
    let checkout = "      - uses: actions/checkout@v4\n";
    let has_checkout = block.contains("uses: actions/checkout");
    if block.contains("\njobs:") {
        return block.to_owned();
    }
    let mut steps = match block.lines().any(|line| line == "steps:") {
        true => indented(4),
        false => format!("    steps:\n{}", indented(6)),
    };
    if !has_checkout {
        steps = steps.replacen("    steps:\n", &format!("    steps:\n{checkout}"), 1);
    }
    format!("{top}{job}{steps}")
}

#[test]
fn guide_workflows_pass_actionlint_and_storecache_lint() {
    let kept = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut faulty = Vec::new();
    for Block { place, text } in blocks() {
        let text = workflow(&text);
        // Only Forgejo and Gitea name an action by its URL, and the checker is some years old.
        let for_github = text.replace("https://github.com/", "").replace("OWNER/", "owner/");
        let for_github = for_github.replace("ubuntu-24.04", "ubuntu-22.04");
        let file = kept.path().join(format!("{}.yml", place.replace(':', "-")));
        fs::write(&file, &for_github).unwrap();
        files.push(file);

        let found = json_findings(&tree(&[("ci.yml", &for_github)]));
        let rules: BTreeSet<&str> = found.iter().map(|it| it["rule"].as_str().unwrap()).collect();
        if text.contains("sudo tar") {
            // One guide shows the two `sudo tar` steps that it replaces.
            assert!(rules.contains("guard"), "{place}: {rules:?}");
            faulty.push(place);
        } else {
            let said: Vec<&Value> = found.iter().map(|it| &it["message"]).collect();
            assert_eq!(rules, BTreeSet::new(), "{place}: {said:?}\n{text}");
        }
    }
    assert_eq!(faulty.len(), 1, "{faulty:?}");
    let output = output(script("workflow_validator.mjs").args(&files)).ok();
    assert_eq!(output.stdout, format!("checked {}\n", files.len()));
}

#[test]
fn guides_name_only_existing_inputs_and_outputs() {
    let action = include_str!("../../action.yml");
    let names = |section: &str| -> BTreeSet<&str> {
        let lines = action.lines().skip_while(|line| *line != section).skip(1);
        let section = lines.take_while(|line| line.starts_with(' ') || line.is_empty());
        let keys = section.filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
        keys.filter(|key| !key.starts_with(' ')).collect()
    };
    let (inputs, outputs) = (names("inputs:"), names("outputs:"));
    assert!(inputs.len() > 40 && outputs.len() > 5, "{inputs:?} {outputs:?}");

    let mut seen = 0;
    for Block { place, text } in blocks() {
        for step in text.split("OWNER/storecache@v1").skip(1) {
            let with = step.lines().skip_while(|line| line.trim() != "with:").skip(1);
            let Some(first) = with.clone().next() else { continue };
            let depth = first.len() - first.trim_start().len();
            let its = with.take_while(|line| line.len() - line.trim_start().len() >= depth);
            let keys = its.filter(|line| line.len() - line.trim_start().len() == depth);
            for line in keys {
                let key = line.trim().split(':').next().unwrap();
                assert!(inputs.contains(key), "{place}: {key}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "{seen}");

    // Check the right side of the tables in the guide for those who move from other tools.
    let moving = include_str!("../../docs/moving.md");
    let rows =
        moving.lines().filter(|line| line.starts_with("| ") && !line.contains("storecache |"));
    for row in rows {
        let ours = row.split(" | ").last().unwrap();
        for code in ours.split('`').skip(1).step_by(2) {
            let name = code.split(':').next().unwrap();
            let known = inputs.contains(name) || outputs.contains(name);
            assert!(known || name.starts_with("storecache "), "{row}: {name}");
        }
    }
}

#[test]
fn readme_names_inputs_that_are_there() {
    let rows = include_str!("../../README.md").lines().filter_map(|line| line.strip_prefix("| `"));
    let mut seen = 0;
    for row in rows {
        let names = row.split(" | ").next().unwrap();
        for name in names.split('`').step_by(2).filter(|name| !name.is_empty()) {
            assert!(include_str!("../../action.yml").contains(&format!("\n  {name}:\n")), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// Returns the headings of a page as links name them.
fn headings(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let titles = titles.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept =
        |title: String| title.replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-', "");
    titles.map(|title| kept(title).replace(' ', "-")).collect()
}

#[test]
fn readme_has_a_step_and_step_page_a_workflow_for_each_store() {
    let blocks = blocks();
    let on_page = |page: &str| -> Vec<&str> {
        let found = blocks.iter().filter(|it| it.place.starts_with(page));
        found.map(|it| it.text.as_str()).collect()
    };
    let (steps, whole) = (on_page("README.md:"), on_page("step.md:"));
    assert!(whole.iter().all(|text| text.contains("\njobs:")), "{whole:?}");
    for (texts, lines) in [(steps, 10), (whole, 20)] {
        assert_eq!(texts.len(), 2, "{texts:?}");
        for (store, text) in ["nix", "guix"].iter().zip(texts) {
            assert!(text.contains(&format!("store: {store}\n")), "{text}");
            assert_eq!(text.matches("OWNER/storecache@v1").count(), 1, "one step");
            assert!(text.lines().count() < lines, "{text}");
        }
    }
}

#[test]
fn readme_is_short_and_leads_to_every_page() {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().count() <= 210, "tables belong in docs/");
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    // ARCHITECTURE.md leads to the pages in docs/design/: see tests/architecture.rs.
    let docs: Vec<PathBuf> =
        docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    let is_page = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "md");
    let pages = docs.iter().filter(is_page).map(|page| fs::read_to_string(page).unwrap());
    let pages: String = pages.collect();
    for path in &docs {
        let name = path.file_name().unwrap().to_str().unwrap();
        let linked = readme.contains(&format!("](docs/{name})"));
        // A picture or a record of figures belongs to the page that shows it.
        let of_a_page = !is_page(&path) && pages.contains(&format!("]({name})"));
        assert!(linked || of_a_page, "no page links to docs/{name}");
    }
    for words in [
        "cargo install --path .",
        "no release yet",
        "not yet on GitHub itself",
        "./scripts/demo",
        "./scripts/test",
        "CONTRIBUTING.md",
    ] {
        assert!(readme.contains(words), "a new user looks for: {words}");
    }
}

#[test]
fn links_between_pages_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_owned(), root.join("docs"), root.join("docs/design")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = match target {
                "" => page.clone(),
                target => page.parent().unwrap().join(target),
            };
            assert!(file.exists(), "{}: {target}", page.display());
            let there = heading.is_empty() || headings(&file).contains(heading);
            assert!(there, "{}: {link}: there is no such heading", page.display());
            links += 1;
        }
    }
    assert!(links >= 10, "{links}");
}
