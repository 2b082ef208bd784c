//! Tests of the workflow of a step: how it becomes part of the key without being named, and the messages about
//! its mistakes.

use std::fs;
use std::process::Command;

use crate::support::job::{Job, StepResult};
use crate::support::plain_env::{self, PlainEnv};

const TOOL: &str = "/opt/tool";

const GOOD: &str = "\
on:
  push:
    branches: [main]
  pull_request:
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: me/storecache@v1
      - run: guix shell hello -- hello
";

/// Returns a job of the repository `me/it` whose runner names this workflow, which is not in the work tree.
fn job(place: &PlainEnv, reference: &str) -> Job {
    let job = Job::on(place, &[TOOL]).env("GITHUB_REPOSITORY", "me/it");
    job.env("GITHUB_WORKFLOW_REF", reference)
}

fn write(job: &Job, path: &str, text: impl AsRef<[u8]>) {
    let file = job.workspace().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// As [`job`], with the workflow in the work tree.
fn job_with(place: &PlainEnv, path: &str, text: impl AsRef<[u8]>) -> Job {
    let job = job(place, &format!("me/it/{path}@refs/heads/main"));
    write(&job, path, text);
    job
}

fn key(ran: &StepResult) -> String {
    ran.output("cache-primary-key").to_owned()
}

/// Returns the annotations with a position in a file, as `file:line: text`.
fn file_annotations(ran: &StepResult) -> Vec<String> {
    let lines = ran.said.lines().filter_map(|line| {
        let rest = line.strip_prefix("::warning title=storecache,file=")?;
        let (at, text) = rest.split_once("::")?;
        let (file, line) = at.rsplit_once(",line=")?;
        let file = file.replace("%2C", ",").replace("%3A", ":").replace("%25", "%");
        Some(format!("{file}:{line}: {text}"))
    });
    lines.collect()
}

#[test]
fn job_workflow_is_part_of_the_key_by_default() {
    let place = PlainEnv::filled();
    let ci = ".github/workflows/ci.yml";
    let bare = key(&Job::on(&place, &[TOOL]).main());
    let first = job_with(&place, ci, GOOD);
    let missed = first.main();
    missed.assert_no_annotations();
    let with = key(&missed);
    assert!(with.strip_prefix(&format!("{bare}-")).is_some_and(|hash| hash.len() == 32), "{with}");
    let named = job(&place, "").input("workflow", ci);
    write(&named, ci, GOOD);
    assert_eq!(key(&named.main()), with, "as if it were named");
    // Changes that a job's steps make to the work tree do not matter.
    fs::remove_dir_all(first.workspace().join(".github")).unwrap();
    assert!(first.post().said.contains(&format!("saved 1 item as {with}.")));

    // Changes that cannot reach the store do not change the key.
    for text in [
        GOOD.to_owned(),
        format!("{GOOD}# changed\n"),
        GOOD.replace("checkout@v4", "checkout@v5").replace("branches: [main]", "branches: [trunk]"),
        format!("{GOOD}  other:\n    runs-on: macos-26\n    steps: [{{run: make}}]\n"),
    ] {
        let same = job_with(&place, ci, &text).main();
        assert_eq!((same.output("hit-kind"), key(&same)), ("exact", with.clone()), "{text}");
    }
    let changed = job_with(&place, ci, GOOD.replace("shell hello", "shell hello sed")).main();
    assert_eq!(changed.output("hit-kind"), "prefix");
    assert_ne!(key(&changed), with);
    // In bytes mode a comment changes the key.
    let bytes =
        |text: &str| key(&job_with(&place, ci, text).input("workflow-mode", "bytes").main());
    assert_ne!(bytes(GOOD), with);
    assert_ne!(bytes(&format!("{GOOD}# changed\n")), bytes(GOOD));
    for off in [("workflow-mode", "none"), ("key", &bare)] {
        let job = job_with(&place, ci, GOOD).input(off.0, off.1);
        assert_eq!(key(&job.main()), bare, "{off:?}");
    }
    // A step that only saves has the same key.
    let alone = job_with(&place, ci, GOOD).input("operation", "save").input("save", "always");
    assert!(alone.main().said.contains(&format!("saved 1 item as {with}.")));
}

#[test]
fn workflow_ref_of_any_form_is_found_or_ignored() {
    let place = PlainEnv::filled();
    for (path, at) in [
        (".github/workflows/a@b.yml", "refs/heads/main"),
        (".github/workflows/ci.yml", "refs/heads/x@y/z@refs/w"),
        (".github/workflows/ci.yml", "refs/pull/7/merge"),
        (".github/workflows/ci.yml", "3f0c1de7d3a1b1a7c9a4c5a2f0d1e2b34f0c1de7"),
        (".github/workflows/größe 漢字 🦀, 50%: \u{5d0}\u{5d1}.yaml", "refs/heads/ü b"),
    ] {
        let job = job(&place, &format!("Me/It/{path}@{at}"));
        write(&job, path, GOOD);
        let ran = job.main();
        ran.assert_no_annotations();
        assert!(key(&ran).len() > "storecache-plain-".len() + 32, "{path} {at}: {}", key(&ran));
    }
    let bare = key(&Job::on(&place, &[TOOL]).main());
    for odd in
        ["", "@", "x", "x@refs/heads/main", "me/it@refs/heads/main", "me/it/@refs/heads/main"]
    {
        let job = job(&place, odd);
        write(&job, "README.md", "");
        let ran = job.main();
        ran.assert_no_annotations();
        assert_eq!(key(&ran), bare, "{odd:?}");
    }
}

#[test]
fn workflow_of_another_repository_is_ignored_with_a_note() {
    let place = PlainEnv::filled();
    let bare = key(&Job::on(&place, &[TOOL]).main());
    // The work tree has a workflow of the same name, which is not the one that runs.
    let job = job(&place, "me/shared/.github/workflows/ci.yml@refs/heads/main");
    write(&job, ".github/workflows/ci.yml", GOOD);
    let ran = job.main();
    ran.assert_no_annotations();
    assert_eq!(key(&ran), bare);
    let said = "the workflow .github/workflows/ci.yml of me/shared is not in the work tree";
    assert!(ran.said.contains(said) && ran.said.contains("hash-files"), "{}", ran.said);
    // GitHub generates this workflow, and it has no file.
    let dynamic = self::job(&place, "me/it/dynamic/pages/deploy@refs/heads/main");
    write(&dynamic, "README.md", "");
    let ran = dynamic.main();
    ran.assert_no_annotations();
    assert!(ran.said.contains("the workflow dynamic/pages/deploy is not in the work tree"));
}

#[test]
fn missing_checkout_is_a_warning_with_a_hint() {
    let place = PlainEnv::filled();
    let reference = "me/it/.github/workflows/ci.yml@refs/heads/main";
    let bare = key(&Job::on(&place, &[TOOL]).main());
    let ran = job(&place, reference).main();
    assert_eq!(key(&ran), bare);
    let annotations = ran.annotations();
    assert_eq!(annotations.len(), 1, "{}", ran.said);
    let (kind, text) = &annotations[0];
    assert_eq!(kind, "warning");
    for words in ["nothing is checked out yet", "put actions/checkout before this step"] {
        assert!(text.contains(words), "{text}");
    }
    // A workflow that is not part of the key causes no warning.
    for off in [("workflow-mode", "none"), ("key", "k")] {
        job(&place, reference).input(off.0, off.1).main().assert_no_annotations();
    }
    // A file that the input names has to exist.
    let named = job(&place, reference).input("workflow", "ci.yml").main();
    let (kind, text) = named.annotations().remove(0);
    assert_eq!(kind, "warning");
    assert!(text.contains("read the workflow ci.yml"), "{text}");
    assert!(!named.said.contains("checked out yet"), "{}", named.said);
}

/// Returns a workflow of ten thousand lines in many scripts, with a mistake in the last one, and the number of
/// that line.
fn long_workflow(end: &str) -> (String, usize) {
    let mut text = GOOD.replace('\n', end);
    for n in 0..3_300 {
        text += &format!(
            "      - name: größe {n} 漢字 🦀 \u{202e}\u{5d0}\u{5d1}\u{202c} e\u{301}{end}"
        );
        text +=
            &format!("        run: |{end}\t  echo\t\"👩‍👩‍👧‍👦\"\t{n}{end}").replace("\t  ", "          ");
    }
    text += &format!("      - run: sudo tar -xf x.tar -C / nix/store{end}");
    let line = text.matches('\n').count();
    (text, line)
}

#[test]
fn long_unicode_workflows_are_annotated_at_the_right_line() {
    let place = PlainEnv::filled();
    let mut keys = Vec::new();
    for (end, mark) in [("\n", ""), ("\r\n", ""), ("\n", "\u{feff}"), ("\r\n", "\u{feff}")] {
        let (text, line) = long_workflow(end);
        let text = format!("{mark}{text}");
        for name in ["ci.yml", "größe 漢字 🦀, 50%: \u{5d0}\u{5d1}.yml"] {
            let path = format!(".github/workflows/{name}");
            let ran = job_with(&place, &path, &text).main();
            let annotations = file_annotations(&ran);
            assert_eq!(annotations.len(), 1, "{end:?} {mark:?}: {}", ran.said);
            let at = format!("{path}:{line}: this unpacks over a live store");
            assert!(annotations[0].starts_with(&at), "{end:?} {mark:?}: {}", annotations[0]);
            keys.push(key(&ran));
        }
        // Change one byte of the last line.
        let other = text.replace("x.tar", "y.tar");
        keys.push(key(&job_with(&place, ".github/workflows/ci.yml", other).main()));
    }
    // The name of the file and its line ends do not matter; each byte of a script does.
    for three in keys.chunks(3) {
        assert_eq!((&three[0], &three[1]), (&keys[0], &keys[0]));
        assert_eq!(three[2], keys[2]);
        assert_ne!(three[0], three[2]);
    }
}

/// The message about a workflow that goes into the key as it is.
const FALLBACK_TO_BYTES: &str = "falling back to workflow-mode bytes: ";

#[test]
fn unparsable_workflow_is_hashed_by_its_bytes() {
    let place = PlainEnv::filled();
    let ci = ".github/workflows/ci.yml";
    let bare = key(&Job::on(&place, &[TOOL]).main());
    let odd = b"\xff\xfe\x00on: push\n".repeat(1_000);
    let broken = GOOD.replace("runs-on: ubuntu-latest", "runs-on: [");
    let bomb =
        format!("{GOOD}env:\n  a: &a {}\n  b: [{}]\n", "x".repeat(9_000), "*a, ".repeat(9_000));
    for (content, why) in [
        (odd.as_slice(), "ci.yml:1:1: it is not UTF-8"),
        (broken.as_bytes(), "not valid YAML"),
        (bomb.as_bytes(), "alias bomb: "),
        (b"", "it has no `jobs`"),
        (b"on: push\njobs: {job: {steps: [{uses: ./a}]}}\n", "a/action.yml:1:7: not valid YAML"),
    ] {
        let of = |content: &[u8]| {
            let job = job_with(&place, ci, content);
            write(&job, "a/action.yml", "runs: }");
            let ran = job.main();
            assert_eq!(ran.code, 0, "{}", ran.said);
            assert!(
                ran.said.contains(FALLBACK_TO_BYTES) && ran.said.contains(why),
                "{why}: {}",
                ran.said
            );
            key(&ran)
        };
        let first = of(content);
        assert!(first.starts_with(&format!("{bare}-")), "{first}");
        assert_eq!(of(content), first);
        if !content.is_empty() {
            assert_ne!(of(&[content, b" # "].concat()), first, "{why}");
        }
    }
    // The key is the same as in bytes mode.
    let asked = job_with(&place, ci, &broken).input("workflow-mode", "bytes").main();
    assert!(!asked.said.contains(FALLBACK_TO_BYTES), "{}", asked.said);
    assert_eq!(key(&asked), key(&job_with(&place, ci, &broken).main()));
}

#[test]
fn only_the_running_job_counts_for_the_key() {
    let place = PlainEnv::filled();
    let ci = ".github/workflows/ci.yml";
    let two =
        format!("{GOOD}{}", GOOD[GOOD.find("  job:").unwrap()..].replace("  job:", "  second:"));
    let of = |name: &str, text: &str, called: &str| {
        let job = job_with(&place, ci, text).env("GITHUB_JOB", name);
        write(&job, ".github/workflows/called.yml", called);
        let ran = job.main();
        assert_eq!(ran.code, 0, "{}", ran.said);
        (key(&ran), ran.said)
    };
    let changed = two.replacen("shell hello", "shell hello sed", 1);
    assert_ne!(of("job", &two, "").0, of("job", &changed, "").0);
    let (second, said) = of("second", &two, "");
    assert_eq!(second, of("second", &changed, "").0);
    assert!(!said.contains(FALLBACK_TO_BYTES) && !said.contains("--workflow-job"), "{said}");
    // The runner names the calling workflow, and the job of the called workflow.
    let caller = "on: push\njobs:\n  call:\n    uses: ./.github/workflows/called.yml\n";
    let called = GOOD.replace("on:\n", "on:\n  workflow_call:\n");
    let (first, said) = of("job", caller, &called);
    assert!(!said.contains(FALLBACK_TO_BYTES), "{said}");
    assert_eq!(of("job", &format!("# {caller}"), &called.replace("v4", "v5")).0, first);
    assert_ne!(of("job", caller, &called.replace("shell hello", "shell hello sed")).0, first);
    // The job is not found, for example because the workflow of another repository is called.
    let (bytes, said) =
        of("job", "on: push\njobs: {call: {uses: me/x/.github/workflows/y.yml@v1}}\n", "");
    let why = "has no job \"job\", and neither have the workflows that it calls by path; its jobs \
               are call";
    assert!(said.contains(FALLBACK_TO_BYTES) && said.contains(why), "{said}");
    assert_ne!(bytes, first);
    // Without a job name, the job that caches a store counts.
    assert_eq!(of("", GOOD, "").0, of("job", GOOD, "").0);
}

/// Returns the job with an event file that gives this default branch.
fn with_event(job: Job, branch: &str) -> Job {
    let event = job.workspace().join("../event.json");
    fs::write(&event, format!(r#"{{"repository":{{"default_branch":"{branch}","id":1}}}}"#))
        .unwrap();
    job.env("GITHUB_EVENT_PATH", event)
}

#[test]
fn unseeded_default_branch_of_the_event_is_a_warning() {
    let place = PlainEnv::filled();
    let ci = ".github/workflows/ci.yml";
    let annotations = |branches: &str, default: &str| {
        let text = GOOD.replace("branches: [main]", branches);
        file_annotations(&with_event(job_with(&place, ci, text), default).main())
    };
    for (branches, default) in [
        ("branches: [main]", "main"),
        ("branches: ['**', '!gh-pages']", "trunk"),
        ("branches: ['releases/**', '*']", "trunk"),
        ("branches-ignore: [main]", "trunk"),
        // It is not known whether these match.
        ("branches: ['ma[a-z]n']", "main"),
        ("branches: [main]", ""),
    ] {
        assert_eq!(annotations(branches, default), [""; 0], "{branches} {default}");
    }
    for (branches, default) in [
        ("branches: [main]", "trunk"),
        ("branches: main", "trunk"),
        ("branches: ['*']", "team/trunk"),
        ("branches: ['**', '!trunk']", "trunk"),
        ("branches-ignore: [trunk]", "trunk"),
        ("branches-ignore: ['tr*']", "trunk"),
    ] {
        let found = annotations(branches, default);
        assert_eq!(found.len(), 1, "{branches} {default}: {found:?}");
        assert!(found[0].starts_with(&format!("{ci}:1: nothing saves the store")), "{found:?}");
        assert!(found[0].contains("push to other branches"), "{found:?}");
        assert!(found[0].contains(&format!("`push: branches: [{default}]`")), "{found:?}");
    }
    // If the event has no default branch or cannot be read, there is no such warning.
    for event in ["{}", "no json", ""] {
        let job = job_with(&place, ci, GOOD);
        fs::write(job.workspace().join("../event.json"), event).unwrap();
        let path = job.workspace().join("../event.json");
        job.env("GITHUB_EVENT_PATH", path).main().assert_no_annotations();
    }
}

#[test]
fn seeding_by_another_workflow_avoids_the_warning() {
    let place = PlainEnv::filled();
    let only_requests = GOOD.replace("  push:\n    branches: [main]\n", "");
    let ci = ".github/workflows/ci.yml";
    let alone = job_with(&place, ci, &only_requests);
    assert_eq!(file_annotations(&alone.main()).len(), 1);
    for (seed, expected) in [(GOOD, 0), (GOOD.replace("main", "release").as_str(), 1)] {
        let job = with_event(job_with(&place, ci, &only_requests), "main");
        write(&job, ".github/workflows/seed.yaml", seed);
        // Mistakes of other workflows are reported in their own runs.
        write(&job, ".github/workflows/broken.yml", "on: [\n");
        write(&job, ".github/workflows/notes.txt", "no workflow");
        assert_eq!(file_annotations(&job.main()).len(), expected, "{seed}");
    }
}

#[test]
fn lint_reads_the_default_branch_from_the_event() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join(".github/workflows")).unwrap();
    fs::write(tree.path().join(".github/workflows/ci.yml"), GOOD).unwrap();
    let event = tree.path().join("event.json");
    fs::write(&event, r#"{"repository":{"default_branch":"trunk"}}"#).unwrap();
    let mut command = Command::new(plain_env::binary());
    command.arg("lint").current_dir(tree.path()).env("GITHUB_EVENT_PATH", &event);
    let printed = plain_env::output(&mut command).fails().stdout;
    assert!(
        printed.starts_with(".github/workflows/ci.yml:1:1: warning: nothing saves"),
        "{printed}"
    );
    assert_eq!(plain_env::storecache_in(tree.path(), ["lint"]).ok().stdout, "");
}
