//! The step of a job as its runner sees it: inputs, outputs, state, annotations, and cancellation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::job::{Job, StepResult};
use crate::support::message_log::cause;
use crate::support::plain_env::{self, PlainEnv, assert_same_tree, storecache};
use crate::support::world_runs::{assert_same, record_state, staging};
use crate::support::{Fixture, Role, World, poll};
use clap::{ArgAction, CommandFactory};
use rustix::process::Signal;
use storecache::action::{For, INPUTS, Input, Kind};
use storecache::cli::Cli;

const TOOL: &str = "/opt/tool";
const DATA: &str = "/var/lib/data";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Made from the first key of RFC 8032, section 7.1.
const SIGN_KEY: &str = "secret-of-signatures:nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn entries(place: &PlainEnv) -> usize {
    fs::read_dir(place.entries()).unwrap().count()
}

/// The only annotation of a step.
#[track_caller]
fn only_annotation(ran: &StepResult) -> (String, String) {
    let mut annotations = ran.annotations();
    assert_eq!(annotations.len(), 1, "{}", ran.said);
    annotations.remove(0)
}

#[test]
fn action_yml_and_inputs_page_match_the_program() {
    for part in ["inputs", "outputs"] {
        let yaml = storecache(["action", part, "--yaml"]).ok().stdout;
        assert!(file("action.yml").contains(&yaml), "action.yml differs from\n{yaml}");
        let markdown = storecache(["action", part, "--markdown"]).ok().stdout;
        let page = "docs/inputs.md";
        assert!(file(page).contains(&markdown), "{page} differs from\n{markdown}");
    }
    let names = file("action.yml").lines().filter(|line| begins_input_or_output(line)).count();
    let expected = INPUTS.len() + storecache::action::OUTPUTS.len();
    assert_eq!(names, expected, "action.yml and the tables differ");
    for line in ["  using: node24", "  main: dist/main.js", "  post: dist/post.js"] {
        assert!(file("action.yml").lines().any(|it| it == line), "{line}");
    }
    assert!(file("action.yml").lines().any(|it| it == "  post-if: always()"));
}

/// Whether a line of action.yml begins an input or an output.
fn begins_input_or_output(line: &str) -> bool {
    let name = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
    name.is_some_and(|name| !name.starts_with(' '))
}

#[test]
fn every_save_and_restore_flag_has_a_matching_input() {
    // Flags for people, and values that a step determines itself.
    let for_people = [
        "dry-run",
        "json",
        "quiet",
        "verbose",
        "help",
        "state",
        "summary",
        "workflow-job",
        "sign-key",
        "repository",
        "default-branch",
    ];
    // A step decides whether a save is worthwhile, and the runner reports how its job ended.
    let of_a_step = ["save", "job-status"];
    let cli = Cli::command();
    for (verb, used_for) in [("save", For::Save), ("restore", For::Restore)] {
        let verb = cli.find_subcommand(verb).unwrap();
        let inputs: Vec<&Input> = INPUTS
            .iter()
            .filter(|input| [For::Both, For::Key, used_for].contains(&input.used_for))
            .filter(|input| input.kind != Kind::Secret)
            .collect();
        let has: BTreeSet<String> = inputs.iter().filter_map(|it| Some(it.flag?.into())).collect();
        let flags = verb.get_arguments().filter_map(|arg| arg.get_long());
        let flags = flags.filter(|flag| !for_people.contains(flag)).map(|flag| format!("--{flag}"));
        assert_eq!(has, flags.collect(), "{}", verb.get_name());
        for input in inputs {
            let flag = input.flag.unwrap().trim_start_matches("--");
            let arg = verb.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            let (kind, unset) = match arg.get_action() {
                ArgAction::SetTrue => (Kind::Boolean, "false"),
                ArgAction::Append => (Kind::Lines, ""),
                _ => (Kind::Text, ""),
            };
            let default = arg.get_default_values().first().map(|value| value.to_str().unwrap());
            if !of_a_step.contains(&input.name) {
                assert_eq!(input.default, default.unwrap_or(unset), "{}", input.name);
            }
            match input.kind {
                Kind::Choice(values) => {
                    let possible = arg.get_possible_values();
                    let possible: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
                    assert_eq!(values, possible, "{}", input.name);
                }
                other => assert_eq!(other, kind, "{}", input.name),
            }
        }
    }
}

