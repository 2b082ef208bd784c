//! Text of snapshots, entries and file names is escaped where it is printed, so that terminals and job runners
//! do not act on it.

use std::fs;
use std::path::PathBuf;

use crate::support::job::Job;
use crate::support::plain_env::{PlainEnv, storecache};
use crate::support::snapshot_builder::{SnapshotParts, file, frame, hard_link};
use crate::support::terminal::{assert_harmless, assert_readable, runner_commands};
use crate::support::world_runs::{NIX_FLAGS, report, save};
use crate::support::{Fixture, Role, World};
use storecache_snapshot::{Origin, ProfileFacts};

/// Texts on which a terminal or the runner of a job would act.
const INJECTIONS: [&str; 9] = [
    "\u{1b}]0;title\u{7}\u{1b}[2J",
    "\u{9b}31m\u{7f}\u{0}",
    "\u{202e}txet\u{2066}\u{200b}\u{61c}\u{2028}\u{2029}",
    "a\n::set-output name=x::y",
    "::stop-commands::token",
    "b\r  ::add-path::/tmp/evil",
    "##[error]forged",
    "c\n\u{200d}:\u{200b}:warning::forged",
    "#\u{ad}#[add-mask]forged",
];

/// Returns all of them in one line.
fn hostile_text() -> String {
    INJECTIONS.join(" ")
}

/// A saved directory whose snapshot was changed by `change`.
struct ForgedSnapshot {
    place: PlainEnv,
    file: PathBuf,
}

impl ForgedSnapshot {
    fn new(change: impl FnOnce(&mut SnapshotParts)) -> ForgedSnapshot {
        let place = PlainEnv::new();
        place.write("/opt/tool/plain", "content\n");
        // A file name may have any byte but `/` and NUL.
        for (number, order) in INJECTIONS.iter().enumerate() {
            let name = order.replace(['/', '\0'], "_");
            place.write(&format!("/opt/tool/{number}{name}"), "content\n");
        }
        place.save(&["/opt/tool"]);
        let file = place.snapshot();
        let mut parts = SnapshotParts::new(&fs::read(&file).unwrap());
        change(&mut parts);
        fs::write(&file, parts.build()).unwrap();
        ForgedSnapshot { place, file }
    }

    /// Returns a snapshot with these texts in every text field of the head.
    fn with_hostile_head() -> ForgedSnapshot {
        ForgedSnapshot::new(|parts| {
            let head = &mut parts.head;
            head.tool = hostile_text().into();
            head.key = hostile_text().into();
            head.created = hostile_text().into();
            head.watched_since = Some(hostile_text().into());
            head.store.version = hostile_text().into();
            head.store.state_dir = hostile_text().into();
            head.store.owner = hostile_text().into();
            head.profiles =
                vec![ProfileFacts { name: hostile_text().into(), item: hostile_text().into() }];
            head.origin = Origin {
                repository: hostile_text().into(),
                reference: hostile_text().into(),
                commit: hostile_text().into(),
                run: hostile_text().into(),
                trigger: hostile_text().into(),
            };
        })
    }
}

/// Runs storecache, and returns all that it printed.
#[track_caller]
fn run_and_check_output(words: &[&str]) -> String {
    let output = storecache(words);
    let all = format!("{}{}", output.stdout, output.stderr);
    assert_harmless(&words.join(" "), output.stdout.as_bytes());
    assert_harmless(&words.join(" "), output.stderr.as_bytes());
    all
}

#[test]
fn inspect_escapes_a_forged_head() {
    let forged = ForgedSnapshot::with_hostile_head();
    let file = forged.file.to_str().unwrap();
    let page = forged.place.root().join("page.html");
    let page_flag = format!("--html={}", page.display());
    for more in [&[][..], &["--items"], &["--blame"], &[&page_flag]] {
        let all = run_and_check_output(&[&["inspect", file][..], more].concat());
        assert!(all.contains(r"\x1b]0;title\x07\x1b[2J"), "{all}");
        assert!(all.contains(r"\u{202e}txet\u{2066}"), "{all}");
    }
    assert_harmless("the page", &fs::read(page).unwrap());
    let output = run_and_check_output(&["inspect", file]);
    let rows: Vec<&str> = output.lines().map(|line| line.split("  ").next().unwrap()).collect();
    let names =
        ["snapshot", "format", "store", "key", "created", "items", "size", "frames", "content"];
    assert_eq!(rows, names, "a row for each fact and no other:\n{output}");
}

