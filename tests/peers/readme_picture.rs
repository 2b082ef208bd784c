//! The picture of a job summary in the README: the summary that the program writes for two jobs with a real
//! Nix, drawn by Chromium.
//!
//! `scripts/picture` sets STORECACHE_WRITE_PICTURE=1. Then the jobs have a larger store, and the test writes
//! docs/summary.md and docs/summary.png, on an idle machine only; otherwise it compares the summary with the existing one.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::support::azurite::script;
use crate::support::plain_env::output;
use crate::support::{Fixture, Role, World, idle_machine};
use pulldown_cmark::{Options, Parser, html};

/// Similar to GitHub's style.
const STYLE: &str = "
:root { color-scheme: light dark; --front: #1f2328; --back: #fff; --line: #d1d9e0; --soft: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --front: #f0f6fc; --back: #0d1117; --line: #3d444d; --soft: #151b23 } }
body { margin: 0; background: var(--back); color: var(--front); font: 14px/1.5 sans-serif }
.picture { padding: 10px }
main { border: 1px solid var(--line); border-radius: 6px }
h1 { margin: 0; padding: 10px 16px; border-bottom: 1px solid var(--line); background: var(--soft); font-size: 14px }
article { padding: 4px 16px 12px; overflow-wrap: anywhere }
h3 { margin: 12px 0; font-size: 17px }
table { border-collapse: collapse; margin: 12px 0 }
th:empty { padding: 0; border: 0 }
td { border: 1px solid var(--line); padding: 5px 12px; vertical-align: top }
td:first-child { white-space: nowrap }
tr:nth-child(even) td { background: var(--soft) }
code { font: 12px monospace }
p { margin: 10px 0 }
";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Runs a job that misses and gets its store through Nix, and a job that restores that store, and returns the
/// summary of the second.
fn second_of_two_jobs(fixture: Fixture) -> String {
    let world = World::with_fixture(Role::Old, fixture);
    world.start_daemon();
    world.sh("mkdir -m 777 /tmp/job; touch /tmp/job/summary.md /tmp/job/state.json; echo 1 > /tmp/job/flake.lock; \
              chmod 666 /tmp/job/*; nix-store --dump-db | grep ^/nix/store/ | sort -u > /tmp/job/paths; \
              nix-store --export $(cat /tmp/job/paths) > /tmp/job/closure");
    let storecache = |verb: &str, more: &[&str]| {
        let flags = ["--store", "nix", "--backend", "dir:/cache", "--state", "/tmp/job/state.json"];
        let words = [&[verb], &flags[..], &["--hash-files", "flake.lock"], more].concat();
        world.storecache_as("runner", words).cd("/tmp/job").ok();
    };
    let save = ["--policy", "auto", "--job-status", "success", "--summary", "/tmp/job/summary.md"];
    world.wipe_store();
    storecache("restore", &[]);
    world.sh("nix-store --import < /tmp/job/closure > /tmp/job/log");
    storecache("save", &save);
    world.sh("cp /dev/null /tmp/job/summary.md");

    world.wipe_store();
    storecache("restore", &[]);
    // Read most of the store, as a build would.
    world.sh("awk 'NR % 10' /tmp/job/paths | while read -r path; do find $path -type f -exec cat {} +; done | wc -c");
    storecache("save", &save);
    fs::read_to_string(world.host("/tmp/job/summary.md")).unwrap()
}

/// Returns the first cells of the rows of the summary's first table, which name the reported facts.
fn reported_facts(summary: &str) -> Vec<&str> {
    let rows = summary.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect()
}

fn page(summary: &str) -> String {
    let mut body = String::new();
    html::push_html(&mut body, Parser::new_ext(summary, Options::ENABLE_TABLES));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Summary</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><div class=\"picture\"><main><h1>build summary</h1><article>{body}</article></main></div></body></html>"
    )
}

#[test]
fn readme_picture_shows_a_current_summary() {
    let write = env::var_os("STORECACHE_WRITE_PICTURE").is_some();
    if write {
        idle_machine::require().unwrap();
    }
    let summary = second_of_two_jobs(if write { Fixture::Full } else { Fixture::Small });
    assert!(summary.starts_with("### storecache: exact hit, "), "{summary}");
    let directory = tempfile::tempdir().unwrap();
    let (html, drawn) =
        (directory.path().join("summary.html"), directory.path().join("summary.png"));
    fs::write(&html, page(&summary)).unwrap();
    output(script("screenshot.mjs").arg(&drawn).arg(&html)).ok();
    if write {
        fs::write(file("summary.md"), &summary).unwrap();
        fs::copy(&drawn, file("summary.png")).unwrap();
    }
    let kept = fs::read_to_string(file("summary.md")).unwrap();
    assert_eq!(reported_facts(&kept), reported_facts(&summary), "update it with scripts/picture");
    assert!(reported_facts(&kept).len() > 5, "{kept}");

    for picture in [file("summary.png"), drawn] {
        let picture = fs::read(picture).unwrap();
        assert!(picture.len() < 200_000, "{} bytes", picture.len());
        assert_eq!(picture[..8], *b"\x89PNG\r\n\x1a\n");
        let width = u32::from_be_bytes(picture[16..20].try_into().unwrap());
        assert_eq!(width, 700);
    }
}