#[test]
fn secret_inputs_have_no_flag_and_are_read_from_variables() {
    let secrets: Vec<_> = INPUTS.iter().filter(|input| input.kind == Kind::Secret).collect();
    let variables: Vec<_> =
        secrets.iter().map(|input| format!("INPUT_{}", input.name.to_uppercase())).collect();
    assert_eq!(variables, [storecache::cli::TOKENS[0], storecache::cli::SIGN_KEYS[0]]);
    assert!(secrets.iter().all(|input| input.flag.is_none()));
}

#[test]
fn step_outputs_report_miss_exact_hit_and_prefix_hit() {
    let place = PlainEnv::filled();
    let before = place.tree(TOOL);
    let job = |lock: &str| {
        let job = Job::on(&place, &[TOOL, DATA]).input("hash-files", "*.lock");
        fs::write(job.workspace().join("a.lock"), lock).unwrap();
        job
    };
    let first = job("a");
    let missed = first.main();
    assert_eq!(missed.output("cache-hit"), "");
    assert_eq!(missed.output("hit-kind"), "miss");
    assert_eq!(missed.output("cache-matched-key"), "");
    assert_eq!(missed.output("restored-items"), "0");
    assert_eq!(missed.output("snapshot-age"), "");
    assert!(missed.output("reason").contains("no entry"));
    missed.assert_no_annotations();
    let key = missed.output("cache-primary-key").to_owned();
    assert!(key.starts_with("storecache-plain-"), "{key}");
    assert_eq!(first.state()["key"], key);
    // The files from which the key was made may be gone by then.
    fs::remove_file(first.workspace().join("a.lock")).unwrap();
    let saved = first.post();
    saved.assert_no_annotations();
    assert!(saved.said.contains(&format!("saved 2 items as {key}.")), "{}", saved.said);
    assert!(saved.outputs.is_empty(), "{saved:?}");
    assert_eq!(entries(&place), 1);

    place.remove("/opt");
    let exact = job("a").main();
    assert_eq!(exact.output("cache-hit"), "true");
    assert_eq!(exact.output("hit-kind"), "exact");
    assert_eq!(exact.output("cache-matched-key"), key);
    assert_eq!(exact.output("restored-items"), "1");
    assert_eq!(exact.output("reason"), "");
    assert!(exact.output("snapshot-age").parse::<u64>().unwrap() < 3600);
    exact.assert_no_annotations();
    assert_same_tree(&before, &place.tree(TOOL));

    place.remove("/opt");
    let prefix = job("b").main();
    assert_eq!(prefix.output("cache-hit"), "false");
    assert_eq!(prefix.output("hit-kind"), "prefix");
    assert_eq!(prefix.output("cache-matched-key"), key);
    assert_ne!(prefix.output("cache-primary-key"), key);
    assert_eq!(prefix.output("restored-items"), "1");
    prefix.assert_no_annotations();
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn log_groups_lines_by_phase_with_the_result_outside() {
    let place = PlainEnv::filled();
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    job.main();
    let (folds, outside) = job.post().log_groups();
    let titles: Vec<_> = folds.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "storecache: save: find the store and the key",
            "storecache: save: look for existing entries",
            "storecache: save: freeze, pack and write",
        ]
    );
    assert!(folds[0].1.contains(&"storecache: key test".to_owned()), "{folds:?}");
    assert!(outside.iter().any(|line| line.contains("saved 1 item")), "{outside:?}");

    place.remove(TOOL);
    let (folds, outside) = job.main().log_groups();
    assert_eq!(folds.len(), 4, "{folds:?}");
    assert!(folds[1].1[0].contains("exact entry test."), "{folds:?}");
    assert!(folds[2].1[0].contains("1 item"), "{folds:?}");
    assert!(outside.iter().any(|line| line.contains("exact hit: restored 1 item")), "{outside:?}");
}