#[test]
fn inspect_prints_this_text_for_a_forged_head() {
    let forged = ForgedSnapshot::new(|parts| {
        parts.head.tool = "evil \u{1b}[2J".into();
        parts.head.key = "a\n::set-output name=x::y".into();
        parts.head.created = "##[error]\u{202e}9991".into();
        parts.head.store.version = "\u{9b}31m".into();
    });
    let all = run_and_check_output(&["inspect", forged.file.to_str().unwrap()]);
    let rows = ["format", "store", "key", "created"];
    let rows: Vec<&str> =
        all.lines().filter(|row| rows.iter().any(|it| row.starts_with(it))).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    format    1, by evil \x1b[2J
    store     plain \u{9b}31m for x86_64-linux
    key       a\n::set-output name=x::y
    created   #\x23[error]\u{202e}9991
    ");
}

#[test]
fn restore_prints_this_text_for_a_forged_system() {
    let forged =
        ForgedSnapshot::new(|parts| parts.head.store.system = "\u{1b}]0;x\u{7}\n::error::x".into());
    forged.place.remove("/opt/tool");
    let said = restore(&forged, &["--key", "test"]);
    // Events come before the error.
    let (_, message) = said.split_at(said.find("error: the").unwrap());
    insta::assert_snapshot!(message, @r"
    error: the snapshot is for the system \x1b]0;x\x07\n::error::x, but this is x86_64-linux
    note: the restore failed in its phase plan; nothing was restored, the store is as it was
    ");
}

#[test]
fn inspect_json_keeps_a_forged_head_exactly() {
    let forged = ForgedSnapshot::with_hostile_head();
    let output = storecache(["inspect", forged.file.to_str().unwrap(), "--json"]).ok();
    assert_harmless("JSON", output.stdout.as_bytes());
    let report = report(&output);
    assert_eq!(report["head"]["key"], hostile_text());
    assert_eq!(report["head"]["origin"]["repository"], hostile_text());
}

#[test]
fn inspect_and_verify_escape_forged_item_names() {
    let forged = ForgedSnapshot::new(|parts| {
        for item in &mut parts.items {
            item.name = format!("opt/{}", hostile_text().replace(['/', '\0'], "_"));
        }
    });
    let file = forged.file.to_str().unwrap();
    for words in
        [&["inspect", file, "--items"][..], &["inspect", file, "--blame"], &["verify", file]]
    {
        run_and_check_output(words);
    }
}

#[test]
fn verify_escapes_the_path_of_a_damaged_member() {
    for order in INJECTIONS {
        let name = order.replace(['/', '\0'], "_");
        let forged = ForgedSnapshot::new(|parts| {
            let tar = hard_link(
                format!("opt/tool/{name}").as_bytes(),
                format!("nowhere/{name}").as_bytes(),
            );
            parts.frames.truncate(1);
            parts.frames[0] = frame(&tar);
        });
        let all = run_and_check_output(&["verify", forged.file.to_str().unwrap()]);
        assert!(all.contains("damaged"), "{all}");
    }
}

#[test]
fn file_names_on_the_command_line_are_escaped() {
    let place = tempfile::tempdir().unwrap();
    for (number, order) in INJECTIONS.iter().enumerate() {
        let name = format!("{number}{}", order.replace(['/', '\0'], "_"));
        let file = place.path().join(name);
        fs::write(&file, "no snapshot").unwrap();
        let file = file.to_str().unwrap();
        for words in [
            &["inspect", file][..],
            &["verify", file],
            &["lint", file],
            &[file],
            &["inspect", "x", file],
        ] {
            run_and_check_output(words);
        }
    }
}

/// Restores `/opt/tool` from the forged snapshot, with the arguments `more`.
#[track_caller]
fn restore(forged: &ForgedSnapshot, more: &[&str]) -> String {
    let root = forged.place.root();
    let root = root.to_str().unwrap().to_owned();
    let backend = format!("dir:{}", forged.place.entries().display());
    let words = ["restore", "--root", &root, "--store", "plain", "--backend", &backend, "--path"];
    run_and_check_output(&[&words[..], &["/opt/tool"], more].concat())
}

#[test]
fn restore_escapes_an_entry_with_a_forged_key() {
    let place = PlainEnv::new();
    place.write("/opt/tool/plain", "content\n");
    let root = place.root();
    let backend = format!("dir:{}", place.entries().display());
    // All of them in one key would be too long for a file name.
    for key in INJECTIONS.iter().map(|order| format!("test-{}", order.replace('\0', ""))) {
        let words =
            ["save", "--root", root.to_str().unwrap(), "--store", "plain", "--backend", &backend];
        let more = ["--path", "/opt/tool", "--key", &key];
        run_and_check_output(&[&words[..], &more].concat());
    }
    let all = run_and_check_output(&["list", "--backend", &backend]);
    assert_eq!(
        all.lines().filter(|line| line.contains(" test-")).count(),
        INJECTIONS.len(),
        "{all}"
    );
    for verb in ["usage", "prune"] {
        run_and_check_output(&[verb, "--backend", &backend]);
    }
    place.remove("/opt/tool");
    let forged = ForgedSnapshot { file: place.snapshot(), place };
    let summary = forged.place.entries().join("summary.md");
    let words =
        ["--key", "other", "--restore-key", "test-", "--summary", summary.to_str().unwrap()];
    let all = restore(&forged, &words);
    assert!(all.contains("prefix hit"), "{all}");
    let summary = fs::read_to_string(summary).unwrap();
    assert_harmless("the summary", summary.as_bytes());
}

#[test]
fn restore_escapes_a_forged_system_in_its_error() {
    for order in INJECTIONS {
        let forged = ForgedSnapshot::new(|parts| parts.head.store.system = order.into());
        forged.place.remove("/opt/tool");
        let summary = forged.place.entries().join("summary.md");
        let all = restore(&forged, &["--key", "test", "--summary", summary.to_str().unwrap()]);
        assert_harmless("the summary", &fs::read(&summary).unwrap());
        assert!(!all.is_empty());
    }
}

#[test]
fn restore_json_keeps_a_forged_head_exactly() {
    let forged = ForgedSnapshot::with_hostile_head();
    forged.place.remove("/opt/tool");
    let all = restore(&forged, &["--key", "test", "--json", "--quiet"]);
    let report: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(report["created"], hostile_text());
}

#[test]
fn restore_escapes_the_paths_of_damaged_members() {
    for order in INJECTIONS {
        let name = order.replace(['/', '\0'], "_");
        for tar in [
            hard_link(
                format!("opt/tool/{name}").as_bytes(),
                format!("opt/tool/{name}x").as_bytes(),
            ),
            file(format!("elsewhere/{name}").as_bytes(), b""),
            [file(b"opt/tool", b""), file(format!("opt/tool/{name}").as_bytes(), b"")].concat(),
        ] {
            let forged = ForgedSnapshot::new(|parts| {
                parts.frames = vec![frame(&tar)];
                parts.items[0].frames = (0, 0);
                parts.items[0].shared.clear();
            });
            forged.place.remove("/opt/tool");
            let all = restore(&forged, &["--key", "test"]);
            assert!(all.contains("damaged:"), "{all}");
        }
    }
}

#[test]
fn step_prints_no_workflow_commands_but_its_own() {
    for order in INJECTIONS {
        let forged = ForgedSnapshot::new(|parts| {
            parts.head.store.system = order.into();
            parts.head.created = order.into();
            parts.head.tool = order.into();
        });
        forged.place.remove("/opt/tool");
        let summary = forged.place.entries().join("summary.md");
        let job = Job::on(&forged.place, &["/opt/tool"]).input("key", "test");
        let ran = job.env("GITHUB_STEP_SUMMARY", &summary).input("operation", "restore").main();
        let said = assert_readable("the log", ran.said.as_bytes());
        let commands = runner_commands(said);
        let known = ["group", "endgroup", "warning"];
        assert!(commands.iter().all(|name| known.contains(&name.as_str())), "{said}");
        let [(kind, text)] = &ran.annotations()[..] else { panic!("one annotation: {said}") };
        assert_eq!(kind, "warning");
        assert_harmless("the annotation", text.as_bytes());
        assert!(text.starts_with("the snapshot is for the system "), "{text}");
        let starts: Vec<_> = text.lines().skip(1).map(|line| line.split(' ').next()).collect();
        assert_eq!(starts, [Some("note:")], "{text}");
        assert_harmless("the output", ran.output("reason").as_bytes());
        assert_harmless("the summary", &fs::read(summary).unwrap());
    }
}

#[test]
fn store_commands_escape_a_forged_snapshot() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    let entries = world.backend().host_path();
    let entry = fs::read_dir(entries).unwrap().next().unwrap().unwrap().path();
    let mut parts = SnapshotParts::new(&fs::read(&entry).unwrap());
    parts.head.store.version = hostile_text().into();
    parts.head.created = hostile_text().into();
    parts.head.profiles =
        vec![ProfileFacts { name: hostile_text().into(), item: hostile_text().into() }];
    for (item, order) in parts.items.iter_mut().zip(INJECTIONS) {
        item.name = format!("{}-{}", &item.name[..32], order.replace(['/', '\0'], "_"));
    }
    parts.items.sort_by(|a, b| a.name.cmp(&b.name));
    fs::write(&entry, parts.build()).unwrap();
    world.wipe_store();
    let of_entry = |verb| [&[verb][..], &NIX_FLAGS].concat();
    let verbs = [of_entry("inspect"), of_entry("verify"), of_entry("restore"), of_entry("restore")];
    for words in verbs.into_iter().chain([[&["doctor"][..], &NIX_FLAGS[..4]].concat()]) {
        let output = world.storecache_as("runner", &words).run();
        assert_harmless(words[0], output.stdout.as_bytes());
        assert_harmless(words[0], output.stderr.as_bytes());
        let said = output.stdout.len() + output.stderr.len();
        assert!(said > 0, "{output}");
    }
}

#[test]
fn workflow_commands_are_parsed_as_a_runner_does() {
    for (line, commands) in [
        ("::set-output name=x::y", &["set-output"][..]),
        ("  \u{a0}::WARNING::y\n::nothing::", &["warning"]),
        ("text ##[error]text", &["error"]),
        ("text ::error::text", &[]),
        ("#\u{200b}#[group]x", &["group"]),
    ] {
        assert_eq!(runner_commands(line), commands, "{line:?}");
    }
}
