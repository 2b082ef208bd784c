//! Tests of the summary of a job: its content, and that names from outside cannot break it.

use std::fs;

use crate::support::world_runs::{attempt, run};
use crate::support::{Fixture, Role, World};
use jiff::Timestamp;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag};
use storecache::report::{Growth, Hit, Job, Outcome, render};
use storecache_root_helper::protocol::Required;
use storecache_runtime::untrusted_text::escape;

/// GitHub's limit for one step.
const LIMIT: usize = 1 << 20;

/// The HTML that storecache itself writes.
const OWN_TAGS: [&str; 7] = [
    "<code>",
    "</code>",
    "<details>",
    "</details>",
    "<summary>",
    "</summary>",
    "<details><summary>",
];

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn render_summary(restore: Option<&Outcome>, save: Option<&Outcome>) -> String {
    render(&Job { restore, save, now: now() })
}

/// Returns the text as rendered, and all HTML tags and Markdown elements.
fn rendered(markdown: &str) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut marks = Vec::new();
    // All extensions that GitHub may support, except for typographic quotes and dashes.
    let options = Options::all() - Options::ENABLE_SMART_PUNCTUATION;
    for event in Parser::new_ext(markdown, options) {
        match event {
            Event::Text(part) => text.push_str(&part),
            Event::Code(part) => marks.push(format!("`{part}`")),
            Event::Html(html) | Event::InlineHtml(html) => {
                let count = format!("</summary>{html}").matches(" items ").count();
                let html = if count > 0 { "a count" } else { html.trim() };
                marks.push(html.to_owned());
            }
            Event::Start(tag @ (Tag::Link { .. } | Tag::Image { .. } | Tag::Emphasis)) => {
                marks.push(format!("{tag:?}"));
            }
            Event::SoftBreak | Event::HardBreak => text.push('\n'),
            Event::End(_) => text.push(' '),
            _ => {}
        }
    }
    (text, marks)
}

fn restored() -> Outcome {
    let mut outcome = Outcome {
        hit: Hit::Exact,
        key: "storecache-nix-x86_64-linux-2.26.3-4f0c".into(),
        entry: Some("storecache-nix-x86_64-linux-2.26.3-4f0c.20261119T120000.000000Z".into()),
        created: Some("2026-11-19T12:00:00Z".into()),
        ..Outcome::default()
    };
    outcome.items.restored = 131;
    outcome.items.present = 66;
    outcome.bytes.unpacked = 412_000_000;
    outcome.bytes.downloaded = 88_000_000;
    outcome.bytes.snapshot = 90_000_000;
    outcome.seconds.lookup = 0.2;
    outcome.seconds.download = 1.1;
    outcome.seconds.commit = 0.3;
    outcome.seconds.downtime = 0.4;
    outcome.seconds.total = 2.1;
    outcome.seconds.cold = Some(1440.0);
    outcome
}

fn unchanged() -> Outcome {
    let mut outcome = Outcome {
        hit: Hit::Exact,
        saved: Some(false),
        reason: Some("unchanged: KEY holds all of it".into()),
        growth: Some(Growth { items: 0, bytes: Some(0) }),
        ..Outcome::default()
    };
    outcome.seconds.total = 0.5;
    outcome.seconds.job = Some(41.4);
    outcome.seconds.cold = Some(1440.0);
    outcome
}