#[test]
fn log_has_plain_lines_even_on_a_terminal() {
    let place = PlainEnv::filled();
    let line = format!("{} action main", plain_env::binary().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("INPUT_STORE", "plain");
    command.env("INPUT_OPERATION", "save").env("INPUT_KEY", "test").env("INPUT_PATH", TOOL);
    command.env("INPUT_ROOT", place.root());
    command.env("INPUT_BACKEND", format!("dir:{}", place.entries().display()));
    let saved = plain_env::output(&mut command).ok();
    assert!(saved.stdout.contains("saved 1 item"), "{saved}");
    assert!(!saved.stdout.contains('\x1b'), "{saved:?}");
    let begun = saved.lines().iter().filter(|line| line.starts_with("::group::")).count();
    let ended = saved.lines().iter().filter(|line| line.trim_end() == "::endgroup::").count();
    assert_eq!((begun, ended), (3, 3), "{saved}");
}

#[test]
fn operation_input_limits_a_step_to_restore_or_save() {
    let place = PlainEnv::filled();
    let job = |operation| Job::on(&place, &[TOOL]).input("key", "k").input("operation", operation);
    let restore = job("restore");
    restore.main();
    let post = restore.post();
    assert_eq!(post.said, "");
    assert_eq!(entries(&place), 0);
    let save = job("save");
    let saved = save.main();
    assert!(saved.said.contains("saved 1 item as k."), "{}", saved.said);
    assert!(saved.outputs.is_empty());
    assert_eq!(save.post().said, "");
    assert_eq!(entries(&place), 1);
}

#[test]
fn lookup_only_reports_the_entry_and_restores_nothing() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place.remove(TOOL);
    let job = Job::on(&place, &[TOOL]).input("key", "test").input("lookup-only", "true");
    let found = job.main();
    assert_eq!(found.output("cache-hit"), "true");
    assert_eq!(found.output("restored-items"), "0");
    assert_ne!(found.output("snapshot-age"), "");
    assert!(found.output("reason").starts_with("looked up"));
    assert!(!place.host(TOOL).exists());
    found.assert_no_annotations();
    let strict = job.input("key", "other").input("fail-on-cache-miss", "true").run("main");
    assert_eq!(strict.code, 3, "{}", strict.said);
}

#[test]
fn inputs_keep_special_characters_unchanged() {
    let place = PlainEnv::new();
    let paths = ["/opt/a b", "/opt/it's \"quoted\"", "/opt/$(echo é) `x` 世界", "/opt/-c"];
    for path in paths {
        place.write(&format!("{path}/file"), path);
    }
    let key = "--key 'of' \"many\" $WORDS; é 世界 100% :: =";
    let lines = format!("\n  {} \r\n\n{}\n", paths[0], paths[1..].join("\n"));
    let job = Job::on(&place, &[]).input("path", lines).input("key", format!(" {key}\n"));
    let missed = job.main();
    assert_eq!(missed.output("cache-primary-key"), key);
    job.post();
    place.remove("/opt");
    let prefixes = "nothing-\n--key 'of' \"many\" ";
    let hit = job.input("key", "another").input("restore-keys", prefixes).main();
    assert_eq!(hit.output("cache-matched-key"), key);
    for path in paths {
        assert_eq!(place.read(&format!("{path}/file")), path);
    }
}

