//! Checks docs/comparison.md, the comparison with other tools, against docs/comparison.json.
//!
//! With STORECACHE_WRITE_COMPARISON=1 the test writes the table, otherwise it compares the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use jiff::civil::Date;
use serde::Deserialize;

const BEGIN: &str = "<!-- docs/comparison.json: begin -->\n";
const END: &str = "<!-- docs/comparison.json: end -->";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparison {
    /// The day on which the pages and sources of the other tools were read.
    read: String,
    #[serde(rename = "about")]
    _about: String,
    peers: Vec<Peer>,
    features: Vec<Feature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    version: String,
    /// The date of that version: a day, or a month.
    date: String,
    home: String,
    sources: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    feature: String,
    ours: Ours,
    theirs: BTreeMap<String, Theirs>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    is: FeatureSupport,
    note: Option<String>,
    /// A file and a function in it.
    test: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Theirs {
    is: FeatureSupport,
    note: Option<String>,
    source: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FeatureSupport {
    Yes,
    Partly,
    No,
    /// Does not apply.
    None,
}

impl FeatureSupport {
    fn word(self) -> &'static str {
        match self {
            FeatureSupport::Yes => "yes",
            FeatureSupport::Partly => "partly",
            FeatureSupport::No => "no",
            FeatureSupport::None => "–",
        }
    }
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn comparison() -> Comparison {
    serde_json::from_str(&fs::read_to_string(path("docs/comparison.json")).unwrap()).unwrap()
}

fn markdown(comparison: &Comparison) -> String {
    let Comparison { read, peers, features, .. } = comparison;
    let mut text = String::from("| | storecache |");
    text.extend(peers.iter().map(|peer| format!(" [{}]({}) |", peer.name, peer.home)));
    text += "\n|---|---|";
    text.extend(peers.iter().map(|_| "---|"));
    text += "\n";
    for Feature { feature, ours, theirs } in features {
        text += &format!("| {feature} | **{}** |", ours.is.word());
        text.extend(peers.iter().map(|peer| format!(" {} |", theirs[&peer.name].is.word())));
        text += "\n";
    }
    let versions =
        peers.iter().map(|peer| format!("{} ({}, {})", peer.name, peer.version, peer.date));
    let versions: Vec<_> = versions.collect();
    text += &format!("\nRead on {read}: {}.\n", versions.join("; "));
    text += "\n<details><summary>Why <i>partly</i>, <i>no</i> and <i>–</i></summary>\n\n";
    for Feature { feature, ours, theirs } in features {
        let own = ours.note.iter().map(|note| format!("storecache: {note}"));
        // A note that is the same for several tools is printed once.
        let mut notes_of: Vec<(Vec<&str>, String)> = Vec::new();
        for peer in peers {
            let cell = &theirs[&peer.name];
            let Some(note) = &cell.note else { continue };
            let link = cell.source.iter().map(|source| format!(" ([source]({source}))"));
            let note = format!("{note}{}", link.collect::<String>());
            match notes_of.iter_mut().find(|(_, other)| *other == note) {
                Some((names, _)) => names.push(&peer.name),
                None => notes_of.push((vec![&peer.name], note)),
            }
        }
        let theirs = notes_of.iter().map(|(names, note)| format!("{}: {note}", names.join(", ")));
        let notes: Vec<String> = own.chain(theirs).collect();
        if !notes.is_empty() {
            text += &format!("- **{feature}.** {}.\n", notes.join(". "));
        }
    }
    text + "\n</details>\n"
}

#[test]
fn comparison_page_matches_the_data() {
    let page = fs::read_to_string(path("docs/comparison.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the markers of the table");
    let (shown, after) = rest.split_once(END).unwrap();
    let table = markdown(&comparison());
    if env::var_os("STORECACHE_WRITE_COMPARISON").is_some() {
        fs::write(path("docs/comparison.md"), format!("{before}{BEGIN}{table}{END}{after}"))
            .unwrap();
        return;
    }
    assert_eq!(shown, table, "write it with STORECACHE_WRITE_COMPARISON=1");
}

#[test]
fn every_claim_names_an_existing_test() {
    for Feature { feature, ours, .. } in comparison().features {
        assert!(ours.is != FeatureSupport::None, "{feature}");
        assert_eq!(
            ours.test.is_some(),
            ours.is != FeatureSupport::No,
            "{feature}: a claim needs a test"
        );
        assert_eq!(
            ours.note.is_some(),
            ours.is != FeatureSupport::Yes,
            "{feature}: a note says what is missing"
        );
        if let Some(test) = ours.test {
            let (file, name) = test.split_once(": ").unwrap();
            assert!(file.starts_with("tests/"), "{feature}: {file}");
            let source = fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            let function = format!("#[test]\nfn {name}() {{");
            assert!(source.contains(&function), "{feature}: {test}");
        }
    }
}

#[test]
fn every_peer_has_a_date_sources_and_all_features() {
    let Comparison { read, peers, features, .. } = comparison();
    let read: Date = read.parse().unwrap();
    assert!(peers.len() >= 6 && features.len() >= 16);
    for peer in &peers {
        let day = if peer.date.len() == "2026-01".len() { "-01" } else { "" };
        let date: Date = format!("{}{day}", peer.date).parse().unwrap();
        assert!(date <= read, "{}: {date}", peer.name);
        assert!(!peer.version.is_empty() && !peer.sources.is_empty(), "{}", peer.name);
        for url in peer.sources.iter().chain([&peer.home]) {
            assert!(url.starts_with("https://"), "{url}");
        }
    }
    for Feature { feature, theirs, .. } in &features {
        let names: Vec<_> = theirs.keys().collect();
        let mut known: Vec<_> = peers.iter().map(|peer| &peer.name).collect();
        known.sort();
        assert_eq!(names, known, "{feature}");
        for (name, cell) in theirs {
            let obvious = matches!(cell.is, FeatureSupport::Yes | FeatureSupport::No);
            assert!(obvious || cell.note.is_some(), "{feature}: {name} has no note");
            assert!(cell.source.is_none() || cell.note.is_some(), "{feature}: {name}");
        }
    }
    // The other tools are better at some features, and an honest table shows that.
    let worse = features.iter().filter(|it| it.ours.is == FeatureSupport::No);
    assert!(worse.count() >= 3);
}
