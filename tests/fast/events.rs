//! Tests of `--verbose`, `STORECACHE_LOG` and `RUNNER_DEBUG`, and of the last events of a run that fails.

use std::fs;
use std::process::Command;

use crate::support::Output;
use crate::support::job::Job;
use crate::support::plain_env::{self, PlainEnv, output, storecache};
use crate::support::world_runs::report;

const TOOL: &str = "/opt/tool";
const NOTE: &str = "before the failure";

/// Restores `/opt/tool` with variables in the environment.
fn restore(place: &PlainEnv, flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(plain_env::binary());
    command.args(["restore", "--store", "plain", "--key", "test", "--path", TOOL, "--root"]);
    command.arg(place.root()).arg("--backend").arg(format!("dir:{}", place.entries().display()));
    command.args(flags);
    for name in ["GITHUB_ACTIONS", "GITHUB_EVENT_PATH", "RUNNER_DEBUG", "STORECACHE_LOG"] {
        command.env_remove(name);
    }
    output(command.envs(variables.iter().copied()))
}

/// A place with an entry whose directory is missing.
fn saved() -> PlainEnv {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place.remove(TOOL);
    place
}

/// A place with an entry of which a frame is damaged.
fn damaged() -> PlainEnv {
    let place = saved();
    let file = place.snapshot();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    place
}

/// The lines that begin with a level, as `level` and the rest.
fn events(text: &str) -> Vec<(&str, &str)> {
    let levels = ["info", "debug", "trace"];
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(level, _)| levels.contains(level)).collect()
}

#[test]
fn verbose_flag_selects_levels() {
    for (flags, levels) in [
        (&[][..], &[][..]),
        (&["--quiet"], &[]),
        (&["-v"], &["info", "debug"]),
        (&["--verbose", "--verbose"], &["info", "debug", "trace"]),
        (&["-vvv"], &["info", "debug", "trace"]),
    ] {
        let place = saved();
        let restored = restore(&place, &[flags, &["--json"]].concat(), &[]).ok();
        assert_eq!(report(&restored)["items"]["restored"], 1, "one JSON object");
        let events = events(&restored.stderr);
        for level in ["info", "debug", "trace"] {
            let is_there = events.iter().any(|(it, _)| *it == level);
            assert_eq!(is_there, levels.contains(&level), "{flags:?}, {level}: {restored}");
        }
        if levels.is_empty() {
            continue;
        }
        let entry = place.snapshot().file_name().unwrap().display().to_string();
        let entry = entry.strip_suffix(".tar.zst").unwrap();
        for expected in [
            "session: begin a restore dry_run=false".to_owned(),
            "session: begin a phase phase=lookup".to_owned(),
            format!("resolve: tried a key rung=\"exact test\" found={entry}"),
            format!("restore: use an entry entry={entry} hit=exact items=1 delta=false"),
        ] {
            assert!(events.iter().any(|(_, text)| *text == expected), "{expected}: {restored}");
        }
    }
}

#[test]
fn verbose_flag_conflicts_with_quiet() {
    let refused = storecache(["list", "--verbose", "--quiet"]).fails();
    assert_eq!(refused.code(), 2);
    assert!(refused.stderr.contains("cannot be used with"), "{refused}");
}

#[test]
fn filter_selects_events_by_module() {
    let place = saved();
    let filter = [("STORECACHE_LOG", "storecache_backend=trace")];
    let restored = restore(&place, &[], &filter).ok();
    let events = events(&restored.stderr);
    assert!(!events.is_empty(), "{restored}");
    assert!(events.iter().all(|(_, text)| text.starts_with("backend: ")), "{restored}");
}

#[test]
fn wrong_filter_is_wrong_usage() {
    let place = saved();
    for (filter, hint) in [
        ("storecache=loud", "expected one of"),
        ("a=b=c", "too many '='"),
        ("hyper=trace", "hyper"),
        ("debug,\u{1b}[2J=trace", r"\x1b[2J"),
    ] {
        let refused = restore(&place, &[], &[("STORECACHE_LOG", filter)]).fails();
        assert_eq!(refused.code(), 2, "{refused}");
        assert!(refused.stderr.contains("STORECACHE_LOG"), "{refused}");
        assert!(refused.stderr.contains(hint), "{refused}");
        assert_eq!(refused.stdout, "", "{refused}");
    }
    restore(&place, &[], &[("STORECACHE_LOG", "")]).ok();
}