#[test]
fn invalid_input_fails_the_step_with_one_line_and_no_change() {
    let place = PlainEnv::filled();
    for (name, value, hint) in [
        ("operation", "both", "input operation: unknown value \"both\""),
        ("store", "snap", "'snap' for 'store'"),
        ("lookup-only", "yes", "input lookup-only: \"yes\" is neither true nor false"),
        ("lock-timeout", "soon", "'soon' for 'lock-timeout'"),
        ("key", "a,b", "comma"),
        ("backend", "ftp:x", "unknown backend \"ftp:x\""),
        ("path", "", "path: DIR"),
        ("daemon", "command", "daemon-stop"),
        // Only the save at the end would use this input.
        ("level", "20", "1..=19"),
    ] {
        let job = Job::on(&place, &[TOOL]).input(name, value);
        let wrong = job.run("main");
        assert_eq!(wrong.code, 2, "{}", wrong.said);
        let (kind, text) = only_annotation(&wrong);
        assert_eq!(kind, "error");
        assert!(text.starts_with("wrong inputs: ") && text.contains(hint), "{text}");
        assert_eq!(wrong.said.lines().count(), 1, "{}", wrong.said);
        assert!(wrong.outputs.is_empty());
        assert!(!job.state().contains_key("key"));
        // The error has been reported, and there is nothing to save.
        job.post().assert_no_annotations();
    }
    assert_eq!(entries(&place), 0);
}

#[test]
fn failed_restore_is_a_warning_and_counts_as_a_miss() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place.remove(TOOL);
    let newest = place.snapshot();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, &bytes).unwrap();
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    let failed = job.main();
    let (kind, text) = only_annotation(&failed);
    assert_eq!(kind, "warning");
    assert!(text.contains("nothing was restored, the store is as it was"), "{text}");
    assert_eq!(failed.output("hit-kind"), "miss");
    assert_eq!(failed.output("cache-hit"), "");
    assert_eq!(failed.output("cache-matched-key"), "");
    assert!(text.contains(cause(failed.output("reason"))), "{text}");
    assert!(!place.host(TOOL).exists());
    assert_eq!(job.state()["key"], "test", "the end of the job may save");

    // The entry was moved to the quarantine. Puts it back unchanged.
    fs::remove_dir_all(newest.with_file_name(".quarantine")).unwrap();
    fs::write(&newest, &bytes).unwrap();
    let strict = job.input("fail-on-cache-miss", "true").run("main");
    assert_eq!(strict.code, 3, "{}", strict.said);
    let (kind, strict_text) = only_annotation(&strict);
    assert_eq!((kind.as_str(), strict_text), ("error", text));
}

#[test]
fn miss_fails_the_step_only_with_fail_on_cache_miss() {
    let place = PlainEnv::filled();
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    let strict = job.input("fail-on-cache-miss", "true");
    let missed = strict.run("main");
    assert_eq!(missed.code, 3, "{}", missed.said);
    let (kind, text) = only_annotation(&missed);
    assert_eq!(kind, "error");
    assert!(text.contains("no entry for the key"), "{text}");
    assert_eq!(missed.output("hit-kind"), "miss");
    place.save(&[TOOL]);
    strict.main().assert_no_annotations();
}

#[test]
fn backend_input_takes_one_backend_per_line() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let directory = format!("dir:{}", place.entries().display());
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    let job = job.input("backend", format!("s3://bucket/ci\n{directory}\n"));
    // No server listens there.
    let job = job.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env("AWS_ALLOW_HTTP", "true");
    let job = job.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret-of-s3");
    let restored = job.main();
    assert_eq!(restored.output("hit-kind"), "exact");
    let (kind, text) = only_annotation(&restored);
    assert_eq!(kind, "warning");
    assert!(text.contains("s3://bucket/ci at 127.0.0.1:1 does not answer"), "{text}");
    let said = restored.said.lines().filter(|line| !line.starts_with("::add-mask::"));
    assert!(!said.collect::<String>().contains("secret-of-s3"), "{}", restored.said);
    assert!(!format!("{:?}", job.state()).contains("secret-of-s3"));
}

#[test]
fn failed_save_is_a_warning() {
    let place = PlainEnv::filled();
    let job = Job::on(&place, &[TOOL]).input("key", "test");
    job.main();
    let elsewhere = job.input("backend", "dir:/proc/nowhere");
    let failed = elsewhere.post();
    let (kind, text) = only_annotation(&failed);
    assert_eq!(kind, "warning");
    assert!(text.contains("/proc/nowhere"), "{text}");
}