#[test]
fn exact_hit_summary_has_a_table_and_the_time_saved() {
    let summary = render_summary(Some(&restored()), Some(&unchanged()));
    let (text, _) = rendered(&summary);
    assert!(summary.starts_with(
        "### storecache: exact hit, 131 items restored in 2.1 s; nothing saved\n\n| | |\n|---|---|\n"
    ));
    for words in [
        "Found storecache-nix-x86_64-linux-2.26.3-4f0c.20261119T120000.000000Z, 3 days old",
        "Items 131 items restored (412 MB), 66 there before",
        "Read 88 MB of 90 MB",
        "2.1 s : lookup 0.2 s, download 1.1 s, commit 0.3 s",
        "Daemon away 0.4 s",
        "Not saved unchanged: KEY holds all of it",
        "Growth 0 new items since the newest entry of the key",
        "Was it worth it?  Yes: this job took 44.0 s, 2.6 s of it for the cache. Without one it took \
         24 min 0 s, so 23 min 16 s were saved.",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    assert!(!text.contains("Next steps"), "{text}");
}

#[test]
fn summary_explains_prefix_hits_misses_and_failures() {
    let moved = vec!["files:flake.lock".into(), "workflow:semantic".into()];
    let prefix = Outcome { hit: Hit::Prefix, moved, ..restored() };
    let mut saved = Outcome { saved: Some(true), entry: Some("KEY.1".into()), ..unchanged() };
    saved.reason = None;
    saved.bytes.snapshot = 91_000_000;
    saved.deleted = vec!["KEY.0".into()];
    saved.items.baseline = 66;
    let (text, _) = rendered(&render_summary(Some(&prefix), Some(&saved)));
    for words in [
        "prefix hit, 131 items restored in 2.1 s; 91 MB saved",
        "the newest with a prefix of the key, as the key itself has no entry; since it was \
         saved, files:flake.lock, workflow:semantic changed",
        "Deleted 1 superseded entry",
        "Left out 66 items from before the restore",
        "the next job with this key has an exact hit",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }

    let missed = Outcome { reason: Some("no entry for the key".into()), ..Outcome::default() };
    let (text, _) = rendered(&render_summary(Some(&missed), Some(&saved)));
    assert!(text.contains("nothing to restore; 91 MB saved"), "{text}");
    assert!(text.contains("this one took 41.4 s, which the entry records"), "{text}");

    // A cache that costs more than it saves is reported as such.
    let mut slow = unchanged();
    slow.seconds.cold = Some(30.0);
    let (text, _) = rendered(&render_summary(Some(&restored()), Some(&slow)));
    assert!(text.contains("Not this time: this job took 44.0 s"), "{text}");
    assert!(text.contains("the job is faster without the cache"), "{text}");
    // After a job that ended early, nothing is reported about that.
    slow.job_status = Some("failure".into());
    let (text, _) = rendered(&render_summary(Some(&restored()), Some(&slow)));
    assert!(!text.contains("worth it"), "{text}");

    let failed = Outcome { failed: true, reason: Some("restore: unpack: x".into()), ..missed };
    let (text, _) = rendered(&render_summary(Some(&failed), None));
    assert!(text.contains("the restore failed, the store is as it was"), "{text}");
    assert!(text.contains("See why the restore failed: restore: unpack: x"), "{text}");
    let (text, _) = rendered(&render_summary(None, Some(&unchanged())));
    assert!(text.starts_with("storecache: nothing saved"), "{text}");
}

/// Returns texts that could break the summary, by accident or on purpose.
fn hostile() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "<script>alert(1)</script>",
        "</code>",
        "</details>",
        "<!--",
        "|",
        "\n\n# Title\n",
        "\r\n|x|",
        "`",
        "```\n",
        "[a](javascript:alert(1))",
        "![](https://example.com/x.png)",
        "*",
        "__",
        "~~",
        "https://example.com",
        "www.example.com",
        "@somebody",
        "#1",
        "&lt;",
        "&#60;script&#62;",
        "\\",
        "\u{202E}",
        "\u{0}",
        "\u{1b}[31m",
        "$x$",
        ":tada:",
        "- [x] ",
        "\t",
        "<",
        "é漢字🦀",
        "0c4c7a0s0fdxjpjvl8sbkmgphsx0i9jd-hello-2.12.1",
    ]);
    let word = prop_oneof![4 => bits.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let hit = prop::sample::select(vec![Hit::Exact, Hit::Prefix, Hit::Miss]);
    let texts = prop::collection::vec(hostile(), 8);
    let many = (prop::collection::vec((hostile(), hostile()), 0..60), 0usize..100_000);
    (hit, texts, many, any::<[bool; 5]>(), any::<[u32; 6]>()).prop_map(
        |(hit, texts, (skipped, times), flags, numbers)| {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap_or_default();
            let mut skipped = skipped;
            if let Some(first) = skipped.first().cloned().filter(|_| flags[0]) {
                skipped.resize(times.max(1), first);
            }
            let mut outcome = Outcome {
                hit,
                key: text(),
                entry: flags[1].then(&mut text),
                created: flags[2].then(&mut text),
                reason: flags[3].then(&mut text),
                saved: Some(flags[4]),
                failed: flags[0] && flags[2],
                warnings: skipped.iter().map(|(name, _)| name.clone()).collect(),
                deleted: skipped.iter().map(|(name, _)| name.clone()).collect(),
                required: skipped
                    .iter()
                    .map(|(name, reason)| Required {
                        pattern: name.clone(),
                        complete: flags[1],
                        items: numbers[0].into(),
                        closure: numbers[1].into(),
                        missing: vec![reason.clone()],
                    })
                    .collect(),
                skipped,
                ..Outcome::default()
            };
            outcome.items.restored = numbers[2].into();
            outcome.items.skipped = outcome.skipped.len() as u64;
            outcome.seconds.total = f64::from(numbers[3]);
            outcome.seconds.job = flags[3].then_some(f64::from(numbers[4]));
            outcome.seconds.cold = flags[4].then_some(f64::from(numbers[5]));
            outcome
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_names_show_as_text_and_stay_below_the_limit(
        restore in prop::option::of(outcome()),
        save in prop::option::of(outcome()),
    ) {
        let summary = render_summary(restore.as_ref(), save.as_ref());
        prop_assert!(summary.len() < LIMIT, "{} bytes", summary.len());
        prop_assert!(!summary.contains(|c: char| c.is_control() && c != '\n'));
        let (_, marks) = rendered(&summary);
        for mark in marks {
            let unfolded = mark == "a count" || mark.starts_with("<details><summary>1 item ");
            prop_assert!(OWN_TAGS.contains(&mark.as_str()) || unfolded, "{mark:?} in\n{summary}");
        }
        prop_assert_eq!(summary.matches("<details>").count(), summary.matches("</details>").count());
    }

    #[test]
    fn summary_shows_a_name_as_it_is_escaped(name in hostile()) {
        let visible = |c: char| !c.is_control() && !c.is_whitespace() && (c.is_ascii() || c.is_alphabetic());
        let wanted: String = escape(&name).chars().take(250).filter(|c| visible(*c)).collect();
        let outcome = Outcome { key: name, ..Outcome::default() };
        let (text, _) = rendered(&render_summary(Some(&outcome), None));
        let text: String = text.chars().filter(|c| visible(*c)).collect();
        prop_assert!(text.contains(&wanted), "{wanted:?} in {text:?}");
    }
}

#[test]
fn save_summary_includes_the_restore() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let valid = world.valid_paths().len();
        let flags = ["--state", "/tmp/job.json", "--summary", "/tmp/summary.md"];
        let job = |more: &[&str]| {
            run(&world, "runner", "restore", &flags[..2]);
            let more = [&flags, &["--policy", "auto", "--baseline", "include"][..], more].concat();
            run(&world, "runner", "save", &more);
            let file = world.host("/tmp/summary.md");
            let summary = fs::read_to_string(&file).unwrap();
            fs::remove_file(file).unwrap();
            rendered(&summary).0
        };
        let first = job(&[]);
        assert!(first.contains("storecache: nothing to restore; "), "{first}");
        assert!(first.contains("no entry for the key or its prefixes in dir:/cache"), "{first}");
        assert!(first.contains("The next job will show that."), "{first}");
        world.wipe_store();
        let second = job(&["--job-status", "success"]);
        assert!(second.contains(&format!("exact hit, {valid} items restored in ")), "{second}");
        assert!(second.contains("Daemon away"), "{second}");
        assert!(second.contains("Not saved unchanged: test."), "{second}");
        assert!(second.contains("Without one it took"), "{second}");

        // The summary is appended to the file. If the file cannot be written, there is a warning.
        fs::write(world.host("/tmp/summary.md"), "before\n").unwrap();
        let open = "chmod 666 /tmp/summary.md";
        world.sh(open);
        run(&world, "runner", "restore", &flags[2..]);
        let summary = fs::read_to_string(world.host("/tmp/summary.md")).unwrap();
        assert!(summary.starts_with("before\n### storecache: exact hit"), "{summary}");
        let warned = attempt(&world, "runner", "restore", &["--summary", "/nowhere/x"]).ok();
        assert!(warned.stderr.contains("the summary was not written"), "{warned}");
    }
}