#[test]
fn debugged_job_shows_events_as_debug_commands() {
    let place = saved();
    fs::remove_file(place.snapshot()).unwrap();
    let debugged = [("GITHUB_ACTIONS", "true"), ("RUNNER_DEBUG", "1")];
    let hostile = ["--restore-key", "##[error]x", "--restore-key", "::error::y"];
    let missed = restore(&place, &[&hostile[..], &["--json"]].concat(), &debugged).ok();
    assert_eq!(report(&missed)["hit"], "miss");
    let lines: Vec<&str> = missed.stderr.lines().filter(|it| it.starts_with("::")).collect();
    assert!(lines.iter().all(|line| line.starts_with("::debug::")), "{missed}");
    assert!(
        lines.iter().any(|line| line.starts_with("::debug::resolve: tried a key ")),
        "{missed}"
    );
    assert!(missed.stderr.contains("error::y"), "{missed}");
    assert!(!missed.stderr.contains("##["), "{missed}");
    // Without a job, the variable of the runner has no meaning.
    let missed = restore(&place, &[], &[("RUNNER_DEBUG", "1")]).ok();
    assert!(events(&missed.stderr).is_empty(), "{missed}");
    assert!(!missed.stderr.contains("::debug::"), "{missed}");
}

#[test]
fn failed_run_prints_the_last_events_unless_shown() {
    let count = |output: &Output| output.stderr.matches(NOTE).count();
    let failed = restore(&damaged(), &["--quiet"], &[]).fails();
    assert_eq!((failed.code(), count(&failed)), (1, 1), "{failed}");
    let lines: Vec<&str> = failed.stderr.lines().collect();
    let note = lines.iter().position(|line| line.contains(NOTE)).unwrap();
    let number = events(&failed.stderr).len();
    assert_eq!(lines[note], format!("note: the last {number} events before the failure:"));
    assert!(failed.stderr.contains("debug: entry_fallback: skip an entry"), "{failed}");
    // The error comes after the events, with its advice.
    let error = lines.iter().position(|line| line.starts_with("error: ")).unwrap();
    assert_eq!(error, note + 1 + number, "{failed}");

    let shown = restore(&damaged(), &["-v"], &[]).fails();
    assert_eq!((shown.code(), count(&shown)), (1, 0), "{shown}");
    let text = "debug: entry_fallback: skip an entry";
    assert_eq!(shown.stderr.matches(text).count(), 1, "{shown}");

    // A miss is not a failure.
    let place = saved();
    fs::remove_file(place.snapshot()).unwrap();
    let missed = restore(&place, &["--fail-on-miss"], &[]).fails();
    assert_eq!((missed.code(), count(&missed)), (3, 0), "{missed}");
}

#[test]
fn failed_step_prints_the_last_events_in_a_group() {
    let place = damaged();
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    let ran = job.main();
    let lines: Vec<&str> = ran.said.lines().collect();
    let group = lines.iter().position(|line| line.contains(NOTE)).unwrap_or_else(|| {
        panic!("{}", ran.said);
    });
    assert!(lines[group].starts_with("::group::storecache: the last "), "{}", lines[group]);
    let end = lines[group..].iter().position(|line| *line == "::endgroup::").unwrap();
    let inside = lines[group + 1..group + end].join("\n");
    assert_eq!(events(&inside).len(), end - 1, "{inside}");
    assert!(inside.contains("debug: entry_fallback: skip an entry"), "{inside}");

    let place = damaged();
    let debugged = Job::on(&place, &[TOOL]).input("key", "test").env("RUNNER_DEBUG", "1");
    let ran = debugged.main();
    assert!(!ran.said.contains(NOTE), "{}", ran.said);
    assert!(ran.said.contains("::debug::entry_fallback: skip an entry"), "{}", ran.said);
}