#[test]
fn failed_job_saves_only_with_save_on_failure() {
    let place = PlainEnv::filled();
    let job = || Job::on(&place, &[TOOL]).input("key", "k").input("job-status", "failure");
    let failed = job();
    failed.main();
    let post = failed.post();
    assert!(post.said.contains("nothing was saved: the job failed"), "{}", post.said);
    post.assert_no_annotations();
    assert_eq!(entries(&place), 0);
    let saving = job().input("save-on-failure", "true");
    saving.main();
    saving.post();
    assert_eq!(entries(&place), 1);
}

#[test]
fn workflow_mistake_is_a_warning_at_its_line() {
    let place = PlainEnv::filled();
    let job = Job::on(&place, &[TOOL]).input("key", "k");
    let job = job.env("GITHUB_WORKFLOW_REF", "me/it/.github/workflows/a,b.yml@refs/heads/main");
    let workflow = job.workspace().join(".github/workflows/a,b.yml");
    fs::create_dir_all(workflow.parent().unwrap()).unwrap();
    let text = "on: pull_request\njobs:\n  job:\n    runs-on: ubuntu-latest\n    steps:\n      \
                - uses: actions/checkout@v4\n      - uses: me/storecache@v1\n";
    fs::write(&workflow, text).unwrap();
    let ran = job.main();
    let at = "::warning title=storecache,file=.github/workflows/a%2Cb.yml,line=";
    assert!(ran.said.lines().any(|line| line.starts_with(at)), "{}", ran.said);
    fs::remove_file(&workflow).unwrap();
    assert!(!job.main().said.contains("::warning"));
}

#[test]
fn entry_name_cannot_inject_workflow_commands() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let name = place.snapshot().file_name().unwrap().to_str().unwrap().to_owned();
    let hostile =
        name.replacen("test.", "test%0A%3A%3Aadd-path%3A%3A%2Fevil%0D##%5Bset-env%5Dx.", 1);
    assert_ne!(hostile, name);
    fs::rename(place.snapshot(), place.entries().join(hostile)).unwrap();
    let job = Job::on(&place, &[TOOL]).input("key", "none").input("restore-keys", "test");
    for there in [false, true] {
        if !there {
            place.remove(TOOL);
        }
        let hit = job.main();
        assert!(hit.output("cache-matched-key").contains("::add-path::/evil"));
        assert!(hit.said.contains("add-path"), "the name is printed: {}", hit.said);
        let orders = hit.said.split(['\n', '\r']).filter(|line| line.trim().starts_with("::"));
        for order in orders {
            assert!(order.starts_with("::group::") || order == "::endgroup::", "{order}");
        }
        assert!(!hit.said.contains("##["), "{}", hit.said);
    }
}

#[test]
fn same_workflow_works_for_nix_and_guix() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = record_state(&world);
        // The items that the job would have built exist before it begins.
        let first = Job::inside(&world, "first").input("baseline", "include");
        let missed = first.main();
        assert_eq!(missed.output("hit-kind"), "miss");
        missed.assert_no_annotations();
        first.post().assert_no_annotations();
        world.wipe_store();

        let second = Job::inside(&world, "second").input("fail-on-cache-miss", "true");
        let hit = second.main();
        assert_eq!(hit.output("cache-hit"), "true", "{}", hit.said);
        assert_eq!(hit.output("cache-primary-key"), missed.output("cache-primary-key"));
        assert_eq!(hit.output("restored-items"), before.references.len().to_string());
        hit.assert_no_annotations();
        assert_same(&before, &record_state(&world));
        world.verify_store();

        let wanting = second.input("require", "no-such-item\n*-no-such-either").run("main");
        assert_eq!(wanting.code, 3, "{}", wanting.said);
        let (kind, text) = only_annotation(&wanting);
        assert_eq!(kind, "error");
        assert!(
            text.ends_with("not complete in the store: no-such-item, *-no-such-either"),
            "{text}"
        );
        // A run by hand, whose standard input nothing closes, is not canceled.
        let by_hand = world.storecache_as("runner", ["action", "main"]);
        let by_hand = by_hand.env("INPUT_STORE", world.package_manager().name());
        let by_hand = by_hand.env("INPUT_BACKEND", "dir:/cache/entries").ok();
        assert!(by_hand.stderr.contains("exact: nothing to do"), "{by_hand}");

        // The runner empties its directory as its own user.
        let foreign = world.sh("find /cache/first /cache/second ! -user runner ! -name program");
        assert_eq!(foreign.stdout, "", "root left files in the runner's directories");
    }
}

/// Environments of all processes in the world whose command line begins with `words`.
fn environments(world: &World, words: &[u8]) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let ours = namespace(&world.init().to_string());
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().into_string().ok());
    let found = pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        namespace(pid) == ours && command.starts_with(words)
    });
    let environment = |pid: String| fs::read(format!("/proc/{pid}/environ")).ok();
    found.filter_map(environment).map(|it| String::from_utf8_lossy(&it).into_owned()).collect()
}

#[test]
fn canceled_step_changes_nothing_and_hides_secrets_from_root() {
    for role in [Role::Mid, Role::Guix] {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let saver = Job::inside(&world, "saver").input("baseline", "include");
        saver.main();
        saver.post();
        world.wipe_store();
        let before = record_state(&world);
        let holder = world.hold_database();
        let job = Job::inside(&world, "job")
            .env("GITHUB_TOKEN", "secret-of-github")
            .input("token", "secret-of-the-api")
            .input("sign-key", SIGN_KEY)
            .env("ACTIONS_RUNTIME_TOKEN", "secret-of-the-cache");
        let secrets = storecache_backend::options::SECRETS;
        let job = secrets.iter().fold(job, |job, name| {
            job.env(name, format!("{{\nsecret-of-{}\n}}", name.to_lowercase()))
        });
        let restoring = job.start("main");
        poll::until("the daemon to be stopped", TIMEOUT, || match world.daemon_pid() {
            None => Ok(()),
            Some(pid) => Err(format!("process {pid} listens; {}", restoring.said())),
        });

        for (who, words) in [
            ("the user process", b"storecache\0action\0".as_slice()),
            ("sudo", b"sudo\0"),
            ("the root helper", b"/usr/local/bin/storecache\0privileged\0"),
            ("the guardian", b"storecache-guardian\0"),
            ("the backup guardian", b"storecache-backup-guardian\0"),
        ] {
            let found = environments(&world, words);
            assert!(!found.is_empty(), "{who} does not run");
            let knows = found.iter().any(|environment| environment.contains("secret-of"));
            assert_eq!(knows, who == "the user process", "{who}: {found:?}");
        }

        restoring.signal(Signal::TERM);
        let cancelled = restoring.wait();
        assert_eq!(cancelled.code, 1, "{}", cancelled.said);
        // The lock is released only after this, because otherwise the commit would continue.
        poll::until("all processes to have ended", TIMEOUT, || {
            let ours = [b"storecache".as_slice(), b"/usr/local/bin/storecache"];
            let left: usize = ours.iter().map(|words| environments(&world, words).len()).sum();
            if left == 0 { Ok(()) } else { Err(left) }
        });
        drop(holder);
        poll::until("the daemon to answer again", TIMEOUT, || {
            if world.daemon_answers() { Ok(()) } else { Err(world.daemon_log()) }
        });
        assert_same(&before, &record_state(&world));
        assert_eq!(staging(&world), [""; 0]);
        cancelled.assert_no_annotations();
        let unmasked = cancelled.said.lines().filter(|line| !line.starts_with("::add-mask::"));
        assert!(!unmasked.collect::<String>().contains("secret-of"), "{}", cancelled.said);
        let objects = secrets.iter().map(|name| format!("secret-of-{}", name.to_lowercase()));
        let others = ["secret-of-github", "secret-of-the-api", "secret-of-the-cache"];
        for secret in others.map(str::to_owned).into_iter().chain(objects) {
            let masked = format!("::add-mask::{secret}");
            assert!(cancelled.said.contains(&masked), "{}", cancelled.said);
        }
        assert!(!cancelled.said.contains("::add-mask::{\n"), "braces are not secrets");
        assert!(!job.state().contains_key("key"), "a canceled restore must not lead to a save");
        assert!(job.post().said.contains("nothing is saved"));
    }
}
